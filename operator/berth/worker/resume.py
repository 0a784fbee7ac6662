"""The checkpoint to resume from: the newest one that is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from berth.worker.manifest import LATEST, MANIFEST, Manifest, Unusable, check, read
from berth.worker.store import OLD, PARTIAL

log = logging.getLogger("berth.worker")

SKEW_SECONDS = 600.0  # that the clocks of two nodes may differ by


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read and compared with its manifest."""

    step: int
    path: Path
    manifest: Manifest


def newest(folders: Iterable[Path], now: float | None = None) -> Checkpoint | None:
    """The newest whole checkpoint of the first of these folders that has one; None where none has.

    What can't be used is named in the log, and left as it is. One dated in the future is used only where there is no
    other: its date or our clock is wrong, and it is not known which.
    """
    now = time.time() if now is None else now
    doubtful: list[Checkpoint] = []
    for folder in folders:
        for manifest in _manifests(folder):
            try:
                check(folder, manifest)
            except Unusable as error:
                log.warning("step %d is passed over: %s", manifest.step, error)
                continue
            found = Checkpoint(manifest.step, folder / manifest.path, manifest)
            if manifest.time <= now + SKEW_SECONDS:
                return _chosen(found)
            doubtful.append(found)
            log.warning("%s is dated %.0f s in the future: another is looked for", found.path, manifest.time - now)
    if not doubtful:
        log.info("there is no checkpoint to resume from")
        return None
    log.warning("there are only checkpoints dated in the future: is the clock of this node right?")
    return _chosen(doubtful[0])


def _chosen(found: Checkpoint) -> Checkpoint:
    log.info("resuming from step %d in %s", found.step, found.path)
    return found


def _manifests(folder: Path) -> list[Manifest]:
    """The manifests of a folder, highest step first. The order is never by time: clocks jump."""
    found = {manifest.path: manifest for manifest in _readable(folder)}
    return sorted(found.values(), key=lambda manifest: (-manifest.step, manifest.path))


def _readable(folder: Path) -> Iterator[Manifest]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return  # the attempt ended before it saved
    except OSError as error:
        log.warning("%s is passed over: %s", folder, error.strerror)
        return
    for entry in entries:
        if entry.name.endswith((PARTIAL, OLD)):
            log.warning("%s is passed over: it was being written or deleted when its process ended", entry)
        elif entry.name == LATEST:
            yield from _of(entry, "")
        elif entry.name.startswith("step-"):
            yield from _of(entry / MANIFEST, entry.name)


def _of(file: Path, path: str) -> Iterator[Manifest]:
    """The manifest in a file, if it is one of the checkpoint at `path` ("": wherever it says)."""
    try:
        manifest = read(file)
    except Unusable as error:
        log.warning("passed over: %s", error)
        return
    if path and manifest.path != path:
        log.warning("%s is passed over: its manifest is of %s", file.parent, manifest.path)
        return
    yield manifest
