"""Why a workload waits: how many members fit, what the other nodes lack, and the nearest thing that would change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from berth.model.gpus import WHOLE_BOARD
from berth.model.reasons import Reason, Verdict
from berth.model.topology import NVLINK_LEVEL, Level
from berth.model.workloads import Device, Kind, Request, Workload
from berth.planning.admission import Choice, choices, fields_of
from berth.planning.field import Field
from berth.planning.fleet import Fleet, Pool
from berth.planning.options import MIB, name_of
from berth.planning.packing import Gang, most_that_fit, pack
from berth.planning.scratch import Scratch, gang_of, linked_boards
from berth.planning.turns import kept_for_another

WITHOUT_GPUS, OTHER_GPUS = "without GPUs", "hold other GPUs"
MOST_CAUSES = 5  # causes named in a message; the rest are in the verdict's table


def waiting(s: Scratch, w: Workload, request: Request, device: Device | None = None, placed: int = 0) -> Verdict:
    """Why `request.workers` members can't be placed as things stand, beside those `placed` with that device."""
    tried = choices(s, w, request, placed)
    if device is not None:
        tried = [_served(choice) for choice in tried if choice.option.device == device]
    if not tried:
        return no_match(request, s.fleet)
    fields = list(fields_of(s, w, request, tried))
    if not fields:
        blocked = [c for c in tried if c.reason is not Reason.WAITING_FOR_CAPACITY]
        later = [c for c in blocked if c.reason in (Reason.WAITING_FOR_QUOTA, Reason.WAITING_FOR_TURN)]
        first = (later or blocked)[0]
        return Verdict(str(first.reason), first.message, 0, request.workers)
    if kept := kept_for_another(s, w, request, fields):
        return Verdict(Reason.WAITING_FOR_RESERVATION, kept, 0, request.workers)
    return _short_of_room(s, w, request, tried, fields)


def _served(choice: Choice) -> Choice:
    """A choice already made: its price forbids it no more."""
    return Choice(choice.option) if choice.reason is Reason.WAITING_FOR_CAPACITY else choice


def no_match(request: Request, fleet: Fleet) -> Verdict:
    """Why no node offers what a request demands, whatever is free."""
    demand = request.demand
    asked = [p for p in fleet.pools.values() if not demand.models or any(map(p.model.answers_to, demand.models))]
    have = _have(fleet)
    wanted = " or ".join(demand.models) or "GPUs"
    reason = Reason.NO_MATCHING_GPU
    if not asked:
        message = f"no node has {wanted}; {have}"
    elif request.tensor > 1 and not any(p.has_nvlink for p in asked):
        message = f"parallelism.tensor {request.tensor} needs NVLink; {have}, none of them with it"
    elif demand.count is not None:
        most, model = max((p.stock.get(WHOLE_BOARD, 0), p.model.name) for p in asked)
        lower = f": lower spec.gpus.count to {most} and raise workers" if most else ""
        message = f"asks {demand.count} boards of one node; the most that one offers is {most} ({model}){lower}"
    elif demand.profile is not None:
        reason = Reason.NO_FEASIBLE_MIG_LAYOUT
        if not any(p.model.profile(demand.profile) for p in asked):
            reason, message = Reason.NO_MATCHING_GPU, f"no node has boards with the profile {demand.profile}; {have}"
        else:
            message = f"no node has an instance of {demand.profile}; {_instances(asked)}: ask for one of these or wait"
    else:
        memory = (demand.memory_bytes or 0) // MIB
        message = f"no node has an instance or board with {memory} MiB; {have}"
    return Verdict(reason, message, 0, request.workers)


def _short_of_room(
    s: Scratch, w: Workload, request: Request, tried: list[Choice], fields: Sequence[tuple[Choice, Field]]
) -> Verdict:
    def gang(choice: Choice) -> Gang:
        return gang_of(request, choice.option.device, s.fleet.levels, request.workers)

    fits, best, field = max(
        ((most_that_fit(f, gang(c)), c, f) for c, f in fields), key=lambda entry: (entry[0], -tried.index(entry[1]))
    )
    scattered = field.total >= request.workers
    causes = _causes(s, [f for _, f in fields], gang(best).within)
    reason = Reason.TOPOLOGY_PLACEMENT_FAILED if scattered else Reason.WAITING_FOR_CAPACITY
    members = "workers" if w.ref.kind is Kind.TRAINING_JOB else "replicas"
    together = _together(request, gang(best), s.fleet.levels) if scattered else ""
    shown = "".join(f", {n} {cause}" for cause, n in causes[:MOST_CAUSES])
    message = f"{fits} of {request.workers} {members} fit{together}: {len(s.fleet.nodes)} nodes{shown}"
    remedy = _remedy(s, w, request, tried, field, gang(best), fits)
    return Verdict(reason, f"{message}: {remedy}", fits, request.workers, causes)


def _together(request: Request, gang: Gang, levels: tuple[Level, ...]) -> str:
    """What must be kept together, in words; "" where nothing must."""
    names = dict(enumerate(level.name for level in levels)) | {len(levels): NVLINK_LEVEL}
    kept = [f"one {request.topology.level}"] if request.topology and gang.within is not None else []
    for tier in gang.tiers:
        shared = "NVLink" if names[tier.level] == NVLINK_LEVEL else f"a {names[tier.level]}"
        kept.append(f"groups of {tier.size} that share {shared}")
    return f" in {' and '.join(kept)}" if kept else ""


