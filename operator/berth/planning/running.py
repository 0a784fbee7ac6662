"""Where a workload runs, at what price, and what else there would be for it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from berth.model.nodes import Node
from berth.model.prices import capacity_of
from berth.model.workloads import Device, Placement, Request, Workload
from berth.planning.admission import Choice, choices
from berth.planning.options import boards_of, name_of
from berth.planning.packing import most_that_fit, pack
from berth.planning.scratch import Scratch, gang_of
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.trials import duration, settled
from berth.planning.verdicts import where
from berth.planning.whatif import concerning, room_for, unplaced, without

GPUS = "nvidia.com/"
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a price."""

    name: str
    usd: float
    per_hour: bool
    message: str


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The next best device for a workload that runs."""

    device: Device
    usd_per_hour: float  # list price of all members
    dearer_by: float  # dollars per hour; negative: cheaper
    nodes: tuple[str, ...]  # where it would be, were the workload planned anew; empty: it would not fit
    message: str
    opens: int = 0  # nodes among these that are wholly free, and would be no more


@dataclass(frozen=True, slots=True)
class Running:
    """Where a workload runs and at what price. What is compared has been computed anew, as if it were to start now."""

    placement: Placement
    where: str
    terms: tuple[Term, ...]
    runner_up: RunnerUp | None
    opens: int  # nodes that would be wholly free without it
    elsewhere: RunnerUp | None  # the next best nodes with the same device; None: it would not fit elsewhere


def running_now(
    snapshot: Snapshot, policy: Policy, now: float, w: Workload, request: Request, placement: Placement
) -> Running:
    """Where it runs, what that costs, and what else there would be, were it planned anew beside all that runs now."""
    fresh = replace(unplaced(w), served_device=None, suspend=False)
    s = settled(concerning(without(snapshot, [w]), w), policy, now)
    members = len(placement.nodes)
    pool = s.fleet.pools.get(placement.device.model)
    request = replace(request, workers=members)
    tried = choices(s, fresh, request)
    own = next((c.option.usd_per_hour for c in tried if c.option.device == placement.device), None)
    usd = members * (own if own is not None else _list_price(s, placement.device))
    return Running(
        placement=placement,
        where=where(pool, placement.nodes) if pool else ", ".join(dict.fromkeys(placement.nodes)),
        terms=_terms(w, placement, *_paid(s, placement, usd), now),
        runner_up=_runner_up(s, fresh, request, tried, placement.device, usd),
        opens=_opened(s, placement.nodes),
        elsewhere=_elsewhere(s, fresh, request, placement, usd),
    )


def _paid(s: Scratch, placement: Placement, usd: float) -> tuple[float, str]:
    """What all members cost an hour where they are, and what kind of price that is; `usd` at list prices."""
    model = s.model(placement.device.model)
    nodes = [node for name in placement.nodes if (node := s.fleet.nodes.get(name)) is not None]
    if len(nodes) < len(placement.nodes):
        return usd, "list price"
    boards = float(boards_of(placement.device, model))
    paid = sum(boards * s.policy.prices.usd_per_hour(model, node.region, capacity_of(node.labels)) for node in nodes)
    kinds = sorted({str(capacity_of(node.labels)) for node in nodes})
    return paid, "list price" if abs(paid - usd) < 0.005 else " and ".join(kinds)


def _list_price(s: Scratch, device: Device) -> float:
    model = s.model(device.model)
    return float(boards_of(device, model)) * model.usd_per_hour


def _terms(w: Workload, placement: Placement, usd: float, kind: str, now: float) -> tuple[Term, ...]:
    members = len(placement.nodes)
    each = f"{members} x {name_of(placement.device)} at ${usd / members:.2f}/h, {kind}"
    terms = [Term("boards", usd, True, each)]
    if w.started_at:
        hours = (now - w.started_at) / HOUR
        terms.append(Term("so far", usd * hours, False, f"{duration(now - w.started_at)} since all members were ready"))
    if w.started_at and w.max_runtime_seconds is not None:
        most = usd * w.max_runtime_seconds / HOUR
        terms.append(Term("at most", most, False, f"{duration(w.max_runtime_seconds)} of spec.maxRuntime"))
    return tuple(terms)


def _runner_up(
    s: Scratch, fresh: Workload, request: Request, tried: Sequence[Choice], device: Device, usd: float
) -> RunnerUp | None:
    """The cheapest other device with room and quota now; where none has, the cheapest other one and what it lacks."""
    others = [c for c in tried if c.option.device != device]
    without_room: RunnerUp | None = None
    for choice in others:
        option, wanted = choice.option, request.workers
        room = room_for(s, fresh, request, option.device)
        gang = gang_of(request, option.device, s.fleet.levels, wanted)
        nodes = pack(room, gang) if room and choice.reason is None else None
        price = option.usd_per_hour * wanted
        if nodes and room:
            return RunnerUp(option.device, price, price - usd, nodes, where(room.pool, nodes), _opened(s, nodes))
        fits = most_that_fit(room, gang) if room else 0
        lacks = choice.message or f"{fits} of {wanted} would fit now"
        without_room = without_room or RunnerUp(option.device, price, price - usd, (), lacks)
    return without_room


def _elsewhere(s: Scratch, fresh: Workload, request: Request, placement: Placement, usd: float) -> RunnerUp | None:
    """The next best nodes with the same device, those that it has left aside."""
    device, members = placement.device, len(placement.nodes)
    room = room_for(s, fresh, request, device, placement.nodes)
    nodes = pack(room, gang_of(request, device, s.fleet.levels, members)) if room else None
    if room is None or nodes is None:
        return None
    return RunnerUp(device, usd, 0.0, nodes, where(room.pool, nodes), _opened(s, nodes))


def _opened(s: Scratch, nodes: Sequence[str]) -> int:
    """How many of the nodes have all their boards and instances free: large work may need them whole."""
    there = [s.fleet.nodes[name] for name in dict.fromkeys(nodes) if name in s.fleet.nodes]
    return sum(1 for node in there if node.board is not None and _is_free(s, node))


def _is_free(s: Scratch, node: Node) -> bool:
    free = s.ledger.free(node.name)
    return all(free.get(name, 0) >= n for name, n in node.allocatable.items() if name.startswith(GPUS))
