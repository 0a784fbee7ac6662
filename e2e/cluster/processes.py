"""Processes that outlive the Python process which started them, and are ended without ever hitting a stranger.

A record in `<folder>/<name>.json` holds the pid and its start time as the kernel counts it: after the pid has
been handed to another program, the start time differs and the record counts as ended. Needs Linux (/proc, pidfd).
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

STOP_GRACE_SECONDS = 10  # kube-apiserver drains its watches in about 2; then SIGKILL
KILL_SECONDS = 30  # what a busy kernel may take to end what got SIGKILL
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Process:
    """One started program. `started` is in clock ticks since boot (field 22 of /proc/<pid>/stat)."""

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def spawn(
    folder: Path, name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a program in a session of its own, its output appended to `<folder>/<name>.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = os.fspath(log_of(folder, name))
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    words = [os.fspath(word) for word in command]
    pid = os.posix_spawn(words[0], words, os.environ | dict(environment or {}), file_actions=files, setsid=True)
    process = Process(name, pid, start_time(pid) or 0)
    partial = folder / f".{name}.json"
    partial.write_text(json.dumps(asdict(process)))
    partial.rename(folder / f"{name}.json")
    return process


def recorded(folder: Path) -> list[Process]:
    """What was started from this folder, alive or not, in the order of names."""
    return [Process(**json.loads(path.read_text())) for path in sorted(folder.glob("[!.]*.json"))]


def find(folder: Path, name: str) -> Process | None:
    return next((process for process in recorded(folder) if process.name == name), None)


def stop(folder: Path, processes: Iterable[Process], *, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
    """SIGTERM to all at once, SIGKILL to what is left after the grace, and forget them."""
    handles = {process: handle for process in processes if (handle := _handle(process)) is not None}
    for handle in handles.values():
        _send(handle, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    for process, handle in handles.items():
        if not _ended(handle, deadline - time.monotonic()):
            _send(handle, signal.SIGKILL)
            _ended(handle, KILL_SECONDS)
        os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    forget_ended(folder)


def forget_ended(folder: Path) -> None:
    """Delete the records of processes that are gone, so that nobody waits for or complains about them."""
    for process in recorded(folder):
        if not process.alive:
            (folder / f"{process.name}.json").unlink(missing_ok=True)


def log_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def log_tail(folder: Path, name: str) -> str:
    """The last lines that a program of this folder wrote, with where to find the others."""
    log = log_of(folder, name)
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if log.exists() else []
    return "\n".join([f"the end of {log}:", *lines])


def _handle(process: Process) -> int | None:
    """A pidfd of the process, or None if it has ended: once open, the pid can't pass to another program."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if process.alive:
        return handle
    os.close(handle)
    return None


def _send(handle: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself meanwhile
        signal.pidfd_send_signal(handle, number)


def _ended(handle: int, seconds: float) -> bool:
    readable, _, _ = select.select([handle], [], [], max(0.0, seconds))
    return bool(readable)
