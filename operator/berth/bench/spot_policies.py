"""Who chooses where a job runs: Berth, and what it is compared with.

All but `OnDemandNow` share a guard: who is idle with less time left than the work, two restarts and a step need takes
on-demand capacity to the end, so that none misses a deadline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from berth.bench.spot_run import Terms, Track
from berth.model.prices import CapacityType
from berth.planning.horizon import Problem, averages, solve
from berth.planning.spells import Sightings
from berth.planning.spot import Job, Place, Pool, decide

MOST_STEPS = 288  # until the deadline in Berth's plans: 10 minutes each for two days, whatever the polling step
MOST_STEPS_OF_MANY = 144  # where there are several pools: each takes as much work, and losing one matters less


class OnDemandNow:
    """Starts at once, on on-demand capacity at home."""

    def __init__(self, terms: Terms, track: Track) -> None:
        self.here = Place(track.home, CapacityType.ON_DEMAND)

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """Always there."""
        return self.here


class Greedy:
    """Takes spot capacity whenever it is there, and on-demand capacity when there is no more time."""

    def __init__(self, terms: Terms, track: Track) -> None:
        self.terms, self.track = terms, track
        self.on_demand = Place(track.home, CapacityType.ON_DEMAND)
        self.final = False

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """The rule."""
        if self.must_finish(job):
            return self.on_demand
        return job.place or self.spot(up)

    def must_finish(self, job: Job) -> bool:
        """The guard; once it holds, it holds to the end."""
        self.final = self.final or (job.place is None and self.short(job))
        return self.final

    def short(self, job: Job) -> bool:
        """Whether there is no time to stop, and to start once more."""
        return job.slack_hours < 2 * max(job.restart_hours, job.move_hours) + self.track.step_hours

    def spot(self, up: Sequence[bool]) -> Place | None:
        """Spot capacity, at home first."""
        pools = sorted((pool for pool, there in enumerate(up) if there), key=lambda pool: pool != self.track.home)
        return Place(pools[0], CapacityType.SPOT) if pools else None


class UniformProgress(Greedy):
    """Can't Be Late (NSDI'24): on-demand capacity while behind uniform progress, spot capacity when it is there."""

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """Its four rules."""
        if self.must_finish(job):
            return self.on_demand
        if job.place is not None and job.place.capacity is CapacityType.SPOT:
            return job.place
        if job.place is not None and (self._behind(job, 2 * job.restart_hours) or self.short(job)):
            return job.place
        return self.spot(up) or (self.on_demand if job.place is None and self._behind(job, 0.0) else None)

    def _behind(self, job: Job, ahead_hours: float) -> bool:
        """Whether less is done than uniform progress has done so many hours from now."""
        terms = self.terms
        now = terms.deadline_hours - job.left_hours
        wanted = (now + ahead_hours) * terms.work_hours / terms.deadline_hours
        return terms.work_hours - job.work_hours < wanted - 1e-9


class WaitAwhile(Greedy):
    """Let's Wait Awhile (Middleware'21), interruptible: on-demand capacity in the cleanest hours until the deadline."""

    def __init__(self, terms: Terms, track: Track) -> None:
        super().__init__(terms, track)
        grams = track.grams[track.home]
        needed = math.ceil((terms.work_hours + terms.restart_hours) / track.step_hours)
        self.clean = set(np.argsort(grams, kind="stable")[:needed].tolist())

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """The rule."""
        return self.on_demand if self.must_finish(job) or step in self.clean else self._paused(job)

    def _paused(self, job: Job) -> Place | None:
        """Waits, unless who stops now could not start again in time."""
        return job.place if self.short(job) else None


class Naive(WaitAwhile):
    """Rules composed by hand: wait-awhile says when, greedy says on what."""

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """Spot capacity in the cleanest hours."""
        if self.must_finish(job):
            return self.on_demand
        return job.place or self.spot(up) if step in self.clean else self._paused(job)


class Berth:
    """Our own: what it has seen in this run, and the forecast of carbon."""

    def __init__(self, terms: Terms, track: Track) -> None:
        self.terms, self.track = terms, track
        self.working, self.starting = (track.kilograms(draw) for draw in (terms.kilowatts, terms.start_kilowatts))
        self.seen: list[Sightings] = []
        self.plan = _plan(terms, track)

    def __call__(self, job: Job, up: Sequence[bool], step: int) -> Place | None:
        """What `decide` finds best."""
        terms, hours = self.terms, self.track.step_hours
        looks = zip(self.seen, up, strict=True)
        self.seen = (
            [seen.then(there, hours) for seen, there in looks] if self.seen else [Sightings(there) for there in up]
        )
        now = min(step, self.working.shape[1] - 1)
        pools = [
            Pool(terms.spot_dollars, terms.on_demand_dollars, float(working), float(starting), seen)
            for working, starting, seen in zip(self.working[:, now], self.starting[:, now], self.seen, strict=True)
        ]
        horizon = solve(replace(self.plan, habits=tuple(seen.habits for seen in self.seen)))
        return decide(job, pools, terms.carbon_price, horizon, hours).best.place


def _plan(terms: Terms, track: Track) -> Problem:
    """The job's way to its deadline, as forecast when it is released; the pools' habits are yet to be learned."""
    most = MOST_STEPS if len(track.grams) == 1 else MOST_STEPS_OF_MANY
    steps = math.ceil(terms.deadline_hours / max(track.step_hours, terms.deadline_hours / most) - 1e-9)
    step_hours = terms.deadline_hours / steps
    per_kilowatt = [
        terms.carbon_price * averages(pool, track.step_hours, step_hours, steps) for pool in track.kilograms(1.0)
    ]
    carbon = [terms.kilowatts * pool for pool in per_kilowatt]
    relief = terms.kilowatts - terms.start_kilowatts
    return Problem(
        step_hours=step_hours,
        slack_hours=terms.deadline_hours - terms.work_hours,
        restart_hours=terms.restart_hours,
        move_hours=terms.move_hours,
        spot=tuple(tuple((terms.spot_dollars + pool).tolist()) for pool in carbon),
        on_demand=tuple(tuple((terms.on_demand_dollars + pool).tolist()) for pool in carbon),
        start_relief=tuple(tuple((relief * pool).tolist()) for pool in per_kilowatt),
        habits=(),
        together=len(carbon),
    )
