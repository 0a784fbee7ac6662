"""The cycle: observe, plan, hand out the actions. One at a time, woken by change; it never waits for the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from berth.control.apply import Applier, Target
from berth.control.observe import Observer
from berth.control.partition import Partitions
from berth.control.picture import KIND_OF, Picture, Validation, version_of
from berth.control.ports import QUEUES, ApiError, Clock, Conflict, NotFound, Refused, Unavailable
from berth.control.reports import difference, only_past, only_steady, queue_status, service_status, training_status
from berth.control.status import was_accepted
from berth.control.validate import Validator
from berth.model.nodes import Node
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Kind, Ref, Workload
from berth.planning.actions import Action, Admit, NodeAction, Plan, Release, Stop
from berth.planning.snapshot import Policy, Snapshot

log = logging.getLogger(__name__)

REFRESH_SECONDS = 15.0  # how often a waiting workload's numbers are brought up to date when its reason stays
TELL_SECONDS = 1.0  # how often it is told at most that a step failed
REFRESHES_PER_SECOND = 10  # of all waiting workloads together, at most, and of all queues
QUEUE_REFRESH_SECONDS = 1.0  # how often a queue's numbers are written at most, where there are few queues
PAST_REFRESH_SECONDS = 60.0  # and how often its use so far, if nothing else changed: so much is lost in a crash
RECHECK_SECONDS = 30.0  # when a refused template is tried again: what it lacked may exist by then
ADMITTED_AT_ONCE = 16  # admissions under way: of many gangs the first run early, instead of all running late
MOVED_AT_ONCE = 4  # gangs that have saved being stopped or released: those that are still to be asked come first
TOLD_AT_ONCE = 16  # statuses of waiting jobs being written: a thousand that arrive hold up no admission
MOST_REST_SECONDS = 2.0  # a cycle follows the last one after as long as that took: writes need the interpreter too
HURRIED_REST_SECONDS = 0.2  # but no later than this where a node goes away
IDLE_SECONDS = 60.0  # a cycle runs at least this often, so that nothing hangs on a change that went unseen
NODE_KEY = "node/"  # begins the key of work on a node, which has no workload's uid
NO_FAILURE = (0, 0.0, "")
BACKOFF_SECONDS = (0.2, 30.0)  # first and longest wait after a failed write on one workload
MOST_DOUBLINGS = 10  # enough to reach the longest wait; a number of hours of doublings would overflow
FAILED = "; the last step failed: "  # marks the part of a message that is dropped once it is done


class Gauges(Protocol):
    """What the cycle reports of itself."""

    def cycled(self, seconds: float, snapshot: Snapshot, plan: Plan, now: float) -> None:
        """A cycle ended."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What one plan is made on."""

    snapshot: Snapshot
    now: float  # seconds since the epoch
    start: float  # of the cycle, by the performance counter
    versions: Mapping[str, int]  # of the workloads' objects, by uid
    busy: frozenset[str]  # uids of what was under way
    wake_at: float | None


