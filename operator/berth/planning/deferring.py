"""When a job that may wait runs: now, later or in pieces, by the dollars and the carbon that this takes.

A job waits only where its terms say what emitting less is worth, where it is known for how long it runs, and where it
has slack: until its deadline, or `maxDelay`. Its schedule is looked for on a grid of a quarter of an hour, lengths
rounded up and slack rounded down by an eighth at most: so many jobs share one, and the true deadline is kept.
See docs/decisions/0025-waiting-for-cleaner-hours.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil, floor, inf

from berth.model.prices import CapacityType
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Attempt, CarbonTerms, Device, Kind, RunPhase, Workload
from berth.planning.carbon import Origin, Outlook
from berth.planning.deferral import HOUR, Schedule, Work, schedule
from berth.planning.estimates import STARTING_SECONDS, doubled
from berth.planning.lost import lost_seconds
from berth.planning.markets import boards_in, kilowatts_of, margin_seconds, markets_of, remaining_seconds, usd_of
from berth.planning.options import Option
from berth.planning.scratch import Scratch, Wait

PAUSED = "PausedForCarbon"  # the reason of gangs that stop until cleaner hours
GRID_SECONDS = 900.0
LEAST_SAVING = 0.02  # of what a job emits: less is not worth its waiting
LEAST_PAUSE_SAVING = 0.05  # the same of a pause, its restart paid for: so that forecasts that waver stop nobody twice
LEAST_RUN_SECONDS = 900.0  # a gang is left alone for so long after its start
LEAST_SLACK_SECONDS = 1800.0  # less is left alone
SAVING_SECONDS = 60.0  # that a gang which is asked to save works in vain, at most


@dataclass(frozen=True, slots=True)
class Ask:
    """What a schedule is looked for, on the grid."""

    now: float  # at most one step in the past
    seconds: float
    latest_end: float
    pause_seconds: float
    pause_grams: float = 0.0  # that a pause has to save for each kW: what boards cost while they start again
    most_pauses: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """A job's way from now on: when it runs and where, beside running at once, in grams for each kW."""

    region: str
    outlook: Outlook
    schedule: Schedule
    cost: float  # of it, pauses and dearer boards included
    at_once: float  # what running now emits
    at_once_cost: float
    share: float  # of what is counted, that is truly run: lengths are rounded up

    @property
    def start(self) -> float:
        """When it runs first."""
        return self.schedule.runs[0][0]


def wait_of(s: Scratch, w: Workload) -> Wait | None:
    """Until when a pending job waits for cleaner hours; None: it does not."""
    if w.ref.uid not in s.waits:
        s.waits[w.ref.uid] = _wait(s, w)
    found = s.waits[w.ref.uid]
    if found is not None:
        s.wake(found.start)
    return found


def deferred(s: Scratch, w: Workload) -> Verdict | None:
    """Why a pending job waits for cleaner hours, if it does."""
    wait = wait_of(s, w)
    if wait is None:
        return None
    return Verdict(Reason.DEFERRED_FOR_CARBON, wait.message, None, w.request.workers if w.request else None)


def pause_of(s: Scratch, w: Workload, attempt: Attempt) -> str:
    """Why a job that runs is to pause, in words; "" where it goes on.

    It pauses if it would not start now, and if stopping and going on later, with the work that is lost and the restart,
    emits less than going on by a margin, and keeps its deadline.
    """
    slack = _slack_of(s, w) if w.checkpoints and attempt.phase is RunPhase.RUNNING else None
    if slack is None or not w.started_at or s.now - w.started_at < LEAST_RUN_SECONDS or w.carbon is None:
        return ""
    region = next((n.region for name in attempt.placement.nodes if (n := s.fleet.nodes.get(name))), "")
    outlook = s.snapshot.outlooks.get(region)
    if outlook is None:
        return ""
    seconds, latest = slack
    device, restart = attempt.placement.device, s.policy.consolidation.restart_seconds
    lost = SAVING_SECONDS if attempt.number == w.listens else lost_seconds(w, s.now)
    if w.carbon.budget is not None and lost + restart > w.carbon.budget * seconds:
        return ""
    best = _course(s, w, device, region, outlook, seconds + lost + restart, latest)
    if best.start < s.now + GRID_SECONDS + restart:
        return ""
    now = outlook.curve.grams([(s.now, s.now + seconds)])
    later = best.cost * best.share + _pause_grams(s, w, device)
    if later > now * (1 - LEAST_PAUSE_SAVING):
        return ""
    saved = _kilograms(s, w, device, now - best.schedule.grams * best.share)
    told = _words(best, now / seconds * HOUR, saved, w.carbon)
    return f"goes on {_clock(best.start)}: {told}; {_left(w, best.schedule.end, latest)}"


