"""InferenceServices: a device for the Deployment, and a node for each replica by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Device, Pod, PodPhase, Request, Workload
from berth.planning.actions import LetGo, Pin, Replace, Serve
from berth.planning.admission import choices, fields_of
from berth.planning.cohorts import stopped
from berth.planning.field import Field
from berth.planning.interruptions import threat_to
from berth.planning.lifecycle import ON_NODES
from berth.planning.moves import MOST_DOUBLINGS, nearest
from berth.planning.options import boards_of, demand_for, name_of
from berth.planning.packing import most_that_fit, pack
from berth.planning.replicas import Mix, spot_pool
from berth.planning.scratch import Scratch, gang_of
from berth.planning.verdicts import PLACED
from berth.planning.waiting import no_match, waiting


def charge(s: Scratch, w: Workload) -> None:
    """Charge the replicas that hold a device to the queue of their service."""
    for pod in w.pods:
        device = pod.device or w.served_device
        if pod.phase in ON_NODES and device is not None:
            s.charge(w.queue, device, 1)


def lacking(s: Scratch, w: Workload) -> Request | None:
    """What the replicas ask for that wait at their gates, as a gang; None where none are lacking."""
    device = w.served_device
    if w.request is None or device is None or w.served_generation != w.generation:
        return None
    held = [p for p in w.pods if p.phase in ON_NODES and not p.terminating]
    count = min(len(_gated(w, device)), w.request.workers - len(held))
    if count <= 0:
        return None
    needs = Mix(s, w, w.request, device, held).needs
    return replace(needs, workers=count, demand=demand_for(device))


def serve(s: Scratch, w: Workload, request: Request, *, promised: bool = False) -> None:
    """Decide the next step of a service: its Deployment first, then pins for as many replicas as fit.

    Where others gave way to it (`promised`), also in room that is kept for work that starts later.
    """
    stuck = [p for p in w.pods if _is_stuck(s, p)]
    held = [p for p in w.pods if p.phase in ON_NODES and not p.terminating and p not in stuck]
    replacing = [Replace(w.ref, p.name, p.uid, p.message or "it stays unbound") for p in stuck]
    device = _device(s, w, request, bool(held))
    if device is None:
        s.decide(w.ref, no_match(request, s.fleet), *replacing)
        return
    count = request.workers + _surplus(s, w, request, device, held)
    if (device, w.generation) != (w.served_device, w.served_generation) or w.served_replicas not in (None, count):
        verdict = _verdict(s, w, request, device, held, [])
        s.decide(w.ref, verdict, *replacing, *_going(s, w, request, held, count), Serve(w.ref, device, count))
    else:
        stop = stopped(s.quota.cohorts, w.queue)
        pins = [] if stop else _pins(s, w, request, device, held, -inf if promised else inf)
        verdict = _verdict(s, w, request, device, held, pins)
        if stop and len(held) < request.workers:
            verdict = replace(verdict, reason=Reason.QUEUE_STOPPED, message=f"{verdict.message}; {stop}")
        leaving = [] if stop else _leaving(s, w, request, device, held) or _to_steady(s, w, request, device, held)
        s.decide(w.ref, verdict, *replacing, *leaving, *pins)


def _leaving(s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod]) -> list[Replace]:
    """Replicas whose nodes go away: as many as others have room for, and as its disruption budget can spare."""
    threats = [(threat, pod) for pod in held if (threat := threat_to(s, w, [pod])) is not None]
    field = s.open_field(request.shape, device, _shunned(s, w)) if threats else None
    if field is None:
        return []
    if w.served_replicas is not None and w.served_replicas > request.workers:
        return []  # others are made before they go
    spare = sum(pod.phase is PodPhase.READY for pod in held) - w.least_replicas
    room = most_that_fit(field, gang_of(request, device, s.fleet.levels, len(threats)))
    threats.sort(key=lambda one: (one[0].interruption.deadline or inf, one[1].name))
    return [Replace(w.ref, pod.name, pod.uid, str(threat)) for threat, pod in threats[: max(0, min(spare, room))]]


def _to_steady(s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod]) -> list[Replace]:
    """One replica that leaves spot capacity, where too few are on demand and there is room for it."""
    settled = len(held) == request.workers == sum(p.phase is PodPhase.READY for p in held) and request.topology is None
    mix = Mix(s, w, request, device, held)
    if not settled or len(held) <= w.least_replicas or not mix.lacks_on_demand:
        return []
    way = next(mix.ways())
    field = s.open_field(way.shape, device, _shunned(s, w))
    on_spot = [pod for pod in held if spot_pool(s.fleet.nodes.get(pod.node)) is not None]
    if field is None or not on_spot or not _affordable(s, w, request, field, 1):
        return []
    why = f"{mix.on_demand} of at least {mix.floor} replicas are on demand (spec.availability.onDemandMinimum)"
    return [Replace(w.ref, pod.name, pod.uid, why) for pod in mix.first_to_go(on_spot, 1)]


def _surplus(s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod]) -> int:
    """How many replicas are made before others go: as many on nodes that go away as its disruption budget can't spare.

    They are kept until as many as are wanted are ready elsewhere, for a ReplicaSet that gets smaller would first remove
    those that are not.
    """
    threatened = [pod for pod in held if threat_to(s, w, [pod]) is not None]
    if not threatened or w.served_replicas is None or stopped(s.quota.cohorts, w.queue):
        return 0
    ready = [pod for pod in held if pod.phase is PodPhase.READY]
    if sum(pod not in threatened for pod in ready) >= request.workers:
        return 0
    under_way = max(0, w.served_replicas - request.workers)
    lacking = len(threatened) - max(0, len(ready) - w.least_replicas) - under_way
    field = s.open_field(request.shape, device, _shunned(s, w)) if lacking > 0 else None
    return under_way + (_affordable(s, w, request, field, lacking) if field is not None else 0)


def _going(s: Scratch, w: Workload, request: Request, held: Sequence[Pod], count: int) -> list[LetGo]:
    """Which replicas a service that is to have `count` loses first, where they are not all alike."""
    device = w.served_device
    if device is None or len(held) <= count:
        return []
    gone = {pod.uid for pod in Mix(s, w, request, device, held).first_to_go(held, len(held) - count)}
    return [LetGo(w.ref, p.name, p.uid, p.uid in gone) for p in held if p.goes_first != (p.uid in gone)]


def _is_stuck(s: Scratch, pod: Pod) -> bool:
    if pod.phase is not PodPhase.PINNED or pod.terminating or not pod.pinned_at:
        return False
    end = pod.pinned_at + s.policy.bind_timeout_seconds
    s.wake(end)
    return end <= s.now


def _shunned(s: Scratch, w: Workload) -> frozenset[str]:
    """Nodes that hold a stuck replica or refused one lately; each refusal doubles the time."""
    refused: dict[str, list[Pod]] = {}
    for pod in w.pods:
        if pod.phase is PodPhase.FAILED and pod.refusal and pod.node:
            refused.setdefault(pod.node, []).append(pod)
    nodes = {p.node for p in w.pods if _is_stuck(s, p)}
    for node, pods in refused.items():
        doublings = min(len(pods) - 1, MOST_DOUBLINGS)
        until = max(p.created for p in pods) + s.policy.avoid_seconds * 2**doublings
        s.wake(until)
        if until > s.now:
            nodes.add(node)
    return s.avoided(w) | nodes


def _device(s: Scratch, w: Workload, request: Request, occupied: bool) -> Device | None:
    """The device to serve with: the present one while it satisfies the demand and may yet fit, else the best choice.

    1. The cheapest option in which all replicas fit. 2. The one in which most do. 3. The cheapest there is, so that
    the Deployment exists and its pods wait at their gates.
    """
    single = replace(request, workers=1)
    tried = choices(s, w, single)
    devices = [choice.option.device for choice in tried]
    served = w.served_device
    if served is not None and occupied and (served in devices or w.served_generation == w.generation):
        return served
    avoid = _shunned(s, w)
    fits: dict[Device, int] = {}
    for choice, _ in fields_of(s, w, single, tried):
        field = s.open_field(request.shape, choice.option.device, avoid)
        fits[choice.option.device] = _affordable(s, w, request, field, request.workers) if field else 0
    best = max(fits, key=lambda d: (fits[d], -devices.index(d)), default=devices[0] if devices else None)
    if served is not None and served in devices and (fits.get(served) or best is None or not fits.get(best)):
        return served
    return best or (served if w.served_generation == w.generation else None)


def _affordable(s: Scratch, w: Workload, request: Request, field: Field, wanted: int, until: float = inf) -> int:
    """How many of `wanted` replicas that stay until then have room and quota now."""
    model, each = field.pool.model, boards_of(field.device, field.pool.model)
    left = s.quota_left(w.queue, field.device, until)
    most = wanted if left is None else min(wanted, int(left / each))
    if (bound := s.owed.to_borrow(w.queue, model, each * most)) is not None:
        most = min(most, int(max(bound[0], s.quota.nominal_left(w.queue, model) or 0) / each))
    return most_that_fit(field, gang_of(request, field.device, s.fleet.levels, most))


def _gated(w: Workload, device: Device) -> list[Pod]:
    """The replicas that wait at their gates; those of an older Deployment with another device are left out."""
    waiting = (p for p in w.pods if p.phase is PodPhase.GATED and not p.terminating)
    return [p for p in waiting if p.device is None or p.device == device]


def _pins(s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod], until: float) -> list[Pin]:
    """A node for each gated replica, as many as fit."""
    gated, shunned = _gated(w, device), _shunned(s, w)
    mix = Mix(s, w, request, device, held)
    if gated and mix.matters:
        return _mixed(s, w, request, device, held, until)
    request = mix.needs
    field = s.open_field(request.shape, device, shunned, until=until) if gated else None
    if field is None:
        return []
    gang = gang_of(request, device, s.fleet.levels, _affordable(s, w, request, field, request.workers, until))
    first = pack(field, gang) or () if not held else ()
    staying = dict(enumerate(p.node for p in held)) if request.topology else {}
    pins: list[Pin] = []
    for pod in sorted(gated, key=lambda p: (p.created, p.name)):
        field = s.open_field(request.shape, device, shunned, until=until) or field
        node = first[len(pins)] if len(pins) < len(first) else nearest(field, gang, len(staying), staying)
        if node is None or not _affordable(s, w, request, field, 1, until):
            break
        s.place(w, device, (node,), field.needs)
        if request.topology:
            staying[len(staying)] = node
        pins.append(Pin(w.ref, pod.name, pod.uid, node))
    return pins


def _mixed(s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod], until: float) -> list[Pin]:
    """A node for each gated replica, as many as fit, each on the capacity that it belongs on.

    Replicas of an older template are on their way out, and hold no place in the mix of the new ones.
    """
    shunned, gang, pins = _shunned(s, w), gang_of(request, device, s.fleet.levels, 1), list[Pin]()
    mixes: dict[str, Mix] = {}
    for pod in sorted(_gated(w, device), key=lambda p: (p.created, p.name)):
        mates = [p for p in held if p.revision == pod.revision and threat_to(s, w, [p]) is None]
        mix = mixes.setdefault(pod.revision, Mix(s, w, request, device, mates))
        for way in mix.ways():
            field = s.open_field(way.shape, device, shunned | way.without, until=until)
            node = nearest(field, gang, 0, {}) if field and _affordable(s, w, request, field, 1, until) else None
            if field is not None and node is not None:
                s.place(w, device, (node,), field.needs)
                mix.add(node)
                pins.append(Pin(w.ref, pod.name, pod.uid, node))
                break
        else:
            break
    return pins


def _verdict(
    s: Scratch, w: Workload, request: Request, device: Device, held: Sequence[Pod], pins: Sequence[Pin]
) -> Verdict:
    nodes = sorted(({p.node for p in held} | {p.node for p in pins}) - {""})
    count = len(held) + len(pins)
    on = f" on {', '.join(nodes)}" if nodes else ""
    mix = Mix(s, w, request, device, held)
    for pin in pins:
        mix.add(pin.node)
    message = f"{min(count, request.workers)} of {request.workers} replicas placed, {name_of(device)} each{on}"
    if on_spot := mix.on_spot.total():
        message += f" ({mix.on_demand} on demand, {on_spot} on spot capacity)"
    pinned = {p.pod_uid for p in pins}
    gated = [p for p in w.pods if p.phase is PodPhase.GATED and not p.terminating and p.uid not in pinned]
    if count >= request.workers:
        return _surge(s, w, request, device, [p for p in gated if p.device in (None, device)], message)
    if not gated or w.served_device != device:
        return Verdict(Reason.PENDING_EVALUATION, f"{message}; waits for its pods to be made", count, request.workers)
    why = waiting(s, w, replace(mix.needs, workers=request.workers - count), device, count)
    if lacks := mix.lacks_on_demand:
        message += f"; {lacks} more are to run on demand (spec.availability.onDemandMinimum)"
    return Verdict(why.reason, f"{message}; {why.message}", count, request.workers, why.nodes)


def _surge(s: Scratch, w: Workload, request: Request, device: Device, gated: Sequence[Pod], message: str) -> Verdict:
    """All replicas are placed; those of a rollout that have no room beside them hold it up."""
    current = w.served_device == device and w.served_generation == w.generation
    if not gated or not current:
        return Verdict(PLACED, message)
    first = min(p.name for p in gated)
    why = waiting(s, w, replace(request, workers=len(gated)), device, request.workers)
    remedy = "free a board for it, or set spec.rollout.maxSurge to 0"
    text = f"{message}; the rollout waits, since new replica {first} has no room beside the old ones ({why.message})"
    return Verdict(why.reason, f"{text}: {remedy}", request.workers, request.workers, why.nodes)
