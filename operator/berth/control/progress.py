"""What running jobs tell of themselves, and what they are asked: the desk behind the progress endpoint.

A report counts only from a member of the live attempt. Progress reaches the status at most every 30 s, a durable
checkpoint at once. A save request is the answer to a long poll; who asks again after a lost answer gets it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from berth.control.picture import Picture, Raw
from berth.control.ports import TRAINING_JOBS, Api, ApiError, Clock, Json, NotFound
from berth.control.records import ATTEMPT_LABEL, NAME_LABEL, UID_LABEL, PodRecord, whole_number
from berth.control.status import from_rfc3339, pace_status, save_request_from, to_rfc3339
from berth.control.tempo import Tempo
from berth.model.workloads import SaveRequest

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 30.0  # between two writes of one job's progress
RETRY_SECONDS = 5.0  # after a write that failed
WRITES = 16  # at once


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod that a token was made for."""

    namespace: str
    pod: str
    pod_uid: str


class Stranger(Exception):
    """The caller is no member of that job; or not in sight yet, so that it may ask again."""


class Superseded(Exception):
    """The caller is a member of an attempt that is not the live one any more: its word does not count."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A durable checkpoint."""

    step: int
    time: float  # when it became durable, in seconds since the epoch, by the clock of the worker's node
    bytes: int
    seconds: float  # that the save took


@dataclass(frozen=True, slots=True)
class Report:
    """What a member tells. None: it says nothing of that."""

    step: int | None = None
    total: int | None = None
    percent: int | None = None
    remaining_seconds: int | None = None
    checkpoint: Saved | None = None
    answers: str = ""  # the id of the request that the checkpoint was made for
    problem: str = ""  # why a save failed


@dataclass
class _Job:
    """What is known of one running attempt."""

    attempt: int
    tempo: Tempo
    pending: Json = field(default_factory=dict)  # status fields that are not written yet
    due: float = 0.0  # when to write them
    written: float = 0.0  # when progress was written last
    answers: str = ""  # id of the save request that the latest checkpoint was made for
    saved: Saved | None = None
    advanced_at: float = 0.0  # when it told of progress first
    restores: bool = False  # it went on from a checkpoint, and how long that took is not known yet
    listens: bool = False  # members ask for requests, and status says so or soon will
    waiters: set[asyncio.Future[None]] = field(default_factory=set)


Interval = Callable[[Raw, Saved | None], float | None]
"""The checkpoint interval of a job, in seconds, after its latest checkpoint; None: it is not for Berth to say."""


class Measures(Protocol):
    """What the desk reports of saves and restores."""

    def saved(self, seconds: float) -> None:
        """A job saved a checkpoint."""
        ...

    def restored(self, seconds: float) -> None:
        """An attempt went on from a checkpoint."""
        ...


