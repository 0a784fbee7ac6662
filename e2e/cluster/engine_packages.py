"""What the engine, the node image and the base image take from Debian: packages and root file systems.

Everything comes from the package sources that this machine is configured with.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.binaries import cache_folder
from e2e.cluster.engine_lock import locked
from e2e.cluster.errors import ClusterError

SUITE = "bookworm"  # the last with a systemd (252) and a runc that still run on cgroup v1


class PackageError(ClusterError):
    """apt, dpkg or mmdebstrap failed; the message ends with what it printed."""


def is_debian_with_root() -> bool:
    """Whether packages can be had here."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()


def install(*names: str) -> None:
    """Install the packages that are missing."""
    missing = [name for name in names if not _installed(name)]
    if missing:
        _apt("install", "--yes", "--no-install-recommends", *missing)


def unpack(*names: str) -> Path:
    """Unpack packages into a folder of the cache, without installing them: nothing starts, nothing to undo."""
    folder = cache_folder() / f"debian-{_key(*names)}"
    with locked(folder.with_suffix(".lock")):
        if not (folder / ".complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
            _apt("download", *names, cwd=folder)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
                package.unlink()
            (folder / ".complete").touch()
    return folder


def rootfs(packages: Sequence[str], hook: Path | None = None) -> Path:
    """A tar of a small Debian with these packages, made once; `hook` is a script that is given the root folder."""
    install("mmdebstrap")
    target = cache_folder() / f"rootfs-{_key(*packages, hook.read_text() if hook else '')}.tar"
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            partial = target.with_suffix(".partial.tar")
            command = [
                "mmdebstrap",
                "--mode=root",
                "--variant=essential",
                "--quiet",
                f"--include={','.join(packages)}",
            ]
            command += [f"--dpkgopt=path-exclude=/usr/share/{waste}/*" for waste in ("man", "doc", "locale", "info")]
            command += [f"--customize-hook={hook}"] if hook else []
            _run([*command, SUITE, str(partial), "-"], stdin=_sources())
            partial.rename(target)
    return target


def _sources() -> str:
    """This machine's package sources, for our suite."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    here = release.get("VERSION_CODENAME", SUITE).strip('"')
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if path.is_file() and here in path.read_text():
            return path.read_text().replace(here, SUITE)
    raise PackageError(f"no package source in /etc/apt names this machine's release, {here}")


def _installed(name: str) -> bool:
    asked = ["dpkg-query", "--show", "--showformat=${Status}", name]
    return subprocess.run(asked, capture_output=True, text=True).stdout == "install ok installed"


def _apt(*arguments: str, cwd: Path | None = None) -> None:
    """Run apt-get, after fetching the package lists if it fails without: they may be missing or stale."""
    command = ["apt-get", "--quiet", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, cwd=cwd, env=environment, capture_output=True).returncode != 0:
        _run(["apt-get", "--quiet", "update"])
        _run(command, cwd=cwd, env=environment)


def _run(command: Sequence[str], *, stdin: str = "", **options: object) -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise PackageError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((SUITE, *parts)).encode()).hexdigest()[:16]
