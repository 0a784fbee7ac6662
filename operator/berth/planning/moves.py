"""Members of an admitted gang that can't go where the record says, and the nodes that refused one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from berth.model.workloads import Placement, Request, Workload
from berth.planning.field import Field, Tier
from berth.planning.fleet import Bools, Division, Ints, Pool
from berth.planning.packing import Gang, pack
from berth.planning.scratch import Scratch, gang_of, linked_boards

MOST_DOUBLINGS = 3  # a node that refuses again and again is avoided for eight times as long, and no longer

Avoid = tuple[tuple[str, float], ...]


def avoiding(s: Scratch, w: Workload, nodes: Collection[str]) -> Avoid:
    """The workload's record of nodes to avoid, with these added: each for twice as long as the time before."""
    first = s.policy.avoid_seconds
    forgotten = s.now - first * 2**MOST_DOUBLINGS
    kept = tuple((node, until) for node, until in w.avoid if until > forgotten)
    times = {node: sum(1 for name, _ in kept if name == node) for node in nodes}
    return (*kept, *((n, s.now + first * 2 ** min(times[n], MOST_DOUBLINGS)) for n in sorted(times)))


def relocate(
    s: Scratch, request: Request, placement: Placement, moving: Collection[int], avoid: Collection[str]
) -> Placement | None:
    """The placement with other nodes for the members `moving`, their room taken; None where there are none.

    Device, required domain and the NVLink domain of a tensor-parallel group stay as they are. The new nodes are as
    close as can be to those of the members that stay.
    """
    field = s.field(request.shape, placement.device, avoid, linked_boards(request, placement.device))
    if field is None:
        return None
    gang = gang_of(request, placement.device, s.fleet.levels, len(placement.nodes))
    staying = {i: node for i, node in enumerate(placement.nodes) if i not in moving}
    if not staying:
        nodes = pack(field, gang)
        for node in nodes or ():
            s.ledger.take(node, field.needs)
        return Placement(placement.device, nodes) if nodes else None
    for i in sorted(moving):
        found = nearest(field.refresh(), gang, i, staying)
        if found is None:
            return None
        s.ledger.take(found, field.needs)
        staying[i] = found
    return Placement(placement.device, tuple(staying[i] for i in range(len(placement.nodes))))


def nearest(field: Field, gang: Gang, index: int, staying: Mapping[int, str]) -> str | None:
    """The closest node to the members that stay where one more may go, the tightest of equals."""
    pool = field.pool
    mates = {i: pool.index[node] for i, node in staying.items() if node in pool.index}
    able = field.capacity > 0
    if gang.within is not None and mates:
        able &= _shared(pool.domains[gang.within], mates.values())
    closeness = _closeness(pool, mates.values())
    for tier in gang.tiers:
        bonds = pool.bonds(tier.level)
        group = [node for i, node in mates.items() if i // tier.size == index // tier.size]
        able &= _shared(bonds, group) if group else _room_for_all(field, tier, able, closeness)
    found = np.flatnonzero(able)
    if not len(found):
        return None
    return pool.nodes[field.tightest(pool.nodewise, _most(found, closeness), 1)].name


def _room_for_all(field: Field, tier: Tier, able: Bools, closeness: Ints) -> Bools:
    """The nodes of one domain that holds a whole group: the closest to the members that stay, then the tightest."""
    pool = field.pool
    bonds = pool.bonds(tier.level)
    room = pool.domains[pool.nodewise].merged(np.where(able, field.capacity, 0), bonds) >= tier.size
    found = _most(np.flatnonzero(room[bonds.numbers]), closeness)
    if not len(found):
        return np.zeros_like(able)
    free = field.room.slack(True, pool.nodewise)
    numbers = np.unique(bonds.numbers[found])
    least = min(numbers, key=lambda number: (int(free[slice(*bonds.span(number))].sum()), number))
    shared: Bools = bonds.numbers == least
    return shared


def _closeness(pool: Pool, mates: Collection[int]) -> Ints:
    """For each node how many levels, from the broadest, it shares with the closest of the mates."""
    total = np.zeros(len(pool.nodes), dtype=np.int64)
    for division in pool.domains if mates else ():
        total += _shared(division, mates)
    return total


def _shared(division: Division, mates: Collection[int]) -> Bools:
    """The nodes that are in the same run as any mate."""
    runs = np.zeros(len(division.starts), dtype=np.bool_)
    runs[division.numbers[list(mates)]] = True
    return runs[division.numbers]


def _most(nodes: Ints, values: Ints) -> Ints:
    """Those of the nodes whose value is the largest."""
    found = values[nodes]
    best: Ints = nodes[found == found.max(initial=0)]
    return best
