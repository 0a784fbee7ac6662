"""Arrivals that come and go: what is refused by ways to choose boards and to lay them out."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, sqrt
from statistics import mean, stdev
from typing import Protocol

from berth.bench.idle import FirstFit, Forecast, WaitingFirstFit
from berth.bench.pieces import full_multisets, profile_named
from berth.model.boards import Instance
from berth.model.gpus import BoardModel, Profile
from berth.model.mig import free_starts, taken_by
from berth.planning.boards import Stock

LOAD = 0.9  # of all memory slices, were nothing refused
LIFETIMES = 12.0  # how long churn lasts in mean lifetimes; the first third, in which the fleet fills, is not counted
SEEDS = 10
SEEDS_OF_SMALL = 60  # of boards of up to 4 slices: any best fit packs halves of halves well, so little is to be told


@dataclass(frozen=True, slots=True)
class Churn:
    """What was refused of all arrivals that were counted."""

    model: str
    boards: int
    seeds: int
    cut: str  # how: one of PAIRS
    arrivals: int
    refused: int
    refused_slices: int
    layouts: int  # boards laid out anew, where only idle ones may be
    best_fit_refused: int
    best_fit_refused_slices: int
    best_fit_layouts: int
    difference: float  # refused by us less refused by best fit, a seed
    difference_error: float  # the standard error of that mean
    bound: int  # refused for want of slices alone, were all instances moved at will


@dataclass(frozen=True, slots=True)
class Run:
    """What one policy did with the arrivals of one seed."""

    arrivals: int
    refused: int
    slices: int  # of those refused
    layouts: int


class Policy(Protocol):
    """Where an arrival goes, and how it leaves."""

    layouts: int

    def place(self, profile: Profile, now: float) -> tuple[int, Instance] | None:
        """A board and an instance that is held from now on; None: refused."""

    def free(self, board: int, instance: Instance) -> None:
        """The instance is held no longer."""


class Priced:
    """Ours: instances are made beside busy ones, where that spoils least."""

    layouts = 0

    def __init__(self, model: BoardModel, boards: int) -> None:
        self.stock = Stock(model, (("", index) for index in range(boards)))
        self.pods = 0

    def place(self, profile: Profile, now: float) -> tuple[int, Instance] | None:
        self.pods += 1
        placed = self.stock.place(profile, str(self.pods))
        return placed and (placed[0][1], placed[1])

    def free(self, board: int, instance: Instance) -> None:
        self.stock.free(("", board), instance)


class BestFit:
    """The fullest board that has room, at the first legal start."""

    layouts = 0

    def __init__(self, model: BoardModel, boards: int) -> None:
        self.taken = [0] * boards
        self.alike = {0: list(range(boards))} if boards else {}  # boards by what is taken of them, in order
        self.starts: dict[tuple[int, str], tuple[int, ...]] = {}  # worked out so far

    def place(self, profile: Profile, now: float) -> tuple[int, Instance] | None:
        fitting = [
            (-taken.bit_count(), alike[0], starts[0])
            for taken, alike in self.alike.items()
            if (starts := self._starts(taken, profile))
        ]
        if not fitting:
            return None
        _, board, start = min(fitting)
        instance = Instance(profile, start)
        self._becomes(board, self.taken[board] | taken_by([instance]))
        return board, instance

    def free(self, board: int, instance: Instance) -> None:
        self._becomes(board, self.taken[board] & ~taken_by([instance]))

    def add(self) -> None:
        """One more board, idle."""
        self.taken.append(0)
        self.alike.setdefault(0, []).append(len(self.taken) - 1)

    def _starts(self, taken: int, profile: Profile) -> tuple[int, ...]:
        known = self.starts.get((taken, profile.name))
        if known is None:
            known = self.starts[taken, profile.name] = free_starts(taken, profile)
        return known

    def _becomes(self, board: int, taken: int) -> None:
        alike = self.alike[self.taken[board]]
        alike.remove(board)
        if not alike:
            del self.alike[self.taken[board]]
        insort(self.alike.setdefault(taken, []), board)
        self.taken[board] = taken


class Movable:
    """No policy but a bound: instances move at will and at no price, so that only a lack of slices refuses."""

    layouts = 0

    def __init__(self, model: BoardModel, boards: int) -> None:
        self.left = boards * model.memory_slices

    def place(self, profile: Profile, now: float) -> tuple[int, Instance] | None:
        if profile.memory_slices > self.left:
            return None
        self.left -= profile.memory_slices
        return 0, Instance(profile, 0)

    def free(self, board: int, instance: Instance) -> None:
        self.left += instance.profile.memory_slices


Make = Callable[[BoardModel, int], Policy]

PAIRS: tuple[tuple[str, Make, Make], ...] = (
    ("beside busy instances", Priced, BestFit),
    ("idle boards only", Forecast, FirstFit),
    ("idle only, both wait", Forecast, WaitingFirstFit),
)


def run_churn(model: BoardModel, boards: int, seeds: int = 0) -> list[Churn]:
    """Arrivals by chance, with lifetimes by chance, whose profiles are those of random full boards.

    Both of a pair meet the same arrivals, so that their difference says more than their counts.
    """
    found: dict[Make, list[Run]] = {make: [] for _, *pair in PAIRS for make in (*pair, Movable)}
    for seed in range(seeds or (SEEDS if model.memory_slices > 4 else SEEDS_OF_SMALL)):
        arrivals = _arrivals(model, boards, seed)
        counted = sum(1 for at, *_ in arrivals if at >= LIFETIMES / 3)
        for make, runs in found.items():
            policy = make(model, boards)
            refused = _refused(policy, arrivals)
            slices = sum(profile.memory_slices for profile in refused)
            runs.append(Run(counted, len(refused), slices, policy.layouts))
    return [_churn(model, boards, cut, found[ours], found[theirs], found[Movable]) for cut, ours, theirs in PAIRS]


def _churn(model: BoardModel, boards: int, cut: str, ours: list[Run], theirs: list[Run], bound: list[Run]) -> Churn:
    fewer = [a.refused - b.refused for a, b in zip(ours, theirs, strict=True)]
    return Churn(
        model=model.name,
        boards=boards,
        seeds=len(ours),
        cut=cut,
        arrivals=sum(run.arrivals for run in ours),
        refused=sum(run.refused for run in ours),
        refused_slices=sum(run.slices for run in ours),
        layouts=sum(run.layouts for run in ours),
        best_fit_refused=sum(run.refused for run in theirs),
        best_fit_refused_slices=sum(run.slices for run in theirs),
        best_fit_layouts=sum(run.layouts for run in theirs),
        difference=mean(fewer),
        difference_error=stdev(fewer) / sqrt(len(fewer)) if len(fewer) > 1 else inf,
        bound=sum(run.refused for run in bound),
    )


def _arrivals(model: BoardModel, boards: int, seed: int) -> list[tuple[float, Profile, float]]:
    """When, what, and for how long, in mean lifetimes."""
    chance = random.Random(seed)
    profiles = [profile_named(model, name) for names in full_multisets(model) for name in names]
    rate = LOAD * boards * model.memory_slices / (sum(profile.memory_slices for profile in profiles) / len(profiles))
    now, found = 0.0, []
    while now < LIFETIMES:
        found.append((now, chance.choice(profiles), chance.expovariate(1.0)))
        now += chance.expovariate(rate)
    return found


def _refused(policy: Policy, arrivals: Sequence[tuple[float, Profile, float]]) -> list[Profile]:
    leaving: list[tuple[float, int, int, Instance]] = []
    refused = []
    for number, (now, profile, lifetime) in enumerate(arrivals):
        while leaving and leaving[0][0] <= now:
            policy.free(*heappop(leaving)[2:])
        placed = policy.place(profile, now)
        if placed is not None:
            heappush(leaving, (now + lifetime, number, *placed))
        elif now >= LIFETIMES / 3:
            refused.append(profile)
    return refused
