"""What a workload uses from one moment to another: boards x hours, in dollars, kWh and kg CO2e.

Beside it stands what it would have come to if it had started at once, on demand, and nothing had interrupted it: the
same boards in the same region, at the price on demand, in the hours that follow its creation. What an attempt held
boards for in vain is no part of that, unless the program or its user ended it.
See docs/decisions/0027-usage-and-cost.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from berth.model.carbon import HOUR_SECONDS
from berth.model.energy import board_watts, drawn_watts, kilograms, kilowatt_hours
from berth.model.failures import HUNG
from berth.model.gpus import MODELS, BoardModel
from berth.model.prices import BUSY, CapacityType, Place, PriceBook
from berth.model.usage import Amounts, Bought, Usage, week_of
from berth.model.workloads import Device, Kind, Pod, Workload
from berth.planning.lifecycle import ENDED, ON_NODES
from berth.planning.options import boards_of

WEEK_SECONDS = 7 * 24 * 3600
FIRST_MONDAY = 4 * 24 * 3600  # of the epoch, in seconds
OF_ITS_OWN = (HUNG, "Failed", "MaxRuntimeExceeded", "Restarted", "Suspended")  # what ends attempts on demand, too
KNOWN = {model.name: model for model in MODELS}

Intensity = Callable[[str, int], float | None]
"""The g/kWh of an hour since the epoch in a region; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is known of prices and of carbon intensity."""

    book: PriceBook
    intensity: Intensity


@dataclass(frozen=True, slots=True)
class Hold:
    """Boards of one model in one place, held for some time."""

    model: str
    place: Place
    watts: float | None  # that each of its boards draws, as measured; None: not measured
    since: float  # seconds since the epoch
    until: float


Holds = Mapping[Hold, float]
"""Boards by how they are held; an instance is a part of one."""

Places = Callable[[str, str], Place]
"""Where a node is, by its name and the board model that a workload has there."""

Watts = Callable[[str, str], float | None]
"""What each board draws that a pod holds, by node and "namespace/name" of the pod; None: nobody measures it."""


def holds(w: Workload, places: Places, watts: Watts, until: float, now: float) -> Holds:
    """What a workload held from `until` to `now`.

    An attempt holds the boards of all members from its admission on, as quota counts it, and each until its pod ends.
    A service holds those of the pods that it has on nodes now.
    """
    found: dict[Hold, float] = {}
    for device, node, begin, end, pod in _members(w) if w.ref.kind is Kind.TRAINING_JOB else _replicas(w):
        begin, end = max(begin, until), min(end or now, now)
        if begin < end:
            drawn = watts(node, f"{w.ref.namespace}/{pod.name}") if pod else None
            model = KNOWN.get(device.model)
            boards = float(boards_of(device, model)) if model else float(device.count)
            hold = Hold(device.model, places(node, device.model), drawn, begin, end)
            found[hold] = found.get(hold, 0.0) + boards
    return found


Member = tuple[Device, str, float, float, Pod | None]


def _members(w: Workload) -> Iterator[Member]:
    """Device, node, begin and end (0: not yet) of each member, and its pod."""
    attempt = w.attempt
    if attempt is None:
        return
    pods = {pod.index: pod for pod in sorted(w.pods, key=lambda p: p.created) if pod.attempt == attempt.number}
    for rank, node in enumerate(attempt.placement.nodes):
        pod = pods.get(rank)
        if not node or (pod is None and rank in attempt.done):
            continue  # it has no node yet; or it was counted when its end was written down
        ended = pod.ended_at if pod is not None and pod.phase in ENDED else 0.0
        yield attempt.placement.device, node, attempt.admitted_at, ended, pod


def _replicas(w: Workload) -> Iterator[Member]:
    for pod in w.pods:
        device = pod.device or w.served_device
        if device is not None and pod.node and pod.phase in ON_NODES:
            yield device, pod.node, pod.created, 0.0, pod


def metered(usage: Usage, held: Holds, tariff: Tariff, now: float, created: float | None) -> Usage:
    """The usage until `now`. `created`: when a job could have started; None: it is a service, which can't shift."""
    begun = min((hold.since for hold in held), default=now)
    earlier = 0.0 if created is None else begun - (created + usage.ran_seconds)
    found = usage
    for hold, boards in held.items():
        for start, end in _by_weeks(hold.since, hold.until):
            amounts = _amounts(hold, boards, tariff, start, end)
            usual = _on_demand(hold, boards, tariff, start - earlier, end - earlier)
            some = Bought(hold.model, hold.place.capacity, hold.place.region, amounts + usual)
            found = found.and_some(week_of(start), some)
    ran = 0.0 if created is None else max((hold.until for hold in held), default=now) - begun
    return replace(found, until=now, ran_seconds=usage.ran_seconds + ran)


