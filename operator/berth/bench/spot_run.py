"""A job run through recorded windows, step by step, by whoever chooses where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from berth.model.prices import CapacityType
from berth.planning.spot import Job, Place

SLIVER_HOURS = 1e-9  # of rounding

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is run, and what it costs. Dollars are per hour and per kilogram of CO2e."""

    work_hours: float
    deadline_hours: float
    restart_hours: float
    move_hours: float
    spot_dollars: float
    on_demand_dollars: float
    kilowatts: float = 0.0
    start_kilowatts: float = 0.0
    carbon_price: float = 0.0

    def dollars(self, capacity: CapacityType) -> float:
        """Per hour."""
        return self.spot_dollars if capacity is CapacityType.SPOT else self.on_demand_dollars


@dataclass(frozen=True, slots=True)
class Track:
    """Pools side by side, from the release of a job to its deadline: spot seen and g/kWh, by pool and step.

    Steps after the end of a window have no spot capacity. `home` is the pool in which the job's data lies at first.
    """

    name: str
    step_hours: float
    available: NDArray[np.bool_]
    grams: Floats
    home: int = 0

    def kilograms(self, kilowatts: float) -> Floats:
        """Per hour of such a draw, by pool and step."""
        return self.grams * (kilowatts / 1000)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: `wait_hours` is how much later than at once and undisturbed it ended."""

    dollars: float
    kilograms: float
    wait_hours: float
    missed: bool
    starts: int

    @property
    def restarts(self) -> int:
        """Starts after the first."""
        return max(0, self.starts - 1)


Chooser = Callable[[Job, Sequence[bool], int], Place | None]
"""Where a job runs in a step, or None: told its state, which pools have spot capacity, and which step it is."""


def run(terms: Terms, track: Track, choose: Chooser) -> Outcome:
    """Run the job until its work is done."""
    working, starting = track.kilograms(terms.kilowatts), track.kilograms(terms.start_kilowatts)
    job = Job(terms.work_hours, terms.deadline_hours, terms.restart_hours, terms.move_hours, pool=track.home)
    dollars = emitted = 0.0
    starts = step = 0
    while job.work_hours > SLIVER_HOURS:
        up = _up(track, step)
        if job.place is not None and job.place.capacity is CapacityType.SPOT and not up[job.place.pool]:
            job = replace(job, place=None, pending_hours=0.0)
        place = choose(job, up, step)
        starts += place is not None and place != job.place
        before = job
        job, hours = _after(before, place, track.step_hours)
        if place is not None:
            at = place.pool, min(step, track.grams.shape[1] - 1)
            start = min(hours, before.start_hours(place))
            dollars += hours * terms.dollars(place.capacity)
            emitted += start * starting[at] + (hours - start) * working[at]
        step += 1
    took = terms.deadline_hours - job.left_hours
    late = took > terms.deadline_hours + 1e-6
    return Outcome(dollars, emitted, took - terms.work_hours, late, starts)


def _up(track: Track, step: int) -> list[bool]:
    if step >= track.available.shape[1]:
        return [False] * len(track.available)
    found: list[bool] = track.available[:, step].tolist()
    return found


def _after(job: Job, place: Place | None, step_hours: float) -> tuple[Job, float]:
    """The job after a step in this place, and how long it ran; the last step ends with the work."""
    if place is None:
        return replace(job, place=None, pending_hours=0.0, left_hours=job.left_hours - step_hours), 0.0
    start = job.start_hours(place)
    hours = min(step_hours, start + job.work_hours)
    worked = max(0.0, hours - start)
    after = replace(
        job,
        work_hours=job.work_hours - worked,
        left_hours=job.left_hours - hours,
        place=place,
        pool=place.pool,
        pending_hours=max(0.0, start - hours),
    )
    return after, hours
