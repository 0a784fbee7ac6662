"""Running workloads whose end would make room for another gang, and what that gang lacks.

Which set of them is the cheapest is a covering problem, hard in general: `planning/covering.py` looks for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

from berth.model.resources import Resources
from berth.model.workloads import Device, Request, Workload
from berth.planning.field import Field
from berth.planning.fleet import POOL
from berth.planning.options import boards_of
from berth.planning.packing import most_that_fit
from berth.planning.scratch import Scratch, gang_of
from berth.planning.whatif import Held, device_of, held_by


@dataclass(frozen=True, slots=True)
class Holder:
    """A workload, or one replica of a service, and the room it holds."""

    workload: Workload
    held: Held
    device: Device
    boards: Fraction
    cost: float  # of ending it, in what the caller counts
    replica: str = ""  # uid of the pod that is meant; "": the whole workload

    @property
    def uid(self) -> str:
        """What tells it from all others."""
        return self.replica or self.workload.ref.uid

    @property
    def key(self) -> tuple[float, float, str]:
        """Cheapest first, then the youngest, then by uid."""
        return self.cost, -self.workload.created, self.uid


def holder(s: Scratch, w: Workload, cost: Callable[[Workload, Fraction], float]) -> Holder | None:
    """What a workload holds, and what ending it costs; None where it holds nothing."""
    held, device = held_by(w), device_of(w)
    if not held or device is None:
        return None
    members = max(len(held), len(w.attempt.placement.nodes) if w.attempt else 0)
    boards = boards_of(device, s.model(device.model)) * members
    return Holder(w, held, device, boards, cost(w, boards))


@contextmanager
def as_if_ended(s: Scratch, ended: Iterable[Holder]) -> Iterator[None]:
    """The working copy as if these had ended: their room and their quota are free."""
    gone = list(ended)
    _count(s, gone, -1)
    try:
        yield
    finally:
        _count(s, gone, 1)


@contextmanager
def as_if_restarting(s: Scratch, ended: Iterable[Holder]) -> Iterator[None]:
    """The same, and as if they were not there when starts come that are kept for others: they are placed anew."""
    gone = list(ended)
    with as_if_ended(s, gone):
        _count_later(s, gone, -1)
        try:
            yield
        finally:
            _count_later(s, gone, 1)


def _count_later(s: Scratch, ended: Iterable[Holder], sign: int) -> None:
    for one in ended:
        taken = [(node, {name: sign * n for name, n in needs.items()}) for node, needs in one.held]
        for kept in s.reserved:
            kept.count(one.workload, one.device, taken, s.model(one.device.model), sign * one.boards)


def _count(s: Scratch, ended: Iterable[Holder], sign: int) -> None:
    for one in ended:
        for node, needs in one.held:
            if (known := s.fleet.nodes.get(node)) is not None and known.board is not None:
                s.ledger.take(node, {name: sign * n for name, n in needs.items()})
        s.quota.charge(one.workload.queue, s.model(one.device.model), sign * one.boards)


class Lack:
    """What a gang with one device lacks, in room and in quota, and what of it others would free."""

    def __init__(self, s: Scratch, w: Workload, request: Request, field: Field, *, of_its_own: bool = False) -> None:
        """Begin with what is free and charged now; `field` is where members fit.

        `of_its_own`: its queue is to hold no more than it owns itself.
        """
        device = field.device
        self.field = field.refresh().with_capacity(field.capacity.copy())  # whatever is tried later
        self.gang = gang_of(request, device, s.fleet.levels, request.workers)
        self.level = POOL if self.gang.within is None else self.gang.within
        self._asks = boards_of(device, field.pool.model) * request.workers
        self._s, self._queue, self._of_its_own = s, w.queue, of_its_own
        self._known: dict[str, Resources] = {}
        self._domain = field.pool.at(self.level).numbers
        self._named = None if self.gang.within is None else field.pool.named(self.level, None)
        self._reliefs: dict[str, float] = {}
        self._alike: dict[tuple[str, str, Fraction], Fraction] = {}
        self._most = most_that_fit(self.field, self.gang)
        self._left = self._left_after(())
        self._short = 0.0 if self._left is None else float(self._asks - self._left)
        self.lacks_quota = self._short > 0

    def met_by(self, ended: Collection[Holder]) -> bool:
        """Whether the gang fits, in one domain and in its quota, once these have ended."""
        return self.has_room(ended) and self.within_quota(ended)

    def has_room(self, ended: Iterable[Holder]) -> bool:
        """Whether the gang fits, in one domain, once these have ended."""
        freed = freed_by(ended)
        if self.gang.tiers:
            return most_that_fit(self._after(freed), self.gang) >= self.gang.members
        gained: dict[int, int] = defaultdict(int)
        for node, room in freed.items():
            if (domain := self.domain_of(node)) is not None:
                gained[domain] += self.members(node, room) - self.members(node, {})
        most = max((self.free_members(domain) + more for domain, more in gained.items()), default=0)
        return max(self._most, most) >= self.gang.members

    def within_quota(self, ended: Iterable[Holder]) -> bool:
        """Whether the gang's quota has room for it once these have ended."""
        if not self.lacks_quota:
            return True
        if sum(self._most_relief(one) for one in ended) < self._short:
            return False
        left = self._left_after(ended)
        return left is None or left >= self._asks

    def _most_relief(self, one: Holder) -> float:
        """Boards that its queue may take back at most from one: exact, since boards have 4 or 8 slices."""
        if one.uid not in self._reliefs:
            cohorts = self._s.quota.cohorts
            near = cohorts.root(one.workload.queue) == cohorts.root(self._queue)
            self._reliefs[one.uid] = float(one.boards) if near else 0.0
        return self._reliefs[one.uid]

    def relief(self, one: Holder) -> Fraction:
        """How many boards more its queue may take, of those that it lacks, once one has ended, by itself."""
        if not self.lacks_quota:
            return Fraction(0)
        if not self._most_relief(one) or self._left is None:
            return Fraction(0)
        key = one.workload.queue, one.device.model, one.boards
        if key not in self._alike:
            after = self._left_after([one])
            self._alike[key] = Fraction(0) if after is None else after - self._left
        return self._alike[key]

    def concerns(self, one: Holder) -> bool:
        """Whether the end of one could help at all."""
        return self.relief(one) > 0 or any(self.takes(node) for node, _ in one.held)

    def takes(self, node: str) -> bool:
        """Whether a node may hold a member at all."""
        i = self.field.pool.index.get(node)
        return i is not None and not self.field.causes[i]

    def domain_of(self, node: str) -> int | None:
        """The domain that a node which takes members lies in; None where the gang's members can't share it."""
        if not self.takes(node):
            return None
        number = int(self._domain[self.field.pool.index[node]])
        return number if self._named is None or self._named[number] else None

    def free(self, node: str) -> Resources:
        """What is free on a node now."""
        if node not in self._known:
            self._known[node] = self._s.ledger.free(node)
        return self._known[node]

    def members(self, node: str, freed: Resources) -> int:
        """How many members a node holds once that is freed."""
        free = self.free(node)
        return max(0, min((free.get(name, 0) + freed.get(name, 0)) // n for name, n in self.field.needs.items()))

    def free_members(self, domain: int) -> int:
        """How many members a domain holds now, groups of them left aside."""
        return int(self.field.groups(self.level, ())[domain])

    def _after(self, freed: Mapping[str, Resources]) -> Field:
        """Where members fit once that room is freed."""
        capacity = self.field.capacity.copy()
        for node, room in freed.items():
            if self.takes(node):
                capacity[self.field.pool.index[node]] = self.members(node, room)
        return self.field.with_capacity(capacity)

    def _left_after(self, ended: Iterable[Holder]) -> Fraction | None:
        """Boards that the queue may take once these have ended; None: any number."""
        quota, model = self._s.quota, self.field.pool.model
        given: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
        for one in ended:
            given[one.workload.queue, one.device.model] += one.boards
        for (queue, theirs), boards in given.items():
            quota.charge(queue, self._s.model(theirs), -boards)
        bounds = [quota.room(self._queue, model), quota.nominal_left(self._queue, model) if self._of_its_own else None]
        for (queue, theirs), boards in given.items():
            quota.charge(queue, self._s.model(theirs), boards)
        return min((bound for bound in bounds if bound is not None), default=None)


def freed_by(ended: Iterable[Holder]) -> dict[str, dict[str, int]]:
    """The room of these, by node."""
    freed: dict[str, dict[str, int]] = {}
    give(freed, ended)
    return freed


def give(freed: dict[str, dict[str, int]], ended: Iterable[Holder]) -> None:
    """Add the room of these."""
    for one in ended:
        for node, needs in one.held:
            room = freed.setdefault(node, {})
            for name, n in needs.items():
                room[name] = room.get(name, 0) + n
