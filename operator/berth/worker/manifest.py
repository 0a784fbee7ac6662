"""The manifest of a checkpoint: what it holds, and whether the disk still holds the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

LATEST = "latest.json"  # in a folder of checkpoints: the manifest of its newest durable one
MANIFEST = "manifest.json"  # in each checkpoint that this package writes: its own
CHUNK = 1 << 20
Json = dict[str, Any]


class Unusable(ValueError):
    """A checkpoint that can't be resumed from; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """A durable checkpoint. `files` are sizes in bytes and SHA-256 by path within it; empty: not stated."""

    step: int  # the last step that it holds
    time: float  # when it became durable, in seconds since the epoch
    bytes: int
    seconds: float  # that the save took
    path: str  # of the checkpoint, a file or a folder, below the folder of checkpoints
    files: tuple[tuple[str, int, str], ...] = ()

    def to_json(self) -> Json:
        """As it is written.

        >>> Manifest(7, 0.0, 3, 0.5, "step-7").to_json()["time"]
        '1970-01-01T00:00:00Z'
        """
        files = {name: {"bytes": size, "sha256": digest} for name, size, digest in self.files}
        return {**self.summary(), "path": self.path, "files": files}

    def summary(self) -> Json:
        """As it is reported: without files."""
        time = to_rfc3339(self.time)
        return {"step": self.step, "time": time, "bytes": self.bytes, "seconds": round(self.seconds, 3)}


def to_rfc3339(seconds: float) -> str:
    """A time in whole seconds, UTC."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(file: Path) -> Manifest:
    """The manifest in a file. Raises Unusable where it holds none."""
    try:
        return parse(json.loads(file.read_bytes()))
    except OSError as error:
        raise Unusable(f"{file} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Unusable(f"{file} is no manifest: {error}") from error


def parse(raw: Json) -> Manifest:
    """The manifest that an object states. Raises ValueError, KeyError or TypeError where it states none."""
    path = str(raw["path"])
    files = tuple((_inside(name), int(f["bytes"]), str(f["sha256"])) for name, f in (raw.get("files") or {}).items())
    time = datetime.fromisoformat(str(raw["time"]).replace("Z", "+00:00")).timestamp()
    step, size = int(raw["step"]), int(raw.get("bytes", 0))
    if step < 0 or size < 0:
        raise ValueError("step and bytes must be 0 or more")
    return Manifest(step, time, size, float(raw.get("seconds", 0.0)), _inside(path), files)


def _inside(path: str) -> str:
    """A path that leads nowhere else."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} leads out of the folder")
    return path


def check(folder: Path, manifest: Manifest) -> None:
    """Read all of a checkpoint. Raises Unusable where it is not what its manifest says."""
    root = folder / manifest.path
    try:
        if not root.exists():
            raise Unusable(f"{root} is missing")
        for name, size, digest in manifest.files:
            _check_file(root / name if root.is_dir() else root, size, digest)
    except OSError as error:
        raise Unusable(f"{error.filename or root} can't be read: {error.strerror}") from error
    if not manifest.files and manifest.bytes > size_of(root):
        raise Unusable(f"{root} is truncated: {size_of(root)} of {manifest.bytes} bytes")


def _check_file(file: Path, size: int, digest: str) -> None:
    if not file.is_file():
        raise Unusable(f"{file} is missing")
    found = file.stat().st_size
    if found != size:
        word = "truncated" if found < size else "too long"
        raise Unusable(f"{file} is {word}: {found} of {size} bytes")
    if digest_of(file) != digest:
        raise Unusable(f"{file} is corrupted: its SHA-256 is not the one of its manifest")


def digest_of(file: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
