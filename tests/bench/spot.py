"""Small jobs and windows for tests of spot policies, and the cheapest way found by trying all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from berth.bench.spot_run import Chooser, Terms, Track, run
from berth.model.prices import CapacityType
from berth.planning.spot import Job, Place


def some_terms(
    *,
    work: float = 4.0,
    deadline: float = 6.0,
    restart: float = 0.25,
    move: float | None = None,
    spot: float = 1.0,
    on_demand: float = 3.0,
    carbon_price: float = 0.0,
) -> Terms:
    """A job of so many hours, at 1 kW."""
    return Terms(work, deadline, restart, restart if move is None else move, spot, on_demand, 1.0, 1.0, carbon_price)


def a_track(*pools: str, hours: float = 0.5, grams: Sequence[Sequence[float]] = (), home: int = 0) -> Track:
    """Pools as they were seen, such as "110100", every so many hours."""
    available = np.array([[look == "1" for look in looks] for looks in pools], dtype=np.bool_)
    carbon = np.array(grams, dtype=np.float64) if grams else np.zeros(available.shape)
    return Track("pool", hours, available, carbon, home)


def cheapest(terms: Terms, track: Track) -> float:
    """Dollars, carbon included, of the best of all sequences of choices that keep the deadline."""
    steps = math.ceil(terms.deadline_hours / track.step_hours - 1e-9)
    return min(_costs(terms, track, (), steps), default=math.inf)


def _costs(terms: Terms, track: Track, chosen: tuple[Place | None, ...], steps: int) -> Iterator[float]:
    """Of all ways that begin so: each is run anew, which is slow and leaves nothing to get wrong."""
    done = _done(terms, track, chosen)
    if done is not None:
        yield done
    elif len(chosen) < steps:
        for place in _places(track, len(chosen)):
            yield from _costs(terms, track, (*chosen, place), steps)


def _places(track: Track, step: int) -> Iterator[Place | None]:
    yield None
    for pool in range(len(track.available)):
        yield Place(pool, CapacityType.ON_DEMAND)
        if step < track.available.shape[1] and track.available[pool, step]:
            yield Place(pool, CapacityType.SPOT)


class _Unfinished(Exception):
    pass


def _done(terms: Terms, track: Track, chosen: tuple[Place | None, ...]) -> float | None:
    try:
        outcome = run(terms, track, _scripted(chosen))
    except _Unfinished:
        return None
    return math.inf if outcome.missed else outcome.dollars + terms.carbon_price * outcome.kilograms


def _scripted(chosen: tuple[Place | None, ...]) -> Chooser:
    def choose(job: Job, up: Sequence[bool], step: int) -> Place | None:
        if step >= len(chosen):
            raise _Unfinished
        return chosen[step]

    return choose
