"""Instances onto boards, one by one: the cheapest start by a shadow price on what it spoils for others.

The price of a state of a board is what its free room could still earn under the mix of demands seen so far. An
instance goes where that falls least; instances are created in free memory slices, so only what is held counts as taken.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import log2

from berth.model.boards import Instance
from berth.model.gpus import BoardModel, Profile
from berth.model.mig import MEDIA, Counts, free_slices, free_starts, layouts, legal, mask_of, room, taken_by
from berth.planning.fewest import board_patterns
from berth.planning.linear import maximise

# Room for one large instance serves several small ones too, but not the other way round: per doubling of its size a
# slice of it is worth so much more. Under churn 0.01 to 0.5 refuse equally few; above 0.1, planted boards pack worse.
LARGE_PREMIUM = 0.05
# The share of memory slices asked for at which half of that premium is due: what nobody asks for needs no protection.
HALF_PREMIUM_SHARE = 0.02
# What is assumed before any demand is seen: so many boards' worth of each profile. 0.2 to 1 pack alike.
PRIOR_BOARDS = 0.5
# Boards' worth of free room on boards in use up to which another board may be begun before it must. Without a bound,
# skewed mixes begin up to twice the boards they need; 1 wastes more of some mixes, 3 and 4 help some and harm others.
ROOM_TO_CHOOSE = 2
MIX_STEPS = 16  # a mix is rounded to so many parts of itself, so that prices need not be reckoned anew at each arrival

Mix = Mapping[str, float]
"""How often each profile is asked for, by name; only the proportions count."""

Name = tuple[str, int]
"""A board: its node, and its number there."""

State = tuple[int, int]
"""A board in use: what is taken of it, and by how many instances."""


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """Where an instance would go on a board, ordered by preference.

    1. What it spoils for others, in memory slices at the dual prices of the mix.
    2. The fewest starts taken from others, in memory slices of what could begin there.
    3. The fuller its surroundings: the smallest span of a larger profile around it, then the next, up to the board.
    4. The last start, since first starts serve more profiles.
    """

    price: float
    starts: int
    emptiness: tuple[int, ...]  # free memory slices around it, by growing span
    last: int  # minus the start

    @property
    def start(self) -> int:
        """Its first memory slice."""
        return -self.last


class Prices:
    """Shadow prices of all states of a board under one mix."""

    def __init__(self, model: BoardModel, pieces: Counts) -> None:
        """Reckon them: a linear program, then each state from those with more taken."""
        self.model = model
        self.worth = _worth(model, _gains(model, pieces))
        self._spots: dict[tuple[int, str], Spot | None] = {}

    def spot(self, taken: int, profile: Profile) -> Spot | None:
        """The best start for an instance beside what is taken; None where none is free."""
        key = (taken, profile.name)
        if key not in self._spots:
            self._spots[key] = min(
                (self._spot(taken, profile, start) for start in free_starts(taken, profile)), default=None
            )
        return self._spots[key]

    def _spot(self, taken: int, profile: Profile, start: int) -> Spot:
        mask = mask_of(profile, start)
        price = round(self.worth[taken] - self.worth[taken | mask], 6)
        starts = room(self.model, taken) - room(self.model, taken | mask)
        emptiness = tuple(min((s & ~taken).bit_count() for s in spans) for spans in _around(self.model, mask & ~MEDIA))
        return Spot(price, starts, emptiness, -start)


def prices_of(model: BoardModel, mix: Mix) -> Prices:
    """The shadow prices under a mix, reckoned once for all mixes that hardly differ."""
    seen = [max(0.0, mix.get(p.name, 0.0)) + PRIOR_BOARDS * p.max_instances for p in model.profiles]
    return _prices(model, tuple(max(1, round(MIX_STEPS * n / sum(seen))) for n in seen))


class Stock:
    """Boards of one model on a working copy: what is held on each, and the mix of what was asked for.

    An idle board is begun only where no other fits, or where that spoils less and the boards in use have little room:
    some room to choose from packs better, more of it is idle. Equal boards are used in
    order of their names.

    Of spots that spoil as much, the one goes on the board with the most instances: where `n` end by chance, a board is
    idle after `1 + 1/2 + ... + 1/n` mean lifetimes, so one more delays that the least where many are.
    """

    def __init__(self, model: BoardModel, boards: Iterable[Name] = (), mix: Mix | None = None) -> None:
        """Boards that are idle; `mix` is what is known of the demand before."""
        self.model = model
        self.mix = dict(mix or {})
        self.held: dict[Name, tuple[Instance, ...]] = {}
        self._alike: dict[State, list[Name]] = {}
        self._room = 0  # free memory slices on boards in use
        for board in boards:
            self.add(board)

    def add(self, board: Name, held: tuple[Instance, ...] = ()) -> None:
        """A board more, with the instances that are held on it."""
        if board in self.held or not legal(self.model, held):
            raise ValueError(f"{board} is there already, or holds what no board can: {held}")
        self.held[board] = held
        insort(self._alike.setdefault((taken_by(held), len(held)), []), board)
        self._room += self._free_beside(held)

    def remove(self, board: Name) -> tuple[Instance, ...]:
        """A board less, such as one that failed; what was held on it."""
        held = self.held.pop(board)
        state = taken_by(held), len(held)
        self._alike[state].remove(board)
        if not self._alike[state]:
            del self._alike[state]
        self._room -= self._free_beside(held)
        return held

    def place(self, profile: Profile, holder: str) -> tuple[Name, Instance] | None:
        """Take room for an instance where that spoils least; None where no board has any."""
        self.mix[profile.name] = self.mix.get(profile.name, 0) + 1
        prices = prices_of(self.model, self.mix)
        fitting = [(spot, state) for state in self._alike if (spot := prices.spot(state[0], profile)) is not None]
        if not fitting:
            return None
        enough = self._room > ROOM_TO_CHOOSE * self.model.memory_slices
        spot, state = min(fitting, key=lambda found: (enough and not found[1][1], *_order(*found)))
        board = self._alike[state][0]
        instance = Instance(profile, spot.start, holder)
        self.add(board, (*self.remove(board), instance))
        return board, instance

    def free(self, board: Name, instance: Instance) -> None:
        """Give an instance's room back."""
        if instance not in self.held[board]:
            raise ValueError(f"{board} does not hold {instance}")
        self.add(board, tuple(other for other in self.remove(board) if other != instance))

    def _free_beside(self, held: tuple[Instance, ...]) -> int:
        return free_slices(self.model, taken_by(held)) if held else 0


