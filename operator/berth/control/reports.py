"""The whole status of a workload, from what the planner and the watches know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berth.control.builders import selector
from berth.control.ports import Json
from berth.control.records import DeploymentRecord
from berth.control.status import (
    Condition,
    avoid_status,
    claim_status,
    device_status,
    failures_status,
    fair_share_status,
    idle_status,
    losses_status,
    moved_status,
    placement_status,
    ranks_text,
    resized_status,
    save_request_status,
    shortfalls_status,
    to_rfc3339,
    verdict_status,
    with_condition,
)
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Placement, Pod, PodPhase, Queue, Workload
from berth.planning.actions import QueueUsage
from berth.planning.lifecycle import remembered
from berth.planning.quota import stated_for

Status = Mapping[str, Any]


@dataclass
class _Conditions:
    """Conditions under construction."""

    items: Sequence[Condition]
    now: float
    generation: int

    def put(self, kind: str, value: bool, reason: str, message: str = "", *, quiet: bool = False) -> None:
        """Set one; a quiet one is not brought up only to say that it does not hold."""
        if quiet and not value and all(c["type"] != kind for c in self.items):
            return
        self.items = with_condition(self.items, kind, value, reason, message, now=self.now, generation=self.generation)


def training_status(workload: Workload, verdict: Verdict, old: Status, now: float) -> Json:
    """The status of a TrainingJob; null where a field must go."""
    attempt = workload.attempt
    pods = [] if attempt is None else [p for p in workload.pods if p.attempt == attempt.number]
    ready = sum(p.phase in (PodPhase.READY, PodPhase.SUCCEEDED) for p in pods if not p.terminating)
    workers = workload.size
    running = attempt is not None and workers > 0 and ready >= workers
    started = workload.started_at or (now if running else 0.0)
    conditions = _Conditions(old.get("conditions") or (), now, workload.generation)
    _training_conditions(conditions, workload, verdict, running)
    status: Json = {
        "observedGeneration": workload.generation,
        "state": _state(workload, running),
        "queue": workload.queue,
        "ready": f"{ready}/{workers}",
        "attempt": workload.attempts_made or None,
        "verdict": verdict_status(verdict),
        "gaveWayTo": claim_status(workload.gave_way_to),
        "avoid": avoid_status(workload.avoid) or None,
        "shortfalls": shortfalls_status(workload.shortfalls) or None,
        "moved": moved_status(workload.moved),
        "resized": resized_status(workload.resized),
        "restarts": workload.failures.restarts if workload.attempts_made else None,
        "hangs": workload.failures.hangs or None,
        "failures": failures_status(workload.failures),
        "losses": losses_status(workload.losses),
        "notBefore": _time(workload.not_before),
        "workedSeconds": int(workload.worked_seconds) or None,
        "saveRequest": save_request_status(workload.save_request),
        "idle": idle_status(workload.idle if attempt and not workload.finished else None),
        "finishedAt": _time(workload.finished_at),
        "conditions": list(conditions.items),
    }
    if not workload.finished:
        status["placement"] = placement_status(attempt.placement) if attempt else None
        status["device"] = device_text_short(attempt.placement) if attempt else None
        status["admittedAt"] = _time(attempt.admitted_at) if attempt else None
        status["startedAt"] = _time(started) if attempt else None
        status["stopping"] = (attempt.stopping or None) if attempt else None
        status["stoppingSince"] = _time(attempt.stopping_since) if attempt else None
        kept = remembered(workload, now)
        status["finishedRanks"] = (ranks_text(sorted(kept.done)) or None) if kept else None
        status["missingSince"] = _time(kept.missing_since) if kept else None
        status["specDigest"] = (kept.spec_digest or None) if kept else None
    return status


def device_text_short(placement: Placement) -> str:
    """A device for a column: "8 x H100-80GB", "1g.10gb of A100-80GB"."""
    device = placement.device
    if device.resource == "nvidia.com/gpu":
        return f"{device.count} x {device.model}"
    return f"{device.resource.rpartition('mig-')[2]} of {device.model}"


def service_status(
    workload: Workload,
    verdict: Verdict,
    old: Status,
    spec: Mapping[str, Any],
    record: DeploymentRecord | None,
    now: float,
) -> Json:
    """The status of an InferenceService; null where a field must go."""
    ref = workload.ref
    wanted = workload.request.workers if workload.request else 0
    ready = record.ready if record else 0
    placed = sum(_is_placed(pod) for pod in workload.pods)
    conditions = _Conditions(old.get("conditions") or (), now, workload.generation)
    whole = ready >= wanted and workload.request is not None
    conditions.put(
        "Ready", whole, "ReplicasReady" if whole else verdict.reason, f"{ready} of {wanted} replicas are ready"
    )
    conditions.put("Admitted", placed >= wanted > 0, verdict.reason, verdict.message)
    conditions.put("Misconfigured", *_problem(verdict), quiet=True)
    return {
        "observedGeneration": workload.generation,
        "queue": workload.queue,
        "replicas": record.replicas if record else 0,
        "readyReplicas": ready,
        "selector": ",".join(f"{key}={value}" for key, value in sorted(selector(ref).items())),
        "url": f"http://{ref.name}.{ref.namespace}.svc:{spec['port']}" if "port" in spec else None,
        "device": device_status(workload.served_device) if workload.served_device else None,
        "gaveWayTo": claim_status(workload.gave_way_to),
        "shed": list(workload.shed) or None,
        "verdict": verdict_status(verdict),
        "conditions": list(conditions.items),
    }


def queue_status(queue: Queue, has: QueueUsage, raw: Status, half_life_hours: float, now: float) -> Json:
    """The status of the Queue whose object is `raw`."""
    nominal, old, generation = queue.nominal or {}, raw.get("status") or {}, raw["metadata"].get("generation", 1)
    usage = [
        {"model": model, "used": has.used.get(model, "0"), "nominal": stated_for(nominal, model)}
        | {key: boards[model] for key, boards in (("borrowed", has.borrowed), ("lent", has.lent)) if model in boards}
        for model in has.names or sorted(has.used)
    ]
    conditions = _Conditions(old.get("conditions") or (), now, generation)
    why, reason = (has.problem, "Misconfigured") if has.problem else (has.stopped, "QueueStopped")
    conditions.put("Ready", not why, reason if why else "Ready", why)
    taken = has.not_default
    conditions.put("DefaultTaken", bool(taken), "AnotherIsOlder" if taken else "Free", taken, quiet=True)
    return {
        "pending": has.pending,
        "admitted": has.admitted,
        "usage": usage,
        "fairShare": fair_share_status(has.standing, old.get("fairShare"), half_life_hours) if has.standing else None,
        "conditions": list(conditions.items),
    }


def only_past(changes: Status) -> bool:
    """Whether nothing changed of a Queue but its use so far: that can wait a while."""
    return set(changes) <= {"fairShare"}


def difference(old: Status, new: Status) -> Json:
    """The top-level fields to write so that `old` becomes `new`; absent and null are the same."""
    return {key: value for key, value in new.items() if _bare(old.get(key)) != _bare(value)}


def only_steady(changes: Status, old: Status) -> bool:
    """Whether nothing changed but numbers: of a verdict's message, of members ready or done. They can wait a while."""
    if set(changes) - {"verdict", "conditions", "ready", "finishedRanks"}:
        return False
    before = _bare(old.get("verdict")) or {}
    after = _bare(changes["verdict"]) if "verdict" in changes else before
    same_conditions = [(c["type"], c["status"], c["reason"]) for c in old.get("conditions") or ()] == [
        (c["type"], c["status"], c["reason"]) for c in changes.get("conditions", old.get("conditions")) or ()
    ]
    return same_conditions and all(before.get(key) == after.get(key) for key in ("reason", "wanted"))


