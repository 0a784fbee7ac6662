"""Where members of one kind fit: the capacity of each node of a pool, kept current as a plan takes room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from berth.model.gpus import WHOLE_BOARD
from berth.model.workloads import Device, PodShape
from berth.planning.cutting import Guide
from berth.planning.fleet import MOST, Bools, Ints, Outlook, Pool, Span
from berth.planning.ledger import PODS, Room, needs_of

AVOIDED = "avoided after a refusal or a crash"
LINKLESS = "without NVLink"


@dataclass(frozen=True, slots=True)
class Tier:
    """Each `size` consecutive members share a domain of `level`, as the pool numbers its levels."""

    size: int
    level: int


Tiers = tuple[Tier, ...]
"""Groups within groups, the largest first: each size divides the one before, on a level that is no broader."""


class Field:
    """Capacities for members of one shape and device over a pool: `capacity[i]` members fit on node i."""

    def __init__(
        self,
        room: Room,
        outlook: Outlook,
        shape: PodShape,
        device: Device,
        avoid: Collection[str],
        linked: int,
        guide: Guide | None = None,
    ) -> None:
        """Measure every feasible node; each `linked` boards of the members must share NVLink (1: none need to)."""
        if device.count < 1:
            raise ZeroDivisionError(f"a device of no pieces: {device}")
        self.room = room
        self.pool: Pool = room.pool
        self.device = device
        self.needs = needs_of(shape, device)
        self.unwelcome = outlook.unwelcome
        self.causes, self._open = _kept_off(room.pool, outlook, avoid, linked)
        self._linked = linked
        self.guide = guide
        self._mark = room.mark
        self._groups: dict[tuple[int, Tiers], Ints] = {}
        self.capacity = self._measured(slice(None))
        self._bound(self.pool.islands)

    def refresh(self) -> Field:
        """Measure again the nodes that room was taken from."""
        if self._mark != self.room.mark:
            changed = sorted(set(self.room.taken_since(self._mark)))
            self.capacity[changed] = self._measured(np.array(changed))
            self._bound([i for i in changed if i in self.pool.islands])
            self._groups.clear()
            self._mark = self.room.mark
        return self

    def with_capacity(self, capacity: Ints) -> Field:
        """The same field as if these members fitted; it is not kept current."""
        other = copy(self)
        other.capacity, other._groups = capacity, {}
        return other

    def on(self, room: Room) -> Field:
        """The same field over another room of its pool, measured anew; no demands are cut ahead there."""
        other = copy(self)
        other.room, other.guide, other._groups, other._mark = room, None, {}, room.mark
        other.capacity = other._measured(slice(None))
        other._bound(other.pool.islands)
        return other

    @property
    def total(self) -> int:
        """How many members fit on all nodes together."""
        return int(self.capacity.sum())

    @cached_property
    def potential(self) -> int:
        """How many members would fit if every feasible node were empty."""
        fits = [self.pool.allocatable(name)[self._open] // n for name, n in self._amounts]
        return int(np.minimum.reduce(fits).sum())

    def groups(self, level: int, tiers: Tiers) -> Ints:
        """How many groups of the first of `tiers` (of none: members) fit in each domain of a level."""
        known = self._groups.get((level, tiers))
        if known is None:
            known = self._groups[level, tiers] = self._grouped(level, tiers)
        return known

    def holds(self, span: Span, tiers: Tiers) -> bool:
        """Whether the nodes of a span share a domain of the first tier's level."""
        numbers = self.pool.bonds(tiers[0].level).numbers
        return bool(numbers[span[0]] == numbers[span[1] - 1])

    def tightest(self, level: int, domains: Ints, members: int) -> int:
        """Which of these domains of a level, each of which holds so many members, has the least to lose.

        1. The fewest gangs of several nodes, of those that wait or run, that would no longer fit in a domain of this
        level or a broader one. 2. The least free of the device's kind: whole boards, or instances. 3. The least of the
        other kind. 4. The fewest nodes that would rather not. 5. The fewest nodes that are free as a whole around it,
        in its domain of each broader level. 6. The first.
        """
        whole = self.device.resource == WHOLE_BOARD
        if whole and len(domains) > 1:
            domains = _least_of(domains, self._spoilt(level, domains, members))
        domains = _least(domains, self.room.slack(whole, level))
        domains = _least(domains, self.room.slack(not whole, level))
        if self.unwelcome is not None:
            domains = _least(domains, self._averse(level, self.unwelcome))
        for broader in self._around(level) if whole else ():
            if len(domains) == 1:
                break
            domains = _least_of(domains, self.room.whole(broader)[self._numbers(level, broader, domains)])
        return int(domains[0])

    def _spoilt(self, level: int, domains: Ints, members: int) -> Ints:
        """How many nodes' worth of gangs would no longer fit, for each domain of a level that takes the members."""
        total = np.zeros(len(domains), dtype=np.int64)
        if not self.room.gangs:
            return total
        nodes = -(-members * self.device.count // self.pool.stock.get(WHOLE_BOARD, 1))
        for around in [rung for rung in self.pool.rungs if rung <= min(level, self.pool.nodewise - 1)]:
            whole = self.room.whole(around)
            lost = np.zeros(len(whole), dtype=np.int64)
            for size, count in self.room.gangs:
                lost += count * size * (whole // size - np.maximum(whole - nodes, 0) // size)
            named = self.pool.named(around, None)
            total += (lost if named is None else lost * named)[self._numbers(level, around, domains)]
        return total * self.room.whole(level)[domains] if level == self.pool.nodewise else total

    def _around(self, level: int) -> list[int]:
        """The levels broader than this one that have domains of several nodes, closest first."""
        return [rung for rung in self.pool.rungs if rung < level]

    def _numbers(self, level: int, broader: int, domains: Ints) -> Ints:
        """The domains of a broader level that domains of this one lie in."""
        numbers: Ints = self.pool.domains[broader].numbers[self.pool.domains[level].starts[domains]]
        return numbers

    def guided(self, nodes: Ints, members: int) -> Ints:
        """Those of the nodes, each of which holds that many members, that are meant for such a demand."""
        if self.guide is None or not len(nodes) or self.device.resource != WHOLE_BOARD:
            return nodes
        return self.guide.narrowed(nodes, members * self.device.count)

    def ranked(self, level: int, runs: slice, rooms: Ints) -> Ints:
        """The domains of a level in these runs, the roomiest first and the tightest of equals; unnamed runs last."""
        whole = self.device.resource == WHOLE_BOARD
        keys: list[Ints | Bools] = [
            self.room.slack(not whole, level)[runs],
            self.room.slack(whole, level)[runs],
            -rooms,
        ]
        if self.unwelcome is not None:
            keys.insert(0, self._averse(level, self.unwelcome)[runs])
        named = self.pool.named(level, None)
        if named is not None:
            keys.append(~named[runs])
        return np.lexsort(keys)

    def tally(self, others: Sequence[Field], within: int | None) -> Counter[str]:
        """How many nodes have no room here, nor in `others` over the same pool, by the first cause of each."""
        counts = Counter(self.reasons(others, within))
        del counts[""]
        return counts

    def reasons(self, others: Sequence[Field], within: int | None) -> list[str]:
        """For each node why it takes no member, here or in `others` over the same pool; "" where it does."""
        found = np.array(self.causes, dtype=object)
        lacking = self._open & ~np.logical_or.reduce([field.capacity > 0 for field in (self, *others)])
        if within is not None:
            unnamed = self._open & ~self.pool.labelled[within]
            lacking &= ~unnamed
            found[unnamed] = f"without a {self.pool.levels[within].name} label"
        for name, n in self._amounts:
            short = lacking & (self.room.free(name) < n)
            lacking &= ~short
            if name == PODS or name != self.device.resource:
                found[short] = "full of pods" if name == PODS else f"lack {name}"
                continue
            kind = "GPUs" if name == WHOLE_BOARD else name.removeprefix("nvidia.com/mig-")
            offers = self.pool.allocatable(name) >= n
            found[short & offers] = f"lack free {kind}"
            found[short & ~offers] = f"offer too few {kind}"
        found[lacking] = "lack free GPUs that share NVLink"
        reasons: list[str] = found.tolist()
        return reasons

    @property
    def _amounts(self) -> list[tuple[str, int]]:
        return [(name, min(n, MOST)) for name, n in self.needs.items()]

    def _measured(self, nodes: Ints | slice) -> Ints:
        fits = np.minimum.reduce([self.room.free(name)[nodes] // n for name, n in self._amounts])
        return np.where(self._open[nodes], np.maximum(fits, 0), 0)

    def _bound(self, nodes: Collection[int]) -> None:
        """Lower the capacity of nodes that have several NVLink islands to what these hold in whole groups."""
        if self._linked == 1:
            return
        free = self.room.free(WHOLE_BOARD)
        for i in nodes:
            boards = linked_groups(self.pool, i, int(free[i]), self._linked) * self._linked
            members = boards // self.device.count
            self.capacity[i] = min(self.capacity[i], members)

    def _grouped(self, level: int, tiers: Tiers) -> Ints:
        values, division, size = self.capacity, self.pool.domains[self.pool.nodewise], 1
        for tier in reversed(tiers):
            if tier.level >= level:
                bonds = self.pool.bonds(tier.level)
                values, division = division.merged(values, bonds) // (tier.size // size), bonds
                size = tier.size
        values = division.merged(values, self.pool.at(level))
        return values // (tiers[0].size // size) if tiers and tiers[0].size > size else values

    def _averse(self, level: int, unwelcome: Ints) -> Ints:
        return self.pool.domains[self.pool.nodewise].merged(unwelcome, self.pool.at(level))


def linked_groups(pool: Pool, i: int, free: int, size: int) -> int:
    """How many groups of `size` boards inside one NVLink island a node surely has, with `free` boards left.

    Which boards are free is known as far as its agent reported holders; of those that went since, the worst is
    assumed: that they break up as many groups as they can.
    """
    idle: Counter[int] = Counter()
    for board, number in zip(pool.nodes[i].boards, pool.islands[i], strict=False):
        idle[number] += board.healthy and not board.busy and not board.mig_enabled
    gone = max(0, idle.total() - free)
    breaks = sorted(
        cost for n in idle.values() if n >= size for cost in (n % size + 1, *[size] * (n // size - 1))
    )  # boards that it takes to break up one more group
    broken = 0
    for cost in breaks:
        gone -= cost
        if gone < 0:
            break
        broken += 1
    return len(breaks) - broken


def _kept_off(pool: Pool, outlook: Outlook, avoid: Collection[str], linked: int) -> tuple[tuple[str, ...], Bools]:
    linkless = pool.linkless if linked > 1 else None
    shunned = [pool.index[name] for name in avoid if name in pool.index]
    if not shunned and linkless is None:
        return outlook.causes, outlook.open
    causes = list(outlook.causes)
    for i in shunned:
        causes[i] = causes[i] or AVOIDED
    for lone in np.flatnonzero(linkless) if linkless is not None else ():
        causes[lone] = causes[lone] or LINKLESS
    return tuple(causes), np.array([not cause for cause in causes], dtype=np.bool_)


def _least(domains: Ints, values: Ints) -> Ints:
    """Those of the domains whose value is the least."""
    if len(domains) == 1:
        return domains
    return _least_of(domains, values[domains])


def _least_of(domains: Ints, values: Ints) -> Ints:
    """Those of the domains whose value, told in the same order, is the least."""
    least: Ints = domains[values == values.min()]
    return least
