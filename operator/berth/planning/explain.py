"""Why one workload is where it is: the causes by node, the options with their prices, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from berth.model.reasons import LATER, Reason, Verdict
from berth.model.workloads import Demand, Device, Kind, Placement, Pod, Ref, Request, Workload
from berth.planning.actions import Admit, LayOut, Plan
from berth.planning.admission import Choice, choices
from berth.planning.ahead import Ahead
from berth.planning.lifecycle import ON_NODES
from berth.planning.options import demand_for
from berth.planning.packing import most_that_fit
from berth.planning.plan import worked_out
from berth.planning.remedies import remedies
from berth.planning.resizing import why_not_larger
from berth.planning.running import Running, running_now
from berth.planning.scratch import Scratch, gang_of
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.trials import Remedy, Trial, Way, duration, settled
from berth.planning.waiting import causes_by_node
from berth.planning.whatif import concerning, room_for, with_workload, without

MOST_EXAMPLES = 3  # nodes named for a cause


class State(StrEnum):
    """Where a workload is."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    RUNNING = "Running"  # all its members have nodes
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    MISCONFIGURED = "Misconfigured"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why nodes can't hold a member, each node by its first cause."""

    cause: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A device that would do: what fits on it now, what it costs, and what forbids it."""

    device: Device
    usd_per_hour: float  # list price of all members
    boards: str  # charged to quota for all members, as an exact fraction
    fits: int
    wanted: int
    reason: str  # of what forbids it whatever room there is, such as "WaitingForQuota"; "": nothing
    message: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say of one workload at one moment."""

    ref: Ref
    state: State
    now: float
    queue: str
    priority: int
    asks: str
    verdict: Verdict  # of a plan made now
    recorded: Verdict | None  # the one that the operator last wrote down
    causes: tuple[Cause, ...] = ()
    offers: tuple[Offer, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    running: Running | None = None
    notes: tuple[str, ...] = ()


def explain(snapshot: Snapshot, policy: Policy, now: float, w: Workload) -> Explanation:
    """Why a workload of the snapshot is where it is; now in seconds since the epoch."""
    s, made = worked_out(snapshot, policy, now)
    verdict = s.verdicts.get(w.ref.uid) or w.verdict or Verdict(str(state_of(w, None)), "")
    state = state_of(w, verdict)
    notes = (*_layouts(made, w), *filter(None, (why_not_larger(s, snapshot.workloads, w),)))
    told = Explanation(w.ref, state, now, w.queue, w.priority, asks(w), verdict, w.verdict, notes=notes)
    if w.request is None or state in (State.SUCCEEDED, State.FAILED, State.MISCONFIGURED, State.DELETING):
        return told
    placement = _placement(w)
    running = running_now(snapshot, policy, now, w, w.request, placement) if placement else None
    if state in (State.RUNNING, State.STOPPING):
        return replace(told, running=running)
    return replace(_waiting(told, snapshot, policy, w, w.request), running=running)


def state_of(w: Workload, verdict: Verdict | None) -> State:
    """Where a workload is, with the verdict of a plan made now; None: no plan has one."""
    if w.finished:
        return State(w.finished)
    if w.deleting:
        return State.DELETING
    if w.attempt is not None:
        return State.STOPPING if w.attempt.stopping else State.RUNNING
    if verdict is not None and verdict.reason == Reason.MISCONFIGURED:
        return State.MISCONFIGURED
    if w.ref.kind is Kind.INFERENCE_SERVICE and w.request is not None:
        return State.RUNNING if len(_held(w)) >= w.request.workers else State.PENDING
    return State.SUSPENDED if w.suspend else State.PENDING


def _layouts(made: Plan, w: Workload) -> tuple[str, ...]:
    """What the next plan of the operator would begin to lay out for it."""
    name = f"{w.ref.namespace}/{w.ref.name}"
    begun = (a for a in made.layouts if isinstance(a, LayOut) and a.relayout.workload == name)
    return tuple(
        f"the next plan of the operator has boards of {a.node} laid out for it, at ${a.relayout.usd:.2f}: {a.why}"
        for a in begun
    )


def _placement(w: Workload) -> Placement | None:
    """Where its members are; None where none has a node."""
    if w.attempt is not None:
        return w.attempt.placement if any(w.attempt.placement.nodes) else None
    nodes = tuple(sorted(pod.node for pod in _held(w)))
    return Placement(w.served_device, nodes) if nodes and w.served_device else None


def _held(w: Workload) -> list[Pod]:
    return [p for p in w.pods if p.phase in ON_NODES and not p.terminating]


def asks(w: Workload) -> str:
    """What it asks for, in words."""
    if w.request is None:
        return ""
    r, service = w.request, w.ref.kind is Kind.INFERENCE_SERVICE
    unit = "replica" if service else "worker"
    near = f", {r.topology.mode.lower()} in one {r.topology.level}" if r.topology else ""
    tensor = f", groups of {r.tensor} boards that share NVLink" if r.tensor > 1 else ""
    many = f"{r.elastic.least} to {r.elastic.most}, best {r.workers}" if r.elastic else str(r.workers)
    return f"{many} {unit}{'s' if r.sizes[-1] > 1 else ''} with {_demand(r.demand)} each{near}{tensor}"


def _demand(demand: Demand) -> str:
    models = " or ".join(demand.models)
    if demand.count is not None:
        boards = f"{demand.count} board{'s' if demand.count > 1 else ''}"
        return f"{boards} of {models}" if models else boards
    what = demand.profile or f"{(demand.memory_bytes or 0) / 2**30:g} GiB of GPU memory"
    return f"{what} of {models}" if models else what


def _waiting(told: Explanation, snapshot: Snapshot, policy: Policy, w: Workload, request: Request) -> Explanation:
    """The causes, options and remedies of what has no place yet, as if nothing but room and quota held it back."""
    trial = _trial(snapshot, policy, told.now, w, request)
    s = settled(concerning(trial.snapshot, trial.job), policy, told.now)
    notes = list(told.notes)
    if w.suspend:
        notes.append("spec.suspend is true: below is what would hold if it were false")
    if told.verdict.reason in LATER:
        awaited = "spot capacity" if told.verdict.reason == Reason.WAITING_FOR_SPOT else "cleaner hours"
        notes.append(f"it waits for {awaited}: below is what would hold if it did not")
    if w.not_before > told.now:
        notes.append(f"it is tried again in {duration(w.not_before - told.now)}: below is what would hold then")
    admitted = next((a for a in s.actions if isinstance(a, Admit) and a.ref == trial.job.ref), None)
    if admitted is not None:
        would = (
            "it would be placed"
            if w.suspend or w.not_before > told.now or told.verdict.reason in LATER
            else "the next plan of the operator places it"
        )
        freed = _held_back(told, w, f"{admitted.verdict.message}")
        return replace(told, remedies=freed, notes=(*notes, f"{would}: {admitted.verdict.message}"))
    trial = replace(trial, request=trial.request.smallest)
    tried = choices(s, trial.job, trial.request, options=Ahead(s).options(trial.request))
    return replace(
        told,
        causes=_causes(s, trial, tried),
        offers=tuple(_offer(s, trial, choice) for choice in tried),
        remedies=remedies(trial, s),
        notes=tuple(notes),
    )


def _held_back(told: Explanation, w: Workload, then: str) -> tuple[Remedy, ...]:
    """What its user could change where nothing else holds it back."""
    found = []
    if w.suspend:
        found.append(Remedy(Way.RESUME, f"spec.suspend false, as `berth resume` sets it: {then}", {"suspend": False}))
    if told.verdict.reason == Reason.DEFERRED_FOR_CARBON:
        found.append(Remedy(Way.WITHOUT_CARBON, f"no spec.carbon, at the carbon of now: {then}", {"carbon": None}))
    return tuple(found)


def _trial(snapshot: Snapshot, policy: Policy, now: float, w: Workload, request: Request) -> Trial:
    """A pending job as it is; for a service, a job that stands for the replicas that have no node yet."""
    if w.ref.kind is Kind.TRAINING_JOB:
        waits = w.verdict is not None and w.verdict.reason == Reason.WAITING_FOR_SPOT
        job = replace(w, suspend=False, not_before=0.0, carbon=None, deadline=None if waits else w.deadline)
        return Trial(with_workload(snapshot, job), policy, now, job, request, w.ref.kind)
    held = [pod for pod in w.pods if pod.phase in ON_NODES]
    there = min(len(_held(w)), request.workers)
    staying = replace(w, request=replace(request, workers=max(1, there)), pods=tuple(held))
    device = w.served_device
    demand = request.demand
    if device is not None and there:
        demand = demand_for(device)
    missing = replace(request, workers=request.workers - there, demand=demand)
    ref = Ref(Kind.TRAINING_JOB, w.ref.namespace, w.ref.name, f"{w.ref.uid}-waiting")
    job = replace(w, ref=ref, request=missing, pods=(), served_device=None)
    rest = with_workload(snapshot, staying) if there else without(snapshot, [w])
    return Trial(with_workload(rest, job), policy, now, job, missing, w.ref.kind, there)


def _causes(s: Scratch, t: Trial, tried: Sequence[Choice]) -> tuple[Cause, ...]:
    """Which nodes fail for which cause, most first; where quota or price forbids everything, as if it did not."""
    open_ones = [c for c in tried if c.reason is None] or list(tried)
    fields = [f for c in open_ones if (f := room_for(s, t.job, t.request, c.option.device)) is not None]
    within = gang_of(t.request, open_ones[0].option.device, s.fleet.levels, 1).within if open_ones else None
    named: dict[str, list[str]] = {}
    for node, cause in causes_by_node(s, fields, within):
        if cause:
            named.setdefault(cause, []).append(node)
    found = (Cause(cause, len(nodes), tuple(sorted(nodes)[:MOST_EXAMPLES])) for cause, nodes in named.items())
    return tuple(sorted(found, key=lambda c: (-c.count, c.cause)))


def _offer(s: Scratch, t: Trial, choice: Choice) -> Offer:
    option, request = choice.option, t.request
    room = room_for(s, t.job, request, option.device)
    fits = most_that_fit(room, gang_of(request, option.device, s.fleet.levels, request.workers)) if room else 0
    return Offer(
        device=option.device,
        usd_per_hour=option.usd_per_hour * request.workers,
        boards=str(option.boards * request.workers),
        fits=fits,
        wanted=request.workers,
        reason=str(choice.reason or ""),
        message=choice.message,
    )
