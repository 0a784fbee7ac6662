"""The fewest bins that hold all pieces, when these are given at once: boards for instances, nodes for boards.

A bin may be filled in any of a few patterns (how many pieces of each kind), so this is an integer program over the
patterns (Gilmore and Gomory 1961). Its linear relaxation gives a bound that no packing can beat and, rounded down,
nearly all of the bins; the few pieces left over are searched for the bins that the bound leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil, floor

from berth.model.boards import Instance
from berth.model.gpus import BoardModel
from berth.model.mig import Counts, multisets
from berth.planning.linear import maximise

# Bins of each pattern that are opened up again where what is left over does not fit as it is. All inputs seen so far
# (planted ones, parts of these, random ones) fit with 0; the rest costs nothing until then.
OPENED_AGAIN = (0, 1, 2, 4)
MOST_STEPS = 200_000  # of one search, about a second


@dataclass(frozen=True, slots=True)
class Packed:
    """Bins and what each holds."""

    bins: tuple[Counts, ...]
    least: int  # no packing needs fewer bins

    @property
    def proven(self) -> bool:
        """Whether no packing is better."""
        return len(self.bins) == self.least


def fewest(patterns: Sequence[Counts], pieces: Counts) -> Packed:
    """Bins for all pieces, as few as can be found; every pattern may be used with fewer pieces.

    Every kind of piece must be in some pattern.

    >>> fewest([(1, 1), (0, 3)], (2, 3))
    Packed(bins=((1, 1), (1, 1), (0, 1)), least=3)
    """
    bound = maximise(pieces, patterns, [1] * len(patterns))
    least = ceil(bound.value)
    scale = _common_denominator(bound.primal)
    worth = tuple(int(value * scale) for value in bound.primal)
    bins = least
    while True:
        for again in OPENED_AGAIN:
            kept = [max(0, floor(times) - again) for times in bound.dual]
            filled, rest = _fill(patterns, kept, pieces)
            found = _Search(patterns, worth, scale).within(rest, bins - len(filled))
            if found is not None:
                return Packed(tuple(sorted((*filled, *found), reverse=True)), least)
        bins += 1


def fewest_boards(model: BoardModel, wanted: Mapping[str, int]) -> tuple[tuple[Instance, ...], ...]:
    """Layouts of as few empty boards as hold all wanted instances, counted by profile name of this model."""
    pieces = tuple(wanted.get(profile.name, 0) for profile in model.profiles)
    return tuple(multisets(model)[counts] for counts in fewest(board_patterns(model), pieces).bins)


def fewest_nodes(boards: int, wanted: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    """What to put on as few nodes of that many boards as hold all demands, counted by size in boards.

    A demand of more than a node has takes whole nodes, and what is left of it shares one: a gang may span nodes.
    """
    pieces = [0] * boards  # of 1 board, 2 boards, ...
    for size, n in wanted.items():
        pieces[boards - 1] += n * (size // boards)
        if size % boards:
            pieces[size % boards - 1] += n
    bins = fewest(node_patterns(boards), tuple(reversed(pieces))).bins
    return tuple(tuple(boards - i for i, n in enumerate(counts) for _ in range(n)) for counts in bins)


@cache
def board_patterns(model: BoardModel) -> tuple[Counts, ...]:
    """The multisets of profiles that one board holds and that are part of no larger one."""
    return _maximal(tuple(multisets(model)))


@cache
def node_patterns(boards: int) -> tuple[Counts, ...]:
    """The ways to use all boards of a node by demands of so many boards each, the largest first."""
    return tuple(_partitions(boards, boards))


def _partitions(total: int, largest: int) -> Iterator[Counts]:
    if largest == 0:
        if total == 0:
            yield ()
        return
    for n in reversed(range(total // largest + 1)):
        for rest in _partitions(total - n * largest, largest - 1):
            yield (n, *rest)


def _maximal(found: Sequence[Counts]) -> tuple[Counts, ...]:
    return tuple(a for a in found if not any(a != b and _part_of(a, b) for b in found))


def _part_of(a: Counts, b: Counts) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def _common_denominator(values: Sequence[Fraction]) -> int:
    scale = 1
    for value in values:
        scale = (scale * value).denominator * scale
    return scale


def _fill(patterns: Sequence[Counts], times: Sequence[int], pieces: Counts) -> tuple[list[Counts], Counts]:
    """Bins by the patterns, each so often and with no more than there is; and what is left over."""
    filled: list[Counts] = []
    for pattern, n in zip(patterns, times, strict=True):
        for _ in range(n):
            used = tuple(map(min, pattern, pieces))
            if any(used):
                filled.append(used)
                pieces = _less(pieces, used)
    return filled, pieces


def _less(pieces: Counts, used: Counts) -> Counts:
    return tuple(a - b for a, b in zip(pieces, used, strict=True))


class _Search:
    """Depth first over the patterns that hold the first kind that is left, the fullest first.

    A branch ends where the pieces left are worth more than the bins left could hold by the prices of the relaxation,
    or where the same was tried before.
    """

    def __init__(self, patterns: Sequence[Counts], worth: Counts, bin_worth: int) -> None:
        self._patterns = patterns
        self._worth = worth
        self._bin_worth = bin_worth
        self._in_vain: dict[Counts, int] = {}
        self._steps = MOST_STEPS

    def within(self, pieces: Counts, bins: int) -> list[Counts] | None:
        """Bins for these pieces, at most so many; None where none were found."""
        if not any(pieces):
            return []
        if bins * self._bin_worth < self._value(pieces) or self._in_vain.get(pieces, 0) >= bins or not self._steps:
            return None
        self._steps -= 1
        for used in self._ways(pieces):
            rest = self.within(_less(pieces, used), bins - 1)
            if rest is not None:
                return [used, *rest]
        self._in_vain[pieces] = bins
        return None

    def _ways(self, pieces: Counts) -> list[Counts]:
        first = next(i for i, n in enumerate(pieces) if n)
        ways = {tuple(map(min, pattern, pieces)) for pattern in self._patterns if pattern[first]}
        return sorted(_maximal(tuple(ways)), key=lambda used: (self._value(used), used), reverse=True)

    def _value(self, pieces: Counts) -> int:
        return sum(n * worth for n, worth in zip(pieces, self._worth, strict=True))
