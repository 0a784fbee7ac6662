"""An OCI runtime that asks for no more than this machine can grant, and hands the rest to runc.

A root without CAP_SYS_RESOURCE (a container, a small virtual machine) can neither pass that capability on, nor
raise a resource limit, nor lower an OOM score, and runc fails when a container's configuration wants it to.
Run as `python -IS runc_wrapper.py RUNC ARGUMENT...`; standard library only, since it starts with every process.
"""

import json
import os
import sys
from pathlib import Path

SYS_RESOURCE = 24  # its bit in the masks of /proc/self/status


def lacks_sys_resource() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return not int(line.split()[1], 16) >> SYS_RESOURCE & 1
    return False


def specifications(arguments: list[str]) -> list[Path]:
    """The files that describe a process: a bundle's config.json, and the process.json of an exec."""
    found = []
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, joined, rest = option.partition("=")
        value = rest if joined else value
        if name in ("--bundle", "-b"):
            found.append(Path(value, "config.json"))
        elif name in ("--process", "-p") and "exec" in arguments:
            found.append(Path(value))
    return found


def lower(path: Path) -> None:
    """Rewrite one specification without what cannot be granted."""
    specification = json.loads(path.read_text())
    process = specification.get("process", specification)
    capabilities = process.get("capabilities") or {}
    for name, granted in capabilities.items():
        capabilities[name] = [capability for capability in granted or [] if capability != "CAP_SYS_RESOURCE"]
    process.pop("rlimits", None)
    if (process.get("oomScoreAdj") or 0) < 0:
        del process["oomScoreAdj"]
    path.write_text(json.dumps(specification))


if __name__ == "__main__":
    runc, arguments = sys.argv[1], sys.argv[2:]
    if lacks_sys_resource():
        for path in specifications(arguments):
            if path.exists():
                lower(path)
    os.execv(runc, ["runc", *arguments])