def _training_conditions(conditions: _Conditions, workload: Workload, verdict: Verdict, running: bool) -> None:
    attempt = workload.attempt
    finished = workload.finished
    if finished:
        conditions.put(finished, True, verdict.reason, verdict.message)
        conditions.put("PodsReady", False, finished, quiet=True)
        return
    stopping = attempt.stopping if attempt else ""
    admitted = attempt is not None and not stopping
    conditions.put("Admitted", admitted, stopping or verdict.reason, verdict.message)
    conditions.put("PodsReady", running and not stopping, "AllReady" if running else "Waiting", quiet=attempt is None)
    if stopping or admitted:
        conditions.put(
            "Evicted", bool(stopping), stopping or "Admitted", verdict.message if stopping else "", quiet=True
        )
    conditions.put("Suspended", workload.suspend, "Suspended" if workload.suspend else "Resumed", quiet=True)
    idle = workload.idle is not None and workload.idle.told
    conditions.put("Idle", idle, "BoardsIdle" if idle else "Working", quiet=True)
    conditions.put("Misconfigured", *_problem(verdict), quiet=True)


def _problem(verdict: Verdict) -> tuple[bool, str, str]:
    wrong = verdict.reason == Reason.MISCONFIGURED
    return wrong, verdict.reason if wrong else "Valid", verdict.message if wrong else ""


def _state(workload: Workload, running: bool) -> str:
    if workload.finished:
        return workload.finished
    if workload.attempt is not None:
        if workload.attempt.stopping:
            return "Stopping"
        return "Running" if running else "Admitted"
    return "Suspended" if workload.suspend else "Pending"


def _is_placed(pod: Pod) -> bool:
    return not pod.terminating and pod.phase in (PodPhase.PINNED, PodPhase.BOUND, PodPhase.READY)


def _time(seconds: float) -> str | None:
    return to_rfc3339(seconds) if seconds else None


def _bare(value: Any) -> Any:
    """The value without nulls, as the API server keeps it."""
    if isinstance(value, Mapping):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_bare(item) for item in value]
    return value
