"""The folder that an attempt saves to. A checkpoint is durable once its manifest says so, and not before.

latest.json             the manifest of the newest durable checkpoint
step-120/               a durable checkpoint, with a manifest.json of its own
step-180.partial/       one that is being written, or was when its process ended
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from berth.worker.manifest import LATEST, MANIFEST, Manifest, digest_of

PARTIAL = ".partial"
OLD = ".old"  # being deleted
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)  # by file systems that sync no folders
Write = Callable[[Path], object]
Clock = Callable[[], float]


class SaveFailed(Exception):
    """A save that did not become durable; the message says why. What was durable still is."""


class Store:
    """Saves checkpoints into one folder, and keeps the newest few."""

    def __init__(self, folder: Path, keep: int = 2, clock: Clock = time.time, timer: Clock = time.monotonic) -> None:
        """`keep` (2 or more, so that one may turn out bad) are left of those that this process saved."""
        if keep < 2:
            raise ValueError(f"keep must be at least 2, got {keep}")
        self.folder = folder
        self._keep = keep
        self._clock = clock
        self._timer = timer
        self._saved: list[Manifest] = []

    @property
    def last(self) -> Manifest | None:
        """The newest checkpoint that this process saved."""
        return self._saved[-1] if self._saved else None

    def save(self, step: int, write: Write) -> Manifest:
        """Have `write(folder)` write files, and make them a checkpoint. Raises SaveFailed."""
        began = self._timer()
        self.write(step, write)
        return self.commit(step, began)

    def write(self, step: int, write: Write) -> None:
        """Write files that are no checkpoint yet. All ranks of a sharded one share the folder. Raises SaveFailed."""
        with self._explained(step):
            partial = self.folder / f"step-{step}{PARTIAL}"
            partial.mkdir(parents=True, exist_ok=True)
            write(partial)

    def commit(self, step: int, began: float) -> Manifest:
        """Make what was written since `began` (by the timer) a checkpoint. Raises SaveFailed."""
        with self._explained(step):
            manifest = self._make_durable(step, began)
        self._saved.append(manifest)
        self._delete_old()
        return manifest

    def abandon(self, step: int) -> None:
        """Give back the room that a failed save took. Never touches a durable checkpoint."""
        shutil.rmtree(self.folder / f"step-{step}{PARTIAL}", ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Errors of the disk (libraries turn some into RuntimeError) as SaveFailed; what is half written goes."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self.abandon(step)
            kept = f"step {self.last.step} stays the last checkpoint" if self.last else "there is no checkpoint yet"
            why = error.strerror or error if isinstance(error, OSError) else error
            raise SaveFailed(f"step {step} was not saved in {self.folder}: {why}; {kept}") from error

    def _make_durable(self, step: int, began: float) -> Manifest:
        """Contents to the disk, then the name, then the manifest: cut off anywhere, it leaves no half checkpoint."""
        partial, name = self.folder / f"step-{step}{PARTIAL}", self._name(step)
        files = []
        for file in sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST):
            _sync(file)
            files.append((file.relative_to(partial).as_posix(), file.stat().st_size, digest_of(file)))
        seconds = max(0.0, self._timer() - began)
        manifest = Manifest(step, self._clock(), sum(size for _, size, _ in files), seconds, name, tuple(files))
        _write(partial / MANIFEST, manifest)
        for path in [path for path in partial.rglob("*") if path.is_dir()] + [partial]:
            _sync_folder(path)
        partial.rename(self.folder / name)
        _sync_folder(self.folder)
        _replace(self.folder / LATEST, manifest)
        return manifest

    def _name(self, step: int) -> str:
        """A name that is free: a bad checkpoint of this step, left by whoever, is not written over."""
        names = (f"step-{step}" + (f"-{n}" if n else "") for n in range(1000))
        return next(name for name in names if not (self.folder / name).exists())

    def _delete_old(self) -> None:
        """Delete what this process saved before, once the ones to keep are on the disk as they should be."""
        for manifest in self._saved[: -self._keep]:
            old = self.folder / (manifest.path + OLD)
            with contextlib.suppress(OSError):
                (self.folder / manifest.path).rename(old)
            shutil.rmtree(old, ignore_errors=True)
            self._saved.remove(manifest)


def _write(file: Path, manifest: Manifest) -> None:
    with file.open("w") as stream:
        json.dump(manifest.to_json(), stream)
        stream.flush()
        os.fsync(stream.fileno())


def _replace(file: Path, manifest: Manifest) -> None:
    new = file.with_name(file.name + PARTIAL)
    _write(new, manifest)
    new.rename(file)
    _sync_folder(file.parent)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)
