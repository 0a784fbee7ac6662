"""From the objects that watches deliver to the planner's types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from berth.api import training_job
from berth.api.common import Gpus
from berth.api.inference_service import InferenceServiceSpec
from berth.api.pods import PodSpec, Template
from berth.api.problems import Misconfigured, first_problem
from berth.api.template import problems
from berth.api.training_job import FIXED, TrainingJobSpec, least_step
from berth.control.checkpoints import CHECKPOINT_ANNOTATION, claim_of
from berth.control.interruptions import moment
from berth.control.status import (
    avoid_from,
    claim_from,
    failures_from,
    from_rfc3339,
    idle_from,
    is_true,
    losses_from,
    moved_from,
    pace_from,
    past_from,
    placement_from,
    ranks_from,
    resized_from,
    save_request_from,
    shortfalls_from,
    verdict_from,
)
from berth.control.usages import usage_from
from berth.model.failures import Restart
from berth.model.idling import IdleAction, IdlePolicy
from berth.model.resources import duration_seconds, parse_quantity, pod_requests
from berth.model.workloads import (
    Attempt,
    Availability,
    CarbonTerms,
    Demand,
    Elastic,
    Group,
    Kind,
    PodShape,
    Preemption,
    Queue,
    Reclaim,
    Ref,
    Request,
    Requirement,
    Spot,
    StopPolicy,
    Toleration,
    Topology,
    TopologyMode,
    WithinQueue,
    Workload,
)

Raw = Mapping[str, Any]
T = TypeVar("T", bound=BaseModel)
Affinity = tuple[tuple[Requirement, ...], ...]
Volumes = Callable[[str, str], Affinity]

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DEFAULT_QUEUE = "default"
DEFAULT_GRACE_SECONDS = 30.0  # as Kubernetes has it
_SPECS: Mapping[Kind, type[TrainingJobSpec] | type[InferenceServiceSpec]] = {
    Kind.TRAINING_JOB: TrainingJobSpec,
    Kind.INFERENCE_SERVICE: InferenceServiceSpec,
}


def to_workload(
    raw: Raw, priorities: Mapping[str, int], volumes: Volumes, default_queue: str = DEFAULT_QUEUE
) -> Workload:
    """A TrainingJob or InferenceService, without its pods and without what became of its Job or Deployment.

    `priorities` gives the value of each PriorityClass, under "" that of work which names none. `volumes` gives the
    node affinity of the volume bound to a claim, by namespace and name. Never raises on what a user wrote: the
    workload of a bad object has no request, but a problem.
    """
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    kind = Kind(raw["kind"])
    request, attempt, priority, problem = None, None, 0, ""
    try:
        attempt = _attempt(status)
        request = to_request(spec, kind, lambda claim: volumes(metadata["namespace"], claim), metadata["name"])
        priority = _priority(spec.get("priorityClassName") or "", priorities)
    except Misconfigured as error:
        request, problem = None, str(error)
    finished = _finished(status)
    return Workload(
        ref=Ref(kind, metadata["namespace"], metadata["name"], metadata["uid"]),
        created=from_rfc3339(metadata.get("creationTimestamp")),
        request=request,
        generation=metadata.get("generation", 1),
        problem=problem,
        spec_digest=spec_digest(spec) if request and kind is Kind.TRAINING_JOB else "",
        queue=_queue_name(spec, metadata) or _kept_queue(status, attempt) or default_queue,
        queue_named=bool(_queue_name(spec, metadata) or _kept_queue(status, attempt)),
        priority=priority,
        suspend=spec.get("suspend") is True,
        deleting=bool(metadata.get("deletionTimestamp")),
        max_runtime_seconds=_seconds(spec.get("maxRuntime")) if request else None,
        estimated_seconds=_seconds(spec.get("estimatedRuntime")) if request else None,
        max_usd_per_hour=spec.get("maxPricePerHour") if request and kind is Kind.TRAINING_JOB else None,
        deadline=from_rfc3339(spec.get("deadline")) or None if request else None,
        carbon=to_carbon(spec) if request else None,
        checkpoints=spec.get("checkpoint") is not None,
        worked_seconds=float(status.get("workedSeconds") or 0),
        ttl_seconds=spec.get("ttlSecondsAfterFinished") if request else None,
        attempts_made=status.get("attempt") or 0,
        attempt=None if finished else attempt,
        finished=finished,
        finished_at=from_rfc3339(status.get("finishedAt")),
        started_at=from_rfc3339(status.get("startedAt")),
        avoid=avoid_from(status.get("avoid")),
        shortfalls=shortfalls_from(status.get("shortfalls")),
        moved=moved_from(status.get("moved")),
        gave_way_to=claim_from(status.get("gaveWayTo")),
        resized=resized_from(status.get("resized")),
        shed=tuple(status.get("shed") or ()),
        least_replicas=least_replicas(spec) if request and kind is Kind.INFERENCE_SERVICE else 1,
        not_before=from_rfc3339(status.get("notBefore")),
        losses=losses_from(status.get("losses")),
        usage=usage_from(status.get("usage")),
        saves=bool(spec.get("checkpoint")),
        saved_at=_saved_at(status),
        saved_for=str((status.get("checkpoint") or {}).get("answers") or ""),
        save_request=save_request_from(status.get("saveRequest")),
        save_wanted_at=moment((metadata.get("annotations") or {}).get(CHECKPOINT_ANNOTATION, "")),
        listens=status.get("listens") or 0,
        grace_seconds=_grace_seconds(spec) if request else DEFAULT_GRACE_SECONDS,
        saved_step=(status.get("checkpoint") or {}).get("step"),
        saved_bytes=(status.get("checkpoint") or {}).get("bytes") or 0,
        save_seconds=(status.get("checkpoint") or {}).get("seconds") or 0.0,
        restart=to_restart(spec) if request and kind is Kind.TRAINING_JOB else Restart(),
        failures=failures_from(status),
        pace=pace_from(status),
        idle_policy=to_idle_policy(spec) if request and kind is Kind.TRAINING_JOB else IdlePolicy(),
        idle=idle_from(status.get("idle")),
        expected_end=_expected_end(status),
        availability=to_availability(spec) if request and kind is Kind.INFERENCE_SERVICE else Availability(),
        verdict=verdict_from(status.get("verdict")),
    )


def to_queue(raw: Raw) -> Queue:
    """A Queue."""
    spec, metadata = raw.get("spec") or {}, raw["metadata"]
    quotas, usd, namespaces = spec.get("quotas"), spec.get("maxPricePerHour"), spec.get("namespaces")
    preemption = spec.get("preemption") or {}
    return Queue(
        name=metadata["name"],
        nominal=None if quotas is None else {quota["model"]: quota["nominal"] for quota in quotas},
        borrowing=_limits(quotas, "borrowingLimit"),
        lending=_limits(quotas, "lendingLimit"),
        parent=spec.get("parent") or "",
        weight=spec.get("weight") or 1,
        max_usd_per_hour=None if usd is None else Fraction(str(usd)),
        namespaces=None if namespaces is None else tuple(namespaces),
        default_of=tuple(spec.get("defaultOf") or ()),
        stop_policy=StopPolicy(spec.get("stopPolicy") or StopPolicy.NONE),
        preemption=Preemption(
            WithinQueue(preemption.get("withinQueue") or WithinQueue.LOWER_PRIORITY),
            Reclaim(preemption.get("reclaim") or Reclaim.ANY),
        ),
        past=past_from((raw.get("status") or {}).get("fairShare")),
        created=from_rfc3339(metadata.get("creationTimestamp")),
    )


def _limits(quotas: Sequence[Raw] | None, field: str) -> dict[str, int]:
    return {quota["model"]: quota[field] for quota in quotas or () if quota.get(field) is not None}


def least_replicas(spec: Raw) -> int:
    """How many replicas of an InferenceService its disruption budget keeps: a share of them is rounded up, as there.

    >>> least_replicas({"replicas": 5, "availability": {"minAvailable": "50%"}})
    3
    """
    return _of_replicas(spec, (spec.get("availability") or {}).get("minAvailable", 1))


def to_availability(spec: Raw) -> Availability:
    """How many replicas of an InferenceService spot capacity may take."""
    asked = spec.get("availability") or {}
    both = spec.get("spot", "Allow") == Spot.ALLOW
    least = _of_replicas(spec, asked.get("onDemandMinimum", "50%")) if both else 0
    return Availability(least, max(1, _of_replicas(spec, asked.get("maxPerSpotPool", "25%"))))


def _of_replicas(spec: Raw, amount: int | str) -> int:
    """A number, or a percentage of an InferenceService's replicas, rounded up."""
    if isinstance(amount, int):
        return amount
    return -(-int(spec.get("replicas", 1)) * int(amount.removesuffix("%")) // 100)


def to_request(spec: Raw, kind: Kind, volume: Callable[[str], Affinity] = lambda claim: (), name: str = "") -> Request:
    """What the spec of an object of that name asks for. Raises Misconfigured with the field at fault and the remedy."""
    parsed = _parse(_SPECS[kind], spec, "spec")
    template = _parse(Template, spec["template"], "spec", "template")
    for problem in problems(template, kind):
        raise problem
    _check_container(parsed.gpus, template.spec)
    training = parsed if isinstance(parsed, TrainingJobSpec) else None
    claim = claim_of(name, spec.get("checkpoint") or {}) if training else ""
    return Request(
        workers=parsed.workers if isinstance(parsed, TrainingJobSpec) else parsed.replicas,
        demand=_demand(parsed.gpus),
        shape=replace(
            to_shape(template.spec, spec["template"]["spec"], volume, [claim] if claim else []),
            spot=Spot(parsed.spot),
        ),
        tensor=parsed.parallelism.tensor,
        pipeline=training.parallelism.pipeline if training else 1,
        topology=_topology(training.topology) if training and training.topology else None,
        elastic=_elastic(training) if training else None,
    )


def to_restart(spec: Raw) -> Restart:
    """What is to be done when an attempt ends badly, of a spec that is sound."""
    asked = _parse(training_job.Restart, spec.get("restart") or {}, "spec", "restart")
    hang = {"auto": None, "never": inf}
    seconds = hang[asked.hang_timeout] if asked.hang_timeout in hang else _seconds(asked.hang_timeout)
    return Restart(asked.max_restarts, duration_seconds(asked.backoff), seconds)


def to_idle_policy(spec: Raw) -> IdlePolicy:
    """When a job's boards count as idle, and what is done then, of a spec that is sound."""
    asked = _parse(training_job.IdlePolicy, spec.get("idlePolicy") or {}, "spec", "idlePolicy")
    return IdlePolicy(IdleAction(asked.action), 60.0 * asked.after_minutes, asked.below_percent / 100)


def to_shape(pod: PodSpec, raw: Raw, volume: Callable[[str], Affinity], claims: Sequence[str] = ()) -> PodShape:
    """What a pod asks of a node besides GPUs. `claims` are mounted besides those of its own volumes."""
    required = pod.affinity.node_affinity.required if pod.affinity and pod.affinity.node_affinity else None
    own = [v.persistent_volume_claim.claim_name for v in pod.volumes or () if v.persistent_volume_claim]
    return PodShape(
        requests=tuple(sorted(pod_requests(raw).items())),
        node_selector=tuple(sorted((pod.node_selector or {}).items())),
        affinity=tuple(
            tuple(Requirement(e.key, e.operator, tuple(e.values or ())) for e in term.match_expressions or ())
            for term in (required.node_selector_terms if required else ())
        ),
        volume_affinity=tuple(affinity for affinity in map(volume, dict.fromkeys([*own, *claims])) if affinity),
        tolerations=tuple(
            Toleration(t.key or "", t.operator or "Equal", t.value or "", t.effect or "") for t in pod.tolerations or ()
        ),
    )


def spec_digest(spec: Raw) -> str:
    """A digest of what a TrainingJob's pods are made from, the same when a version adds fields with defaults.

    The template is taken as it is written: our schema gives nothing in it a default.
    """
    parsed = _parse(TrainingJobSpec, spec, "spec")
    made_from = parsed.model_dump(mode="json", include=set(FIXED) - {"template"}, exclude_defaults=True)
    text = json.dumps([made_from, spec["template"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parse(model: type[T], value: Any, *under: str) -> T:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise first_problem(error, *under) from error


def _check_container(gpus: Gpus, pod: PodSpec) -> None:
    names = [container.name for container in pod.containers]
    if gpus.container is not None and gpus.container not in names:
        message = f"{gpus.container!r} is no container of the template: use one of {', '.join(names)}"
        raise Misconfigured("spec.gpus.container", message)


def _demand(gpus: Gpus) -> Demand:
    memory = None if gpus.memory is None else -int(-parse_quantity(gpus.memory) // 1)
    return Demand(count=gpus.count, profile=gpus.profile, memory_bytes=memory, models=tuple(gpus.models or ()))


def _elastic(spec: TrainingJobSpec) -> Elastic | None:
    if (asked := spec.elastic) is None:
        return None
    return Elastic(asked.min_workers, asked.max_workers, least_step(spec.gpus, spec.parallelism, spec.topology))


def _topology(asked: training_job.Topology) -> Topology:
    """How close together, and in which groups, the largest first."""
    groups = sorted(asked.groups or (), key=lambda group: -group.size)
    return Topology(
        asked.level,
        TopologyMode(asked.mode),
        tuple(Group(group.size, group.level, TopologyMode(group.mode)) for group in groups),
    )


def _priority(name: str, priorities: Mapping[str, int]) -> int:
    if name and name not in priorities:
        there = ", ".join(sorted(key for key in priorities if key and not key.startswith("system-")))
        remedy = f"use one of {there}, or leave it out" if there else "create it, or leave it out"
        raise Misconfigured("spec.priorityClassName", f"there is no PriorityClass {name!r}: {remedy}")
    return priorities.get(name, 0)


def _queue_name(spec: Raw, metadata: Raw) -> str:
    return str(spec.get("queueName") or (metadata.get("labels") or {}).get(QUEUE_LABEL) or "")


def _kept_queue(status: Raw, attempt: Attempt | None) -> str:
    """The queue that a live attempt is charged to: it stays there when its namespace gets another default."""
    return str(status.get("queue") or "") if attempt else ""


def to_carbon(spec: Raw) -> CarbonTerms | None:
    """What emitting less is worth, of a spec that is sound."""
    asked = spec.get("carbon")
    if not asked:
        return None
    budget = asked.get("budget")
    share = None if budget is None else int(budget.removesuffix("%")) / 100
    return CarbonTerms(asked.get("pricePerTonne"), share, _seconds(asked.get("maxDelay")))


def _seconds(text: str | None) -> float | None:
    return duration_seconds(text) if text else None


def _grace_seconds(spec: Raw) -> float:
    """From SIGTERM to SIGKILL: as the checkpoint says, else the template, else as Kubernetes has it."""
    if spec.get("checkpoint"):
        return float(spec["checkpoint"].get("graceSeconds", 120))
    pod = (spec.get("template") or {}).get("spec") or {}
    return float(pod.get("terminationGracePeriodSeconds") or DEFAULT_GRACE_SECONDS)


def _saved_at(status: Raw) -> float:
    """When the live attempt saved last: what it resumed from was saved before it began."""
    saved = status.get("checkpoint") or {}
    return from_rfc3339(saved.get("time")) if saved.get("attempt") == status.get("attempt") else 0.0


def _expected_end(status: Raw) -> float:
    """When the live attempt expects to be done: what one before it told is no longer true."""
    told = status.get("progress") or {}
    started = from_rfc3339(status.get("startedAt"))
    return from_rfc3339(told.get("estimatedEnd")) if started and from_rfc3339(told.get("time")) >= started else 0.0


def _finished(status: Raw) -> str:
    conditions = status.get("conditions")
    return next((outcome for outcome in ("Succeeded", "Failed") if is_true(conditions, outcome)), "")


def _attempt(status: Raw) -> Attempt | None:
    """The attempt whose placement is recorded; it is until its room is released."""
    placement = status.get("placement")
    if not placement:
        return None
    try:
        whole = placement_from(placement)
    except (KeyError, ValueError) as error:
        raise Misconfigured("status.placement", "not as Berth wrote it: delete the object and remake it") from error
    return Attempt(
        number=status.get("attempt") or 1,
        placement=whole,
        admitted_at=from_rfc3339(status.get("admittedAt")),
        stopping=status.get("stopping") or "",
        done=_ranks(status.get("finishedRanks")),
        missing_since=from_rfc3339(status.get("missingSince")),
        spec_digest=status.get("specDigest") or "",
        stopping_since=from_rfc3339(status.get("stoppingSince")),
    )


def _ranks(text: str | None) -> frozenset[int]:
    try:
        return frozenset(ranks_from(text) if text else ())
    except ValueError as error:
        message = "not as Berth wrote it: delete the object and remake it"
        raise Misconfigured("status.finishedRanks", message) from error
