"""The nodes of a plan, arranged once: a pool for each board model, sorted along the ladder of topology."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.nodes import Node
from berth.model.topology import NVLINK_LEVEL, Level, domains_of, islands_of
from berth.model.workloads import Market, PodShape
from berth.planning.feasibility import unwelcome, why_not

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Span = tuple[int, int]
"""Neighbouring nodes of a pool, `[low, high)`: the nodes of any one domain are such a span."""

POOL = -1  # stands for a level broader than all: the pool as one domain
MOST = 2**60  # no node has, and no pod gets, more of anything; larger numbers would not fit the arrays
OUTLOOKS_KEPT = 256  # kinds of pods, by what keeps them off nodes; a cluster sees tens


@dataclass(frozen=True, slots=True)
class Outlook:
    """What keeps pods of one shape off the nodes of a pool, whatever room they have."""

    causes: tuple[str, ...]  # by the pool's index; "": none
    open: Bools  # where there is none
    unwelcome: Ints | None  # 1 where a node would rather not have them; None: all welcome them


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """A pool cut into runs of neighbouring nodes."""

    starts: Ints  # the first node of each run
    numbers: Ints  # of each node, which run it is in

    def span(self, number: int) -> Span:
        """The nodes of a run."""
        high = int(self.starts[number + 1]) if number + 1 < len(self.starts) else len(self.numbers)
        return int(self.starts[number]), high

    def within(self, span: Span) -> slice:
        """The runs that a span consists of; one broader than the span counts as one."""
        return slice(int(self.numbers[span[0]]), int(self.numbers[span[1] - 1]) + 1)

    def merged(self, values: Ints, broader: Division) -> Ints:
        """Sums of `values`, one for each run, over the runs of a broader division."""
        if len(values) == len(broader.starts):
            return values
        return np.add.reduceat(values, self.numbers[broader.starts])


class Pool:
    """The nodes with boards of one model, in the order of their domains, then names.

    A domain is named by its whole path, so that two racks called "r1" in two zones stay two. Levels are numbered from
    the broadest; one more than the last, `nodewise`, stands for each node by itself.
    """

    def __init__(self, model: BoardModel, nodes: list[Node], levels: tuple[Level, ...]) -> None:
        """Sort the nodes."""
        keyed = sorted([(domains_of(n.labels, levels), n.name, n) for n in nodes], key=lambda entry: entry[:2])
        self.model = model
        self.levels = levels
        self.nodewise = len(levels)
        self.nodes = tuple([node for _, _, node in keyed])
        self.paths = tuple([path for path, _, _ in keyed])
        self.index = {node.name: i for i, node in enumerate(self.nodes)}
        self.outlook = lru_cache(OUTLOOKS_KEPT)(self._outlook)
        self.markets = lru_cache(OUTLOOKS_KEPT)(self._markets)
        self.allocatable = lru_cache(None)(self._allocatable)
        self.bonds = lru_cache(None)(self._bonds)
        self.named = lru_cache(None)(self._named)

    @cached_property
    def labelled(self) -> Bools:
        """By level and node, whether a label names the node's domain there."""
        named = [[bool(name) for name in path] for path in self.paths]
        return np.concatenate([np.array(named, dtype=np.bool_).T, np.ones((1, len(self.nodes)), dtype=np.bool_)])

    @cached_property
    def domains(self) -> tuple[Division, ...]:
        """For each level, the runs of nodes that agree on the path down to it; nodes without a label make a run too."""
        edges = np.zeros(len(self.nodes), dtype=np.bool_)
        edges[0] = True
        found = []
        for level in range(len(self.levels)):
            names = [path[level] for path in self.paths]
            edges[1:] |= np.fromiter((a != b for a, b in pairwise(names)), np.bool_)
            found.append(_division(edges))
        return (*found, _division(np.ones(len(self.nodes), dtype=np.bool_)))

    @cached_property
    def whole(self) -> Division:
        """The pool as one domain."""
        return Division(np.zeros(1, dtype=np.int64), np.zeros(len(self.nodes), dtype=np.int64))

    def at(self, level: int) -> Division:
        """The domains of a level; of POOL the one that is all."""
        return self.whole if level == POOL else self.domains[level]

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The levels worth trying, closest first: single nodes, then those that name a domain of two nodes or more."""
        return (self.nodewise, *(level for level in reversed(range(self.nodewise)) if self._is_wide(level)))

    def _is_wide(self, level: int) -> bool:
        starts = self.domains[level].starts
        sizes = np.diff(starts, append=len(self.nodes))
        return bool((self.labelled[level][starts] & (sizes > 1)).any())

    def _named(self, level: int, within: int | None) -> Bools | None:
        """The domains of a level that have a name, and lie in one of level `within` that has; None: all."""
        starts = self.at(level).starts
        mask = self.labelled[level][starts]
        if within is not None:
            mask = mask & self.labelled[within][starts]
        return None if mask.all() else mask

    @property
    def nvlink_level(self) -> int:
        """The number of the level whose domains share NVLink; where the ladder has none, that of single nodes."""
        return next((i for i, level in enumerate(self.levels) if level.name == NVLINK_LEVEL), self.nodewise)

    def _bonds(self, level: int) -> Division:
        """The sets of nodes that are known to share a domain of a level.

        Nodes that the level's label names; without it, those of the broadest closer domain that has a label, for what
        is in one rack is in one block; else each node by itself.
        """
        edges = np.zeros(len(self.nodes), dtype=np.bool_)
        unnamed = np.ones(len(self.nodes), dtype=np.bool_)
        for closer in range(level, self.nodewise + 1):
            starts = np.zeros(len(self.nodes), dtype=np.bool_)
            starts[self.domains[closer].starts] = True
            edges |= starts & unnamed
            unnamed &= ~self.labelled[closer]
        return _division(edges)

    @cached_property
    def islands(self) -> Mapping[int, tuple[int, ...]]:
        """The NVLink island of each board, for nodes whose boards are not all linked to each other."""
        found = {i: islands_of(node.links) for i, node in enumerate(self.nodes) if node.links}
        return {i: numbers for i, numbers in found.items() if len(set(numbers)) > 1 or not self.model.nvlink_gb_per_s}

    @cached_property
    def linkless(self) -> Bools | None:
        """Nodes that share NVLink with no other, and whose boards share none either; None where there are none."""
        if self.model.nvlink_gb_per_s:
            return None
        linked = np.zeros(len(self.nodes), dtype=np.bool_)
        linked[[i for i, numbers in self.islands.items() if len(set(numbers)) < len(numbers)]] = True
        mask = ~(linked | (self.labelled[self.nvlink_level] if self.nvlink_level < self.nodewise else linked))
        return mask if mask.any() else None

    @cached_property
    def has_nvlink(self) -> bool:
        """Whether boards of any node share NVLink."""
        return self.linkless is None or not self.linkless.all()

    @cached_property
    def slices(self) -> Mapping[str, int]:
        """Memory slices behind one piece of each extended resource of this model (1 for a board without MIG)."""
        sizes = {name: p.memory_slices for p in self.model.profiles for name in p.resources}
        return {WHOLE_BOARD: self.model.memory_slices or 1, **sizes}

    @cached_property
    def stock(self) -> Mapping[str, int]:
        """The most that one node offers of each extended resource, nodes that can't serve demands left out."""
        serving = [node.allocatable for node in self.nodes if not node.excluded]
        offered = set().union(*serving)
        most = {name: max(held.get(name, 0) for held in serving) for name in self.slices if name in offered}
        return {name: count for name, count in most.items() if count > 0}

    @cached_property
    def boards(self) -> float:
        """How many boards there are; instances count by their share of one."""
        offered = self.stock.keys() & self.slices.keys()
        slices = sum(int(self.allocatable(name).sum()) * self.slices[name] for name in offered)
        return slices / self.slices[WHOLE_BOARD]

    @cached_property
    def market(self) -> tuple[Market, ...]:
        """The market of each node."""
        return tuple([(node.spot, node.region) for node in self.nodes])

    def _markets(self, bare: PodShape) -> tuple[Market, ...]:
        """The markets with nodes that pods of this shape are not kept off."""
        return tuple(sorted({self.market[i] for i in np.flatnonzero(self.outlook(bare).open)}))

    def _allocatable(self, resource: str) -> Ints:
        """What each node offers of a resource."""
        return whole_numbers([node.allocatable.get(resource, 0) for node in self.nodes])

    def _outlook(self, bare: PodShape) -> Outlook:
        """What keeps pods of that shape off the nodes; `bare`: requests play no part, so it should have none."""
        causes = tuple([why_not(node, bare) for node in self.nodes])
        averse = [i for i, node in enumerate(self.nodes) if node.taints and unwelcome(node, bare)]
        marks = np.zeros(len(self.nodes), dtype=np.int64)
        marks[averse] = 1
        return Outlook(causes, np.array([not cause for cause in causes], dtype=np.bool_), marks if averse else None)


