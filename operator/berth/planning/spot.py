"""Where a job runs next: spot or on-demand, in which pool, or not now, by what it is expected to cost to the end.

`decide` knows what was seen up to now and what is forecast, never more. Each option is priced as what it costs until
the job is looked at again, in dollars and in kilograms, and what the horizon expects from there on. Whatever the prices
say, an option is allowed only if on-demand capacity could still keep the deadline after it, even where spot capacity
goes away meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from berth.model.prices import CapacityType
from berth.planning.horizon import Horizon
from berth.planning.spells import Sightings, state

SLIVER_HOURS = 1e-9  # of rounding, far below a second


class Move(StrEnum):
    """What an option means for a job as it is."""

    RUN = "run"  # go on, or start where its checkpoint is
    WAIT = "wait"
    PAUSE = "pause"
    MOVE = "move"  # start in another pool


@dataclass(frozen=True, slots=True)
class Place:
    """Capacity of one kind in one pool, by the pool's index."""

    pool: int
    capacity: CapacityType


@dataclass(frozen=True, slots=True)
class Job:
    """What a decision needs to know of a job. `place` is None where it does not run (its capacity may have gone)."""

    work_hours: float
    left_hours: float  # until its deadline
    restart_hours: float
    move_hours: float  # a restart in another pool than `pool`
    place: Place | None = None
    pool: int | None = None  # where its checkpoint is; None: nowhere yet
    pending_hours: float = 0.0  # of its restart, where it runs

    @property
    def slack_hours(self) -> float:
        """Time left that the work does not need."""
        return self.left_hours - self.work_hours

    def start_hours(self, place: Place) -> float:
        """Until work goes on there."""
        if place == self.place:
            return self.pending_hours
        return self.restart_hours if self.pool in (None, place.pool) else self.move_hours


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool now: its rates per hour of this job, until the job is looked at again, and what was seen of its spot."""

    spot_dollars: float
    on_demand_dollars: float
    kilograms: float
    start_kilograms: float  # while the job starts there
    seen: Sightings

    def dollars(self, capacity: CapacityType) -> float:
        """Per hour."""
        return self.spot_dollars if capacity is CapacityType.SPOT else self.on_demand_dollars


@dataclass(frozen=True, slots=True)
class Option:
    """A priced way to go on. `to_come` is in dollars, carbon at its price included."""

    move: Move
    place: Place | None
    dollars: float
    kilograms: float
    carbon_dollars: float
    to_come: float

    @property
    def cost(self) -> float:
        """What is compared: everything to the end, in dollars."""
        return self.dollars + self.carbon_dollars + self.to_come


@dataclass(frozen=True, slots=True)
class Decision:
    """The cheapest option, and all that were open, cheapest first. Where only one was, the deadline left no choice."""

    options: tuple[Option, ...]

    @property
    def best(self) -> Option:
        """What to do."""
        return self.options[0]


def decide(job: Job, pools: Sequence[Pool], carbon_price: float, horizon: Horizon, step_hours: float) -> Decision:
    """What the job does until it is looked at again, `step_hours` from now. `carbon_price` is per kilogram.

    Order: cost; then what changes nothing; then spot before on-demand; then the pool's index.
    """
    choice = _Choice(job, pools, carbon_price, horizon, step_hours)
    return Decision(tuple(sorted(choice.options(), key=choice.order)))


class _Choice:
    """One decision: the options of a job, priced."""

    def __init__(
        self, job: Job, pools: Sequence[Pool], carbon_price: float, horizon: Horizon, step_hours: float
    ) -> None:
        self.job, self.pools, self.horizon = job, pools, horizon
        self.carbon_price, self.step = carbon_price, step_hours
        self._odds = np.array([_odds(pool.seen, step_hours) for pool in pools], np.float32)
        self._values: dict[tuple[CapacityType, float], list[float]] = {}

    def order(self, option: Option) -> tuple[float, bool, bool, int]:
        place = option.place
        on_demand = place is not None and place.capacity is CapacityType.ON_DEMAND
        return round(option.cost, 6), place != self.job.place, on_demand, -1 if place is None else place.pool

    def options(self) -> Iterator[Option]:
        """All that keep the deadline; where none does, the one that misses it by least."""
        found = [self._running(place) for place in self._places() if self._keeps(place)]
        if self.job.slack_hours - self.step >= self._restart - SLIVER_HOURS:
            found.append(self._idle())
        yield from found or [self._running(self._soonest())]

    def _places(self) -> Iterator[Place]:
        for pool, seen in enumerate(self.pools):
            yield Place(pool, CapacityType.ON_DEMAND)
            if seen.seen.up:
                yield Place(pool, CapacityType.SPOT)

    @property
    def _restart(self) -> float:
        """Until on-demand capacity works, for a job that does not run."""
        return self.job.restart_hours

    def _keeps(self, place: Place) -> bool:
        """Whether on-demand capacity keeps the deadline, should spot capacity be gone when next looked at."""
        job, start = self.job, self.job.start_hours(place)
        if place.capacity is CapacityType.ON_DEMAND:
            return job.slack_hours - start >= -SLIVER_HOURS
        worked = max(0.0, self.step - start)
        if job.work_hours <= worked + SLIVER_HOURS:
            return job.slack_hours - start >= -SLIVER_HOURS
        return job.slack_hours - (self.step - worked) >= self._restart - SLIVER_HOURS

    def _soonest(self) -> Place:
        """On-demand capacity where it works first."""
        places = [place for place in self._places() if place.capacity is CapacityType.ON_DEMAND]
        return min(places, key=self.job.start_hours)

    def _running(self, place: Place) -> Option:
        job, pool = self.job, self.pools[place.pool]
        start = job.start_hours(place)
        ends = job.work_hours + start <= self.step + SLIVER_HOURS
        hours = min(job.work_hours + start, self.step)
        to_come = 0.0 if ends else self._value(place.capacity, start)[place.pool] - self._relief(pool, start - hours)
        starting = min(start, hours)
        kilograms = starting * pool.start_kilograms + (hours - starting) * pool.kilograms
        return Option(
            Move.MOVE if job.pool not in (None, place.pool) else Move.RUN,
            place,
            hours * pool.dollars(place.capacity),
            kilograms,
            self.carbon_price * kilograms,
            to_come,
        )

    def _relief(self, pool: Pool, start_hours: float) -> float:
        """By how much what is left of a start costs less than work, as which the horizon counts it."""
        return max(0.0, start_hours) * self.carbon_price * (pool.kilograms - pool.start_kilograms)

    def _value(self, capacity: CapacityType, start_hours: float) -> list[float]:
        """What the horizon expects after a step on this capacity, by pool; the same for all starts of a length."""
        found = self._values.get((capacity, start_hours))
        if found is None:
            value = self.horizon.spot if capacity is CapacityType.SPOT else self.horizon.on_demand
            left, slack = self.job.left_hours - self.step, self.job.slack_hours - start_hours
            found = self._values[capacity, start_hours] = value(self._odds, left, slack).tolist()
        return found

    def _idle(self) -> Option:
        job = self.job
        left, slack = job.left_hours - self.step, job.slack_hours - self.step
        by_pool = self.horizon.idle(self._odds, left, slack)
        to_come = float(by_pool.min() if job.pool is None else by_pool[job.pool])
        return Option(Move.WAIT if job.place is None else Move.PAUSE, None, 0.0, 0.0, 0.0, to_come)


@lru_cache(maxsize=1024)
def _odds(seen: Sightings, hours: float) -> tuple[float, ...]:
    """Of each state of a pool, so many hours after it was seen."""
    return seen.habits.transitions(hours)[state(seen)]
