"""Build the images of the operator, the fake GPU plugin and the samples, from the Dockerfile at the root.

    python -m e2e.cluster.images build          # prints each image's tag

A tag ends in a digest of what the image is made of, so that a test can't run a stale one by mistake.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from e2e.cluster import engine_packages
from e2e.cluster.binaries import cache_folder
from e2e.cluster.engine import Engine, lease
from e2e.cluster.engine_lock import locked
from e2e.cluster.errors import ClusterError
from e2e.cluster.images_archive import write_image

ROOT = Path(__file__).parents[2]
BERTH = ("operator/berth", "requirements.lock", "vendor/operator")
SOURCES = {  # target of the Dockerfile -> what it copies
    "operator": BERTH,
    "fakegpu": (*BERTH, "requirements-dev.lock", "vendor/fakegpu", "e2e/__init__.py", "e2e/fakegpu"),
    "samples": ("docs/examples/programs",),
}
PUBLIC_BASE = "python:3.12-slim"
DEBIAN_PYTHON = "3.11"  # bookworm's
DEBIAN_PACKAGES = ("ca-certificates", "libstdc++6", "python3")  # the second for grpcio
FAKEGPU_REQUIREMENTS = ("grpcio", "protobuf", "typing-extensions")


def build(engine: Engine, *targets: str) -> dict[str, str]:
    """Build what the engine lacks of the targets' images (all without arguments); returns the tag of each."""
    with locked(cache_folder() / "images.lock"):
        base = _debian_base(engine) if engine.own else PUBLIC_BASE
        vendored = _vendored() if engine.own else {}
        tags = {target: _tag(target, base, vendored) for target in targets or SOURCES}
        missing = {target: tag for target, tag in tags.items() if not engine.has_image(tag)}
        if missing:
            _build_missing(engine, missing, base, vendored)
        for target, tag in tags.items():
            engine.docker("tag", tag, f"berth/{target}:latest")  # what the examples name
        return tags


def _tag(target: str, base: str, vendored: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(base.encode())
    for name, path in _files(["Dockerfile", *SOURCES[target]], vendored):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return f"berth/{target}:{digest.hexdigest()[:16]}"


def _build_missing(engine: Engine, tags: Mapping[str, str], base: str, vendored: Mapping[str, Path]) -> None:
    """Build from one context with the files of all targets: the classic builder walks through all stages."""
    sources = {"Dockerfile", *(source for sources in SOURCES.values() for source in sources)}
    with tempfile.TemporaryFile() as context:
        _write_context(context, _files(sorted(sources), vendored))
        for target, tag in tags.items():
            context.seek(0)
            command = ["build", "--quiet", f"--target={target}", f"--tag={tag}", f"--build-arg=BASE_IMAGE={base}"]
            command += ["--network=none"] if engine.own else []
            engine.docker(*command, "-", stdin=context)


def _files(sources: Iterable[str], vendored: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Path in the build context, and file or folder on this machine, of all that these sources hold."""
    for source in sources:
        top = vendored.get(source, ROOT / source)
        for path in sorted([top, *top.rglob("*")] if top.exists() else []):
            if "__pycache__" not in path.parts:
                yield PurePosixPath(source, path.relative_to(top)).as_posix(), path


def _write_context(target: IO[bytes], files: Iterable[tuple[str, Path]]) -> None:
    """Write the context with nothing of this machine in it: an engine reuses layers whose files are the same."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, path in files:
            tar.add(path, name, recursive=False, filter=anonymous)


def _debian_base(engine: Engine) -> str:
    """A base image with Debian's Python, for an engine that reaches no registry."""
    rootfs = engine_packages.rootfs(DEBIAN_PACKAGES)
    tag = f"berth/python:{rootfs.stem.removeprefix('rootfs-')}"
    if not engine.has_image(tag):
        archive = rootfs.with_name(f"python-{rootfs.name}")
        write_image(archive, tag, [rootfs], {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]})
        engine.docker("load", "--quiet", "--input", str(archive))
        archive.unlink()
    return tag


def _vendored() -> dict[str, Path]:
    """The locked dependencies, installed here for the base image's Python, since builds reach no index."""
    fakegpu = requirements((ROOT / "requirements-dev.lock").read_text(), FAKEGPU_REQUIREMENTS)
    return {
        "vendor/operator": _install((ROOT / "requirements.lock").read_text()),
        "vendor/fakegpu": _install(fakegpu),
    }


def requirements(lock: str, names: tuple[str, ...]) -> str:
    """The entries of a lock file for these packages, with their hashes."""
    entries = re.split(r"(?m)^(?=[a-z])", lock)
    return "".join(entry for entry in entries if entry.partition("==")[0] in names)


def _install(lock: str) -> Path:
    folder = cache_folder() / f"packages-{hashlib.sha256((DEBIAN_PYTHON + lock).encode()).hexdigest()[:16]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
            requirements = Path(scratch, "requirements.lock")
            requirements.write_text(lock)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", f"--python-version={DEBIAN_PYTHON}"]
            command += [f"--target={scratch}/packages", f"--requirement={requirements}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise ClusterError(f"pip could not collect the images' dependencies:\n{done.stderr[-2000:]}")
            os.rename(Path(scratch, "packages"), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster.images", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["build"])
    parser.parse_args()
    with lease() as engine:
        for tag in build(engine).values():
            print(tag)


if __name__ == "__main__":
    main()
