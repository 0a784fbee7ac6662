"""Which boards to lay out so that a whole gang fits: the cheapest first, tried on a copy, and no more than it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from berth.model.gpus import WHOLE_BOARD
from berth.model.nodes import BoardLayout
from berth.model.workloads import Device, Request, Workload
from berth.planning.ahead import Ahead
from berth.planning.field import Field
from berth.planning.fleet import MOST, Ints
from berth.planning.forecast import mix_of
from berth.planning.ledger import needs_of
from berth.planning.packing import pack
from berth.planning.scratch import Scratch, gang_of, linked_boards
from berth.planning.supply import Demanded, Offer, layouts_of, offer

MOST_LOOKED_AT = 256  # nodes that could do it, of which the cheapest are taken; all for gangs that must keep together

Layouts = tuple[tuple[Offer, tuple[BoardLayout, ...]], ...]
"""What is to be laid out on each node."""


def offers_for(ahead: Ahead, w: Workload, request: Request, device: Device) -> Layouts | None:
    """The boards to lay out for a gang: of as few nodes, in order of price, as hold it; of these, what it takes."""
    field, _ = packed(ahead.scratch, w, request, device)
    if field is None or device.model not in ahead.able:
        return None
    wanted = _wanted(ahead, request, device)
    offers = sorted(_open_to(ahead, request, field, wanted), key=lambda o: (o.usd / o.gain, o.node.name))
    short = request.workers - field.total
    if sum(o.gain for o in offers) < short:
        return None
    if request.workers == 1 and request.topology is None and request.tensor == 1:
        return _settled(ahead, device, wanted, {offers[0].node.name: 1}) if offers else None
    for some in _prefixes(offers, short):
        with ahead.trying(some, device) as may:
            _, nodes = packed(ahead.scratch, w, request, device) if may else (None, None)
        if nodes is not None:
            needs = needs_of(request.shape, device)
            lacks = {name: n - ahead.scratch.ledger.fits(name, needs) for name, n in Counter(nodes).items()}
            return _settled(ahead, device, wanted, {name: n for name, n in sorted(lacks.items()) if n > 0})
    return None


def _open_to(ahead: Ahead, request: Request, field: Field, wanted: Demanded) -> Iterator[Offer]:
    """The most that each node could do for a gang."""
    index = field.pool.index
    room, free = _without_device(field) - field.capacity, field.room.free(field.device.resource)
    looked_at = gained = 0
    for name in ahead.able[field.device.model]:
        i = index[name]
        if room[i] <= 0 or free[i] < 0 or field.causes[i] or not ahead.spare(name) or ahead.in_use(name):
            continue  # less than nothing is free where a board that is held has gone bad
        found = _offer(ahead, name, field.device, min(int(room[i]), request.workers), wanted)
        if found is None or (ahead.promised(name) and not ahead.keeps(name, layouts_of(found, field.device, wanted))):
            continue
        yield found
        looked_at, gained = looked_at + 1, gained + found.gain
        if looked_at >= MOST_LOOKED_AT and gained >= request.workers and request.topology is None:
            return


def _without_device(field: Field) -> Ints:
    """How many members each node has room for, were there devices for them."""
    rest = [(name, min(n, MOST)) for name, n in field.needs.items() if name != field.device.resource]
    room: Ints = np.minimum.reduce([np.maximum(field.room.free(name), 0) // n for name, n in rest])
    return room


def _offer(ahead: Ahead, name: str, device: Device, members: int, wanted: Demanded) -> Offer | None:
    return offer(ahead.node(name), ahead.spare(name), device, members, wanted, ahead.free_on(name, WHOLE_BOARD))


def _prefixes(offers: list[Offer], lacking: int) -> Iterator[list[Offer]]:
    """The first offers, ever twice as many, beginning with as many as could be enough."""
    least, gained = 0, 0
    while least < len(offers) and gained < lacking:
        gained += offers[least].gain
        least += 1
    size = max(1, least)
    while size < len(offers):
        yield offers[:size]
        size *= 2
    if offers:
        yield offers


def _settled(ahead: Ahead, device: Device, wanted: Demanded, lacks: Mapping[str, int]) -> Layouts:
    """What has to be laid out for so many more members on each node."""
    chosen = []
    for name, n in lacks.items():
        least = _offer(ahead, name, device, n, wanted)
        if least is None or least.gain < n:
            raise ValueError(f"node {name} was to make room for {n} more, and does not")
        chosen.append((least, layouts_of(least, device, wanted)))
    return tuple(chosen)


def packed(
    scratch: Scratch, w: Workload, request: Request, device: Device
) -> tuple[Field | None, tuple[str, ...] | None]:
    """Where members fit on a working copy, and a node for each of the gang; None where there is none."""
    field = scratch.field(request.shape, device, scratch.avoided(w), linked_boards(request, device))
    gang = gang_of(request, device, scratch.fleet.levels, request.workers)
    return field, pack(field, gang) if field is not None else None


def _wanted(ahead: Ahead, request: Request, device: Device) -> Demanded:
    """What others ask of the model beside this request."""
    demands = dict(ahead.wanted)
    if request.demand in demands:
        demands[request.demand] = max(0.0, demands[request.demand] - request.workers)
    return Demanded(mix_of(ahead.s.model(device.model), demands), ahead.free(device.model))
