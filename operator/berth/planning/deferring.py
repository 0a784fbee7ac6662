"""When a job that may wait runs: now, later or in pieces, by the dollars and the carbon that this takes.

A job waits only where its terms say what emitting less is worth, where it is known for how long it runs, and where it
has slack: until its deadline, or `maxDelay`. Starts are looked for on a grid of a quarter of an hour. With pauses,
lengths are rounded up and slack down, so that many jobs share a schedule: the true deadline is always kept.
See docs/decisions/0025-waiting-for-cleaner-hours.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil, inf

import numpy as np

from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Attempt, CarbonTerms, Device, Kind, RunPhase, Workload
from berth.planning.capacity import spot_wait, taken_text
from berth.planning.carbon import Origin, Outlook
from berth.planning.deferral import HOUR, TINY, Floats, Schedule, Work, schedule
from berth.planning.estimates import STARTING_SECONDS
from berth.planning.markets import (
    boards_in,
    kilowatts_of,
    lost_by_leaving,
    margin_seconds,
    prices_of,
    remaining_seconds,
    usd_of,
)
from berth.planning.options import Option
from berth.planning.scratch import Scratch, Wait

PAUSED = "PausedForCarbon"  # the reason of gangs that stop until cleaner hours
DAY = 24 * HOUR
GRID_SECONDS = 900.0
MOST_STEPS = 14 * 96  # of the grid: who runs for two weeks does not wait
MOST_PAUSES = 1000
MOST_SEARCHES = 512  # for schedules with pauses, each of about a millisecond, in one plan: the first served have them
LEAST_SAVING = 0.02  # of what a job emits: less is not worth its waiting, nor any pause that is planned
LEAST_PAUSE_SAVING = 0.05  # the same of a pause, its restart paid for: so that forecasts that waver stop nobody twice
LEAST_SLACK_SECONDS = 1800.0  # less is left alone


@dataclass(frozen=True, slots=True)
class Slack:
    """For how long a job works yet, when it has to have ended, and what says so."""

    seconds: float
    latest_end: float
    by: str  # "deadline" or "maxDelay"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a schedule with pauses is looked for, on the grid."""

    now: float  # at most one step in the past
    seconds: float
    latest_end: float
    pause_seconds: float
    pause_grams: float  # that a pause has to save for each kW: what boards cost while they start again
    most_pauses: int


@dataclass(frozen=True, slots=True)
class Course:
    """A job's way from now on, beside running at once: grams for each kW, in all, with dearer boards in the costs."""

    region: str
    start: float
    end: float
    grams: float
    cost: float
    at_once: float
    at_once_cost: float


def wait_of(s: Scratch, w: Workload) -> Wait | None:
    """Until when a pending job waits for cleaner hours, or for spot capacity; None: it does not.

    A plan that is told nothing of carbon, as one of another program than the operator, keeps to what was written down.
    """
    if w.ref.uid not in s.waits:
        s.waits[w.ref.uid] = None  # it is not asked again, should it break
        s.waits[w.ref.uid] = _wait(s, w) or spot_wait(s, w)
    found = s.waits[w.ref.uid]
    if found is not None:
        s.wake(found.start)
    return found


def deferred(s: Scratch, w: Workload) -> Verdict | None:
    """Why a pending job waits for cleaner hours, or for spot capacity, if it does."""
    wait, members = wait_of(s, w), w.request.workers if w.request else None
    if wait is not None:
        return Verdict(wait.reason, wait.message, wanted=members, until=wait.start)
    return Verdict(Reason.WAITING_FOR_SPOT, taken, wanted=members) if (taken := taken_text(s, w)) else None


def pause_of(s: Scratch, w: Workload, attempt: Attempt) -> str:
    """Why a job that runs is to pause, in words; "" where it goes on.

    It pauses if it would not start now, and if stopping and going on later, with the work that is lost and the restart,
    emits less than going on by a margin, and keeps its deadline.
    """
    slack = _slack_of(s, w) if w.checkpoints and attempt.phase is RunPhase.RUNNING else None
    if slack is None or not w.started_at or w.carbon is None:
        return ""
    if (rested := w.started_at + s.policy.consolidation.min_runtime_seconds) > s.now:
        s.wake(rested)
        return ""
    region = next((n.region for name in attempt.placement.nodes if (n := s.fleet.nodes.get(name))), "")
    outlook = s.snapshot.outlooks.get(region)
    if outlook is None:
        return ""
    seconds = slack.seconds
    device, restart = attempt.placement.device, s.policy.consolidation.restart_seconds
    lost = lost_by_leaving(s, w, attempt)
    if w.carbon.budget is not None and lost + restart > w.carbon.budget * seconds:
        return ""
    again = seconds + lost + restart
    courses = _courses(s, {region: 0.0}, again, slack.latest_end)
    if not courses:
        return ""
    best = _with_pauses(s, w, device, courses[0], again, slack.latest_end)
    if best.start < s.now + GRID_SECONDS + restart:
        return ""
    now = outlook.curve.grams([(s.now, s.now + seconds)])
    if best.cost + _pause_grams(s, w, device) > now * (1 - LEAST_PAUSE_SAVING):
        return ""
    saved = _kilograms(s, w, device, now - best.grams)
    told = _words(s, best, (best.grams / again, now / seconds), saved, w.carbon)
    return f"goes on {_clock(s, best.start)}: {told}; {_left(slack, best.end)}"


