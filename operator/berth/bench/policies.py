"""The packers that ours is compared with: Random, BestFit, GPU Packing and FGD, as the FGD paper's artefact has them.

Each gives a node an integer score; the highest wins, and among equals the node that comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np

from berth.bench.fleet import Fleet, Ints
from berth.bench.fragmentation import Floats, Fragmentation
from berth.planning.scarcity import WHOLE, Demand

LARGEST_CPU_MILLI = 128_000  # the largest node of the trace, by which BestFit measures
LARGEST_GPU_MILLI = 8_000

Choice = tuple[int, int]  # a node, and the board for a demand of one board (0 where it asks for none or several)
Scores = tuple[Floats, Ints]  # for each node asked about: its score, -inf where the demand doesn't fit, and the board


class Policy(Protocol):
    """Chooses where a pod goes, one pod at a time."""

    def choose(self, fleet: Fleet, demand: Demand) -> Choice | None:
        """A node and a board with room for the demand, None where there is none. The caller places it there."""


class RandomFit:
    """A random node of those with room, and a random board of it."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def choose(self, fleet: Fleet, demand: Demand) -> Choice | None:
        """See Policy."""
        fitting = np.flatnonzero(fleet.fits(demand, np.arange(len(fleet))))
        if not len(fitting):
            return None
        node = int(self._random.choice(fitting))
        return node, int(self._random.choice(np.flatnonzero(fleet.free[node] >= demand.share)))


@dataclass(slots=True)
class Known:
    """The scores of all nodes for one demand, and the boards that go with them."""

    scores: Floats
    boards: Ints
    placements: int  # how many of them these scores take into account


class Scoreboard:
    """Scores, kept for each demand, and renewed for the nodes where something was placed since."""

    def __init__(self, score: Callable[[Fleet, Demand, Ints], Scores]) -> None:
        self._score = score
        self._known: dict[Demand, Known] = {}
        self._placed: list[int] = []

    def of(self, fleet: Fleet, demand: Demand) -> Known:
        """The scores for a demand, up to date."""
        known = self._known.get(demand)
        if known is None:
            scores, boards = self._score(fleet, demand, np.arange(len(fleet)))
            known = self._known[demand] = Known(scores, boards, len(self._placed))
        elif known.placements < len(self._placed):
            rows = np.unique(self._placed[known.placements :])
            known.scores[rows], known.boards[rows] = self._score(fleet, demand, rows)
            known.placements = len(self._placed)
        return known

    def placed(self, node: int) -> None:
        """Something is about to be placed on a node."""
        self._placed.append(node)

    def forget(self) -> None:
        """Scores have a new meaning."""
        self._known.clear()


class HighestScore:
    """The first of the nodes with the highest score."""

    def __init__(self, score: Callable[[Fleet, Demand, Ints], Scores]) -> None:
        self._scoreboard = Scoreboard(score)

    def choose(self, fleet: Fleet, demand: Demand) -> Choice | None:
        """See Policy."""
        known = self._scoreboard.of(fleet, demand)
        node = int(np.argmax(known.scores))
        if known.scores[node] == -np.inf:
            return None
        self._scoreboard.placed(node)
        return node, int(known.boards[node])


def best_fit(fleet: Fleet, demand: Demand, rows: Ints) -> Scores:
    """The node that is left with the least CPU and boards, and the board with the least room that suffices."""
    cpu_left = (fleet.cpu[rows] - demand.cpu_milli) / LARGEST_CPU_MILLI
    gpu_left = (fleet.free[rows].sum(axis=1) - demand.milli) / LARGEST_GPU_MILLI
    scores = np.floor(_settled(100 * (1 - 0.5 * cpu_left - 0.5 * gpu_left)))
    return _where_it_fits(fleet, demand, rows, scores), _tightest_board(fleet, demand, rows)


def gpu_packing(fleet: Fleet, demand: Demand, rows: Ints) -> Scores:
    """Boards already shared first, then free boards of nodes in use, then empty nodes, small ones first."""
    board = _tightest_board(fleet, demand, rows)
    if not demand.boards:
        return _where_it_fits(fleet, demand, rows, np.zeros(len(rows))), board
    free = fleet.free[rows]
    fitting = np.sort(np.where(free >= demand.share, free, WHOLE), axis=1)[:, : demand.boards]
    fresh = np.count_nonzero(fitting == WHOLE, axis=1)
    whole = np.count_nonzero(free == WHOLE, axis=1)
    shared = np.maximum(50, 100 - (fitting * 100 // WHOLE).sum(axis=1) // 10)
    scores = np.where(fresh > 0, np.maximum(33, 50 - fresh), shared)
    empty = whole == fleet.boards[rows]
    scores = np.where(empty, np.maximum(33 - whole, whole), scores)
    return _where_it_fits(fleet, demand, rows, scores.astype(np.float64)), board


def fgd(measure: Fragmentation) -> Callable[[Fleet, Demand, Ints], Scores]:
    """Fragmentation gradient descent: the node, and the board, whose fragmentation grows least."""

    def score(fleet: Fleet, demand: Demand, rows: Ints) -> Scores:
        cpu, model, free = fleet.cpu[rows], fleet.model[rows], fleet.free[rows]
        rooms, usable = measure.sums(free)
        in_all = free.sum(axis=1)
        before = measure.amount(cpu, model, in_all, (rooms, usable))
        if demand.boards == 1:
            left = np.maximum(free - demand.share, 0)
            sums_after = (
                rooms[:, None] - measure.roomy[free] + measure.roomy[left],
                usable[:, None] - measure.usable[free] + measure.usable[left],
            )
        else:
            taken = (free >= demand.share) & (np.cumsum(free >= demand.share, axis=1) <= demand.boards)
            rooms_after, usable_after = measure.sums(free - taken * demand.share)
            sums_after = rooms_after[:, None], usable_after[:, None]
        after = measure.amount(
            (cpu - demand.cpu_milli)[:, None], model[:, None], (in_all - demand.milli)[:, None], sums_after
        )
        gain = _settled((before[:, None] - after) / WHOLE)
        scores = np.floor(100 / (1 + np.exp(-gain)))
        if demand.boards == 1:
            scores = np.where(free >= demand.share, scores, -np.inf)
        board = np.argmax(scores, axis=1)
        best = scores[np.arange(len(rows)), board]
        return _where_it_fits(fleet, demand, rows, best), board

    return score


def _settled(values: Floats) -> Floats:
    """Without the noise of floating point, which would decide ties between integer scores."""
    return np.round(values, 9)


def _tightest_board(fleet: Fleet, demand: Demand, rows: Ints) -> Ints:
    free = fleet.free[rows]
    board: Ints = np.argmin(np.where(free >= demand.share, free, WHOLE + 1), axis=1)
    return board


def _where_it_fits(fleet: Fleet, demand: Demand, rows: Ints, scores: Floats) -> Floats:
    return np.where(fleet.fits(demand, rows), scores, -np.inf)
