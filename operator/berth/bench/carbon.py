"""`berth bench carbon`: jobs that may wait for cleaner hours, under our schedule and under the rules of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_context
from statistics import fmean

import numpy as np

from berth.bench.carbon_data import Intensities, Job
from berth.bench.shifting import (
    Request,
    Rule,
    Runs,
    carbon_time,
    ecovisor,
    joined,
    lowest_slot,
    lowest_window,
    no_wait,
    wait_awhile,
    wait_awhile_window,
)
from berth.planning.deferral import HOUR, Curve, Run, Work, schedule

COMPARATORS: Mapping[str, Rule] = {
    "no_wait": no_wait,
    "lowest_slot": lowest_slot,
    "lowest_window": lowest_window,
    "carbon_time": carbon_time,
    "ecovisor": ecovisor,
    "wait_awhile": wait_awhile,
    "wait_awhile_window": wait_awhile_window,
}
LATE = 1.0  # seconds: an end that is later than allowed by less is a matter of rounding
SLIVER = 1e-3  # seconds that are nothing
EVEN = 1e-6  # hours: means that differ by less are equal
HALVINGS = 6  # of the interval in which the price of delay is sought


@dataclass(frozen=True, slots=True)
class Setting:
    """What all zones share."""

    short_wait_hours: float = 6.0
    long_wait_hours: float = 24.0
    short_hours: float = 2.0  # shorter jobs wait for `short_wait_hours` at most
    restart_overhead_hours: float = 0.0
    noise: float = 0.05  # standard deviation of forecasts, of the mean
    seeds: int = 3  # forecasts with noise
    usd_per_cpu_hour: float = 0.0624
    watts_per_cpu: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy came to, per job except for the counts."""

    carbon_ratio: float  # emitted, of what running at once emits
    mean_wait_hours: float  # by which the end was put off
    mean_kg: float
    mean_dollars: float
    missed_deadlines: int
    restarts: int


def requests(jobs: Sequence[Job], setting: Setting) -> list[Request]:
    """The jobs with how long each may wait, and the mean length of its kind."""
    limit = setting.short_hours * HOUR
    short = [job.seconds for job in jobs if job.seconds <= limit] or [limit]
    long = [job.seconds for job in jobs if job.seconds >= limit] or [limit]
    kinds = {
        True: (setting.short_wait_hours * HOUR, fmean(short)),
        False: (setting.long_wait_hours * HOUR, fmean(long)),
    }
    return [Request(job.arrival, job.seconds, job.cpus, *kinds[job.seconds < limit]) for job in jobs]


def compare_rules(hours: Intensities, jobs: Sequence[Request], setting: Setting) -> dict[str, Figures]:
    """The rules of others in one zone, whose hours begin with the trace."""
    zone = _Zone(Curve(0.0, hours), jobs, setting)
    return {name: zone.figures(zone.under(rule)) for name, rule in COMPARATORS.items()}


def compare(hours: Intensities, jobs: Sequence[Request], setting: Setting) -> dict[str, Figures]:
    """All policies in one zone, whose hours begin with the trace."""
    zone = _Zone(Curve(0.0, hours), jobs, setting)
    found = compare_rules(hours, jobs, setting)
    found["clairvoyant"] = zone.figures([wait_awhile(zone.curve, job) for job in jobs])
    found["berth"] = zone.figures(zone.ours(zone.curve))
    found["berth_window"] = zone.figures(zone.ours(zone.curve, pausable=False))
    found["berth_usual_length"] = zone.figures([_guessed(zone.curve, job, setting) for job in jobs])
    found["berth_prompt"] = zone.figures(zone.prompt(found["ecovisor"].mean_wait_hours))
    noisy = [zone.figures(zone.ours(_forecast(hours, setting.noise, seed))) for seed in range(setting.seeds)]
    return found | ({"berth_noisy": mean(noisy)} if noisy else {})


def mean(figures: Sequence[Figures]) -> Figures:
    """Of several, field by field; counts are rounded up, so that one that is missed shows."""
    return Figures(
        fmean(each.carbon_ratio for each in figures),
        fmean(each.mean_wait_hours for each in figures),
        fmean(each.mean_kg for each in figures),
        fmean(each.mean_dollars for each in figures),
        ceil(fmean(each.missed_deadlines for each in figures)),
        ceil(fmean(each.restarts for each in figures)),
    )


def over_zones(zones: Mapping[str, Mapping[str, Figures]]) -> dict[str, Figures]:
    """The means over zones of each policy."""
    return {policy: mean([zone[policy] for zone in zones.values()]) for policy in next(iter(zones.values()))}


