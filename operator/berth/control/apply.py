"""Carries out a plan's actions, so that each is safe to repeat and safe to lose the process in the middle of.

The decision goes into the object's status before anything else changes, under the resourceVersion that it was made
from; what follows (Job, pins, suspension) can be made again from that record alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from typing import Any

from berth.control import builders
from berth.control.checkpoints import NOTHING, Telling
from berth.control.events import Recorder
from berth.control.last_words import with_last_words
from berth.control.meter import Meter
from berth.control.picture import Picture, Raw, version_of
from berth.control.ports import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    JOBS,
    PODS,
    SERVICES,
    TRAINING_JOBS,
    VOLUME_CLAIMS,
    Api,
    Clock,
    Conflict,
    Json,
    NotFound,
    Refused,
    Resource,
)
from berth.control.records import HOSTNAME_LABEL, UID_LABEL, JobRecord, PodRecord
from berth.control.reports import difference, training_status
from berth.control.status import claim_status, verdict_status
from berth.model.idling import IdleAction
from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Kind, Placement, Ref, Workload
from berth.planning.actions import (
    Action,
    Admit,
    AskToSave,
    Expire,
    Finish,
    LetGo,
    MakeAttempt,
    Move,
    NoteIdle,
    Pin,
    Release,
    Replace,
    Serve,
    Shed,
    Stop,
    Suspend,
)
from berth.planning.idling import IDLE
from berth.planning.lost import with_loss
from berth.planning.verdicts import PLACED

RESOURCE_OF: Mapping[Kind, Resource] = {
    Kind.TRAINING_JOB: TRAINING_JOBS,
    Kind.INFERENCE_SERVICE: INFERENCE_SERVICES,
}


@dataclass
class Target:
    """The workload that actions are for, as it was when they were decided, and its latest raw state since."""

    workload: Workload
    raw: Raw


@dataclass
class Applier:
    """Writes to the API server what actions ask for."""

    api: Api
    picture: Picture
    clock: Clock
    recorder: Recorder
    read_pod: Callable[[Json], PodRecord]  # how a raw Pod becomes a record
    read_job: Callable[[Json], JobRecord]  # how a raw Job does
    ask_now: Callable[[str], None] = lambda uid: None  # the save request of that job is recorded: tell who waits for it
    telling: Telling | None = None  # what attempts are told of the progress endpoint; None: there is none
    meter: Meter | None = None  # what statuses tell of usage; None: nothing

    def assume(self, action: Action) -> None:
        """Count an action as done while it is under way, so that the next plan does not decide it again."""
        if isinstance(action, Admit):
            self.picture.assume_attempt(action.ref.uid, Attempt(action.number, action.placement, self.clock()))
        elif isinstance(action, Pin):
            self.picture.assume_pin(action.ref.uid, action.pod_uid, action.node)

    def settle(self, action: Action) -> None:
        """The action was answered: from now on the picture alone counts."""
        if isinstance(action, Admit):
            self.picture.assume_attempt(action.ref.uid, None)
        elif isinstance(action, Pin):
            self.picture.assume_pin(action.ref.uid, action.pod_uid, "")

    async def carry_out(self, target: Target, actions: Sequence[Action]) -> None:
        """Carry out one workload's actions in order; pins come last and go side by side."""
        pins = [action for action in actions if isinstance(action, Pin)]
        for action in actions:
            if not isinstance(action, Pin):
                await self._carry_out(action, target)
        answers = await asyncio.gather(*(self._carry_out(pin, target) for pin in pins), return_exceptions=True)
        for failure in answers:
            if isinstance(failure, BaseException):
                raise failure

    @singledispatchmethod
    async def _carry_out(self, action: Any, target: Target) -> None:
        raise TypeError(f"no way to carry out {action!r}")

    @_carry_out.register
    async def _(self, action: Admit, target: Target) -> None:
        attempt = Attempt(action.number, action.placement, self.clock())
        admitted = replace(
            target.workload,
            attempt=attempt,
            attempts_made=action.number,
            pods=(),
            started_at=0.0,
            not_before=0.0,
            gave_way_to=None,
        )
        await self._write_status(target, admitted, action.verdict)
        self.recorder.note(action.ref, "Admitted", action.verdict.message)
        await self._make_attempt(target, action.number, action.placement)

    @_carry_out.register
    async def _(self, action: MakeAttempt, target: Target) -> None:
        await self._make_attempt(target, action.number, action.placement)

    @_carry_out.register
    async def _(self, action: Pin, target: Target) -> None:
        node = self.picture.nodes.get("", action.node)
        hostname = node.meta.labels.get(HOSTNAME_LABEL, action.node) if node else action.node
        labels = {HOSTNAME_LABEL: hostname} if action.node else dict(action.labels)
        body = builders.pin(action.pod_uid, labels, target.workload.queue, self.clock())
        answer = await self.api.merge_lists(PODS, action.ref.namespace, action.pod, body)
        self.picture.pods.update(self.read_pod(answer))

    @_carry_out.register
    async def _(self, action: Move, target: Target) -> None:
        before = target.workload.attempt
        assert before is not None
        came = bool(before.placement.pool) and not action.placement.pool  # waiting for nodes is no part of its run
        admitted_at = self.clock() if came else before.admitted_at
        attempt = replace(before, placement=action.placement, admitted_at=admitted_at)
        await self._write_status(target, replace(target.workload, attempt=attempt, avoid=action.avoid), action.verdict)

    @_carry_out.register
    async def _(self, action: Replace, target: Target) -> None:
        self.recorder.note(action.ref, "Replaced", f"pod {action.pod}: {action.why}", warning=True)
        await self._evict(action.ref.namespace, action.pod, action.pod_uid, self._version(action))

    @_carry_out.register
    async def _(self, action: AskToSave, target: Target) -> None:
        asked = replace(target.workload, save_request=action.request)
        goes_on, reason = action.request.goes_on, action.request.reason
        verdict = (target.workload.verdict if goes_on else None) or Verdict(reason, action.message)
        await self._write_status(target, asked, verdict)
        self.ask_now(action.ref.uid)
        self.recorder.note(action.ref, reason, action.message, warning=not goes_on)

    @_carry_out.register
    async def _(self, action: NoteIdle, target: Target) -> None:
        verdict = Verdict(IDLE, action.message) if action.message else target.workload.verdict or Verdict(PLACED, "")
        await self._write_status(target, replace(target.workload, idle=action.idle), verdict)
        if action.message:
            warning = target.workload.idle_policy.action is not IdleAction.REPORT
            self.recorder.note(action.ref, IDLE, action.message, warning=warning)

    @_carry_out.register
    async def _(self, action: Suspend, target: Target) -> None:
        ref = action.ref
        body = {"metadata": {"uid": ref.uid}, "spec": {"suspend": True}}
        target.raw = await self.api.merge(TRAINING_JOBS, ref.namespace, ref.name, body)
        if ref.uid in self.picture.workloads:
            self.picture.record(TRAINING_JOBS, target.raw)
        self.recorder.note(ref, action.reason, action.message, warning=True)

    @_carry_out.register
    async def _(self, action: Stop, target: Target) -> None:
        assert target.workload.attempt is not None
        if not target.workload.attempt.stopping:
            now = self.clock()
            message = await with_last_words(self.api, action.ref, action.message, action.log_of)
            stopping = replace(target.workload.attempt, stopping=action.reason, stopping_since=now)
            stopped = replace(
                target.workload,
                attempt=stopping,
                avoid=action.avoid or target.workload.avoid,
                not_before=action.not_before,
                moved=action.moved or target.workload.moved,
                gave_way_to=action.gives_way_to or target.workload.gave_way_to,
                resized=action.resize or target.workload.resized,
                failures=action.failures or target.workload.failures,
                shortfalls=action.shortfalls or target.workload.shortfalls,
            )
            await self._write_status(target, stopped, Verdict(action.reason, message))
            self.recorder.note(action.ref, action.reason, message, warning=True)
        await self._suspend(action.ref, builders.attempt_name(action.ref, action.number))

    @_carry_out.register
    async def _(self, action: Release, target: Target) -> None:
        await self._delete_attempt(action.ref, action.number)
        w = target.workload
        accounted = with_loss(w, action.reason, self.clock())  # in the write that clears the attempt: once
        worked = w.worked_seconds + max(0.0, w.saved_at - w.started_at) if w.started_at else w.worked_seconds
        released = replace(accounted, attempt=None, pods=(), started_at=0.0, worked_seconds=worked)
        await self._write_status(target, released, Verdict(action.reason, action.message), action.reason)

    @_carry_out.register
    async def _(self, action: Finish, target: Target) -> None:
        now, ended = self.clock(), target.workload
        message = await with_last_words(self.api, action.ref, action.message, action.log_of)
        if action.outcome != "Succeeded":
            ended = with_loss(ended, action.reason, now)
        failures = action.failures or ended.failures
        finished = replace(ended, finished=action.outcome, finished_at=now, failures=failures)
        ended_by = "" if action.outcome == "Succeeded" else action.reason
        await self._write_status(target, finished, Verdict(action.reason, message), ended_by)
        self.recorder.note(action.ref, action.outcome, message, warning=action.outcome == "Failed")

    @_carry_out.register
    async def _(self, action: Expire, target: Target) -> None:
        await self.api.delete(RESOURCE_OF[action.ref.kind], action.ref.namespace, action.ref.name, uid=action.ref.uid)

    @_carry_out.register
    async def _(self, action: Serve, target: Target) -> None:
        ref, spec = action.ref, target.raw["spec"]
        made = builders.deployment(ref, spec, target.workload.generation, action.device, action.replicas)
        parts = (
            (SERVICES, builders.service(ref, spec)),
            (DISRUPTION_BUDGETS, builders.disruption_budget(ref, spec)),
            (DEPLOYMENTS, made),
        )
        for resource, _ in parts:  # applying would take over what another made
            with contextlib.suppress(NotFound):
                await self._check_ours(resource, ref, ref.name)
        for resource, body in parts:
            await self.api.apply(resource, ref.namespace, ref.name, body)

    @_carry_out.register
    async def _(self, action: LetGo, target: Target) -> None:
        with contextlib.suppress(NotFound):
            body = builders.let_go(action.pod_uid, action.first)
            answer = await self.api.merge(PODS, action.ref.namespace, action.pod, body)
            self.picture.pods.update(self.read_pod(answer))

    @_carry_out.register
    async def _(self, action: Shed, target: Target) -> None:
        ref, spec = action.ref, target.raw["spec"]
        if action.gives_way_to is None:
            await self._keep_replicas(ref, spec)
            await self.write_status(target, {"gaveWayTo": None, "shed": None})
            return
        if action.gives_way_to != target.workload.gave_way_to:
            told = verdict_status(Verdict(action.reason, action.message))
            shed = [uid for _, uid in action.pods]
            changes = {"gaveWayTo": claim_status(action.gives_way_to), "shed": shed, "verdict": told}
            await self.write_status(target, changes)
            self.recorder.note(ref, action.reason, action.message, warning=True)
        if action.whole:
            await self._keep_replicas(ref, {**spec, "availability": {"minAvailable": 0}})
        for name, uid in action.pods:
            await self._evict(ref.namespace, name, uid)

    async def _keep_replicas(self, ref: Ref, spec: Mapping[str, Any]) -> None:
        await self.api.apply(DISRUPTION_BUDGETS, ref.namespace, ref.name, builders.disruption_budget(ref, spec))

    async def _evict(self, namespace: str, name: str, uid: str, version: str = "") -> None:
        try:
            await self.api.evict(namespace, name, uid=uid, version=version)
        except NotFound:
            self.picture.pods.drop(namespace, name, uid)

    async def _make_attempt(self, target: Target, number: int, placement: Placement) -> None:
        ref, spec = target.workload.ref, target.raw["spec"]
        told = await self.telling.prepare(ref, target.raw, placement) if self.telling else NOTHING
        parts = [
            (SERVICES, builders.job_service(ref, number)),
            (JOBS, builders.job(ref, spec, number, placement, told)),
        ]
        checkpoint = spec.get("checkpoint") or {}
        if checkpoint.get("claimTemplate"):
            parts.insert(0, (VOLUME_CLAIMS, builders.volume_claim(ref, checkpoint)))
        for resource, body in parts:
            try:
                made = await self.api.create(resource, ref.namespace, body)
            except Conflict:
                made = await self._check_ours(resource, ref, body["metadata"]["name"])
            if resource is JOBS:
                self.picture.jobs.put(self.read_job(made))  # else the next cycle would make it again

    async def _suspend(self, ref: Ref, name: str) -> None:
        """Suspend an attempt's Job; a Job of someone else that has its name is left alone."""
        try:
            found = await self.api.get(JOBS, ref.namespace, name)
            if _is_ours(found, ref):
                body = {"metadata": {"uid": found["metadata"]["uid"]}, "spec": {"suspend": True}}
                await self.api.merge(JOBS, ref.namespace, name, body)
        except NotFound:
            self.picture.jobs.drop(ref.namespace, name)

    async def _check_ours(self, resource: Resource, ref: Ref, name: str) -> Json:
        """A name that is taken is fine when it is ours: we made it before, and died or lost the answer."""
        found = await self.api.get(resource, ref.namespace, name)
        if not _is_ours(found, ref):
            raise Refused(f"{resource.plural} {ref.namespace}/{name} is not Berth's: delete it, or rename {ref.kind}")
        return found

    async def _delete_attempt(self, ref: Ref, number: int) -> None:
        name = builders.attempt_name(ref, number)
        for resource in (JOBS, SERVICES):
            try:
                found = await self.api.get(resource, ref.namespace, name)
                if _is_ours(found, ref):
                    await self.api.delete(resource, ref.namespace, name, uid=found["metadata"]["uid"])
            except NotFound:
                continue
        self.picture.jobs.drop(ref.namespace, name)

    def _version(self, action: Replace) -> str:
        """The state of the pod that was found stuck: one that has been bound since must not be evicted."""
        known = self.picture.pods.get(action.ref.namespace, action.pod)
        return str(known.meta.version) if known is not None else ""

    async def _write_status(self, target: Target, workload: Workload, verdict: Verdict, ended_by: str = "") -> None:
        old = target.raw.get("status") or {}
        await self.write_status(
            target, difference(old, training_status(workload, verdict, old, self.clock())), ended_by
        )

    async def write_status(self, target: Target, changes: Json, ended_by: str = "") -> None:
        """Merge into the status, unless the object changed since the decision (Conflict).

        `ended_by`: why the attempt that it had until now did not end well. What it used goes into the same write.
        """
        ref = target.workload.ref
        resource = RESOURCE_OF[ref.kind]
        if self.meter is not None:
            changes = changes | self.meter.status(target.workload, ended_by)
        body = {"metadata": {"uid": ref.uid, "resourceVersion": str(version_of(target.raw))}, "status": changes}
        target.raw = await self.api.merge(resource, ref.namespace, ref.name, body, subresource="status")
        if ref.uid in self.picture.workloads:  # else it was deleted meanwhile, and must not come back
            self.picture.record(resource, target.raw)


def _is_ours(raw: Json, ref: Ref) -> bool:
    return bool((raw["metadata"].get("labels") or {}).get(UID_LABEL) == ref.uid)