def _order(spot: Spot, state: State) -> tuple[object, ...]:
    """What is spoiled and how full the surroundings are, then the most instances, then the last start."""
    return spot.price, spot.starts, spot.emptiness, -state[1], spot.last, state


@lru_cache(maxsize=512)
def _prices(model: BoardModel, pieces: Counts) -> Prices:
    return Prices(model, pieces)


def _gains(model: BoardModel, pieces: Counts) -> tuple[float, ...]:
    """What an instance of each profile is worth, in memory slices: its dual price, and the premium of its size.

    The dual prices are those of packing this mix for ever on as few boards as possible: they count what a profile
    makes useless on its board (a board of 1g instances holds 7, so each is worth 8/7), and what is asked for so
    rarely that it only fills gaps is worth what else would fill them.
    """
    patterns = board_patterns(model)
    duals = maximise(pieces, patterns, [1] * len(patterns)).primal
    slices = [n * p.memory_slices for n, p in zip(pieces, model.profiles, strict=True)]
    shares = [n / sum(slices) for n in slices]
    return tuple(
        float(dual) * model.memory_slices * (1 + _premium(profile, share))
        for dual, profile, share in zip(duals, model.profiles, shares, strict=True)
    )


def _premium(profile: Profile, share: float) -> float:
    return LARGE_PREMIUM * log2(profile.memory_slices) * share / (share + HALF_PREMIUM_SHARE)


def _worth(model: BoardModel, gains: tuple[float, ...]) -> dict[int, float]:
    """The most that the free room of a board in each state can earn."""
    worth: dict[int, float] = {}
    for state, options in _states(model):
        worth[state] = max((gains[p] + worth[state | mask] for p, mask in options), default=0.0)
    return worth


@cache
def _states(model: BoardModel) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """Every state of a board, fullest first, with what fits beside: the profile's number and its mask."""
    states = {taken_by(layout) for layout in layouts(model)}
    return tuple(
        (
            state,
            tuple(
                (p, mask_of(profile, s))
                for p, profile in enumerate(model.profiles)
                for s in free_starts(state, profile)
            ),
        )
        for state in sorted(states, key=lambda state: (-state.bit_count(), state))
    )


@cache
def _around(model: BoardModel, mask: int) -> tuple[tuple[int, ...], ...]:
    """The spans of larger instances that contain these memory slices, by size; last the whole board."""
    spans = {mask_of(p, start) & ~MEDIA for p in model.profiles for start in p.starts}
    spans.add((1 << model.memory_slices) - 1)
    larger = sorted(span for span in spans if span & mask == mask and span != mask)
    sizes = sorted({span.bit_count() for span in larger})
    return tuple(tuple(span for span in larger if span.bit_count() == size) for size in sizes)
