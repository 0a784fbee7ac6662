"""Rules by which others shift work in time: GAIA's (ASPLOS '24), Ecovisor's and Let's-Wait-Awhile's (Middleware '21).

All of them may wait for so many hours, which depend on how long the job is; GAIA's know the mean length of the jobs
that may wait as long, not the job's own. Each returns the pieces in which the job runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from berth.planning.deferral import HOUR, Curve, Floats, Run

DAY = 24 * HOUR
LAST = 1.0  # seconds: so that the very end of the wait is a start too
CLEAN = 0.3  # Ecovisor runs in hours below this quantile of the day to come

Runs = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A job as it arrives. Times are in seconds, on the curve's scale."""

    arrival: float
    seconds: float
    cpus: int
    wait_seconds: float  # that its end may be put off
    usual_seconds: float  # mean length of the jobs that may wait as long

    def from_(self, start: float) -> Runs:
        """In one piece from `start`."""
        return ((start, start + self.seconds),)


Rule = Callable[[Curve, Request], Runs]


def no_wait(_: Curve, job: Request) -> Runs:
    """At once."""
    return job.from_(job.arrival)


def lowest_slot(curve: Curve, job: Request) -> Runs:
    """From the cleanest hour within the wait, whatever comes after it."""
    return job.from_(min(_hours(curve, job), key=curve.at))


def lowest_window(curve: Curve, job: Request) -> Runs:
    """At a whole hour after the arrival, so that a job of usual length would emit least."""
    starts, grams = _windows(curve, job)
    return job.from_(float(starts[np.argmin(grams)]))


def carbon_time(curve: Curve, job: Request) -> Runs:
    """The same, but so that it saves most per hour until a job of usual length would be done."""
    starts, grams = _windows(curve, job)
    return job.from_(float(starts[np.argmax((grams[0] - grams) / (starts - job.arrival + job.usual_seconds))]))


def ecovisor(curve: Curve, job: Request) -> Runs:
    """Whenever it is cleaner than in most of the day to come, and once all waiting is used up."""
    limit = _quantile(curve, job.arrival, job.arrival + DAY)
    runs: list[Run] = []
    time, left, wait = job.arrival, job.seconds, job.wait_seconds
    while left > 0:
        until = float(curve.boundaries(time, time + 2 * HOUR)[0])
        if curve.at(time) < limit or wait <= 0:
            end = min(until, time + left)
            runs.append((time, end))
            left = left - (end - time) if end == until else 0.0
        else:
            end = min(until, time + wait)
            wait = wait - (end - time) if end == until else 0.0
        time = end
    return joined(runs)


def wait_awhile(curve: Curve, job: Request) -> Runs:
    """In the cleanest hours before it has to be done: the optimum where pauses cost nothing."""
    left, runs = job.seconds, []
    slots = _slots(curve, job.arrival, job.arrival + job.seconds + job.wait_seconds)
    for begin, end in sorted(slots, key=lambda slot: curve.at(slot[0])):
        until = min(end, begin + left)
        runs.append((begin, until))
        left -= until - begin
        if left <= 0:
            break
    return joined(sorted(runs))


def wait_awhile_window(curve: Curve, job: Request) -> Runs:
    """In one piece, begun at once or with an hour, so that it emits least."""
    return job.from_(min(_hours(curve, job), key=lambda start: curve.grams(job.from_(start))))


def joined(runs: list[Run]) -> Runs:
    """Runs in order, those that touch as one."""
    found: list[Run] = []
    for begin, end in runs:
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return tuple(found)


def _hours(curve: Curve, job: Request) -> list[float]:
    """The arrival, and the beginnings of hours until the wait is over."""
    return [job.arrival, *curve.boundaries(job.arrival, job.arrival + job.wait_seconds + LAST).tolist()]


def _windows(curve: Curve, job: Request) -> tuple[Floats, Floats]:
    """Starts a whole number of hours after the arrival, and what a job of usual length would emit from each."""
    starts = np.arange(job.arrival, job.arrival + job.wait_seconds + LAST, HOUR)
    return starts, curve.sums(starts + job.usual_seconds) - curve.sums(starts)


def _quantile(curve: Curve, begin: float, end: float) -> float:
    """The intensity below which it is for CLEAN of this time."""
    left = CLEAN * (end - begin)
    for slot in sorted(_slots(curve, begin, end), key=lambda slot: curve.at(slot[0])):
        left -= slot[1] - slot[0]
        if left <= 0:
            break
    return curve.at(slot[0])


def _slots(curve: Curve, begin: float, end: float) -> list[Run]:
    """This time cut at every hour."""
    return list(pairwise([begin, *curve.boundaries(begin, end).tolist(), end]))