@dataclass
class Cycle:
    """Plans whenever something changed, and runs one task per workload that has something to do."""

    picture: Picture
    observer: Observer
    applier: Applier
    partitions: Partitions
    validator: Validator
    policy: Policy
    plan: Callable[[Snapshot, Policy, float], Plan]
    clock: Clock
    gauges: Gauges
    debounce_seconds: float = 0.05
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by uid, while something is under way
    _failures: dict[str, tuple[int, float, str]] = field(default_factory=dict)  # how often, try again at, what
    _reported: dict[str, float] = field(default_factory=dict)  # when a uid's status was last written
    _admitting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ADMITTED_AT_ONCE))
    _moving: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOVED_AT_ONCE))
    _telling: set[str] = field(default_factory=set)  # uids of waiting jobs whose status is being written
    _told: dict[str, tuple[Workload, Verdict]] = field(default_factory=dict)  # what a status by uid says already
    _faults: dict[str, str] = field(default_factory=dict)  # what broke a workload's planning, by uid, once logged

    def wake(self) -> None:
        """Something changed."""
        self._woken.set()

    def hurry(self) -> None:
        """A node goes away: what runs there has little time."""
        self._hurried.set()
        self._woken.set()

    async def _rest(self, took: float) -> None:
        """Let writes have the interpreter after a cycle that took so long."""
        seconds = max(self.debounce_seconds, took)
        least = min(seconds, max(self.debounce_seconds, HURRIED_REST_SECONDS))
        await asyncio.sleep(least)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await self._hurried.wait()
        self._hurried.clear()

    async def run(self) -> None:
        """Plan for ever; whatever is under way ends with it, since another operator may act from then on."""
        timer: asyncio.TimerHandle | None = None
        took = 0.0
        try:
            while True:
                await self._woken.wait()
                await self._rest(took)
                self._woken.clear()
                seen = self._look()
                plan = await asyncio.to_thread(self.plan, seen.snapshot, self.policy, seen.now)
                wake_at = self._follow(seen, plan)
                took = min(perf_counter() - seen.start, MOST_REST_SECONDS)
                if timer is not None:
                    timer.cancel()
                delay = IDLE_SECONDS if wake_at is None else min(max(0.05, wake_at - self.clock()), IDLE_SECONDS)
                timer = asyncio.get_running_loop().call_later(delay, self.wake)
        finally:
            for task in self._tasks.values():
                task.cancel()

    def once(self) -> float | None:
        """One cycle, without a thread; when to look again even if nothing changes (seconds since the epoch)."""
        seen = self._look()
        return self._follow(seen, self.plan(seen.snapshot, self.policy, seen.now))

    def _look(self) -> Seen:
        """What to plan on."""
        start, now = perf_counter(), self.clock()
        self._prune()
        judged = self._validate(now)
        snapshot = self.observer.snapshot(now)
        wake_at = min((at for at in (judged, self.observer.wake_at) if at is not None), default=None)
        versions = {uid: version_of(raw) for uid, raw in self.picture.workloads.items()}
        return Seen(snapshot, now, start, versions, frozenset(self._tasks), wake_at)

    def _follow(self, seen: Seen, plan: Plan) -> float | None:
        """Start what a plan asks for; when to look again.

        What changed while it was made, or was under way when it began, is left to the next cycle: such a change has
        asked for one.
        """
        by_uid: dict[str, list[Action]] = {}
        for action in plan.actions:
            by_uid.setdefault(action.ref.uid, []).append(action)
        self._log_faults(plan)
        self.observer.pasts = {name: has.standing.past for name, has in plan.queues.items() if has.standing}
        snapshot, now = seen.snapshot, seen.now
        current = [w for w in snapshot.workloads if self._is_current(seen, w.ref.uid)]
        current.sort(key=lambda w: -1.0 if w.ref.uid in by_uid else self._reported.get(w.ref.uid, 0.0))
        wakes = [self._attend(w, by_uid.get(w.ref.uid, []), plan.verdicts, now) for w in current]
        wakes += [self._attend_node(a, snapshot, now) for a in plan.layouts if NODE_KEY + a.node not in seen.busy]
        wakes += [seen.wake_at, plan.wake_at, self._report_queues(snapshot, plan, now)]
        self.gauges.cycled(perf_counter() - seen.start, snapshot, plan, now)
        return min((at for at in wakes if at is not None), default=None)

    def _is_current(self, seen: Seen, uid: str) -> bool:
        raw = self.picture.workloads.get(uid)
        return raw is not None and uid not in seen.busy and version_of(raw) == seen.versions.get(uid)

    def _attend(
        self, workload: Workload, actions: list[Action], verdicts: Mapping[str, Verdict], now: float
    ) -> float | None:
        """Serve one workload; what goes wrong with it delays it and nobody else."""
        try:
            return self._serve(workload, actions, verdicts, now)
        except Exception as error:
            log.exception("%s %s/%s can't be served", workload.ref.kind, workload.ref.namespace, workload.ref.name)
            self._fail(workload.ref.uid, f"internal error, see the operator's log: {error!r}")
            return now + BACKOFF_SECONDS[1]

    def _attend_node(self, action: NodeAction, snapshot: Snapshot, now: float) -> float | None:
        """Start what a node needs; when to look at it again."""
        uid = NODE_KEY + action.node
        again = self._failures.get(uid, NO_FAILURE)[1]
        if again > now:
            return again
        if uid not in self._tasks:
            self.partitions.assume(action)
            self._start(uid, self._partition(action, snapshot.nodes[action.node]))
        return None

    async def _partition(self, action: NodeAction, node: Node) -> None:
        try:
            await self.partitions.carry_out(action, node)
        finally:
            self.partitions.settle(action)

    def _log_faults(self, plan: Plan) -> None:
        for uid, error in plan.faults.items():
            if self._faults.get(uid) != repr(error):
                log.error("planning %s failed, the others go on", uid, exc_info=error)
        self._faults = {uid: repr(error) for uid, error in plan.faults.items()}

    def _serve(
        self, workload: Workload, actions: list[Action], verdicts: Mapping[str, Verdict], now: float
    ) -> float | None:
        """Start what one workload needs; when to look at it again."""
        uid = workload.ref.uid
        if uid in self._tasks:
            return None
        _, again, problem = self._failures.get(uid, NO_FAILURE)
        waits = again > now
        if waits and not (actions and problem and self._reported.get(uid, 0.0) + TELL_SECONDS <= now):
            return again
        if actions and not waits:
            for action in actions:
                self.applier.assume(action)
            self._start(uid, self._act(workload, self.picture.workloads[uid], actions))
            return None
        verdict = verdicts.get(uid)
        if verdict is None or workload.finished or workload.deleting:
            return None
        told = verdict.message.partition(FAILED)[0]  # the last verdict of a running job is the next one's beginning
        message = f"{told}{FAILED}{problem}" if waits else told
        due = self._report(workload, replace(verdict, message=message), now, heals=not waits)
        return min((at for at in (due, again) if at is not None and at > now), default=None)

    async def _act(self, workload: Workload, raw: Mapping[str, Any], actions: list[Action]) -> None:
        try:
            async with self._gate(workload, actions):
                await self.applier.carry_out(Target(workload, raw), actions)
        finally:
            for action in actions:
                self.applier.settle(action)

    def _gate(self, workload: Workload, actions: Sequence[Action]) -> contextlib.AbstractAsyncContextManager[None]:
        """What lets in a few at once of the actions that lose nothing while others are served first."""
        if any(isinstance(action, Admit) for action in actions):
            return self._admitting
        asked = workload.save_request
        saved = asked is not None and not asked.goes_on and asked.id == workload.saved_for
        if any(isinstance(action, Release) or (isinstance(action, Stop) and saved) for action in actions):
            return self._moving
        return contextlib.nullcontext()

    def _report(self, workload: Workload, verdict: Verdict, now: float, *, heals: bool) -> float | None:
        """Bring a workload's status up to date, if it is not; numbers alone at most every REFRESH_SECONDS."""
        uid = workload.ref.uid
        raw = self.picture.workloads.get(uid)
        if raw is None:
            return None
        waits = workload.ref.kind is Kind.TRAINING_JOB and workload.attempt is None
        known, told = self._told.get(uid, (None, None))
        if (known is workload and told == verdict) or (waits and len(self._telling) >= TOLD_AT_ONCE):
            return None  # in the second case the end of a write asks for another cycle
        old = raw.get("status") or {}
        changes = difference(old, self._status(workload, verdict, raw, now))
        if not changes:
            self._told[uid] = workload, verdict
            return None
        due = self._reported.get(uid, 0.0) + max(REFRESH_SECONDS, len(self.picture.workloads) / REFRESHES_PER_SECOND)
        if only_steady(changes, old) and due > now:
            return due
        if waits:
            self._telling.add(uid)
        self._reported[uid] = now
        if (old.get("verdict") or {}).get("reason") != verdict.reason and verdict.reason in list(Reason):
            self.applier.recorder.note(
                workload.ref, verdict.reason, verdict.message, warning=verdict.reason == Reason.MISCONFIGURED
            )
        self._start(uid, self.applier.write_status(Target(workload, raw), changes), heals=heals)
        return None

    def _status(self, workload: Workload, verdict: Verdict, raw: Mapping[str, Any], now: float) -> dict[str, Any]:
        old = raw.get("status") or {}
        if workload.ref.kind is Kind.TRAINING_JOB:
            return training_status(workload, verdict, old, now)
        record = self.picture.deployments.get(workload.ref.namespace, workload.ref.name)
        return service_status(workload, verdict, old, raw["spec"], record, now)

    def _report_queues(self, snapshot: Snapshot, plan: Plan, now: float) -> float | None:
        wake: float | None = None
        for uid, raw in self.picture.queues.items():
            name = raw["metadata"]["name"]
            usage, queue = plan.queues.get(name), snapshot.queues.get(name)
            if usage is None or queue is None or uid in self._tasks:
                continue
            status = queue_status(queue, usage, raw, self.policy.half_life_hours, now)
            changes = difference(raw.get("status") or {}, status)
            often = max(QUEUE_REFRESH_SECONDS, len(self.picture.queues) / REFRESHES_PER_SECOND)
            pause = PAST_REFRESH_SECONDS if only_past(changes) else often
            due = self._reported.get(uid, 0.0) + pause
            if changes and due > now:
                wake = due
            elif changes:
                self._reported[uid] = now
                self._start(uid, self._write_queue(raw, changes))
        return wake

    async def _write_queue(self, raw: Mapping[str, Any], changes: dict[str, Any]) -> None:
        name = raw["metadata"]["name"]
        answer = await self.applier.api.merge(QUEUES, "", name, {"status": changes}, subresource="status")
        self.picture.record(QUEUES, answer)

    def _validate(self, now: float) -> float | None:
        """Start a dry run for each workload whose template the API server has not judged; when to try again."""
        wakes: list[float] = []
        for uid, raw in self.picture.workloads.items():
            known = self.picture.validations.get(uid)
            generation = raw["metadata"].get("generation", 1)
            if known is None and was_accepted(raw):
                known = self.picture.validations[uid] = Validation(generation, "", now)
            if known is not None and known.generation == generation:
                if not known.problem:
                    continue
                if known.at + RECHECK_SECONDS > now:
                    wakes.append(known.at + RECHECK_SECONDS)
                    continue
            base = self.observer.base(uid)
            if base is None or base.problem or base.finished or base.deleting or base.attempt:
                continue
            again = self._failures.get(uid, NO_FAILURE)[1]
            if again > now:
                wakes.append(again)
            elif uid not in self._tasks:
                self._start(uid, self._judge(base.ref, raw, generation))
        return min(wakes, default=None)

    async def _judge(self, ref: Ref, raw: Mapping[str, Any], generation: int) -> None:
        problem = await self.validator.problem(ref, raw["spec"])
        self.picture.validations[ref.uid] = Validation(generation, problem, self.clock())
        self.picture.changed.add(ref.uid)

    def _start(self, uid: str, work: Coroutine[Any, Any, None], *, heals: bool = True) -> None:
        self._tasks[uid] = asyncio.create_task(self._guard(uid, work, heals))

    async def _guard(self, uid: str, work: Coroutine[Any, Any, None], heals: bool) -> None:
        """Run work on one workload; a failure delays this workload and nobody else.

        Work that heals makes earlier failures forgotten by its success; telling people of a failure is none.
        """
        try:
            await work
            if heals:
                self._failures.pop(uid, None)
        except NotFound as error:
            log.info("gone while being written: %s", error)
            self._fail(uid, "")
            await self._confirm(uid)
        except Conflict as error:
            log.debug("changed while being written: %s", error)
            self._fail(uid, "")
        except (Refused, Unavailable) as error:
            log.warning("write failed, will be tried again: %s", error)
            self._fail(uid, str(error) if isinstance(error, Refused) else "")
        except Exception as error:  # a bug, or an object that nobody thought of: the others must not suffer for it
            log.exception("work on %s failed, will be tried again", uid)
            self._fail(uid, f"internal error, see the operator's log: {error!r}")
        finally:
            self._tasks.pop(uid, None)
            self._telling.discard(uid)
            self.wake()

    async def _confirm(self, uid: str) -> None:
        """Something of a workload was missing: if it is the workload itself, forget it."""
        for resource, known in self.picture.own.items():
            raw = known.get(uid)
            if raw is None or raw.get("kind") != KIND_OF[resource]:
                continue
            metadata = raw["metadata"]
            with contextlib.suppress(ApiError):
                try:
                    found = await self.applier.api.get(resource, metadata.get("namespace", ""), metadata["name"])
                except NotFound:
                    self.picture.forget(resource, uid)
                else:
                    if found["metadata"]["uid"] != uid:
                        self.picture.forget(resource, uid)

    def _prune(self) -> None:
        """Drop notes on workloads and nodes that are gone."""
        if len(self._reported) + len(self._failures) + len(self._told) > 4 * len(self.picture.workloads) + 100:
            known = self.picture.workloads.keys() | self.picture.queues.keys()
            self._reported = {uid: at for uid, at in self._reported.items() if uid in known}
            nodes = {NODE_KEY + record.meta.name for record in self.picture.nodes}
            self._failures = {uid: note for uid, note in self._failures.items() if uid in known or uid in nodes}
            self._told = {uid: note for uid, note in self._told.items() if uid in known}

    def _fail(self, uid: str, problem: str) -> None:
        times = self._failures.get(uid, NO_FAILURE)[0] + 1
        wait = min(BACKOFF_SECONDS[0] * 2 ** min(times - 1, MOST_DOUBLINGS), BACKOFF_SECONDS[1])
        self._failures[uid] = (times, self.clock() + wait, problem)