def _wait(s: Scratch, w: Workload) -> Wait | None:
    slack = _slack_of(s, w) if w.request is not None and s.snapshot.outlooks else None
    if slack is None or w.carbon is None or w.request is None:
        return None
    option = next(iter(s.options(w.request.demand, w.request.tensor)), None)
    found = _best_of(s, w, option, *slack) if option is not None else None
    if found is None or option is None:
        return None
    best, now = found
    if best.start <= s.now or best.cost > now.at_once_cost * (1 - LEAST_SAVING):
        return None
    saved = _kilograms(s, w, option.device, (now.at_once - best.schedule.grams) * best.share)
    verb = "goes on" if w.attempts_made else "starts"
    told = _words(best, now.at_once / slack[0] * now.share * HOUR, saved, w.carbon)
    message = f"{verb} {_clock(best.start)}: {told}"
    return Wait(best.start, f"{message}; {_left(w, best.schedule.end, slack[1])}")


def _best_of(s: Scratch, w: Workload, option: Option, seconds: float, latest: float) -> tuple[Course, Course] | None:
    """The best course in any region, and that of the region which is the best to run in at once."""
    dearer = _dearer(s, w, option)
    outlooks = s.snapshot.outlooks
    courses = [
        _course(s, w, option.device, region, outlooks[region], seconds, latest, more)
        for region, more in dearer.items()
        if region in outlooks
    ]
    if not courses:
        return None
    best = min(courses, key=lambda course: (round(course.cost, 6), course.start, course.region))
    return best, min(courses, key=lambda course: (round(course.at_once_cost, 6), course.region))


def _slack_of(s: Scratch, w: Workload) -> tuple[float, float] | None:
    """For how long a job works yet, and when it has to have ended; None where it does not wait for anything."""
    terms, left = w.carbon, remaining_seconds(s, w)
    if terms is None or w.ref.kind is not Kind.TRAINING_JOB or left is None:
        return None
    if terms.budget is None and not terms.usd_per_tonne:
        return None
    if w.attempt is not None and w.started_at:
        elapsed = s.now - w.started_at
        left = w.expected_end - s.now if w.expected_end > s.now else doubled(left, elapsed) - elapsed
    latest = min(
        w.deadline - margin_seconds(left) if w.deadline is not None else inf,
        _latest_by_delay(s, w, terms),
    )
    return (left, latest) if s.now + left + LEAST_SLACK_SECONDS <= latest < inf else None


def _latest_by_delay(s: Scratch, w: Workload, terms: CarbonTerms) -> float:
    total = s.estimates.run_seconds(w, at_most=True)
    if terms.max_delay_seconds is None or total is None:
        return inf
    return w.created + STARTING_SECONDS + total + terms.max_delay_seconds


def _course(
    s: Scratch,
    w: Workload,
    device: Device,
    region: str,
    outlook: Outlook,
    seconds: float,
    latest: float,
    dearer: float = 0.0,
) -> Course:
    """The best in a region whose boards are dearer by so much, in grams for each kW and hour."""
    start = floor(s.now / GRID_SECONDS) * GRID_SECONDS
    rounded = _steps_up(seconds) * GRID_SECONDS
    slack = _steps_down(latest - start - rounded) * GRID_SECONDS
    pauses = _most_pauses(s, w, seconds)
    ask = Ask(
        start,
        rounded,
        start + rounded + slack,
        s.policy.consolidation.restart_seconds,
        _pause_grams(s, w, device) if pauses else 0.0,
        pauses,
    )
    found, cost, at_once = _scheduled(outlook, ask)
    more = dearer * rounded / HOUR
    return Course(region, outlook, found, cost + more, at_once, at_once + more, seconds / rounded)


