"""The clairvoyant lower bound: the least that a job could cost, had it known its whole window.

An exact dynamic program over step, slack, pool and capacity. A start takes its time from the slack at once and is work
from then on: who knows the window starts nothing that ends before it works. Slack is counted in fractions of a step, to
which starts are rounded down, so that the sum is never above the true optimum.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from berth.bench.spot_run import Outcome, Terms, Track
from berth.model.prices import CapacityType

MOST_UNITS = 40  # that a step is cut into
ROUNDED = 0.02  # of a start that rounding may take, where no more units are needed for it
NEVER = 1e12  # dollars
SLIVER = 1e-6  # units, of rounding
CAPACITIES = (CapacityType.SPOT, CapacityType.ON_DEMAND)

Floats = NDArray[np.float64]


def clairvoyant(terms: Terms, track: Track) -> Outcome:
    """The cheapest way through the window, carbon at its price included."""
    return _Bound(terms, track).outcome()


class _Bound:
    """Runs are numbered capacity by capacity, pool by pool; -1 is idle. Times are counted in units."""

    def __init__(self, terms: Terms, track: Track) -> None:
        self.terms, self.track = terms, track
        self.pools = len(track.available)
        self.per_step = _units(track.step_hours, (terms.restart_hours, terms.move_hours))
        self.unit = track.step_hours / self.per_step
        self.steps = math.ceil(terms.deadline_hours / track.step_hours - 1e-9)
        self.restart, self.move = (int(hours / self.unit + 1e-6) for hours in (terms.restart_hours, terms.move_hours))
        slack = (terms.deadline_hours - terms.work_hours) / self.unit
        self.slack = int(slack + 1e-6)  # whole units; a part of one is left whatever happens
        self.part = max(0.0, slack - self.slack)
        self.working, self.starting = (track.kilograms(draw) for draw in (terms.kilowatts, terms.start_kilowatts))
        size = self.slack + 1
        self.starts = np.full((self.steps, self.pools, size), -1, np.int16)
        self.goes_on = np.zeros((self.steps, 2 * self.pools, size), np.bool_)
        self._fill(size)

    def _fill(self, size: int) -> None:
        """All choices, from the deadline back."""
        idle, running = np.zeros((self.pools, size)), np.zeros((2 * self.pools, size))
        for step in reversed(range(self.steps)):
            work = np.maximum(self._left(step) - np.arange(size), 0)
            hours = np.minimum(work, self.per_step) * self.unit
            on = hours * self._rates(step)[:, None] + np.where(work > self.per_step + SLIVER, running, 0)
            on[: self.pools][~self._up(step)] = NEVER
            idle, self.starts[step] = self._idle(step, on, idle)
            stopped = np.tile(idle, (2, 1))
            self.goes_on[step] = on <= stopped
            running = np.minimum(on, stopped)
            idle[:, work <= SLIVER] = running[:, work <= SLIVER] = 0

    def _idle(self, step: int, on: Floats, idle: Floats) -> tuple[Floats, NDArray[np.int16]]:
        """What an idle job costs in each pool, and whom it starts as."""
        best, starts = _later(idle, self.per_step), np.full(idle.shape, -1, np.int16)
        relief = np.tile(self._relief(step), 2)[:, None] * self.unit
        elsewhere = _later(on, self.move) - self.move * relief
        here = _later(on, self.restart) - self.restart * relief
        anywhere = elsewhere.argmin(axis=0)
        for pool in range(self.pools):
            own = (pool, self.pools + pool)
            for run, costs in [(anywhere, elsewhere.min(axis=0)), *((run, here[run]) for run in own)]:
                better = costs < best[pool]
                best[pool] = np.where(better, costs, best[pool])
                starts[pool] = np.where(better, run, starts[pool])
        return best, starts

    def _rates(self, step: int) -> Floats:
        """Dollars per hour of each run, carbon included."""
        carbon = self.terms.carbon_price * self._at(self.working, step)
        return np.concatenate([self.terms.dollars(capacity) + carbon for capacity in CAPACITIES])

    def _relief(self, step: int) -> Floats:
        """By how much an hour of a start costs less than one of work, by pool."""
        return self.terms.carbon_price * (self._at(self.working, step) - self._at(self.starting, step))

    def _at(self, series: Floats, step: int) -> Floats:
        found: Floats = series[:, min(step, series.shape[1] - 1)]
        return found

    def _left(self, step: int) -> float:
        """Units until the deadline, less the part of a unit of slack that nothing takes."""
        return self.terms.deadline_hours / self.unit - step * self.per_step - self.part

    def _up(self, step: int) -> NDArray[np.bool_]:
        seen = self.track.available
        return seen[:, step] if step < seen.shape[1] else np.zeros(self.pools, np.bool_)

    def outcome(self) -> Outcome:
        """The choices followed from the beginning."""
        slack, pool, run, starts = self.slack, self.track.home, -1, 0
        dollars = emitted = 0.0
        for step in range(self.steps):
            if run < 0 or not self.goes_on[step, run, slack]:
                before, run = run, int(self.starts[step, pool, slack])
                if run >= 0 and run != before:
                    starts, at = starts + 1, run % self.pools
                    units = self.restart if at == pool else self.move
                    slack, pool = slack - units, at
                    spared = self._at(self.working, step)[pool] - self._at(self.starting, step)[pool]
                    emitted -= units * self.unit * spared
            if run < 0:
                slack -= self.per_step
                continue
            work = self._left(step) - slack
            hours = min(work, self.per_step) * self.unit
            dollars += hours * self.terms.dollars(CAPACITIES[run // self.pools])
            emitted += hours * self._at(self.working, step)[pool]
            if work <= self.per_step + SLIVER:
                wait = step * self.track.step_hours + hours - self.terms.work_hours
                return Outcome(dollars, emitted, wait, missed=False, starts=starts)
        raise AssertionError("a job that could meet its deadline has a way to do so")


def _later(costs: Floats, units: int) -> Floats:
    """`costs` after so many units of slack are gone."""
    found = np.full_like(costs, NEVER)
    found[:, units:] = costs[:, : max(0, costs.shape[1] - units)]
    return found


def _units(step_hours: float, starts: tuple[float, ...]) -> int:
    """Into how many units a step is cut: the fewest with which rounding down takes little from each start."""

    def lost(units: int) -> float:
        cut = (start / step_hours * units for start in starts if start > 0)
        return max((1 - int(start + 1e-6) / start for start in cut), default=0.0)

    return next((units for units in range(1, MOST_UNITS) if lost(units) <= ROUNDED), MOST_UNITS)
