"""What a pending job, or its queue, could state otherwise so that it is placed: where, when and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

from berth.model.nodes import Taint
from berth.model.reasons import Reason
from berth.model.workloads import Placement, Spot, StopPolicy, Toleration
from berth.planning.admission import Choice
from berth.planning.feasibility import why_not
from berth.planning.markets import least_usd
from berth.planning.quota import usd_per_hour
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Snapshot
from berth.planning.trials import Remedy, Trial, Way, details_of, duration, place_text

MOST_TAINTS = 3  # tried, each alone: a job that tolerates more is meant for those nodes by its author
ESTIMATES = (86400.0, 14400.0, 3600.0, 1800.0, 600.0)  # seconds, tried from the longest


def terms(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Iterator[Remedy]:
    """Each of these that would place it."""
    found = (_spot(t, s), _price(t, s, tried), _queue_price(t, s, tried), _stopped(t, s), _taint(t, s), _avoided(t, s))
    yield from (remedy for remedy in (*found, _estimate(t, s)) if remedy is not None)


def _spot(t: Trial, s: Scratch) -> Remedy | None:
    shape = t.request.shape
    if shape.spot is Spot.ALLOW:
        return None
    place = t.places(replace(t.request, shape=replace(shape, spot=Spot.ALLOW)))
    return _remedy(s, Way.SPOT, f"spec.spot Allow instead of {shape.spot}", place, spot="Allow")


def _price(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    limit = t.job.max_usd_per_hour
    if limit is None:
        return None
    prices = sorted({least_usd(s, t.request, c.option) for c in tried})
    for usd in (ceil(100 * price) / 100 for price in prices if price > limit):
        place = replace(t, job=replace(t.job, max_usd_per_hour=usd)).places()
        if place is not None:
            told = f"spec.maxPricePerHour {usd:.2f} instead of {limit:.2f}"
            return _remedy(s, Way.HIGHER_PRICE, told, place, maxPricePerHour=usd)
    return None


def _queue_price(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    for choice in tried:
        boards = choice.option.boards * t.request.workers
        needed = usd_per_hour(s.model(choice.option.device.model)) * boards
        for above, most in s.quota.cohorts.limits(t.job.queue):
            usd = ceil(100 * (s.quota.spent(above) + needed)) / 100
            if usd <= most:
                continue
            queue = replace(s.snapshot.queues[above], max_usd_per_hour=Fraction(str(usd)))
            place = t.places(snapshot=replace(t.snapshot, queues={**t.snapshot.queues, above: queue}))
            told = f"spec.maxPricePerHour {usd:.2f} of queue {above} instead of {float(most):.2f}"
            if place is not None:
                return _remedy(s, Way.HIGHER_PRICE, told, place, queue=above, maxPricePerHour=usd)
    return None


def _stopped(t: Trial, s: Scratch) -> Remedy | None:
    name, policy = s.quota.cohorts.stopped_by(t.job.queue)
    if policy is StopPolicy.NONE:
        return None
    place = t.places(snapshot=_going(t.snapshot, name))
    return _remedy(s, Way.QUEUE_GOES_ON, f"spec.stopPolicy None of queue {name}", place, queue=name, stopPolicy="None")


def _going(snapshot: Snapshot, name: str) -> Snapshot:
    queue = replace(snapshot.queues[name], stop_policy=StopPolicy.NONE)
    return replace(snapshot, queues={**snapshot.queues, name: queue})


def _taint(t: Trial, s: Scratch) -> Remedy | None:
    """Tolerating one taint that people gave to nodes; those of Kubernetes's own say that a node is not well."""
    shape = t.request.shape
    nodes = (node for pool in s.fleet.pools.values() for node in pool.nodes if node.taints and why_not(node, shape))
    taints: dict[Taint, None] = {}
    for node in nodes:
        taints |= dict.fromkeys(one for one in node.taints if "kubernetes.io/" not in one.key)
    for one in list(taints)[:MOST_TAINTS]:
        tolerated = (*shape.tolerations, Toleration(one.key, "Equal", one.value, one.effect))
        place = t.places(replace(t.request, shape=replace(shape, tolerations=tolerated)))
        if place is not None:
            told = f"a toleration of {one.key}={one.value}:{one.effect}"
            toleration = {"key": one.key, "operator": "Equal", "value": one.value, "effect": one.effect}
            return _remedy(s, Way.TOLERATION, told, place, toleration=toleration)
    return None


def _avoided(t: Trial, s: Scratch) -> Remedy | None:
    nodes = {node: until for node, until in t.job.avoid if until > t.now}
    if not nodes:
        return None
    until = max(nodes.values())
    place = replace(t, job=replace(t.job, avoid=())).places()
    told = f"time: {', '.join(sorted(nodes))} may be tried again in {duration(until - t.now)}"
    return _remedy(s, Way.TIME, told, place, seconds=round(until - t.now))


def _estimate(t: Trial, s: Scratch) -> Remedy | None:
    """The longest run that would delay nobody before whom it would go, where their room is all that hinders it."""
    verdict = s.verdicts.get(t.job.ref.uid)
    if verdict is None or verdict.reason != Reason.WAITING_FOR_RESERVATION:
        return None
    for seconds in ESTIMATES:
        if t.job.estimated_seconds is not None and seconds >= t.job.estimated_seconds:
            continue
        place = replace(t, job=replace(t.job, estimated_seconds=seconds)).places()
        if place is not None:
            text = f"{int(seconds // 60)}m"
            told = f"spec.estimatedRuntime {text}, if it ends within {duration(seconds)}"
            return _remedy(s, Way.SHORTER, told, place, estimatedRuntime=text)
    return None


def _remedy(s: Scratch, way: Way, told: str, place: Placement | None, **details: object) -> Remedy | None:
    if place is None:
        return None
    return Remedy(way, f"{told}: {place_text(s, place)}", {**details, **details_of(place)})
