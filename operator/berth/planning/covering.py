"""The cheapest set of running workloads whose end lets a gang fit.

Which set is cheapest is a covering problem, hard in general; what makes it so are gangs over several nodes, and quota.
In each domain, for a choice of the gangs over several nodes that end there, the rest is exact: on each node the
cheapest others that let one more member fit, two more and so on, and the cheapest way to share the members among the
nodes. The choice of gangs is improved one by one. A price on quota that is short makes those cheaper who give it back.
Then sets are tried in order of their cost, up to a limit, so that small answers are the best there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush, nsmallest
from itertools import islice
from typing import TypeVar

import numpy as np

from berth.planning.freeing import Holder, Lack, freed_by
from berth.planning.knapsack import INFINITE, Floats, least, shared

T = TypeVar("T")
Answer = tuple[Holder, ...]
Gangs = frozenset[str]
"""The uids of the gangs over several nodes of a domain that end."""

MOST_SCREENED = 3000  # sets looked at in order of cost where nothing was found: all pairs of 75 workloads
MOST_CHECKED = 500  # the same where something was found: all sets of 8 workloads
MOST_TRIED = 24  # sets that would make room and are tried whole: each may cost a plan
MOST_NODES = 256  # of a domain, or twice as many as members: the cheapest to make room on, by a rough measure
MOST_DOMAINS = 8  # in which the choice of gangs is improved, the cheapest by an estimate: some 20 ms each
MOST_GANGS = 48  # of a domain, the cheapest per board, that are chosen among
MOST_CHOICES = 200  # of gangs that are looked at in one domain
MOST_REPAIRS = 8  # times that a domain is solved anew without those who may not end together with the others
PRICES = (0.0, 1.0, 0.5, 2.0)  # of quota that is short: times what the last board of it costs if nothing else counts


def anything(ended: Collection[Holder]) -> bool:
    """Every set may be chosen."""
    return True


def cheapest(
    lacks: Sequence[Lack],
    holders: Iterable[Holder],
    works: Callable[[Answer], T | None],
    most: int,
    allowed: Callable[[Collection[Holder]], bool] = anything,
) -> tuple[Answer, T] | None:
    """The cheapest set of at most `most` workloads whose end meets one of the lacks and that works when tried whole.

    Of an `allowed` set every part must be allowed too.
    """
    useful = sorted((one for one in holders if any(lack.concerns(one) for lack in lacks)), key=lambda one: one.key)
    lacks = [lack for lack in lacks if lack.met_by(useful)]
    if not lacks:
        return None
    found: tuple[Answer, T] | None = None
    tried: set[frozenset[str]] = set()

    def attempt(ended: Answer) -> T | None:
        names = frozenset(one.uid for one in ended)
        if names in tried or len(tried) >= MOST_TRIED:
            return None
        tried.add(names)
        return works(ended)

    covers = [Cover(lack, useful, allowed) for lack in lacks]
    answers = [answer for cover in covers for answer in cover.answers() if 0 < len(answer) <= most]
    for answer in sorted(answers, key=_rank):
        if (outcome := attempt(answer)) is not None:
            found = answer, outcome
            break
    for ended in islice(in_order_of_cost(useful), MOST_CHECKED if found else MOST_SCREENED):
        if found is not None and cost_of(ended) >= cost_of(found[0]):
            break
        if len(ended) > most or not any(lack.met_by(ended) for lack in lacks) or not allowed(ended):
            continue
        if (outcome := attempt(ended)) is not None:
            return ended, outcome
    return found


def in_order_of_cost(holders: Sequence[Holder]) -> Iterator[Answer]:
    """All sets of the holders, which are sorted by cost, the cheapest set first."""
    heap: list[tuple[float, tuple[int, ...]]] = [(holders[0].cost, (0,))] if holders else []
    while heap:
        total, chosen = heappop(heap)
        yield tuple(holders[i] for i in chosen)
        last = chosen[-1]
        if last + 1 < len(holders):
            following = holders[last + 1].cost
            heappush(heap, (total + following, (*chosen, last + 1)))
            heappush(heap, (total - holders[last].cost + following, (*chosen[:-1], last + 1)))


def cost_of(ended: Iterable[Holder]) -> float:
    """What the end of them all costs."""
    return sum(one.cost for one in ended)


def _rank(ended: Answer) -> tuple[float, int, list[tuple[float, float, str]]]:
    return cost_of(ended), len(ended), [one.key for one in ended]


@dataclass
class Cover:
    """Sets that would meet one lack."""

    lack: Lack
    useful: Sequence[Holder]  # by their key
    allowed: Callable[[Collection[Holder]], bool]

    def answers(self) -> Iterator[Answer]:
        """Sets whose end makes room in one of the domains that promise most, with nothing that is not needed."""
        if self.lack.has_room(()):
            quota = self._completed([], ())
            if quota is not None:
                yield quota
            return
        for price in PRICES if self.lack.lacks_quota else PRICES[:1]:
            costs = {one.uid: self._priced(one, price * self._price_of_quota) for one in self.useful}
            parts = [Part(self.lack, domain, self._likely(on, costs), costs) for domain, on in self._on.items()]
            ranked = sorted((part.estimate[0], part.domain, part) for part in parts if part.estimate[0] < INFINITE)
            for *_, part in ranked[:MOST_DOMAINS]:
                answer = self._answer(part)
                if answer is not None:
                    yield answer

    def _likely(self, on: Mapping[str, Sequence[Holder]], costs: Mapping[str, float]) -> Mapping[str, Sequence[Holder]]:
        """The nodes of a domain on which room is cheapest to make, if there are many."""
        most = max(MOST_NODES, 2 * self.lack.gang.members)
        if len(on) <= most:
            return on
        chosen = nsmallest(most, on, key=lambda node: (self._roughly(node, on[node], costs), node))
        return {node: on[node] for node in chosen}

    def _roughly(self, node: str, there: Sequence[Holder], costs: Mapping[str, float]) -> float:
        """What it costs per member to end the cheapest on a node until one more fits; gangs are charged in parts."""
        resource, unit = self.lack.field.device.resource, self.lack.field.device.count
        free, cost = self.lack.free(node).get(resource, 0), 0.0
        for one in there:
            for at, needs in one.held:
                if at == node:
                    free, cost = free + needs.get(resource, 0), cost + costs[one.uid] / len(one.held)
            if free >= unit:
                return cost / (free // unit)
        return INFINITE

    def _answer(self, part: Part) -> Answer | None:
        """The best set of one domain that is allowed, found by leaving out who may not end with the others."""
        for _ in range(MOST_REPAIRS):
            chosen = part.best()
            kept: list[Holder] = []
            banned: set[str] = set()
            for one in sorted(chosen or (), key=lambda one: one.key):
                if self.allowed([*kept, one]):
                    kept.append(one)
                else:
                    banned.add(one.uid)
            if chosen is None or not banned:
                return None if chosen is None else self._completed(kept, part.all)
            part = part.without(banned)
        return None

    def _completed(self, chosen: list[Holder], there: Iterable[Holder]) -> Answer | None:
        """The set with what quota, and groups of members, still need; and without what is not needed then."""
        for more, enough in ((self._by_relief, self.lack.within_quota), (there, self.lack.met_by)):
            for one in more:
                if enough(chosen):
                    break
                if one not in chosen and self.allowed([*chosen, one]):
                    chosen.append(one)
        if not self.lack.met_by(chosen):
            return None
        kept = sorted(chosen, key=lambda one: one.key)
        for one in reversed(tuple(kept)):
            rest = [other for other in kept if other is not one]
            if self.lack.met_by(rest):
                kept = rest
        return tuple(kept)

    def _priced(self, one: Holder, price: float) -> float:
        """What one costs, less the worth of the quota that it gives back."""
        return max(0.0, one.cost - price * self._reliefs.get(one.uid, 0.0)) if price else one.cost

    @cached_property
    def _reliefs(self) -> dict[str, float]:
        """Boards of the quota that is short, of those that give some back."""
        reliefs = ((one.uid, float(self.lack.relief(one))) for one in self.useful)
        return {uid: boards for uid, boards in reliefs if boards > 0}

    @cached_property
    def _by_relief(self) -> list[Holder]:
        """Those that give quota back, the cheapest per board first."""
        able = [one for one in self.useful if one.uid in self._reliefs]
        return sorted(able, key=lambda one: (one.cost / self._reliefs[one.uid], one.key))

    @cached_property
    def _price_of_quota(self) -> float:
        """What the last board costs of the quota that is short, if nothing else counts."""
        chosen: list[Holder] = []
        for one in self._by_relief:
            chosen.append(one)
            if self.lack.within_quota(chosen):
                break
        return chosen[-1].cost / self._reliefs[chosen[-1].uid] if chosen else 0.0

    @cached_property
    def _on(self) -> dict[int, dict[str, list[Holder]]]:
        """Who is where, by domain and node."""
        on: dict[int, dict[str, list[Holder]]] = defaultdict(lambda: defaultdict(list))
        for one in self.useful:
            for node in dict.fromkeys(node for node, _ in one.held):
                domain = self.lack.domain_of(node)
                if domain is not None:
                    on[domain][node].append(one)
        return on


@dataclass
class Part:
    """One domain, who is on its nodes, and what each costs."""

    lack: Lack
    domain: int
    on: Mapping[str, Sequence[Holder]]
    costs: Mapping[str, float]  # by uid
    _rows: dict[tuple[str, Gangs], Row] = field(default_factory=dict)
    _totals: dict[Gangs, float] = field(default_factory=dict)

    def without(self, banned: Collection[str]) -> Part:
        """The same domain, where these may not be ended."""
        on = {node: [one for one in there if one.uid not in banned] for node, there in self.on.items()}
        return Part(self.lack, self.domain, on, self.costs)

    @cached_property
    def all(self) -> list[Holder]:
        """Everybody in the domain, by their key."""
        return sorted({one.uid: one for there in self.on.values() for one in there}.values(), key=lambda one: one.key)

    @cached_property
    def estimate(self) -> tuple[float, Gangs]:
        """About what it costs to make room, and the gangs that end then: each charged in equal parts to its nodes."""
        rows = [self._row(node, self.on[node], {}) for node in self._nodes]
        found = shared(self._matrix(rows), self._wanted)
        if found is None:
            return INFINITE, frozenset()
        total, picks = found
        ended = frozenset(one.uid for i, k in picks for one in rows[i].taken(k) if one.uid in self._several)
        return total, ended

    def best(self) -> Answer | None:
        """The best set that was found; None where there is none."""
        best: tuple[float, list[str]] | None = None
        for start in (self.estimate[1], Gangs(), Gangs(self._gangs)):
            ended = self._improved(start)
            if self._total(ended) < INFINITE and (best is None or (self._total(ended), sorted(ended)) < best):
                best = self._total(ended), sorted(ended)
        return None if best is None else self._chosen(Gangs(best[1]))

    def _improved(self, ended: Gangs) -> Gangs:
        """The choice of gangs after every change of one, or of one for another, that makes it cheaper."""
        better = True
        while better and len(self._totals) < MOST_CHOICES:
            better = False
            for other in self._neighbours(ended):
                if self._total(other) < self._total(ended):
                    ended, better = other, True
                    break
                if len(self._totals) >= MOST_CHOICES:
                    break
        return ended

    def _neighbours(self, ended: Gangs) -> Iterator[Gangs]:
        yield from (ended ^ {uid} for uid in self._gangs)
        yield from (ended ^ {uid, other} for uid in sorted(ended) for other in self._gangs if other not in ended)

    def _total(self, ended: Gangs) -> float:
        """The least that it costs if these gangs end, and no other."""
        known = self._totals.get(ended)
        if known is None:
            found = self._least(ended)
            gangs = sum(self.costs[uid] for uid in sorted(ended))
            known = self._totals[ended] = INFINITE if found is None else found[0] + gangs
        return known

    def _chosen(self, ended: Gangs) -> Answer:
        _, picks = self._least(ended) or (0.0, [])
        others = (one for i, k in picks for one in self._known(self._nodes[i], ended).taken(k))
        return (*(self._several[uid] for uid in sorted(ended)), *others)

    def _least(self, ended: Gangs) -> tuple[float, list[tuple[int, int]]] | None:
        """How the members are shared among the nodes if these gangs end."""
        costs = self._costs.copy()
        for i in {i for uid in ended for i in self._places[uid]}:
            row = self._known(self._nodes[i], ended)
            costs[i] = INFINITE
            costs[i, : len(row.costs)] = row.costs
        return shared(costs, self._wanted)

    @cached_property
    def _costs(self) -> Floats:
        """What members cost on each node if no gang over several ends."""
        return self._matrix([self._known(node, Gangs()) for node in self._nodes])

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """On which nodes each gang over several is."""
        index = {node: i for i, node in enumerate(self._nodes)}
        return {uid: sorted({index[n] for n, _ in one.held if n in index}) for uid, one in self._several.items()}

    @cached_property
    def _nodes(self) -> list[str]:
        return sorted(self.on)

    @cached_property
    def _several(self) -> dict[str, Holder]:
        """The gangs that hold several nodes of the domain, by uid."""
        return {one.uid: one for one in self.all if sum(node in self.on for node in {n for n, _ in one.held}) > 1}

    @cached_property
    def _gangs(self) -> list[str]:
        """Of these, the ones to choose among: the cheapest per board."""
        able = sorted(self._several.values(), key=lambda one: (self.costs[one.uid] / float(one.boards), one.key))
        return [one.uid for one in able[:MOST_GANGS]]

    @cached_property
    def _wanted(self) -> int:
        """Members that must fit on the nodes that somebody is on."""
        elsewhere = self.lack.free_members(self.domain) - sum(self.lack.members(node, {}) for node in self.on)
        return max(0, self.lack.gang.members - elsewhere)

    def _known(self, node: str, ended: Gangs) -> Row:
        here = Gangs(one.uid for one in self.on[node] if one.uid in ended)
        known = self._rows.get((node, here))
        if known is None:
            there = [one for one in self.on[node] if one.uid not in self._several]
            freed = freed_by([self._several[uid] for uid in here]).get(node, {})
            known = self._rows[node, here] = self._row(node, there, freed)
        return known

    def _row(self, node: str, there: Sequence[Holder], freed: Mapping[str, int]) -> Row:
        """For one member more on a node, two more and so on: the least that costs, by ending some of those there."""
        lack, resource, unit = self.lack, self.lack.field.device.resource, self.lack.field.device.count
        free = lack.free(node).get(resource, 0) + freed.get(resource, 0)
        rooms = [freed_by([one])[node] for one in there]
        costs = [self._part_of(one) for one in there]
        pieces = [room.get(resource, 0) for room in rooms]
        most = min(self._wanted, max(0, free + sum(pieces)) // unit)
        table = least(list(zip(pieces, costs, strict=True)), max(0, most * unit - free))
        sets: list[Answer] = []
        for k in range(1, most + 1):
            taken = table[max(0, k * unit - free)][1]
            chosen = [i for i in range(len(there)) if taken >> i & 1]
            rest = [i for i in range(len(there)) if not taken >> i & 1]
            while lack.members(node, _sum(freed, (rooms[i] for i in chosen))) < k and rest:
                chosen.append(rest.pop(0))  # something else than boards is short
            if lack.members(node, _sum(freed, (rooms[i] for i in chosen))) < k:
                break
            sets.append(tuple(there[i] for i in chosen))
        return Row([sum(self._part_of(one) for one in chosen) for chosen in sets], sets)

    def _part_of(self, one: Holder) -> float:
        """What one costs on each of its nodes here, in equal parts."""
        if one.uid not in self._several:
            return self.costs[one.uid]
        return self.costs[one.uid] / sum(node in self.on for node in {n for n, _ in one.held})

    def _matrix(self, rows: Sequence[Row]) -> Floats:
        found = np.full((len(rows), max(1, self._width)), INFINITE)
        for i, row in enumerate(rows):
            found[i, : len(row.costs)] = row.costs
        return found

    @cached_property
    def _width(self) -> int:
        """The most members that any of the nodes could hold."""
        ended = freed_by(self.all)
        return min(self._wanted, max((self.lack.members(node, ended.get(node, {})) for node in self.on), default=0))


@dataclass(frozen=True, slots=True)
class Row:
    """What it costs that one member fits on a node, two and so on, and who ends for it."""

    costs: Sequence[float]
    sets: Sequence[Answer]

    def taken(self, k: int) -> Answer:
        """Who ends so that k members fit."""
        return self.sets[k - 1]


def _sum(freed: Mapping[str, int], rooms: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = dict(freed)
    for room in rooms:
        for name, n in room.items():
            total[name] = total.get(name, 0) + n
    return total