def causes_by_node(s: Scratch, fields: Sequence[Field], within: int | None) -> Iterator[tuple[str, str]]:
    """Every node with the first cause for which none of these fields takes a member there; "" where one does."""
    by_model = _by_model(fields)
    for node in s.fleet.nodes.values():
        if node.board is None:
            yield node.name, WITHOUT_GPUS
    for name, pool in s.fleet.pools.items():
        found = by_model.get(name)
        causes = found[0].reasons(found[1:], within) if found else [OTHER_GPUS] * len(pool.nodes)
        yield from zip((node.name for node in pool.nodes), causes, strict=True)


def _causes(s: Scratch, fields: Sequence[Field], within: int | None) -> tuple[tuple[str, int], ...]:
    """How many nodes fail for which cause, most first; a node counts once, by its first cause."""
    key = (tuple(fields), within, s.ledger.mark)
    if key not in s.tallies:
        s.tallies[key] = _count(s, fields, within)
    return s.tallies[key]


def _count(s: Scratch, fields: Sequence[Field], within: int | None) -> tuple[tuple[str, int], ...]:
    by_model = _by_model(fields)
    counts = Counter({WITHOUT_GPUS: s.fleet.without_gpus})
    for name, pool in s.fleet.pools.items():
        found = by_model.get(name)
        counts += found[0].tally(found[1:], within) if found else Counter({OTHER_GPUS: len(pool.nodes)})
    return tuple(sorted(((c, n) for c, n in counts.items() if c and n), key=lambda entry: (-entry[1], entry[0])))


def _by_model(fields: Sequence[Field]) -> dict[str, list[Field]]:
    found: dict[str, list[Field]] = {}
    for field in fields:
        found.setdefault(field.pool.model.name, []).append(field)
    return found


def _remedy(s: Scratch, w: Workload, request: Request, tried: list[Choice], field: Field, gang: Gang, fits: int) -> str:
    looser = _broader(field, gang) or _ungrouped(s, request, field)
    if looser:
        return looser
    if fits and w.ref.kind is Kind.TRAINING_JOB:
        name = "elastic.minWorkers" if w.request and w.request.elastic else "workers"
        if field.potential < request.workers:
            return f"lower {name} to {fits} or add nodes: even if all were free, {field.potential} would fit"
        return f"lower {name} to {fits} or wait"
    dearer = next((c for c in tried if c.message and c.reason is Reason.WAITING_FOR_CAPACITY), None)
    if dearer and _would_fit(s, w, request, dearer.option.device):
        times = dearer.option.usd_per_hour / tried[0].option.usd_per_hour
        return f"{name_of(dearer.option.device)} has room, at {times:.1f} times the price: ask for it by name to use it"
    others = s.options(replace(request.demand, models=()), request.tensor) if request.demand.models else ()
    asked = {c.option.device.model for c in tried}
    for option in others:
        if option.device.model not in asked and _would_fit(s, w, request, option.device):
            return f"{option.device.model} has room now: add it to spec.gpus.models, or wait"
    potential = field.potential
    if potential < request.workers:
        if not potential:
            return "even if all were free, none would fit: add nodes, or change what keeps it off those there are"
        return f"even if all were free, {potential} would fit: add nodes or lower workers"
    return "wait until room is freed"


def _broader(field: Field, gang: Gang) -> str:
    """The closest level beyond the required one that holds the gang now, in words; "" where none does."""
    if gang.within is None:
        return ""
    for level in reversed(range(gang.within)):
        if pack(field, replace(gang, within=level)):
            return f"level {field.pool.levels[level].name} would hold it, or mode Preferred"
    return "mode Preferred would place it" if pack(field, replace(gang, within=None)) else ""


def _ungrouped(s: Scratch, request: Request, field: Field) -> str:
    """That the gang would fit if its groups were only preferred, in words; "" where they are not what hinders it."""
    topology = request.topology
    if topology is None or all(group.mode != "Required" for group in topology.groups):
        return ""
    loose = replace(request, topology=replace(topology, groups=()))
    fits = pack(field, gang_of(loose, field.device, s.fleet.levels, request.workers))
    return "mode Preferred in spec.topology.groups would place it" if fits else ""


def _would_fit(s: Scratch, w: Workload, request: Request, device: Device) -> bool:
    field = s.field(request.shape, device, s.avoided(w), linked_boards(request, device))
    return field is not None and pack(field, gang_of(request, device, s.fleet.levels, request.workers)) is not None


def _have(fleet: Fleet) -> str:
    held = ", ".join(f"{len(p.nodes)} with {name}" for name, p in fleet.pools.items())
    return f"of {len(fleet.nodes)} nodes there are {held}" if held else f"none of {len(fleet.nodes)} nodes has GPUs"


def _instances(pools: Sequence[Pool]) -> str:
    held = []
    for pool in pools:
        profiles = sorted(r.removeprefix("nvidia.com/mig-") for r in pool.stock if r != WHOLE_BOARD)
        held += [f"{pool.model.name} offers {', '.join(profiles)}"] if profiles else []
    return "; ".join(held) or "no board of these models is partitioned"
