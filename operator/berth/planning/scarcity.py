"""What free room is worth, so that a placement can be charged for what it makes impossible.

From the mix of demands alone (which ones, how often) follow:

- what a share of a board is worth beside a whole one, since what is left of a board is of use to some only: the dual
  prices of cutting boards into the shares of the mix (Gilmore and Gomory, Operations Research 9, 1961);
- what boards are worth beside the CPU and memory of their node: the boards that a stream of demands fills before its
  luck runs out (`_filled`);
- what is in short supply, given the room that is free now: models that some demands can't do without, and sets of whole
  boards with enough CPU (`Scarcity.priced`).

docs/decisions/0008-scarcity-prices.md has the formulas, and what else was tried. Everything depends on states alone,
never on names or order: nodes in equal states cost the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from berth.planning.linear import maximise

WHOLE = 1000  # a whole board, in thousandths: what shares of a board are counted in
PIECES = 24  # parts of a board in which room is valued: halves, thirds, quarters and eighths are exact
MOST_SHARES = 40  # that are priced together, exactly; rarer ones are worth what they leave less of a board
STEPS = 256  # of the largest node's CPU or memory, in which they are valued
LAST_CHANCE = 0.05  # how often a demand that doesn't fit was the last to come: 0.01 to 0.2 pack alike
UNTIDY = 0.02  # of a board, for each free board of the node chosen: nodes in use fill before others are broken into

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one pod asks of one node: `boards` boards, `share` of each in thousandths, of one of `models`.

    No model named means that any will do.
    """

    cpu_milli: int
    memory_mib: int
    boards: int
    share: int
    models: frozenset[str] = frozenset()

    @property
    def milli(self) -> int:
        """Boards in all, in thousandths."""
        return self.boards * self.share

    def accepts(self, model: str) -> bool:
        """Whether boards of this model will do."""
        return not self.models or model in self.models


class Room(Protocol):
    """What is free on each node: CPU, memory, and for each board (a column) the free share, 0 where there is none."""

    cpu: Ints
    memory: Ints
    model: Ints  # a node's place in the models that the prices were made for
    free: Ints


