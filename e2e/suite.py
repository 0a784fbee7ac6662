"""All tests, in parts that run side by side: `python -m e2e.suite`. Tests on real kubelets wait more than they work."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PARTS = {  # part -> its tests; each test is in one part
    "unit": "not cluster and not kind",
    "cluster": "cluster and not kind",
    "kind": "kind",
}
PATIENT = {"unit"}  # these know no clock, so they take what the others leave of the machine
OUTCOMES = ("failed", "passed", "skipped", "xfailed", "xpassed", "error")  # in pytest's order
LAST_LINE = re.compile(r"^=+ (\d+ .*) in [\d.]+s.* =+$")
PROBLEM = re.compile(r"^(FAILED|ERROR) ")


@dataclass(frozen=True)
class Part:
    """Some of the tests, running; what they print goes to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def finish(self) -> list[str]:
        """Wait for the end; what it printed, below a headline."""
        status = self.process.wait()
        lines = self.log.read_text(errors="replace").splitlines()
        if status and not any(map(LAST_LINE.match, lines)):
            lines.append(f"ERROR {self.name} ended with status {status} and no summary")
        return ["", f"{f' {self.name} ':#^80}", *lines]


def main() -> int:
    """Run all parts, print what each had to say, and end as pytest does; the exit code."""
    began = time.monotonic()
    printed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="berth-tests-") as folder:
        parts = [start(name, Path(folder) / name) for name in PARTS]
        print(f"{', '.join(PARTS)}: side by side, each printed when it has ended; until then see {folder}", flush=True)
        for part in parts:
            lines = part.finish()
            print("\n".join(lines), flush=True)
            printed += lines
    print(summary(printed, time.monotonic() - began))
    return int(any(part.process.returncode for part in parts))


def start(name: str, log: Path) -> Part:
    """Start pytest for a part."""
    patience = ["nice", "--adjustment=10"] if name in PATIENT else []
    command = [*patience, sys.executable, "-m", "pytest", "-m", PARTS[name], "-o", f"cache_dir=.pytest_cache/{name}"]
    with log.open("wb") as output:
        return Part(name, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), log)


def summary(lines: Iterable[str], seconds: float) -> str:
    """What pytest would say at its end, had it run what these lines are of: all that failed, and sums.

    >>> print(summary(["FAILED a.py::b", "= 1 failed, 2 passed in 1.50s =", "= 3 passed in 65.00s (0:01:05) ="], 66))
    FAILED a.py::b
    ================ 1 failed, 5 passed in 66.00s ================
    """
    counts, problems = Counter[str](), []
    for line in lines:
        if PROBLEM.match(line):
            problems.append(line)
        elif found := LAST_LINE.match(line):
            counts.update({outcome: int(number) for number, outcome in re.findall(r"(\d+) ([a-z]+?)s?\b", found[1])})
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return "\n".join([*problems, f"{'':=^16} {told} in {seconds:.2f}s {'':=^16}"])


if __name__ == "__main__":
    sys.exit(main())
