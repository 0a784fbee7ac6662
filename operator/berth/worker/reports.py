"""Reports to Berth and requests from it, in threads: a training loop never waits for the network."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.worker.manifest import Manifest, to_rfc3339
from berth.worker.wire import NotAnswered, Server

log = logging.getLogger("berth.worker")

Json = dict[str, Any]
PROGRESS_SECONDS = 5.0  # between two reports of progress: the protocol's limit
POLL_SECONDS = 50.0  # below what proxies cut
RETRY_SECONDS = (1.0, 30.0)  # after no answer: doubled from the first up to the second
FLUSH_SECONDS = 5.0  # that leaving waits for the last report
NO_POLLS = (404, 405, 501)  # a server that knows reports only


@dataclass(frozen=True)
class Progress:
    """How far training is."""

    step: int
    total: int | None
    metrics: tuple[tuple[str, float], ...]
    remaining_seconds: float | None
    time: float

    def to_json(self) -> Json:
        """As Kubeflow Trainer defines it, with the step beside it."""
        status: Json = {"lastUpdatedTime": to_rfc3339(self.time)}
        if self.total:
            status["progressPercentage"] = min(100, int(100 * self.step / self.total))
        if self.remaining_seconds is not None:
            status["estimatedRemainingSeconds"] = int(self.remaining_seconds)
        if self.metrics:
            status["metrics"] = [{"name": name, "value": str(value)} for name, value in self.metrics]
        return {"trainerStatus": status, "berth": {"step": self.step, "totalSteps": self.total}}


class Reporter:
    """Sends what is newest, progress at most every 5 s and durable checkpoints at once."""

    def __init__(
        self,
        server: Server,
        told: Callable[[Json], None],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`told` gets what the server answers."""
        self._server = server
        self._told = told
        self._timer = timer
        self._changed = threading.Condition()
        self._progress: Json | None = None
        self._urgent: Json = {}  # a checkpoint or a problem that was not sent yet
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="berth-reports", daemon=True)
        self._thread.start()

    def progress(self, progress: Progress) -> None:
        """Tell how far training is, in time."""
        with self._changed:
            self._progress = progress.to_json()
            self._changed.notify()

    def saved(self, manifest: Manifest, answers: str = "") -> None:
        """Tell of a durable checkpoint, at once. `answers` is the id of the request that it was made for."""
        with self._changed:
            self._urgent = {"checkpoint": manifest.summary(), **({"answers": answers} if answers else {})}
            self._changed.notify()

    def problem(self, message: str) -> None:
        """Tell of a save that failed, at once."""
        with self._changed:
            self._urgent = {**self._urgent, "problem": message}
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, unless that takes too long."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        sent, pause = -PROGRESS_SECONDS, RETRY_SECONDS[0]
        while (taken := self._take(sent)) is not None:
            body, urgent = taken
            sent = self._timer()
            try:
                self._told(self._server.post(body))
                pause = RETRY_SECONDS[0]
            except NotAnswered as error:
                log.warning("not reported: %s", error)
                if not self._put_back(urgent, pause):
                    return
                pause = min(2 * pause, RETRY_SECONDS[1])

    def _take(self, sent: float) -> tuple[Json, Json] | None:
        """What to send next, and the urgent part of it; None when all is sent and the end has come."""
        with self._changed:
            while not self._urgent:
                wait = sent + PROGRESS_SECONDS - self._timer()
                if self._progress is not None and (wait <= 0 or self._ending):
                    break
                if self._ending:
                    return None
                self._changed.wait(wait if self._progress is not None else None)
            body, urgent = self._progress or {}, self._urgent
            self._progress, self._urgent = None, {}
            return ({**body, "berth": {**body.get("berth", {}), **urgent}}, urgent)

    def _put_back(self, urgent: Json, pause: float) -> bool:
        """Keep what must not be lost, and wait a while; False when the end has come."""
        with self._changed:
            self._urgent = {**urgent, **self._urgent}
            if not self._ending:
                self._changed.wait_for(lambda: self._ending, pause * random.uniform(0.5, 1.0))
            return not self._ending


class Requests:
    """Asks the server for requests, by a long poll, for as long as the process lives."""

    def __init__(self, server: Server, told: Callable[[Json], None]) -> None:
        self._server = server
        self._told = told
        self._after = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="berth-requests", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more; a poll under way ends with the process."""
        self._closed.set()

    def _run(self) -> None:
        pause = RETRY_SECONDS[0]
        while not self._closed.is_set():
            try:
                answer = self._server.poll(self._after, POLL_SECONDS)
            except NotAnswered as error:
                if error.status in NO_POLLS:
                    log.info("no requests can be had: %s", error)
                    return
                log.info("no requests for now: %s", error)
                self._closed.wait(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_SECONDS[1])
                continue
            pause = RETRY_SECONDS[0]
            if self._closed.is_set():
                return
            self._told(answer)
            self._after = request_id(answer) or self._after
            if not answer:
                self._closed.wait(RETRY_SECONDS[0])  # a server that does not wait is not asked without pause


def request_id(answer: Mapping[str, Any]) -> str:
    """The id of the save request in an answer; "" for none."""
    request = answer.get("saveRequest")
    return str(request.get("id", "")) if isinstance(request, dict) else ""