def compare_all(
    zones: Mapping[str, Intensities], jobs: Sequence[Job], setting: Setting
) -> Iterator[tuple[str, dict[str, Figures]]]:
    """Each zone with its figures, in order; side by side in processes of their own where there are several."""
    todo = requests(jobs, setting)
    if len(zones) == 1:
        yield from ((zone, compare(hours, todo, setting)) for zone, hours in zones.items())
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        runs = {zone: pool.submit(compare, hours, todo, setting) for zone, hours in zones.items()}
        for zone, run in runs.items():
            yield zone, run.result()


class _Zone:
    """One zone, and how policies fare in it."""

    def __init__(self, curve: Curve, jobs: Sequence[Request], setting: Setting) -> None:
        self.curve, self.jobs, self.setting = curve, jobs, setting
        self.at_once = sum(job.cpus * curve.grams(no_wait(curve, job)) for job in jobs)

    def under(self, rule: Rule) -> list[Runs]:
        """What a rule makes of the jobs, where a restart prolongs the last piece."""
        overhead = self.setting.restart_overhead_hours * HOUR
        plans = [rule(self.curve, job) for job in self.jobs]
        return [(*runs[:-1], (runs[-1][0], runs[-1][1] + overhead * (len(runs) - 1))) for runs in plans]

    def ours(self, forecast: Curve, *, pausable: bool = True, delay_price: float = 0.0) -> list[Runs]:
        """Our schedules by a forecast. `delay_price`: of an hour of any job, in grams for each kW that a CPU draws."""
        return [
            schedule(
                forecast,
                Work(
                    job.arrival,
                    job.seconds,
                    job.arrival + job.seconds + job.wait_seconds,
                    pausable,
                    self.setting.restart_overhead_hours * HOUR,
                    delay_price / max(1, job.cpus),
                ),
            ).runs
            for job in self.jobs
        ]

    def prompt(self, most_wait_hours: float) -> list[Runs]:
        """Ours at the least price of delay, the same for all jobs, by which they wait no longer in the mean."""

        def plans(price: float) -> list[Runs]:
            return self.ours(self.curve, delay_price=price)

        return _least(plans, lambda runs: self.figures(runs).mean_wait_hours <= most_wait_hours + EVEN)

    def figures(self, plans: Sequence[Runs]) -> Figures:
        """What these runs, one for each job, come to in the hours as they were."""
        pairs = list(zip(self.jobs, plans, strict=True))
        grams = sum(job.cpus * self.curve.grams(runs) for job, runs in pairs)
        waits = [runs[-1][1] - job.arrival - job.seconds for job, runs in pairs]
        cpu_hours = sum(job.cpus * sum(end - begin for begin, end in runs) for job, runs in pairs) / HOUR
        return Figures(
            carbon_ratio=grams / self.at_once if self.at_once else 1.0,
            mean_wait_hours=fmean(waits) / HOUR,
            mean_kg=grams * self.setting.watts_per_cpu / 1e6 / len(pairs),
            mean_dollars=cpu_hours * self.setting.usd_per_cpu_hour / len(pairs),
            missed_deadlines=sum(wait > job.wait_seconds + LATE for wait, job in zip(waits, self.jobs, strict=True)),
            restarts=sum(len(runs) - 1 for _, runs in pairs),
        )


def _guessed(curve: Curve, job: Request, setting: Setting) -> Runs:
    """Ours where nobody knows how long the job is: planned for the usual length, and again each time that is over."""
    restart = setting.restart_overhead_hours * HOUR
    runs: list[Run] = []
    now, left, wait = job.arrival, job.seconds, job.wait_seconds
    while left > SLIVER:
        slack = max(0.0, wait - restart) if runs else wait  # what has begun restarts if it waits again
        work = Work(now, job.usual_seconds, now + job.usual_seconds + slack, pause_seconds=restart)
        for begin, end in schedule(curve, work).runs:
            paused = restart if runs and begin - now > SLIVER else 0.0
            left, wait = left + paused, max(0.0, wait - (begin - now) - paused)
            now = min(end, begin + left)
            runs, left = [*runs, (begin, now)], left - (now - begin)
            if left <= SLIVER:
                break
    return joined(runs)


def _least(plans: Callable[[float], list[Runs]], suffices: Callable[[list[Runs]], bool]) -> list[Runs]:
    """The plans at the least price that suffices, by halving: the higher the price, the shorter the waits."""
    if suffices(free := plans(0.0)):
        return free
    low, high = 0.0, 1.0
    while not suffices(best := plans(high)):
        low, high = high, 4 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if suffices(found := plans(middle)):
            high, best = middle, found
        else:
            low = middle
    return best


def _forecast(hours: Intensities, noise: float, seed: int) -> Curve:
    """The hours as a forecast has them that errs independently in each: N(0, noise x mean), as Let's Wait Awhile."""
    errors = np.random.default_rng(seed).normal(0.0, noise * hours.mean(), len(hours))
    return Curve(0.0, np.maximum(hours + errors, 0.0))
