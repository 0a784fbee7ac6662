"""Wait for the outside world, and notice at once when what is waited for has died."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import processes
from e2e.cluster.errors import ClusterError

POLL_SECONDS = 0.05


def wait_until(holds: Callable[[], bool], what: str, *, folder: Path, seconds: float) -> None:
    """Return once it holds; `what` says it in words, `folder` has the records of the processes behind it.

    Raises:
        ClusterError: one of those processes ended, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if holds():
            return
        for process in processes.recorded(folder):
            if not process.alive:
                raise ClusterError(f"{process.name} ended; {processes.log_tail(folder, process.name)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:g} s in vain until {what}; logs are in {folder}")
        time.sleep(max(POLL_SECONDS, time.monotonic() - asked))  # costly questions take half of the time at most
