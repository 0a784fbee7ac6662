"""What work is expected to cost until its deadline: a dynamic program over time left, slack, pool and capacity.

Slack is the time left minus the work left. Running takes none of it, waiting takes as much as it lasts, and each start
takes the restart time (or, in another pool, the moving time). A job that is idle with no more slack than a restart has
to be on on-demand capacity to the end; that bound is part of the program, so every plan keeps the deadline.

Each pool's spot capacity is a Markov chain (`spells`); rates, in dollars per hour, may change from step to step with
the forecast of carbon. Who leaves a pool finds each of the others up with its long-run probability, whatever was seen
before: the one approximation that keeps pools apart, so that effort grows with their number and not with its power.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from berth.planning.spells import STATES, Habits

Floats = NDArray[np.float32]

NEVER = np.float32(1e9)  # dollars: beyond any sum, and small enough for single precision
HOPELESS = 1e6  # dollars: what holds even a small share of NEVER
MOST_UNITS = 8  # per step in which slack is counted, where nothing else is said
UP, DOWN = slice(2, 4), slice(0, 2)  # of STATES


@dataclass(frozen=True, slots=True)
class Problem:
    """A job's way to its deadline, in steps from now. Rates are dollars per hour, by pool and step.

    Several jobs whose rates alone differ are solved together: pools stand in groups of `together`, one for each job.
    `start_relief` is by how much an hour of starting costs less than one of work: boards that load draw little power.
    """

    step_hours: float
    slack_hours: float
    restart_hours: float
    move_hours: float
    spot: tuple[tuple[float, ...], ...]
    on_demand: tuple[tuple[float, ...], ...]
    start_relief: tuple[tuple[float, ...], ...]
    habits: tuple[Habits, ...]
    together: int
    most_units: int = MOST_UNITS  # into which a step of slack may be cut

    @property
    def steps(self) -> int:
        """Until the deadline."""
        return len(self.spot[0])


class Horizon:
    """Expected dollars to the end: of a job idle, on spot or on on-demand in a pool, by time left and slack."""

    def __init__(self, problem: Problem) -> None:
        self.step_hours = problem.step_hours
        self._unit = problem.step_hours / _units(problem)
        size = math.ceil(problem.slack_hours / self._unit - 1e-9) + 2
        shape = (problem.steps + 1, len(problem.spot), len(STATES), size)
        self._idle, self._on_demand = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._spot = np.zeros(shape, np.float32)  # where spot is down, that of idle
        _fill(problem, self._unit, self._idle, self._on_demand, self._spot)
        self._together, self._pools, self._early_hours = problem.together, slice(problem.together), 0.0

    def of(self, group: int, early_hours: float) -> Horizon:
        """That of one group of pools, for a job whose deadline is so much later, and treated as if it were not."""
        found = copy(self)
        found._pools = slice(group * self._together, (group + 1) * self._together)
        found._early_hours = early_hours
        return found

    def idle(self, odds: Floats, left_hours: float, slack_hours: float) -> Floats:
        """Of a job that runs nowhere, by the pool in which its checkpoint is. `odds` are those of STATES, by pool."""
        return self._at(self._idle, odds, left_hours, slack_hours)

    def on_demand(self, odds: Floats, left_hours: float, slack_hours: float) -> Floats:
        """Of a job on on-demand capacity, by pool."""
        return self._at(self._on_demand, odds, left_hours, slack_hours)

    def spot(self, odds: Floats, left_hours: float, slack_hours: float) -> Floats:
        """Of a job on spot capacity, by pool; it loses it where the pool goes down."""
        return self._at(self._spot, odds, left_hours, slack_hours)

    def _at(self, table: Floats, odds: Floats, left_hours: float, slack_hours: float) -> Floats:
        """Between the two nearest steps and units of slack; on the safe side of what is impossible."""
        left, slack = left_hours - self._early_hours, slack_hours - self._early_hours
        step = min(max(left / self.step_hours, 0.0), len(table) - 1.0)
        unit = min(max(slack / self._unit + 1e-6, 0.0), table.shape[-1] - 1.001)
        first, low = int(step), int(unit)
        near = table[first : first + 2, self._pools, :, low : low + 2]
        found = _between(np.einsum("ps,tpsu->tpu", odds, near), unit - low)
        sums: Floats = found[0] + np.float32(step - first) * (found[-1] - found[0])
        return sums


def _between(pairs: Floats, share: float) -> Floats:
    low, high = pairs[..., 0], pairs[..., 1]
    return np.where(low > HOPELESS, high, low if share < 1e-4 else low + np.float32(share) * (high - low))


@lru_cache(maxsize=24)  # a few MiB each
def solve(problem: Problem) -> Horizon:
    """The horizon of a problem; that of one seen lately is kept."""
    return Horizon(problem)


def averages(series: NDArray[np.float64], every_hours: float, step_hours: float, steps: int) -> NDArray[np.float64]:
    """A forecast by steps of another length: the mean over each; after its end, its last value."""
    known = np.append(0.0, np.cumsum(series)) * every_hours
    ends = np.arange(steps + 1) * step_hours
    past = np.maximum(ends - every_hours * len(series), 0) * series[-1]
    sums = np.interp(ends, np.arange(len(known)) * every_hours, known) + past
    found: NDArray[np.float64] = np.diff(sums) / step_hours
    return found


def _units(problem: Problem) -> int:
    """Into how many units of slack a step is cut, so that a restart is close to a whole number of them."""

    def short(units: int) -> float:
        restart = problem.restart_hours / problem.step_hours * units
        return round(math.ceil(restart - 1e-6) - restart, 2) / units

    return min(range(2, problem.most_units + 1), key=lambda units: (round(short(units), 2), units))


def _fill(problem: Problem, unit: float, idle: Floats, on_demand: Floats, spot: Floats) -> None:
    """All steps, from the deadline back. With as much slack as there is time, the work is done: nothing is to come."""
    world = _World(problem, unit, idle.shape[-1])
    away = np.zeros((len(problem.spot) // problem.together, 0), np.float32)
    for left in range(1, len(idle)):
        now, before = problem.steps - left, left - 1
        size = min(idle.shape[-1], math.ceil(left * problem.step_hours / unit - 1e-6))
        work = np.float32(left * problem.step_hours) - world.slack[:size]
        run = np.minimum(work, problem.step_hours)
        more = work > problem.step_hours + 1e-6
        stay_on = run * world.on_demand[:, :, now, None] + more * (world.odds @ on_demand[before][..., :size])
        stay_spot = run * world.spot[:, :, now, None] + more * (world.odds[:, UP] @ spot[before][..., :size])
        start = stay_on.copy()
        np.minimum(start[:, UP], stay_spot, out=start[:, UP])
        idle_now = np.minimum(world.waited(world.odds @ idle[before][..., :size]), world.restarted(start, now))
        if problem.together > 1:
            away = world.elsewhere(stay_spot[:, 1], stay_on[:, 1], away, now)
            np.minimum(idle_now, np.repeat(away, problem.together, axis=0)[:, None], out=idle_now)
        idle[left][..., :size] = spot[left][..., :size] = idle_now
        on_demand[left][..., :size] = np.minimum(idle_now, stay_on)
        spot[left][:, UP, :size] = np.minimum(idle_now[:, UP], stay_spot)


class _World:
    """A problem in arrays, and what waiting and starting make of the sums of a step."""

    def __init__(self, problem: Problem, unit: float, size: int) -> None:
        self.unit, self.together = unit, problem.together
        self.wait = round(problem.step_hours / unit)
        self.restart, self.move = problem.restart_hours, problem.move_hours
        self.slack = (np.arange(size) * unit).astype(np.float32)
        self.odds = np.array([habits.transitions(problem.step_hours) for habits in problem.habits], np.float32)
        self.spot = np.array(problem.spot, np.float32)[:, None]
        self.on_demand = np.array(problem.on_demand, np.float32)[:, None]
        self.relief = np.array(problem.start_relief, np.float32)
        self.up = np.array([habits.availability for habits in problem.habits], np.float32)

    def waited(self, sums: Floats) -> Floats:
        """A step of waiting before `sums`."""
        return _later(sums, self.wait)

    def restarted(self, sums: Floats, now: int) -> Floats:
        """A restart before `sums`."""
        return self._started(sums, self.restart) - self.restart * self.relief[:, None, now, None]

    def elsewhere(self, stay_spot: Floats, stay_on: Floats, away: Floats, now: int) -> Floats:
        """Of a job that leaves its pool: the best of those that are up, by chance; else on-demand, or waiting.

        By group, as is `away`, the same of the step after. All groups have the same habits.
        """
        relief = self.move * self.relief[:, now, None]
        spot, on = (self._grouped(self._started(sums, self.move) - relief) for sums in (stay_spot, stay_on))
        known = np.zeros((len(away), spot.shape[-1]), np.float32)
        known[:, : away.shape[-1]] = away
        none_up = np.minimum(on.min(axis=1), _later(known, self.wait))
        order = np.argsort(spot, axis=1, kind="stable")
        costs = np.take_along_axis(spot, order, axis=1)
        up = np.where(costs < none_up[:, None], self.up[order], np.float32(0))
        none_before = np.cumprod(1 - up, axis=1)
        first = np.concatenate([up[:, :1], up[:, 1:] * none_before[:, :-1]], axis=1)
        found: Floats = (first * costs).sum(axis=1) + none_before[:, -1] * none_up
        return found

    def _grouped(self, sums: Floats) -> Floats:
        """By group, pool in it, and slack."""
        return sums.reshape(-1, self.together, sums.shape[-1])

    def _started(self, sums: Floats, hours: float) -> Floats:
        """A start of so many hours before `sums`: work to be done and paid for as other work is."""
        whole, part = divmod(hours / self.unit + 1e-9, 1)
        found = _later(sums, int(whole))
        if part > 1e-6:
            later = _later(sums, int(whole) + 1)
            found = np.where(later < NEVER, found + np.float32(part) * (later - found), NEVER)
        return found


def _later(sums: Floats, units: int) -> Floats:
    """`sums` after so many units of slack are gone."""
    found = np.full_like(sums, NEVER)
    found[..., units:] = sums[..., : max(0, sums.shape[-1] - units)]
    return found
