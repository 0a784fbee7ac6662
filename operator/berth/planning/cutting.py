"""Which of the waiting whole-board demands share a node, so that nodes get full and others stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from berth.model.gpus import WHOLE_BOARD
from berth.planning.fewest import fewest_nodes
from berth.planning.fleet import Ints
from berth.planning.ledger import Room

Cut = tuple[int, tuple[int, ...]]
"""The free boards of a node, and the boards of the demands that are to share them, the largest first."""

MOST_BOARDS = (
    8  # of a node; of 16 boards there are 231 ways to share them, and finding the best takes a tenth of a second
)


class Guide:
    """Where waiting demands for whole boards go, node by node, as worked out for all of them together.

    It only narrows a choice: a demand that it has no place for goes where the others leave room, else anywhere.
    """

    def __init__(self, room: Room, demands: Sequence[int]) -> None:
        """Work out cuts for demands of so many boards each, in the order in which they are served."""
        self._room = room
        self._mark = room.mark
        self._free = np.maximum(room.free(WHOLE_BOARD), 0)
        total = np.cumsum(demands)
        fitting = Counter(demands[: int(np.searchsorted(total, int(self._free.sum()), side="right"))])
        by_free = zip(*np.unique(self._free, return_counts=True), strict=True)
        self._open = cuts({int(free): int(n) for free, n in by_free if free}, fitting)
        self._left: dict[int, Counter[int]] = {}  # by node, what is still to come there
        self._expecting: dict[int, dict[int, None]] = {}  # by boards, the nodes where such a demand is to come
        self._taken = np.zeros(len(self._free), dtype=np.bool_)  # nodes where something is still to come

    def narrowed(self, nodes: Ints, boards: int) -> Ints:
        """Those of the nodes, each of which holds it, that a demand of so many boards should go to."""
        self._follow()
        for node in self._expecting.get(boards, ()):
            if node in nodes:
                return np.array([node], dtype=np.int64)
        untaken: Ints = nodes[~self._taken[nodes]]
        for (free, filling), n in self._open.items():
            if n and boards in filling:
                found: Ints = untaken[self._free[untaken] == free]
                if len(found):
                    return found
        return untaken if len(untaken) else nodes

    def _follow(self) -> None:
        """Note what was placed since the last look."""
        changed = sorted(set(self._room.taken_since(self._mark)))
        self._mark = self._room.mark
        now = self._room.free(WHOLE_BOARD)
        for node in changed:
            before, after = int(self._free[node]), max(0, int(now[node]))
            self._free[node] = after
            self._placed(node, before, before - after)

    def _placed(self, node: int, before: int, boards: int) -> None:
        """So many boards of a node went, of `before` that it had: as expected, or what was expected is given up."""
        left = self._left.get(node)
        if left is None:
            chosen = next((cut for cut, n in self._open.items() if n and cut[0] == before and boards in cut[1]), None)
            if chosen is None:
                return
            self._open[chosen] -= 1
            left = self._left[node] = Counter(chosen[1])
        left = left - Counter({boards: 1}) if left[boards] else Counter()
        for size in (*self._left[node], *left):
            self._expecting.setdefault(size, {}).pop(node, None)
        for size in left:
            self._expecting[size][node] = None
        self._left[node] = left
        self._taken[node] = bool(left)
        if not left:
            del self._left[node]


def guided(demands: Iterable[int]) -> bool:
    """Whether demands of so many boards need a guide: where each size divides the next, best fit wastes nothing."""
    return any(larger % smaller for smaller, larger in pairwise(sorted(set(demands))))


def cuts(free: Mapping[int, int], demands: Mapping[int, int]) -> Counter[Cut]:
    """How many nodes are to be filled by which cut; `free`: nodes by their free boards, `demands`: those by boards.

    Nodes in part use are filled first, the fullest first, each by the largest demands that fill it exactly; then as few
    whole nodes as hold the rest. Demands of more than one node are left out.
    """
    *partial, whole = sorted(free) or [0]
    left = Counter({size: n for size, n in demands.items() if size <= whole})
    found: Counter[Cut] = Counter()
    for size in partial:
        for _ in range(free[size]):
            filling = next(_fillings(size, left, size), None)
            if filling is None:
                break
            found[size, filling] += 1
            left -= Counter(filling)
    if left and whole <= MOST_BOARDS:
        found.update((whole, filling) for filling in fewest_nodes(whole, left))
    return found


def _fillings(boards: int, left: Mapping[int, int], largest: int) -> Iterator[tuple[int, ...]]:
    """Every way to fill so many boards exactly from what is left, the largest demands first."""
    if not boards:
        yield ()
        return
    for size in sorted((s for s, n in left.items() if n > 0 and s <= min(boards, largest)), reverse=True):
        for others in _fillings(boards - size, {**left, size: left[size] - 1}, size):
            yield (size, *others)