class Fleet:
    """All nodes of a snapshot. It depends on nothing else, so plans over the same nodes may share one."""

    def __init__(self, nodes: Mapping[str, Node], levels: tuple[Level, ...]) -> None:
        """Sort the nodes into pools."""
        self.nodes = nodes
        self.levels = levels
        by_model: dict[str, list[Node]] = {}
        for node in nodes.values():
            if node.board is not None:
                by_model.setdefault(node.board.name, []).append(node)
        self.pools = {name: Pool(_least(found), found, levels) for name, found in sorted(by_model.items())}

    @cached_property
    def without_gpus(self) -> int:
        """How many nodes have no GPUs."""
        return len(self.nodes) - sum(len(pool.nodes) for pool in self.pools.values())


class Nodes(Mapping[str, Node]):
    """Nodes by name that stay as they are, and that remember how they were arranged for the ladder used last.

    Planning over plain mappings gives the same plans, but arranges the nodes anew each time.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        """Keep a copy."""
        self._nodes = dict(nodes)
        self._fleet: Fleet | None = None

    def __getitem__(self, name: str) -> Node:
        """The node of that name."""
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._nodes)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._nodes)

    def values(self) -> ValuesView[Node]:
        """The nodes."""
        return self._nodes.values()

    def items(self) -> ItemsView[str, Node]:
        """The names with their nodes."""
        return self._nodes.items()

    def arranged(self, levels: tuple[Level, ...]) -> Fleet:
        """The nodes along a ladder."""
        if self._fleet is None or self._fleet.levels != levels:
            self._fleet = Fleet(self._nodes, levels)
        return self._fleet


def fleet_of(nodes: Mapping[str, Node], levels: tuple[Level, ...]) -> Fleet:
    """The nodes along a ladder, arranged before if they are `Nodes`."""
    return nodes.arranged(levels) if isinstance(nodes, Nodes) else Fleet(nodes, levels)


def whole_numbers(amounts: Sequence[int]) -> Ints:
    """Amounts as an array; none above MOST."""
    try:
        return np.minimum(np.array(amounts, dtype=np.int64), MOST)
    except OverflowError:
        return np.array([min(amount, MOST) for amount in amounts], dtype=np.int64)


def _division(edges: Bools) -> Division:
    return Division(np.flatnonzero(edges), np.cumsum(edges) - 1)


def _least(nodes: list[Node]) -> BoardModel:
    """The model of a pool; of a product that no table knows, as the node with the least memory describes it."""
    first = nodes[0].board
    if first is not None and all(node.board is first for node in nodes):
        return first
    return min((n.board for n in nodes if n.board), key=lambda board: board.memory_mib)