def _wait(s: Scratch, w: Workload) -> Wait | None:
    before = w.verdict
    if not s.snapshot.outlooks and w.carbon and before and before.reason == Reason.DEFERRED_FOR_CARBON:
        return Wait(before.until, before.message) if before.until is not None and before.until > s.now else None
    slack = _slack_of(s, w) if w.request is not None and s.snapshot.outlooks else None
    if slack is None or w.carbon is None or w.request is None:
        return None
    shape, options = w.request.shape, s.options(w.request.demand, w.request.tensor)
    option = next((o for o in options if prices_of(s, shape, o.device)), None)
    seconds, latest = slack.seconds, slack.latest_end
    courses = _courses(s, _dearer(s, w, option), seconds, latest) if option is not None else []
    if not courses or option is None:
        return None
    now = min(courses, key=lambda course: (round(course.at_once_cost, 6), course.region))
    best = min(courses, key=lambda course: (round(course.cost, 6), course.start, course.region))
    best = _with_pauses(s, w, option.device, best, seconds, latest)
    if best.start <= s.now or best.cost > now.at_once_cost * (1 - LEAST_SAVING):
        return None
    saved = _kilograms(s, w, option.device, now.at_once - best.grams)
    verb = "goes on" if w.attempts_made else "starts"
    told = _words(s, best, (best.grams / seconds, now.at_once / seconds), saved, w.carbon)
    return Wait(best.start, f"{verb} {_clock(s, best.start)}: {told}; {_left(slack, best.end)}")


def _slack_of(s: Scratch, w: Workload) -> Slack | None:
    """What time a job has; None where it does not wait for anything."""
    terms, left = w.carbon, remaining_seconds(s, w)
    if terms is None or w.ref.kind is not Kind.TRAINING_JOB or left is None:
        return None
    if terms.budget is None and not terms.usd_per_tonne:
        return None
    by_deadline = w.deadline - margin_seconds(left) if w.deadline is not None else inf
    latest, by = min((by_deadline, "deadline"), (_latest_by_delay(s, w, terms), "maxDelay"))
    return Slack(left, latest, by) if s.now + left + LEAST_SLACK_SECONDS <= latest < inf else None


def _latest_by_delay(s: Scratch, w: Workload, terms: CarbonTerms) -> float:
    total = s.estimates.run_seconds(w, at_most=True)
    if terms.max_delay_seconds is None or total is None:
        return inf
    return w.created + STARTING_SECONDS + total + terms.max_delay_seconds