def worth_of_shares(wanted: Mapping[int, int]) -> dict[int, Fraction]:
    """What each share of a board is worth, in boards, where shares are wanted this often.

    It is by how much the fewest boards that hold all that is wanted (fractions of boards allowed) grow with one more:
    the most that all can be worth while no way of cutting a board yields more than one. 650 and 320 go together, and
    810 leaves a rest that nobody wants.

    >>> {share: str(worth) for share, worth in worth_of_shares({1000: 5, 810: 4, 650: 2, 320: 3}).items()}
    {320: '1/3', 650: '2/3', 810: '1', 1000: '1'}
    """
    if not wanted:
        return {}
    often = sorted(sorted(wanted, key=lambda share: (-wanted[share], share))[:MOST_SHARES])
    ways = [[WHOLE // share if share == other else 0 for other in often] for share in often]
    while True:
        worth = dict(zip(often, maximise([wanted[s] for s in often], ways, [1] * len(ways)).primal, strict=True))
        cuts = _Cuts(worth)
        if cuts.most(WHOLE) <= 1:
            return {s: worth[s] if s in worth else 1 - cuts.most(WHOLE - s) for s in sorted(wanted)}
        best = cuts.of_a_board()
        ways.append([best[share] for share in often])


class _Cuts:
    """The most that can be cut from any room on a board, where shares are worth so much: a knapsack."""

    def __init__(self, worth: Mapping[int, Fraction]) -> None:
        self._step = math.gcd(WHOLE, *worth)
        self._scale = math.lcm(*(value.denominator for value in worth.values()))
        pieces = [(share // self._step, int(value * self._scale)) for share, value in worth.items() if value]
        self._most, self._last = [0], [0]  # by room, in steps: the most, and the size of the share cut last, 0 if none
        for room in range(1, WHOLE // self._step + 1):
            most, last = self._most[room - 1], 0
            for size, value in pieces:
                if size <= room and self._most[room - size] + value > most:
                    most, last = self._most[room - size] + value, size
            self._most.append(most)
            self._last.append(last)

    def most(self, room: int) -> Fraction:
        """What the best shares for this room are worth, in boards."""
        return Fraction(self._most[room // self._step], self._scale)

    def of_a_board(self) -> Counter[int]:
        """How often each share is cut from a whole board so that it yields the most."""
        way, room = Counter[int](), WHOLE // self._step
        while room:
            way[self._last[room] * self._step] += 1
            room -= self._last[room] or 1
        return way


@dataclass(frozen=True, slots=True)
class _Set:
    """Demands for several boards at once which are alike: how many of them one mix holds, and which models will do."""

    boards: int
    cpu_milli: int
    models: Flags
    number: int


class Scarcity:
    """What is scarce for one mix of demands on one kind of fleet. The mix says how many of each demand it holds."""

    def __init__(self, mix: Mapping[Demand, int], models: Sequence[str], room: Room) -> None:
        demands = [demand for demand in mix if demand.boards]
        wanted: Counter[int] = Counter()
        for demand in demands:
            wanted[demand.share] += demand.boards * mix[demand]
        self.shares = worth_of_shares(wanted)
        self.pieces = _pieces(self.shares)  # by free share: what it is worth, in pieces
        self.largest = room.free.shape[1]
        self._models = len(models)
        self._numbers = np.array([mix[demand] for demand in demands], dtype=np.float64)
        self._boards = np.array([float(demand.boards * self.shares[demand.share]) for demand in demands])
        self._accepted = np.zeros((len(demands), len(models)), dtype=bool)
        for row, demand in enumerate(demands):
            self._accepted[row] = [demand.accepts(model) for model in models]
        self._sets = self._alike(demands)
        self.steps = _step(room.cpu), _step(room.memory)
        cpu = np.array([demand.cpu_milli for demand in demands], dtype=np.int64)
        memory = np.array([demand.memory_mib for demand in demands], dtype=np.int64)
        self.filled = (
            self._filled(-(-cpu // self.steps[0]), int(room.cpu.max()) // self.steps[0] + 1),
            self._filled(-(-memory // self.steps[1]), int(room.memory.max()) // self.steps[1] + 1),
        )

    def _filled(self, needed: Ints, levels: int) -> Floats:
        """Boards that a stream of this mix fills, by model, level of CPU (or memory) free, and pieces of boards free.

        U(c, b) = sum over demands that fit of p (value + U(c - cpu, b - boards)) / (P_fit + LAST_CHANCE (1 - P_fit)):
        one after the other arrives; what does not fit goes elsewhere, and each time may have been the last to come.
        """
        sizes = np.rint(PIECES * self._boards).astype(np.int64)
        filled = np.zeros((self._models, self.largest * PIECES + 1, levels))
        kinds = _merged(sizes, needed, self._numbers[:, None] * self._accepted)
        for pieces in range(1, filled.shape[1]):
            gained, fitting = np.zeros((2, self._models, levels))
            asked = np.zeros((self._models, 1))
            for (size, need), weight in kinds:
                if size > pieces:
                    break
                asked += weight[:, None]
                if need < levels:
                    left = filled[:, pieces - size, : levels - need]
                    gained[:, need:] += weight[:, None] * (size / PIECES + left)
                    fitting[:, need:] += weight[:, None]
            chances = fitting + LAST_CHANCE * (asked - fitting)
            np.divide(gained, chances, out=filled[:, pieces], where=chances > 0)
            np.maximum(filled[:, pieces], filled[:, pieces - 1], out=filled[:, pieces])
        return np.ascontiguousarray(filled.transpose(0, 2, 1))

    def _alike(self, demands: Sequence[Demand]) -> tuple[_Set, ...]:
        """The demands for several boards; those that differ in nothing but share or memory are one."""
        alike: Counter[tuple[int, int, bytes]] = Counter()
        for demand, accepted, number in zip(demands, self._accepted, self._numbers.tolist(), strict=True):
            if demand.boards > 1:
                alike[demand.boards, demand.cpu_milli, accepted.tobytes()] += round(number)
        return tuple(_Set(n, cpu, np.frombuffer(ok, dtype=bool), number) for (n, cpu, ok), number in alike.items())

    def priced(self, room: Room) -> Prices:
        """The prices for the room that is free now, if as much demand is still to come as would fill it.

        A board of a model is worth what fills it, and as much again by the chance that somebody wants it: demands to
        come are spread evenly over the boards that they accept. A set of boards with enough CPU, kept for a demand of
        many boards, is worth its boards by the chance that two such demands want the same.
        """
        free = np.bincount(room.model, weights=self.pieces[room.free].sum(axis=1), minlength=self._models) / PIECES
        asked = self._numbers * self._boards
        mixes = free.sum() / max(asked.sum(), 1)
        wanted = (mixes * asked / np.maximum(self._accepted @ free, 1)) @ self._accepted
        return Prices(self, 2 - np.exp(-wanted), self._kept_sets(room, mixes))

    def _kept_sets(self, room: Room, mixes: float) -> Floats:
        """What whole boards are worth as sets, in boards: by model, level of CPU free, and number of whole boards."""
        whole = np.count_nonzero(room.free == WHOLE, axis=1)
        levels = np.arange(self.filled[0].shape[1]) * self.steps[0]
        kept = np.zeros((self._models, len(levels), self.largest + 1))
        for kind in self._sets:
            there = _sets_in(kind, whole, room.cpu)[kind.models[room.model]].sum()
            wanted = mixes * kind.number / max(int(there), 1)
            contested = 1 - math.exp(-wanted) * (1 + wanted)
            kept[kind.models] += contested * kind.boards * _sets_in(kind, np.arange(self.largest + 1), levels[:, None])
        return kept


def _sets_in(kind: _Set, whole: Ints, cpu: Ints) -> Ints:
    """How many such demands so many whole boards with so much CPU could serve at once."""
    return np.minimum(whole // kind.boards, cpu // max(kind.cpu_milli, 1))


def _pieces(worth: Mapping[int, Fraction]) -> Ints:
    """By free share of a board: what the best demands for it are worth, in pieces."""
    cuts = _Cuts(worth)
    return np.array([round(PIECES * cuts.most(room)) for room in range(WHOLE + 1)])


def _step(room: Ints) -> int:
    return max(1, -(-int(room.max()) // STEPS))


def _merged(sizes: Ints, needed: Ints, weights: Floats) -> list[tuple[tuple[int, int], Floats]]:
    """Kinds of demand alike in size and need, with their weight by model; smallest first, those of no size left out."""
    merged: dict[tuple[int, int], Floats] = {}
    for size, need, weight in zip(sizes.tolist(), needed.tolist(), weights, strict=True):
        if size:
            merged[size, need] = merged.get((size, need), 0) + weight
    return sorted(merged.items(), key=lambda item: item[0])


class Prices:
    """What room is worth at one time, in boards, and so what a placement costs: worth before less worth after."""

    def __init__(self, scarcity: Scarcity, by_model: Floats, kept_sets: Floats) -> None:
        self._steps = scarcity.steps
        self._pieces = scarcity.pieces
        self._columns = scarcity.largest * PIECES + 1
        self._levels = tuple(filled.shape[1] for filled in scarcity.filled)
        self._filled = tuple((by_model[:, None, None] * filled).ravel() for filled in scarcity.filled)
        self._kept, self._sets = kept_sets.ravel(), kept_sets.shape[2]

    def cost(self, room: Room, demand: Demand, rows: Ints) -> tuple[Floats, Ints]:
        """What placing the demand on each of the nodes `rows` costs, all of which have room for it, and the board.

        The board is the one on which it costs least, the tightest of equals: for a demand of one board only.
        """
        cpu, memory, model, free = room.cpu[rows], room.memory[rows], room.model[rows], room.free[rows]
        worth = self._pieces[free]
        pieces, whole = worth.sum(axis=1), np.count_nonzero(free == WHOLE, axis=1)
        before = self._worth(model, cpu, memory, pieces, whole)
        cpu, memory = cpu - demand.cpu_milli, memory - demand.memory_mib
        untidy = UNTIDY / WHOLE * free.sum(axis=1)
        if demand.boards != 1:
            roomy = free >= demand.share
            left = free - demand.share * (roomy & (np.cumsum(roomy, axis=1) <= demand.boards))
            pieces, whole = self._pieces[left].sum(axis=1), np.count_nonzero(left == WHOLE, axis=1)
            return before - self._worth(model, cpu, memory, pieces, whole) + untidy, np.zeros_like(rows)
        left = free - demand.share
        fits = left >= 0
        left = np.maximum(left, 0)
        pieces = pieces[:, None] - worth + self._pieces[left]
        whole = whole[:, None] - (free == WHOLE)
        after = self._worth(model[:, None], cpu[:, None], memory[:, None], pieces, whole)
        ranked = np.where(fits, np.round(after, 9) - left * 1e-9, -np.inf)
        board = ranked.argmax(axis=1)
        return before - after[np.arange(len(rows)), board] + untidy, board

    def _worth(self, model: Ints, cpu: Ints, memory: Ints, pieces: Ints, whole: Ints) -> Floats:
        cpu_row = model * self._levels[0] + cpu // self._steps[0]
        memory_row = model * self._levels[1] + memory // self._steps[1]
        filled = np.minimum(
            self._filled[0][cpu_row * self._columns + pieces], self._filled[1][memory_row * self._columns + pieces]
        )
        worth: Floats = filled + self._kept[cpu_row * self._sets + whole]
        return worth
