"""One object for a training loop: it resumes, tells how far training is, saves on time, and leaves when told to."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any

from berth.worker.reports import Progress, Reporter, Requests, request_id
from berth.worker.resume import Checkpoint, newest
from berth.worker.schedule import Schedule
from berth.worker.settings import Settings
from berth.worker.store import SaveFailed, Store, Write
from berth.worker.wire import Server

log = logging.getLogger("berth.worker")

EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: saved, restart me
EXIT_UNSAVED = 128 + signal.SIGTERM  # told to stop, and nothing could be saved
Agree = Callable[[int], int]


class Wish(enum.IntEnum):
    """What is to be done after a step. Of several ranks' wishes the highest wins."""

    NONE = 0
    SAVE = 1
    STOP = 2  # save, then leave


def _alone(value: int) -> int:
    return value


class Worker:
    """This process's part in the contract of docs/checkpoints.md."""

    def __init__(
        self,
        *,
        agree: Agree = _alone,
        sharded: bool = False,
        keep: int = 2,
        environ: Mapping[str, str] = os.environ,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`agree` gives each rank the highest of all ranks' numbers (an all-reduce with MAX): a gang that computes in
        lockstep must save and leave after the same step. It is called by every rank in every step.

        `sharded`: every rank writes a part of each checkpoint, into one folder. Else rank 0 alone writes.
        """
        self.settings = settings = Settings.of(environ)
        self._agree = agree
        self._sharded = sharded
        self._timer = timer
        self._store = Store(settings.folder, keep, timer=timer) if settings.folder else None
        self._schedule = Schedule(settings.interval_seconds, settings.mtbf_seconds, timer)
        self._stopping = False
        self._lock = threading.Lock()
        self._request = ""  # the id of a save request that is not answered yet
        self._taken = ""  # of the latest that was: an answer on its way may name it once more
        self._saved_step = -1  # known to all ranks alike
        self._began = (timer(), 0)  # when the first step that was told of ended, and which
        server = Server(settings.server_url, settings.server_ca, settings.server_token) if settings.server_url else None
        self._reporter = Reporter(server, self._told) if server and settings.rank == 0 else None
        self._requests = Requests(server, self._told) if server and settings.local_rank == 0 else None
        self._old_handler = self._handle_sigterm()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Send the last report, and give SIGTERM back to who had it."""
        if self._requests:
            self._requests.close()
        if self._reporter:
            self._reporter.close()
        if self._old_handler is not None:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, self._old_handler)

    def resume(self) -> Checkpoint | None:
        """The newest whole checkpoint of this attempt, else of the ones before; None: begin anew.

        All of it is read. Let rank 0 choose, and tell the others: a rank that chooses by itself may see another state
        of the folder.
        """
        own = (self.settings.folder,) if self.settings.folder else ()
        return newest([*own, *self.settings.resume_from])

    def step(
        self,
        step: int,
        save: Write | None = None,
        *,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """A step is done: tell of it, and save and leave where that is called for.

        `save(folder)` writes the state after this step as files into that folder. Raises SystemExit(EXIT_SAVED) after
        a save, when the process is to stop. A save that fails is named in the log, and training goes on.
        """
        self._report(step, total, metrics or {})
        wish = Wish(self._agree(self._wish()))
        if wish is Wish.NONE:
            return
        saved = save is not None and self._save(step, save)
        if wish is Wish.STOP:
            log.warning("stopping after step %d, %s", step, "which is saved" if saved else "which is not saved")
            self.close()
            raise SystemExit(EXIT_SAVED if saved else EXIT_UNSAVED)

    def _wish(self) -> Wish:
        if self._stopping:
            return Wish.STOP
        with self._lock:
            wanted = self._store is not None and (self._request or self._schedule.due())
        return Wish.SAVE if wanted else Wish.NONE

    def _save(self, step: int, write: Write) -> bool:
        """Save, and tell of it; whether the checkpoint is durable. Every rank comes by here, and all agree."""
        with self._lock:
            request, self._request = self._request, ""
            self._taken = request or self._taken
        if step == self._saved_step:
            self._tell(request)
            return True
        failed: SaveFailed | None = None
        began = self._timer()
        try:
            self._write(step, write, began)
        except SaveFailed as error:
            failed = error
        if self._agree(int(failed is not None)):
            self._schedule.failed()
            self._complain(failed)
            return False
        self._schedule.saved(self._timer() - began)
        self._saved_step = step
        self._tell(request)
        return True

    def _tell(self, request: str) -> None:
        if self._reporter and self._store and self._store.last:
            self._reporter.saved(self._store.last, request)

    def _write(self, step: int, write: Write, began: float) -> None:
        """Write this rank's part; rank 0 makes it durable once all have written theirs."""
        store, first = self._store, self.settings.rank == 0
        if store is None:
            raise SaveFailed(f"step {step} was not saved: CHECKPOINT_DIR is not set")
        if not self._sharded:
            if first:
                store.save(step, write)
            return
        failed: SaveFailed | None = None
        try:
            store.write(step, write)
        except SaveFailed as error:
            failed = error
        if self._agree(int(failed is not None)):
            raise failed or SaveFailed(f"step {step} was not saved: another rank could not write its part")
        if first:
            store.commit(step, began)

    def _complain(self, failed: SaveFailed | None) -> None:
        if failed is not None:
            log.error("%s", failed)
            if self._reporter:
                self._reporter.problem(str(failed))

    def _report(self, step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if self._reporter is None:
            return
        now = self._timer()
        since, first = self._began
        if not first:
            self._began = (now, step)
        done = step - first
        remaining = (now - since) / done * (total - step) if total and first and done > 0 else None
        values = tuple((name, float(value)) for name, value in metrics.items())
        self._reporter.progress(Progress(step, total, values, remaining, time.time()))

    def _told(self, answer: Mapping[str, Any]) -> None:
        """What the server says, in one of the reporting threads."""
        with self._lock:
            request = request_id(answer)
            if request != self._taken:
                self._request = request or self._request
            interval = answer.get("intervalSeconds")
            if isinstance(interval, (int, float)):
                self._schedule.tell(float(interval))

    def _handle_sigterm(self) -> Any:
        """Have SIGTERM noted; the old handler. Only the main thread may set one: elsewhere the program must."""
        try:
            return signal.signal(signal.SIGTERM, self._on_sigterm)
        except ValueError:
            log.warning("SIGTERM is not handled: make the Worker in the main thread, or call its stop()")
            return None

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Save and leave after the step under way."""
        self._stopping = True
