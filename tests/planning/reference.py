"""The packer as one would first write it: no arrays, nothing remembered. It shows what the fast one must answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from berth.model.gpus import WHOLE_BOARD
from berth.model.nodes import Node
from berth.model.resources import Resources
from berth.model.topology import Level, domains_of
from berth.model.workloads import Device, PodShape
from berth.planning.feasibility import unwelcome, why_not
from berth.planning.field import Tiers
from berth.planning.ledger import needs_of
from berth.planning.packing import Gang


@dataclass(frozen=True)
class Spot:
    """A node, and what fits there."""

    path: tuple[str, ...]  # its domains, then its name
    name: str
    capacity: int
    whole: int  # free whole boards, in memory slices
    parts: int  # free MIG instances, in memory slices
    averse: bool
    boards: int  # whole boards that it offers
    unused: bool  # whether all of them are free
    excluded: str


Spots = tuple[Spot, ...]


def spots_of(
    nodes: Sequence[Node], used: dict[str, Resources], levels: tuple[Level, ...], shape: PodShape, device: Device
) -> Spots:
    """The nodes of the device's model, in the order of their domains, then names."""
    found = []
    for node in nodes:
        if node.board is None or node.board.name != device.model:
            continue
        free = {name: n - used.get(node.name, {}).get(name, 0) for name, n in node.allocatable.items()}
        needs = needs_of(shape, device)
        fits = 0 if why_not(node, shape) else max(0, min(free.get(name, 0) // n for name, n in needs.items()))
        sizes = {name: p.memory_slices for p in node.board.profiles for name in p.resources}
        parts = sum(max(0, free.get(name, 0)) * size for name, size in sizes.items())
        whole = max(0, free.get(WHOLE_BOARD, 0)) * (node.board.memory_slices or 1)
        path = (*domains_of(node.labels, levels), node.name)
        boards = node.allocatable.get(WHOLE_BOARD, 0)
        unused = 0 < boards <= free.get(WHOLE_BOARD, 0)
        averse = unwelcome(node, shape)
        found.append(Spot(path, node.name, fits, whole, parts, averse, boards, unused, node.excluded))
    return tuple(sorted(found, key=lambda spot: (spot.path, spot.name)))


class Reference:
    """Packs gangs of one kind into spots."""

    def __init__(self, spots: Spots, device: Device, gangs: Sequence[tuple[int, int]] = ()) -> None:
        """Nothing is taken; `gangs` of so many nodes, so often, should find room later."""
        self.spots = spots
        self.gangs = gangs
        self.count = device.count
        self.top = len(spots[0].path) - 1 if spots else 0  # the number of the level of single nodes
        self.own_is_whole = device.resource == WHOLE_BOARD
        self.wide = [
            level
            for level in range(self.top - 1, -1, -1)
            if any(len(domain) > 1 and domain[0].path[level] for domain in self.split(spots, level))
        ]

    def pack(self, gang: Gang) -> tuple[str, ...] | None:
        """A node for each rank; None where the gang does not fit."""
        for level in range(self.top, -1, -1):
            if gang.within is not None and level < gang.within:
                return None
            for tiers in (*gang.wishes, gang.tiers):
                able = [
                    domain
                    for domain in self.split(self.spots, level)
                    if domain[0].path[level]
                    and (gang.within is None or domain[0].path[gang.within])
                    and self.groups(domain, tiers) >= groups_in(gang, tiers)
                ]
                if able:
                    return self.spread(min(able, key=lambda d: self.tightness(d, level, gang.members)), gang, tiers)
        for tiers in (*gang.wishes, gang.tiers):
            if gang.within is None and self.groups(self.spots, tiers) >= groups_in(gang, tiers):
                return self.spread(self.spots, gang, tiers)
        return None

    def split(self, spots: Spots, level: int) -> list[Spots]:
        """The spots that agree on their path down to a level."""
        runs: dict[tuple[str, ...], list[Spot]] = {}
        for spot in spots:
            runs.setdefault(spot.path[: level + 1], []).append(spot)
        return [tuple(run) for run in runs.values()]

    def bonds(self, spots: Spots, level: int) -> list[Spots]:
        """The spots that surely share a domain of a level: by its label, else by that of the next closer level."""
        runs: dict[tuple[str, ...], list[Spot]] = {}
        for spot in spots:
            known = next(closer for closer in range(level, self.top + 1) if spot.path[closer])
            runs.setdefault(spot.path[: known + 1], []).append(spot)
        return [tuple(run) for run in runs.values()]

    def groups(self, spots: Spots, tiers: Tiers) -> int:
        """How many of the largest groups fit; members, where there are no groups."""
        if not tiers:
            return sum(spot.capacity for spot in spots)
        inner = tiers[1].size if tiers[1:] else 1
        return sum(self.groups(b, tiers[1:]) // (tiers[0].size // inner) for b in self.bonds(spots, tiers[0].level))

    def slack(self, spots: Spots, own: bool) -> int:
        """What is free, of the device's kind or the other, in memory slices."""
        return sum(spot.whole if own is self.own_is_whole else spot.parts for spot in spots)

    def tightness(self, spots: Spots, level: int, members: int) -> tuple[object, ...]:
        """Orders equal choices."""
        averse = sum(spot.averse for spot in spots)
        around = tuple(self.whole(self.around(spots, broader)) for broader in self.wide if broader < level)
        slack = self.slack(spots, True), self.slack(spots, False)
        own = self.own_is_whole
        return self.spoilt(spots, level, members) if own else 0, *slack, averse, around if own else (), spots[0].path

    def spoilt(self, spots: Spots, level: int, members: int) -> int:
        """How many nodes' worth of gangs would no longer fit, in these spots or around them."""
        if level == self.top and not self.whole(spots):
            return 0
        boards = max((spot.boards for spot in self.spots if not spot.excluded), default=0) or 1
        lost, nodes = 0, -(-members * self.count // boards)
        for broader in self.wide:
            around = self.around(spots, broader)
            if broader <= level and around[0].path[broader]:
                free = self.whole(around)
                lost += sum(n * size * (free // size - max(free - nodes, 0) // size) for size, n in self.gangs)
        return lost

    def around(self, spots: Spots, level: int) -> Spots:
        """The domain of a level that these spots lie in."""
        return tuple(s for s in self.spots if s.path[: level + 1] == spots[0].path[: level + 1])

    def whole(self, spots: Spots) -> int:
        """How many nodes have all their boards free."""
        return sum(spot.unused for spot in spots)

    def spread(self, spots: Spots, gang: Gang, tiers: Tiers) -> tuple[str, ...]:
        """The nodes of all ranks, in the order of the spots."""
        counts = dict(self.fill(spots, 0, groups_in(gang, tiers), tiers))
        return tuple(spot.name for spot in spots for _ in range(counts.get(spot, 0)))

    def fill(self, spots: Spots, level: int, wanted: int, tiers: Tiers) -> Iterator[tuple[Spot, int]]:
        """Members for each spot: the tightest part that holds all, else the roomiest first."""
        while tiers and len(self.bonds(spots, tiers[0].level)) == 1:
            wanted *= tiers[0].size // (tiers[1].size if tiers[1:] else 1)
            tiers = tiers[1:]
        if len(spots) == 1:
            yield spots[0], wanted
            return
        parts = self.split(spots, level)
        while wanted:
            holding = [part for part in parts if self.groups(part, tiers) >= wanted]
            if holding:
                members = wanted * (tiers[0].size if tiers else 1)
                best = min(holding, key=lambda part: (not part[0].path[level], self.tightness(part, level, members)))
            else:
                best = min(parts, key=lambda part: self._roomiest(part, level, tiers))
            taken = min(wanted, self.groups(best, tiers))
            if taken:
                yield from self.fill(best, level + 1, taken, tiers)
            wanted -= taken
            parts.remove(best)

    def _roomiest(self, part: Spots, level: int, tiers: Tiers) -> tuple[object, ...]:
        averse = sum(spot.averse for spot in part)
        room = -self.groups(part, tiers)
        return not part[0].path[level], room, self.slack(part, True), self.slack(part, False), averse, part[0].path


def groups_in(gang: Gang, tiers: Tiers) -> int:
    """How many of the largest groups a gang has; members, where there are no groups."""
    return gang.members // (tiers[0].size if tiers else 1)