@dataclass
class Desk:
    """Takes reports and gives answers."""

    picture: Picture
    api: Api
    clock: Clock
    interval: Interval = lambda raw, saved: None
    measures: Measures | None = None
    _jobs: dict[str, _Job] = field(default_factory=dict)  # by uid
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, caller: Caller, name: str, report: Report) -> Json:
        """A member's report; the answer. Raises Stranger or Superseded."""
        raw, job = self._job_of(caller, name)
        now = self.clock()
        urgent = report.checkpoint is not None or bool(report.problem)
        job.tempo.take(now, report.step, report.total, report.percent, saved=urgent)
        self.picture.paces[raw["metadata"]["uid"]] = job.tempo.pace
        job.pending |= self._restore(raw, job, report, now) | self._status(job, report, now)
        if job.pending:
            due = now if urgent else max(now, job.written + PROGRESS_SECONDS)
            job.due = min(job.due or due, due)
            self._dirty.set()
        if report.checkpoint is not None:
            self._measure(raw, job, report.checkpoint)
            job.saved, job.answers = report.checkpoint, report.answers or job.answers
        return self._answer(raw, job)

    async def next_request(self, caller: Caller, name: str, after: str, seconds: float) -> Json:
        """The answer as soon as there is a request newer than `after`, else when the time is over."""
        raw, job = self._job_of(caller, name)
        self._note_listening(raw, job)
        if self._request(raw, job, after) is None:
            waiter = asyncio.get_running_loop().create_future()
            job.waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=seconds)
            finally:
                job.waiters.discard(waiter)
        return self._answer(self.picture.workloads.get(raw["metadata"]["uid"], raw), job, after)

    def ask_now(self, uid: str) -> None:
        """There is a new save request in a job's status: who waits for one hears of it at once."""
        job = self._jobs.get(uid)
        for waiter in job.waiters if job else ():
            if not waiter.done():
                waiter.set_result(None)

    def saved(self, uid: str) -> Saved | None:
        """The latest durable checkpoint of a live attempt that this process heard of."""
        job = self._jobs.get(uid)
        return job.saved if job else None

    async def run(self) -> None:
        """Write what is due into statuses, for ever."""
        self.picture.listening = self.clock()
        limit = asyncio.Semaphore(WRITES)
        while True:
            now = self.clock()
            due = [uid for uid, job in self._jobs.items() if job.pending and job.due <= now]
            await asyncio.gather(*(self._write(uid, limit) for uid in due))
            self._forget()
            self._dirty.clear()
            waits = [job.due - self.clock() for job in self._jobs.values() if job.pending]
            if not waits or min(waits) > 0:
                await self._sleep(min(waits, default=None))

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._dirty.wait()
        except TimeoutError:
            return

    async def _write(self, uid: str, limit: asyncio.Semaphore) -> None:
        job, raw = self._jobs[uid], self.picture.workloads.get(uid)
        fields, job.pending = job.pending, {}
        if raw is None:
            return
        metadata = raw["metadata"]
        body = {"metadata": {"uid": uid}, "status": fields}
        try:
            async with limit:
                answer = await self.api.merge(
                    TRAINING_JOBS, metadata["namespace"], metadata["name"], body, subresource="status"
                )
            if uid in self.picture.workloads:  # so that the next decision is made from this very state
                self.picture.record(TRAINING_JOBS, answer)
            job.written, job.due = self.clock(), 0.0
        except NotFound:
            self._jobs.pop(uid, None)
        except ApiError as error:
            log.warning("progress of %s/%s not written: %s", metadata["namespace"], metadata["name"], error)
            job.pending, job.due = fields | job.pending, self.clock() + RETRY_SECONDS

    def _forget(self) -> None:
        """Jobs that are gone, or whose attempt is over."""
        for uid, job in list(self._jobs.items()):
            raw = self.picture.workloads.get(uid)
            if (raw is None or live_attempt(raw) != job.attempt) and not job.waiters:
                del self._jobs[uid]
                self.picture.paces.pop(uid, None)

    def _job_of(self, caller: Caller, name: str) -> tuple[Raw, _Job]:
        """The job that the caller is a member of."""
        pod = self.picture.pods.get(caller.namespace, caller.pod)
        if pod is None or pod.meta.uid != caller.pod_uid or pod.meta.labels.get(NAME_LABEL) != name:
            raise Stranger(f"pod {caller.namespace}/{caller.pod} is no member of TrainingJob {name}")
        raw = self._owner_of(pod)
        if raw is None:
            raise Stranger(f"pod {caller.namespace}/{caller.pod} belongs to no TrainingJob {name}")
        attempt, live = whole_number(pod.meta.labels.get(ATTEMPT_LABEL)), live_attempt(raw)
        if attempt != live:
            raise Superseded(f"attempt {attempt} of {name} is over: only what attempt {live} saves counts")
        return raw, self._known(raw["metadata"]["uid"], attempt)

    def _owner_of(self, pod: PodRecord) -> Raw | None:
        """The TrainingJob whose Job made the pod. Anybody may write labels, but not be made by that Job."""
        uid, attempt = pod.meta.labels.get(UID_LABEL, ""), pod.meta.labels.get(ATTEMPT_LABEL, "")
        raw = self.picture.workloads.get(uid)
        if raw is None or not is_training(raw) or raw["metadata"]["namespace"] != pod.meta.namespace:
            return None
        return raw if pod.controller == f"Job/{raw['metadata']['name']}-{attempt}" else None

    def _known(self, uid: str, attempt: int) -> _Job:
        job = self._jobs.get(uid)
        if job is None or job.attempt != attempt:
            raw = self.picture.workloads.get(uid) or {}
            job = self._jobs[uid] = _Job(attempt, Tempo.resumed(attempt, raw.get("status") or {}))
        return job

    def _note_listening(self, raw: Raw, job: _Job) -> None:
        """Who listens is asked before it is stopped: status tells, also to the operator that comes after this one."""
        if not job.listens and (raw.get("status") or {}).get("listens") != job.attempt:
            job.pending["listens"], job.due = job.attempt, self.clock()
            self._dirty.set()
        job.listens = True

    def _request(self, raw: Raw, job: _Job, after: str = "") -> SaveRequest | None:
        """What the members are still to be asked, unless they know: `after` is what they were asked last."""
        status = raw.get("status") or {}
        request = save_request_from(status.get("saveRequest"))
        answered = job.answers or (status.get("checkpoint") or {}).get("answers")
        if request is None or request.attempt != job.attempt or request.id in (answered, after):
            return None
        return request

    def _answer(self, raw: Raw, job: _Job, after: str = "") -> Json:
        answer = self._interval(raw, job)
        if (request := self._request(raw, job, after)) is not None:
            asked = answer["saveRequest"] = {"id": request.id, "reason": request.reason}
            if request.deadline:
                asked["deadline"] = to_rfc3339(request.deadline)
        return answer

    def _interval(self, raw: Raw, job: _Job) -> Json:
        seconds = self.interval(raw, job.saved)
        return {} if seconds is None else {"intervalSeconds": round(seconds, 1)}

    def _restore(self, raw: Raw, job: _Job, report: Report, now: float) -> Json:
        """How long an attempt took to go on, once that is known: it may tell of progress before its start is noted."""
        if report.step is None and report.percent is None:
            return {}
        status = raw.get("status") or {}
        started = from_rfc3339(status.get("startedAt"))
        if not job.advanced_at:
            saved = (status.get("checkpoint") or {}).get("attempt") or job.attempt
            job.advanced_at = now
            job.restores = saved < job.attempt and self.picture.listening <= (started or now)
        if not job.restores or not started:
            return {}
        job.restores = False
        seconds = round(max(0.0, job.advanced_at - started), 1)
        if self.measures is not None:
            self.measures.restored(seconds)
        return {"restore": {"attempt": job.attempt, "seconds": seconds}}

    def _measure(self, raw: Raw, job: _Job, saved: Saved) -> None:
        """A report that is made again, or by another member, tells of the same save."""
        told = (raw.get("status") or {}).get("checkpoint") or {}
        known = (told.get("attempt"), told.get("step")) == (job.attempt, saved.step)
        if self.measures is not None and not known and (job.saved is None or job.saved.step != saved.step):
            self.measures.saved(saved.seconds)

    def _status(self, job: _Job, report: Report, now: float) -> Json:
        """The status fields that a report changes."""
        fields: Json = {}
        if report.step is not None or report.percent is not None:
            fields["progress"] = _progress_status(report, now) | pace_status(job.tempo.pace)
        if report.checkpoint is not None:
            answers = report.answers or job.answers
            fields["checkpoint"] = _saved_status(job.attempt, report.checkpoint) | {"answers": answers or None}
            fields["checkpointProblem"] = None
        if report.problem:
            fields["checkpointProblem"] = report.problem
        return fields


def is_training(raw: Raw) -> bool:
    """Whether a workload is a TrainingJob."""
    return raw.get("kind") == "TrainingJob"


def live_attempt(raw: Raw) -> int:
    """The number of a job's attempt that runs; 0: none does."""
    status = raw.get("status") or {}
    return int(status.get("attempt") or 0) if status.get("placement") and not status.get("finishedAt") else 0


def _progress_status(report: Report, now: float) -> Json:
    percent = report.percent
    if percent is None and report.total:
        percent = min(100, 100 * (report.step or 0) // report.total)
    ends = None if report.remaining_seconds is None else to_rfc3339(now + report.remaining_seconds)
    return {
        "step": report.step,
        "totalSteps": report.total,
        "percent": percent,
        "summary": None if percent is None else f"{percent}%",
        "estimatedEnd": ends,
        "time": to_rfc3339(now),
    }


def _saved_status(attempt: int, saved: Saved) -> Json:
    return {
        "attempt": attempt,
        "step": saved.step,
        "time": to_rfc3339(saved.time),
        "bytes": saved.bytes,
        "seconds": saved.seconds,
    }