def _courses(s: Scratch, dearer: Mapping[str, float], seconds: float, latest: float) -> list[Course]:
    """The best way to run in one piece in each region, whose boards are dearer by grams for each kW and hour."""
    regions = tuple(region for region in dearer if region in s.snapshot.outlooks)
    sums = _sums(tuple(s.snapshot.outlooks[region] for region in regions), s.now // DAY * DAY) if regions else None
    first, steps = int(s.now % DAY // GRID_SECONDS), ceil(seconds / GRID_SECONDS)
    starts = int((latest - s.now // GRID_SECONDS * GRID_SECONDS) / GRID_SECONDS) - steps + 1
    if sums is None or first + steps >= sums.shape[1]:
        return []
    starts = max(1, min(starts, sums.shape[1] - first - steps))
    windows = sums[:, first + steps : first + steps + starts] - sums[:, first : first + starts]
    windows = windows * (seconds / (steps * GRID_SECONDS))
    best = (windows <= windows.min(axis=1, keepdims=True) + TINY).argmax(axis=1)
    found = []
    for region, row, i in zip(regions, windows, best.tolist(), strict=True):
        start, more = (s.now // GRID_SECONDS + i) * GRID_SECONDS, dearer[region] * seconds / HOUR
        at_once, grams = float(row[0]), float(row[i])
        found.append(Course(region, start, max(start, s.now) + seconds, grams, grams + more, at_once, at_once + more))
    return found


@lru_cache(maxsize=64)
def _sums(outlooks: tuple[Outlook, ...], start: float) -> Floats:
    """The integrals of curves, one in each row, at the steps of the grid."""
    times: Floats = start + GRID_SECONDS * np.arange(MOST_STEPS + 1, dtype=np.float64)
    return np.stack([outlook.curve.sums(times) for outlook in outlooks])


def _with_pauses(s: Scratch, w: Workload, device: Device, one: Course, seconds: float, latest: float) -> Course:
    """The way to run in the same region with pauses, where these pay; else in one piece."""
    terms, outlook = w.carbon, s.snapshot.outlooks[one.region]
    restart, grams = s.policy.consolidation.restart_seconds, _pause_grams(s, w, device)
    most = MOST_PAUSES if terms is None or terms.budget is None else int(terms.budget * seconds / restart)
    if not w.checkpoints or not most or one.grams - min(outlook.grams) * seconds / HOUR <= grams:
        return one
    if s.searches >= MOST_SEARCHES:
        return one
    s.searches += 1
    start, rounded = s.now // GRID_SECONDS * GRID_SECONDS, _steps_up(seconds) * GRID_SECONDS
    slack = _steps_down(latest - start - rounded) * GRID_SECONDS
    pause = max(restart, LEAST_SAVING * rounded)
    found = _scheduled(outlook, Ask(start, rounded, start + rounded + slack, pause, grams, most))
    if found is None:
        return one
    share, pauses = seconds / rounded, len(found.runs) - 1
    emitted, dearer = found.grams * share, one.cost - one.grams
    return replace(
        one,
        start=found.runs[0][0],
        end=found.end,
        grams=emitted,
        cost=emitted + grams * pauses + dearer,
    )


@lru_cache(maxsize=4096)
def _scheduled(outlook: Outlook, ask: Ask) -> Schedule | None:
    """The best schedule with pauses; None where one without is as good."""
    curve = outlook.curve
    one = schedule(curve, Work(ask.now, ask.seconds, ask.latest_end, pausable=False))
    found = schedule(curve, Work(ask.now, ask.seconds, ask.latest_end, pause_seconds=ask.pause_seconds))
    pauses = len(found.runs) - 1
    pays = found.grams + ask.pause_grams * pauses < one.grams - TINY
    return found if pays and 0 < pauses <= ask.most_pauses else None


def _steps_up(seconds: float) -> int:
    """In steps of the grid, at most an eighth more: so many jobs share a schedule.

    >>> [_steps_up(hours * 3600) for hours in (0.1, 1, 9.1, 48)]
    [1, 4, 40, 192]
    """
    steps = ceil(seconds / GRID_SECONDS)
    coarse = 1 << max(0, steps.bit_length() - 4)
    return -(-steps // coarse) * coarse


def _steps_down(seconds: float) -> int:
    """In steps of the grid, at most a quarter less; 0 for less than nothing."""
    steps = max(0, int(seconds / GRID_SECONDS))
    coarse = 1 << max(0, steps.bit_length() - 3)
    return steps // coarse * coarse


def _pause_grams(s: Scratch, w: Workload, device: Device) -> float:
    """What a restart costs in dollars, as grams for each kW of the boards that wait for it."""
    terms, model = w.carbon, s.model(device.model)
    if terms is None or not terms.usd_per_tonne:
        return 0.0
    kilowatts = kilowatts_of(model, 1.0)
    usd = model.usd_per_hour * s.policy.consolidation.restart_seconds / HOUR
    return usd / (terms.usd_per_tonne / 1e6) / kilowatts


def _dearer(s: Scratch, w: Workload, option: Option) -> dict[str, float]:
    """The regions where a job may run, and by how much they are dearer than the cheapest, in grams per kW and hour.

    Those that are too dear for its budget are left out.
    """
    assert w.request is not None
    terms, model = w.carbon, s.model(option.device.model)
    usd: dict[str, float] = {}
    for (_, region), price in prices_of(s, w.request.shape, option.device).items():
        usd[region] = min(usd.get(region, inf), price)
    least = min(usd.values(), default=0.0)
    if terms is None or terms.budget is not None:
        share = terms.budget if terms and terms.budget is not None else 0.0
        return {region: 0.0 for region, price in usd.items() if price <= least * (1 + share) + 1e-9}
    each = 1e6 / (terms.usd_per_tonne or inf) / kilowatts_of(model, 1.0)
    return {region: (price - least) * each for region, price in usd.items()}


def _kilograms(s: Scratch, w: Workload, device: Device, grams: float) -> float:
    """Of a gang, of what each kW emits."""
    return kilowatts_of(s.model(device.model), boards_in(s, device, w.size)) * grams / 1000


def _words(s: Scratch, best: Course, grams: tuple[float, float], saved: float, terms: CarbonTerms) -> str:
    """What waiting saves, of grams per second then and now: "118 instead of 412 g/kWh in de, saves 3.1 kg"."""
    worth = usd_of(terms, saved)
    where = f" in {best.region}" if best.region else ""
    told = f"{grams[0] * HOUR:.0f} instead of {grams[1] * HOUR:.0f} g/kWh{where}, saves {saved:.1f} kg"
    return f"{told}{f' worth ${worth:.2f}' if worth >= 0.005 else ''}{_assumed(s.snapshot.outlooks[best.region], best)}"


def _assumed(outlook: Outlook, best: Course) -> str:
    """What was believed instead of a forecast, in words; "" where there is one for the hours in question."""
    until = int((best.end - outlook.start * HOUR) // HOUR) + 1
    origins = set(outlook.origins[:until]) - {Origin.FORECAST}
    worst = [origin for origin in Origin if origin in origins]
    return f" (by the {worst[-1]})" if worst else ""


def _left(slack: Slack, end: float) -> str:
    return f"{slack.by} leaves {max(0.0, slack.latest_end - end) / HOUR:.0f} h"


def _clock(s: Scratch, at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M UTC" if at - s.now < DAY else "%a %H:%M UTC")
