"""Many jobs planned at once from the same forecasts: jobs of a kind with about the same deadline share a horizon.

A deadline is taken for earlier than it is, by less than an eighth, so that there are few of them, and the time until it
is cut into at most MOST_STEPS. What a job is expected to cost so assumes a little less slack than it has; what it
may do does not, since `decide` keeps the true deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from berth.planning.horizon import Horizon, Problem, averages
from berth.planning.spells import Sightings
from berth.planning.spot import Decision, Job, Pool, decide

UNITS = 2  # per step in which slack is counted
MOST_STEPS = 48

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """One pool: g/kWh in each step from now, and what was seen of its spot capacity."""

    grams: tuple[float, ...]
    seen: Sightings


@dataclass(frozen=True, slots=True)
class Kind:
    """What jobs have in common: dollars per hour by pool, draw in kW at work and while starting, hours of a start."""

    spot_dollars: tuple[float, ...]
    on_demand_dollars: tuple[float, ...]
    kilowatts: float
    start_kilowatts: float
    restart_hours: float
    move_hours: float

    @property
    def starts(self) -> tuple[float, float]:
        """Hours of a restart and of a move."""
        return self.restart_hours, self.move_hours


class Horizons:
    """Plans jobs of some kinds one by one; what one job's plan needed serves the next.

    Forecasts are by `step_hours`; `polled_hours` lie between two looks at a job. `carbon_price` is per kilogram.
    """

    def __init__(
        self,
        pools: Sequence[Forecast],
        kinds: Sequence[Kind],
        carbon_price: float,
        step_hours: float,
        polled_hours: float,
    ) -> None:
        self.pools, self.carbon_price = pools, carbon_price
        self.step_hours, self.polled_hours = step_hours, polled_hours
        self._groups = _groups(kinds)
        self._dollars_per_kilowatt = np.array([pool.grams for pool in pools]) * (carbon_price / 1000)
        self._habits = tuple(pool.seen.habits for pool in pools)
        self._horizons: dict[tuple[tuple[float, float], int], Horizon] = {}
        self._now: dict[Kind, list[Pool]] = {}

    def decide(self, work_hours: float, left_hours: float, kind: Kind) -> Decision:
        """What a job that runs nowhere yet does now."""
        known = min(int(left_hours / self.step_hours), self._dollars_per_kilowatt.shape[1])
        steps = max(1, rounded_down(known))
        group = self._groups[kind.starts].index(kind)
        horizon = self._horizon(kind.starts, steps).of(group, left_hours - steps * self.step_hours)
        job = Job(work_hours, left_hours, kind.restart_hours, kind.move_hours)
        return decide(job, self._pools(kind), self.carbon_price, horizon, self.polled_hours)

    def _pools(self, kind: Kind) -> list[Pool]:
        found = self._now.get(kind)
        if found is None:
            each = zip(kind.spot_dollars, kind.on_demand_dollars, self.pools, strict=True)
            found = self._now[kind] = [_pool(kind, *one) for one in each]
        return found

    def _horizon(self, starts: tuple[float, float], steps: int) -> Horizon:
        found = self._horizons.get((starts, steps))
        if found is None:
            found = self._horizons[starts, steps] = Horizon(self._problem(starts, steps))
        return found

    def _problem(self, starts: tuple[float, float], steps: int) -> Problem:
        """Of all kinds that start alike, side by side."""
        hours = steps * self.step_hours
        count = min(steps, MOST_STEPS)
        carbon = np.stack([averages(row, self.step_hours, hours / count, count) for row in self._dollars_per_kilowatt])
        kinds = self._groups[starts]
        return Problem(
            step_hours=hours / count,
            slack_hours=hours,
            restart_hours=starts[0],
            move_hours=starts[1],
            spot=_rows([np.array(kind.spot_dollars)[:, None] + kind.kilowatts * carbon for kind in kinds]),
            on_demand=_rows([np.array(kind.on_demand_dollars)[:, None] + kind.kilowatts * carbon for kind in kinds]),
            start_relief=_rows([(kind.kilowatts - kind.start_kilowatts) * carbon for kind in kinds]),
            habits=self._habits * len(kinds),
            together=len(self.pools),
            most_units=UNITS,
        )


def rounded_down(steps: int) -> int:
    """To at most three significant bits after the first, so that 96 deadlines become 36.

    >>> [rounded_down(steps) for steps in (7, 15, 17, 35, 96)]
    [7, 15, 16, 32, 96]
    """
    coarse = 1 << max(0, steps.bit_length() - 4)
    return steps // coarse * coarse


def _pool(kind: Kind, spot_dollars: float, on_demand_dollars: float, forecast: Forecast) -> Pool:
    kilograms = forecast.grams[0] / 1000
    starting = kilograms * kind.start_kilowatts
    return Pool(spot_dollars, on_demand_dollars, kilograms * kind.kilowatts, starting, forecast.seen)


def _groups(kinds: Sequence[Kind]) -> dict[tuple[float, float], list[Kind]]:
    found: dict[tuple[float, float], list[Kind]] = {}
    for kind in dict.fromkeys(kinds):
        found.setdefault(kind.starts, []).append(kind)
    return found


def _rows(rates: Sequence[NDArray[np.float64]]) -> Rows:
    return tuple(map(tuple, np.concatenate(rates).tolist()))
