"""What a plan keeps for those that wait, and what that leaves to the work that is served after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from berth.model.gpus import BoardModel
from berth.model.workloads import Device, Ref, Workload
from berth.planning.endings import Ending
from berth.planning.field import Field
from berth.planning.fleet import Ints
from berth.planning.ledger import Room
from berth.planning.quota import Quota

Taken = Iterable[tuple[str, Mapping[str, int]]]
"""Nodes, and what is taken of each."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A start that is kept for a workload that waits."""

    ref: Ref
    device: Device
    nodes: tuple[str, ...]  # of each member; none where only quota is kept, since that is all it lacks
    start: float  # when it is expected to start, in seconds since the epoch
    clear_by: float  # when work has to have ended that goes first in its room, in seconds since the epoch
    known: bool  # whether the end of all that it waits for is known, so that the start is more than a guess
    awaits: tuple[Ref, ...]  # whose ends it waits for, the last first
    firm: bool = False  # it has waited for so long that nobody may use its room in the meantime


@dataclass
class Held:
    """A reservation, and what there is when it starts, its own part taken: work that goes on until then has to fit."""

    reservation: Reservation
    queue: str
    room: Room | None  # of its pool; None: it keeps no room
    quota: Quota | None  # None: its queue is unlimited
    gave_back: frozenset[str] = frozenset()  # uids of the work that is counted as ended by then
    closed: bool = False  # nobody may use anything of its pool, or of its queue
    _fields: dict[object, Field] = field(default_factory=dict)

    def binds(self, until: float) -> bool:
        """Whether it stands in the way of work that is expected to end then."""
        return self.closed or self.reservation.firm or until > self.reservation.clear_by

    def then(self, now: Field, key: object) -> Field:
        """The same field when the reservation starts."""
        if self.room is None:
            return now
        known = self._fields.get(key)
        known = self._fields[key] = now.on(self.room) if known is None else known.refresh()
        return known

    def count(self, w: Workload, device: Device, taken: Taken, model: BoardModel, boards: Fraction) -> None:
        """Count what a workload takes that runs now (with negative amounts: gives back), if it still does by then."""
        ended = w.ref.uid in self.gave_back
        if self.room is not None and not ended and self.reservation.device.model == device.model:
            for node, needs in taken:
                if (index := self.room.pool.index.get(node)) is not None:
                    self.room.take(index, needs)
        if self.quota is not None:
            root = self.quota.cohorts.root
            if not ended or root(w.queue) != root(self.queue):
                self.quota.charge(w.queue, model, boards)

    def left(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards that a queue may take, and keep when the reservation starts; None: any number.

        Whatever is kept for others, a queue may have what it owns: that is not the quota to wait for.
        """
        if self.quota is None:
            return None
        if queue != self.queue:
            bounds = (self.quota.left(queue, model), self.quota.nominal_left(queue, model))
            return max((n for n in bounds if n is not None), default=None)
        return Fraction(0) if self.closed else self.quota.left(queue, model)


class Reserved:
    """The reservations of one plan: a few for the room of each pool, one for the quota of each queue and model."""

    def __init__(self) -> None:
        """None yet."""
        self._rooms: dict[str, list[Held]] = {}
        self._quotas: dict[tuple[str, str], Held] = {}
        self._by_uid: dict[str, Held] = {}
        self._limited: dict[object, tuple[tuple[int, ...], Field]] = {}
        self.booked: dict[str, list[Ending]] = {}  # by model: the ends of those whose room is kept
        self.hopeless: set[object] = set()  # requests that no end of running work would let start

    def __iter__(self) -> Iterator[Held]:
        """All of them, in the order in which they were made."""
        for held in self._rooms.values():
            yield from held
        yield from self._quotas.values()

    def binding(self, until: float) -> tuple[Ref, ...]:
        """Whose reservations stand in the way of work that is to stay until then."""
        return tuple(held.reservation.ref for held in self if held.binds(until))

    def keeps_quota(self, queue: str, model: str) -> bool:
        """Whether quota of that queue is reserved."""
        return (queue, model) in self._quotas

    def add(self, held: Held) -> None:
        """Keep one more."""
        model = held.reservation.device.model
        self._by_uid[held.reservation.ref.uid] = held
        if held.room is not None:
            self._rooms.setdefault(model, []).append(held)
        else:
            self._quotas[held.queue, model] = held

    @contextmanager
    def without(self, ref: Ref) -> Iterator[None]:
        """As if nothing were kept for that workload."""
        kept = self._rooms, self._quotas, self._by_uid
        self._rooms = {name: [one for one in held if one.reservation.ref != ref] for name, held in self._rooms.items()}
        self._quotas = {key: held for key, held in self._quotas.items() if held.reservation.ref != ref}
        self._by_uid = {uid: held for uid, held in self._by_uid.items() if uid != ref.uid}
        try:
            yield
        finally:
            self._rooms, self._quotas, self._by_uid = kept

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_uid)

    def in_pool(self, model: str) -> tuple[Held, ...]:
        """Those of the room of a pool, in order."""
        return tuple(self._rooms.get(model, ()))

    def of(self, ref: Ref) -> Held | None:
        """The reservation of a workload."""
        return self._by_uid.get(ref.uid)

    def limited(self, now: Field, key: object, until: float) -> Field:
        """Where members fit that are to stay until then: now, and when each of those starts that they may not delay."""
        held = [one for one in self._rooms.get(now.device.model, ()) if one.binds(until)]
        if not held:
            return now
        then = [one.then(now, key) for one in held]
        marks = (now.room.mark, *(field.room.mark for field in then))
        which = key, tuple(one.reservation.ref for one in held)
        known = self._limited.get(which)
        if known is None or known[0] != marks:
            known = self._limited[which] = marks, now.with_capacity(_least(now, then, any(one.closed for one in held)))
        return known[1]

    def left(self, queue: str, model: BoardModel, until: float) -> Fraction | None:
        """Boards that a queue may still take for work that is to stay until then; None: any number."""
        bounds = (held.left(queue, model) for held in self if held.binds(until))
        return min((n for n in bounds if n is not None), default=None)

    def take(self, device: Device, nodes: Sequence[str], needs: Mapping[str, int], until: float) -> None:
        """Count room that was taken by work that is to stay until then."""
        for held in self._rooms.get(device.model, ()):
            if held.room is not None and held.binds(until):
                for node in nodes:
                    held.room.take(held.room.pool.index[node], needs)

    def charge(self, queue: str, model: BoardModel, boards: Fraction, until: float) -> None:
        """Count quota that was taken by work that is to stay until then."""
        for held in self:
            if held.quota is not None and held.binds(until):
                held.quota.charge(queue, model, boards)


def _least(now: Field, then: Sequence[Field], closed: bool) -> Ints:
    """How many members each node takes at all of these moments."""
    if closed:
        return np.zeros_like(now.capacity)
    least: Ints = np.minimum.reduce([now.capacity, *(field.capacity for field in then)])
    return least