def without_reruns(usage: Usage, held: Holds, tariff: Tariff, reason: str, useful: float, created: float) -> Usage:
    """The usage after an attempt that held this ended for that reason: all but `useful` seconds will be done again.

    On demand nothing of that would have been held, unless the reason is the program's or its user's.
    """
    begun, now = min((hold.since for hold in held), default=0.0), max((hold.until for hold in held), default=0.0)
    vain = min(now - begun - useful, usage.ran_seconds)
    if reason in OF_ITS_OWN or vain <= 0:
        return usage
    end = created + usage.ran_seconds
    found = usage
    for hold, boards in held.items():
        usual = _on_demand(hold, -boards, tariff, end - vain, end)
        found = found.and_some(week_of(now), Bought(hold.model, hold.place.capacity, hold.place.region, usual))
    return replace(found, ran_seconds=usage.ran_seconds - vain)


def useful_seconds(w: Workload) -> float:
    """For how long the live attempt worked towards its last durable checkpoint."""
    return max(0.0, w.saved_at - w.started_at) if w.started_at else 0.0


def _amounts(hold: Hold, boards: float, tariff: Tariff, start: float, end: float) -> Amounts:
    model, hours = KNOWN.get(hold.model), (end - start) / HOUR_SECONDS
    kwh = _energy(hold, boards, model, tariff, end - start)
    grams, share = _mean(tariff.intensity, hold.place.region, start, end)
    usd = tariff.book.usd_per_hour(model, hold.place.region, hold.place.capacity) if model else 0.0
    return Amounts(
        gpu_hours=boards * hours,
        kwh=kwh,
        kg=kilograms(kwh * share, grams),
        usd=boards * hours * usd,
        unknown_kwh=kwh * (1 - share),
    )


def _on_demand(hold: Hold, boards: float, tariff: Tariff, start: float, end: float) -> Amounts:
    model, hours = KNOWN.get(hold.model), (end - start) / HOUR_SECONDS
    kwh = _energy(hold, boards, model, tariff, end - start)
    grams, share = _mean(tariff.intensity, hold.place.region, start, end)
    usd = tariff.book.usd_per_hour(model, hold.place.region, CapacityType.ON_DEMAND) if model else 0.0
    known = share == 1.0 or not kwh
    return Amounts(on_demand_usd=boards * hours * usd, on_demand_kg=kilograms(kwh, grams) if known else None)


def _energy(hold: Hold, boards: float, model: BoardModel | None, tariff: Tariff, seconds: float) -> float:
    """In kWh; of boards that no table knows, only what is measured."""
    if model is None:
        return kilowatt_hours(drawn_watts(boards, hold.watts), seconds) if hold.watts is not None else 0.0
    watts = board_watts(model, BUSY) if hold.watts is None else hold.watts
    return kilowatt_hours(drawn_watts(boards, watts, pue=tariff.book.pue(model, hold.place)), seconds)


def _mean(intensity: Intensity, region: str, start: float, end: float) -> tuple[float, float]:
    """The mean g/kWh of the hours that are known, and their share of the time."""
    sums, known = 0.0, 0.0
    for begin, finish in _pieces(start, end, HOUR_SECONDS, 0):
        grams = intensity(region, int(begin // HOUR_SECONDS))
        if grams is not None:
            sums, known = sums + grams * (finish - begin), known + finish - begin
    whole = known >= (end - start) * (1 - 1e-9)
    return (sums / known, 1.0 if whole else known / (end - start)) if known else (0.0, 0.0)


def _by_weeks(start: float, end: float) -> Sequence[tuple[float, float]]:
    return list(_pieces(start, end, WEEK_SECONDS, FIRST_MONDAY))


def _pieces(start: float, end: float, length: int, offset: int) -> Iterator[tuple[float, float]]:
    """The parts of a stretch of time between multiples of a length, counted from an offset."""
    while start < end:
        finish = min(end, ((start - offset) // length + 1) * length + offset)
        yield start, finish
        start = finish