def _steps_up(seconds: float) -> int:
    """In steps of the grid, at most an eighth more.

    >>> [_steps_up(hours * 3600) for hours in (0.1, 1, 9.1, 48)]
    [1, 4, 40, 192]
    """
    steps = ceil(seconds / GRID_SECONDS)
    coarse = 1 << max(0, steps.bit_length() - 4)
    return -(-steps // coarse) * coarse


def _steps_down(seconds: float) -> int:
    """In steps of the grid, at most an eighth less; 0 for less than nothing."""
    steps = max(0, int(seconds / GRID_SECONDS))
    coarse = 1 << max(0, steps.bit_length() - 4)
    return steps // coarse * coarse


@lru_cache(maxsize=16384)
def _scheduled(outlook: Outlook, ask: Ask) -> tuple[Schedule, float, float]:
    """The best schedule, with pauses if they pay; what it costs, and what running at once does."""
    curve = outlook.curve
    found = schedule(curve, Work(ask.now, ask.seconds, ask.latest_end, pausable=False))
    cost, at_once = found.grams, curve.grams([(ask.now, ask.now + ask.seconds)])
    if ask.most_pauses:
        pieces = schedule(curve, Work(ask.now, ask.seconds, ask.latest_end, pause_seconds=ask.pause_seconds))
        pauses = len(pieces.runs) - 1
        paid = pieces.grams + ask.pause_grams * pauses
        if pauses <= ask.most_pauses and paid < cost:
            found, cost = pieces, paid
    return found, cost, at_once


def _pause_grams(s: Scratch, w: Workload, device: Device) -> float:
    """What a restart costs in dollars, as grams for each kW of the boards that wait for it."""
    terms, model = w.carbon, s.model(device.model)
    if terms is None or not terms.usd_per_tonne:
        return 0.0
    kilowatts = kilowatts_of(model, 1.0)
    usd = model.usd_per_hour * s.policy.consolidation.restart_seconds / HOUR
    return usd / (terms.usd_per_tonne / 1e6) / kilowatts


def _most_pauses(s: Scratch, w: Workload, seconds: float) -> int:
    if w.carbon is None or not w.checkpoints:
        return 0
    if w.carbon.budget is None:
        return 1000
    return int(w.carbon.budget * seconds / s.policy.consolidation.restart_seconds)


def _dearer(s: Scratch, w: Workload, option: Option) -> dict[str, float]:
    """The regions where a job may run, and by how much they are dearer than the cheapest, in grams per kW and hour.

    Those that are too dear for its budget are left out.
    """
    assert w.request is not None
    terms, model = w.carbon, s.model(option.device.model)
    usd: dict[str, float] = {}
    for spot, region in markets_of(s, w.request.shape, option.device):
        capacity = CapacityType.SPOT if spot else CapacityType.ON_DEMAND
        usd[region] = min(usd.get(region, inf), s.policy.prices.usd_per_hour(model, region, capacity))
    least = min(usd.values(), default=0.0)
    if terms is None or terms.budget is not None:
        share = terms.budget if terms and terms.budget is not None else 0.0
        return {region: 0.0 for region, price in usd.items() if price <= least * (1 + share) + 1e-9}
    each = 1e6 / (terms.usd_per_tonne or inf) / kilowatts_of(model, 1.0)
    return {region: (price - least) * each for region, price in usd.items()}


def _kilograms(s: Scratch, w: Workload, device: Device, grams: float) -> float:
    """Of a gang, of what each kW emits."""
    return kilowatts_of(s.model(device.model), boards_in(s, device, w.size)) * grams / 1000


def _words(best: Course, now: float, saved: float, terms: CarbonTerms) -> str:
    """What waiting saves: "118 instead of 412 g/kWh in de, saves 3.1 kg worth $0.31"."""
    hours = sum(end - begin for begin, end in best.schedule.runs) / HOUR
    worth = usd_of(terms, saved)
    where = f" in {best.region}" if best.region else ""
    told = f"{best.schedule.grams / hours:.0f} instead of {now:.0f} g/kWh{where}, saves {saved:.1f} kg"
    return f"{told}{f' worth ${worth:.2f}' if worth >= 0.005 else ''}{_assumed(best)}"


def _assumed(best: Course) -> str:
    """What was believed instead of a forecast, in words; "" where there is one for the hours in question."""
    until = int((best.schedule.end - best.outlook.start * HOUR) // HOUR) + 1
    origins = set(best.outlook.origins[:until]) - {Origin.FORECAST}
    worst = [origin for origin in Origin if origin in origins]
    return f" (by the {worst[-1]})" if worst else ""


def _left(w: Workload, end: float, latest: float) -> str:
    hours = max(0.0, latest - end) / HOUR
    return f"{'maxDelay' if w.deadline is None else 'deadline'} leaves {hours:.0f} h"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M UTC")
