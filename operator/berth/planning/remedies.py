"""What would make a pending job fit: each answer planned on a changed copy of the snapshot, which then admitted it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from berth.model.gpus import MODELS
from berth.model.workloads import Demand, Device, Request, TopologyMode
from berth.planning.admission import Choice, choices
from berth.planning.growth import more_nodes, more_quota
from berth.planning.options import MIB, boards_of, name_of
from berth.planning.packing import most_that_fit
from berth.planning.problems import problem_with
from berth.planning.relief import cleared, freed, gave_way, moved
from berth.planning.scratch import Scratch, gang_of
from berth.planning.terms import terms
from berth.planning.trials import Remedy, Trial, Way, details_of, place_text
from berth.planning.whatif import room_for

MOST_DEVICES = 3  # other devices named: the cheapest that fit; a longer list is no advice
MOST_TRIES = 8  # other devices planned for, at most: each costs a plan


def remedies(t: Trial, s: Scratch) -> tuple[Remedy, ...]:
    """Everything found that would place it; `s` is what is left after everything was planned."""
    tried = choices(s, t.job, t.request)
    found: list[Remedy | None] = [_fewer(t, s, tried), *_devices(t, s, tried), _looser(t, s)]
    found += [
        freed(t, s, tried) or cleared(t, s),
        moved(t),
        gave_way(t),
        more_quota(t, s, tried),
        more_nodes(t, s, tried),
        *terms(t, s, tried),
    ]
    return tuple(remedy for remedy in found if remedy is not None)


def _fewer(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    """The most members that fit at once, on one device and within quota."""
    bounds = set()
    for choice in tried:
        device, boards = choice.option.device, choice.option.boards
        room = room_for(s, t.job, t.request, device)
        left = s.quota.left(t.job.queue, s.model(device.model))
        fits = most_that_fit(room, gang_of(t.request, device, s.fleet.levels, t.request.workers)) if room else 0
        bounds.add(fits if left is None else min(fits, int(left / boards)))
    for n in sorted(bounds, reverse=True):
        fewer = replace(t.request, workers=n)
        if 0 < n < t.request.workers and not problem_with(fewer, t.kind, s.fleet) and (place := t.places(fewer)):
            message = f"{t.members(t.held + n)} instead of {t.held + t.request.workers}: {place_text(s, place)}"
            return Remedy(Way.FEWER_MEMBERS, message, {"members": t.held + n, **details_of(place)})
    return None


def _devices(t: Trial, s: Scratch, tried: Sequence[Choice]) -> list[Remedy]:
    """Other devices with room now: with no less memory by price, then smaller ones, the largest first."""
    if t.held:
        return []  # the replicas that run would have to change with the others
    asked = {c.option.device for c in tried if c.reason is None}
    wanted = _wanted_mib(t.request.demand, tried)
    usd = min((c.option.usd_per_hour for c in tried), default=0.0)
    others = [entry for entry in _every(s, t.request) if entry[0] not in asked and _has_room(s, t, *entry[:2])]
    others.sort(key=lambda e: (e[3] < wanted, -e[3] if e[3] < wanted else e[2], e[2], e[0].model, e[0].resource))
    found: list[Remedy] = []
    for device, request, price, mib in others[:MOST_TRIES]:
        place = None if problem_with(request, t.kind, s.fleet) else t.places(request)
        if place is None:
            continue
        dearer = f", {price / usd:.2g} times the price" if usd and price != usd else ""
        less = f", if {mib // 1024} GiB of memory are enough" if mib < wanted else ""
        ask = _asked(request)
        message = f"{name_of(device)} for each (gpus: {ask}){dearer}{less}: {place_text(s, place)}"
        found.append(Remedy(Way.ANOTHER_DEVICE, message, {"usdPerHour": price, "memoryMiB": mib, **details_of(place)}))
        if len(found) == MOST_DEVICES:
            break
    return found


def _every(s: Scratch, request: Request) -> Iterator[tuple[Device, Request, float, int]]:
    """Each device of the fleet, the request that asks for it alone, dollars per hour and MiB of one member."""
    for name, pool in s.fleet.pools.items():
        for resource in pool.stock:
            profile = pool.model.profile_of(resource)
            count = 1 if profile else request.demand.count or 1
            device = Device(name, resource, count)
            demand = Demand(profile=profile.name, models=(name,)) if profile else Demand(count=count, models=(name,))
            usd = float(boards_of(device, pool.model)) * pool.model.usd_per_hour
            mib = profile.usable_mib if profile else pool.model.memory_mib * count
            yield device, replace(request, demand=demand), usd, mib


def _has_room(s: Scratch, t: Trial, device: Device, request: Request) -> bool:
    room = room_for(s, t.job, request, device)
    gang = gang_of(request, device, s.fleet.levels, request.workers)
    return room is not None and most_that_fit(room, gang) >= request.workers


def _wanted_mib(demand: Demand, tried: Sequence[Choice]) -> int:
    """Memory of a member that is asked for, or that the smallest device has that was."""
    if demand.memory_bytes is not None:
        return -(-demand.memory_bytes // MIB)
    models = [m for m in MODELS if not demand.models or any(m.answers_to(name) for name in demand.models)]
    if demand.profile is not None:
        profiles = (m.profile(demand.profile) for m in models)
        return min((p.usable_mib for p in profiles if p), default=0)
    return min((c.option.memory_mib for c in tried), default=min((m.memory_mib for m in models), default=0))


def _looser(t: Trial, s: Scratch) -> Remedy | None:
    """The closest broader level that holds it, or no bound at all."""
    topology = t.request.topology
    if topology is None or topology.mode is not TopologyMode.REQUIRED:
        return None
    names = [level.name for level in t.policy.levels]
    broader = reversed(names[: names.index(topology.level)]) if topology.level in names else ()
    for name in broader:
        if place := t.places(replace(t.request, topology=replace(topology, level=name))):
            message = f"topology.level {name} instead of {topology.level}: {place_text(s, place)}"
            return Remedy(Way.LOOSER_TOPOLOGY, message, {"level": name, "mode": "Required", **details_of(place)})
    if place := t.places(replace(t.request, topology=replace(topology, mode=TopologyMode.PREFERRED))):
        message = f"topology.mode Preferred instead of Required: {place_text(s, place)}"
        return Remedy(Way.LOOSER_TOPOLOGY, message, {"level": topology.level, "mode": "Preferred", **details_of(place)})
    return None


def _asked(request: Request) -> str:
    demand = request.demand
    what = f"profile: {demand.profile}" if demand.profile else f"count: {demand.count}"
    return f"{{{what}, models: [{', '.join(demand.models)}]}}"
