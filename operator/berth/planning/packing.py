"""From a gang to nodes: the closest domain that holds it, as few nodes as fit, and the tightest of equal choices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from berth.planning.field import Field, Tier, Tiers
from berth.planning.fleet import POOL, Ints, Span


@dataclass(frozen=True, slots=True)
class Gang:
    """What is to be packed: `members`, each group of `tiers` inside one domain of its level.

    `within` is the number of the level that all members must share, None where no level is required. `wishes` are
    tiers that would be better, the best first; each keeps those of `tiers`. Runs of `stage` members should be as close
    together as can be.
    """

    members: int
    tiers: Tiers = ()
    within: int | None = None
    wishes: tuple[Tiers, ...] = ()
    stage: int = 1

    @property
    def group(self) -> int:
        """The size of the largest groups that must stay together."""
        return _unit(self.tiers)


def pack(field: Field, gang: Gang) -> tuple[str, ...] | None:
    """A node for each rank, or None where the gang does not fit as a whole.

    1. The closest level with a domain that holds the whole gang wins, a single node being the closest.
    2. Among its domains, those that keep the better of the wishes.
    3. Among these, the one that has the least room to lose.
    4. Inside it, again the closest and tightest that holds all; else the roomiest first, and the rest likewise.

    Ranks follow the topology: neighbouring ranks sit in the same domain, and groups are consecutive ranks.
    """
    home = _home(field, gang)
    if home is None:
        return None
    span, tiers = home
    counts: dict[int, int] = {}
    _fill(field, span, 0, gang.members // _unit(tiers), tiers, counts)
    nodes = field.pool.nodes
    return tuple([name for i in sorted(counts) for name in [nodes[i].name] * counts[i]])


def most_that_fit(field: Field, gang: Gang) -> int:
    """How many members fit at once, the required level and whole groups kept; at most the gang's own number."""
    if gang.within is None:
        best = int(field.groups(POOL, gang.tiers)[0])
    else:
        groups, named = field.groups(gang.within, gang.tiers), field.pool.named(gang.within, None)
        best = int(groups.max() if named is None else groups[named].max(initial=0))
    return min(gang.members, best * gang.group)


def nested(tiers: Iterable[Tier]) -> Tiers:
    """The tiers, the largest first, without those that others imply: as large or larger, and as close or closer.

    Sizes that do not divide each other can't all be kept; requests with such are Misconfigured.
    """
    kept: list[Tier] = []
    for tier in sorted(tiers, key=lambda tier: (-tier.size, -tier.level)):
        if tier.size > 1 and (not kept or (kept[-1].size % tier.size == 0 and tier.level > kept[-1].level)):
            kept.append(tier)
    return tuple(kept)


def _unit(tiers: Tiers) -> int:
    return tiers[0].size if tiers else 1


def _home(field: Field, gang: Gang) -> tuple[Span, Tiers] | None:
    """The nodes that the gang goes to, and the groups that it keeps there."""
    able = [t for t in _choices(field, gang) if field.groups(POOL, t)[0] >= gang.members // _unit(t)]
    for level in field.pool.rungs if able else ():
        if gang.within is not None and level < gang.within:
            return None
        named = field.pool.named(level, gang.within)
        for tiers in able:
            holding = field.groups(level, tiers) >= gang.members // _unit(tiers)
            found = np.flatnonzero(holding if named is None else holding & named)
            if level == field.pool.nodewise:
                found = field.guided(found, gang.members)
            if len(found):
                return field.pool.at(level).span(field.tightest(level, found, gang.members)), tiers
    return ((0, len(field.pool.nodes)), able[0]) if able and gang.within is None else None


def _choices(field: Field, gang: Gang) -> Iterator[Tiers]:
    """The tiers to try, the best first: with each wish, stages in domains as close as can be."""
    for tiers in (*gang.wishes, gang.tiers):
        if 1 < gang.stage < gang.members and all(_divide(gang.stage, tier.size) for tier in tiers):
            yield from (nested([*tiers, Tier(gang.stage, level)]) for level in field.pool.rungs)
        yield tiers


def _divide(one: int, other: int) -> bool:
    return one % other == 0 or other % one == 0


def _fill(field: Field, span: Span, level: int, wanted: int, tiers: Tiers, counts: dict[int, int]) -> None:
    """Place `wanted` groups on the nodes of a span that holds them; its parts at `level` are tried first."""
    while tiers and field.holds(span, tiers):
        wanted, tiers = wanted * (tiers[0].size // _unit(tiers[1:])), tiers[1:]
    if span[1] - span[0] == 1:
        counts[span[0]] = counts.get(span[0], 0) + wanted
        return
    while (runs := field.pool.domains[level].within(span)).stop - runs.start == 1:
        level += 1
    for part, taken in _shares(field, level, runs, wanted, tiers):
        _fill(field, field.pool.domains[level].span(part), level + 1, taken, tiers, counts)


def _shares(field: Field, level: int, runs: slice, wanted: int, tiers: Tiers) -> list[tuple[int, int]]:
    """How many groups each of these domains of a level gets: all to the tightest that holds them, if any does.

    Else the roomiest are filled, until what is left fits in one: in the tightest that holds it.
    """
    rooms = field.groups(level, tiers)[runs]
    holding = np.flatnonzero(rooms >= wanted) + runs.start
    if len(holding):
        return [(_tightest_named(field, level, holding, wanted * _unit(tiers)), wanted)]
    order = field.ranked(level, runs, rooms)
    ranked = rooms[order]
    rest = wanted - (np.cumsum(ranked) - ranked)
    roomiest = np.maximum.accumulate(ranked[::-1])[::-1]
    full = int(np.argmax(roomiest >= rest))
    left = int(rest[full])
    shares = [
        (int(part) + runs.start, int(room)) for part, room in zip(order[:full], ranked[:full], strict=True) if room
    ]
    if left:
        last = order[full:][ranked[full:] >= left] + runs.start
        shares.append((_tightest_named(field, level, np.sort(last), left * _unit(tiers)), left))
    return shares


def _tightest_named(field: Field, level: int, domains: Ints, members: int) -> int:
    """The tightest; a run of nodes that only lack a label, and may be far apart, comes after those with a name."""
    named = field.pool.named(level, None)
    if named is not None and named[domains].any():
        domains = domains[named[domains]]
    return field.tightest(level, domains, members)
