"""When to run work that may wait: the hours in which it emits least, by a forecast, less what later is worth.

`schedule` weighs three ways: at once, later in one piece, and, where the work may pause, in several pieces. The first
is always among them, so waiting is never chosen to be worse off. Work that has no slack runs at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HOUR = 3600.0
STEPS = 128  # of a window at most, except beyond five days: a plan takes about a millisecond however long it may wait
UNITS = (300.0, 600.0, 900.0, 1800.0, HOUR)  # lengths of a step in seconds: hours divide into them
TINY = 1e-6  # of a second or a gram: what floating point does not tell apart in times since 1970, or in long sums

Floats = npt.NDArray[np.float64]
Run = tuple[float, float]  # from, until: seconds since the epoch


class Curve:
    """Carbon intensity over time, gCO2eq/kWh: constant within each hour; before and after what is known, its mean."""

    def __init__(self, start: float, hours: Sequence[float] | Floats) -> None:
        """`start`: seconds since the epoch at which the first hour begins."""
        self.start = start
        self.hours: Floats = np.asarray(hours, dtype=float)
        if not len(self.hours):
            raise ValueError("a curve needs at least one hour")
        self.end = start + HOUR * len(self.hours)
        self.mean = float(self.hours.mean())
        self._edges = start + HOUR * np.arange(len(self.hours) + 1)
        self._sums = np.concatenate([[0.0], np.cumsum(self.hours)])

    def at(self, time: float) -> float:
        """The intensity at a moment."""
        return float(self.hours[int((time - self.start) // HOUR)]) if self.start <= time < self.end else self.mean

    def sums(self, times: Floats) -> Floats:
        """The integral up to each of these times, in g/kWh x h, from an origin that is always the same."""
        known = np.interp(times, self._edges, self._sums)
        outside = np.minimum(times - self.start, 0.0) + np.maximum(times - self.end, 0.0)
        return np.asarray(known + outside / HOUR * self.mean)

    def grams(self, runs: Sequence[Run]) -> float:
        """What these runs emit for each kW that they draw."""
        return float(np.diff(self.sums(np.array(runs, dtype=float))).sum())

    def boundaries(self, after: float, before: float) -> Floats:
        """The times between these two at which an hour ends."""
        first = np.floor((after - self.start) / HOUR) + 1
        return np.asarray(self.start + HOUR * np.arange(first, np.ceil((before - self.start) / HOUR)))


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run. Times are in seconds since the epoch."""

    now: float  # it may begin
    seconds: float  # that it runs, above 0
    latest_end: float  # where that leaves no slack, it runs at once and ends when it can
    pausable: bool = True
    pause_seconds: float = 0.0  # that it runs longer for each pause: a save and a restart
    delay_price: float = 0.0  # of each hour that it ends later, in grams for each kW that it draws

    @property
    def latest_start(self) -> float:
        """When it has to begin at last, to run without a pause."""
        return max(self.now, self.latest_end - self.seconds)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to run: pieces in order, apart from each other; restarts after pauses are part of them."""

    runs: tuple[Run, ...]
    grams: float  # emitted for each kW that the work draws, by the forecast
    delay_seconds: float  # beyond what the work takes when run at once

    @property
    def end(self) -> float:
        """When all is done."""
        return self.runs[-1][1]


def schedule(curve: Curve, work: Work) -> Schedule:
    """The cheapest way to run, by this forecast; of equals the one that ends first."""
    options = [_judged(curve, work, runs) for runs in _options(curve, work)]
    return min(options, key=lambda option: (_price(option, work), option.end, option.runs))


def _options(curve: Curve, work: Work) -> Iterator[tuple[Run, ...]]:
    yield ((work.now, work.now + work.seconds),)
    yield _in_one_piece(curve, work)
    if work.pausable and (pieces := _in_pieces(curve, work)):
        yield pieces


def _judged(curve: Curve, work: Work, runs: tuple[Run, ...]) -> Schedule:
    return Schedule(runs, curve.grams(runs), runs[-1][1] - work.now - work.seconds)


def _price(option: Schedule, work: Work) -> float:
    price = option.grams + work.delay_price * option.delay_seconds / HOUR
    return round(price, 6)  # what differs by less is equal: sums of the same hours in another order


def _in_one_piece(curve: Curve, work: Work) -> tuple[Run, ...]:
    """The best window. What a window emits is linear in its start, except where it begins or ends with an hour."""
    begins = curve.boundaries(work.now, work.latest_start)
    ends = curve.boundaries(work.now + work.seconds, work.latest_start + work.seconds) - work.seconds
    starts = np.concatenate([[work.now], np.sort(np.concatenate([begins, ends])), [work.latest_start]])
    prices = curve.sums(starts + work.seconds) - curve.sums(starts) + work.delay_price * (starts - work.now) / HOUR
    start = float(starts[np.argmin(prices)])
    return ((start, start + work.seconds),)


def _in_pieces(curve: Curve, work: Work) -> tuple[Run, ...]:
    """The best runs that begin and end with steps of the hours, then cut to length; () where there is no room."""
    unit = _unit(work.latest_end - work.now)
    first = np.ceil((work.now - curve.start) / unit)
    steps = int(np.floor((work.latest_end - curve.start) / unit) - first)
    needed = int(np.ceil(work.seconds / unit))
    if steps <= needed:
        return ()
    times = curve.start + unit * (first + np.arange(steps + 1))
    emitted = np.diff(curve.sums(times))
    chosen = _cheapest_steps(emitted, needed, int(np.ceil(work.pause_seconds / unit)), work.delay_price * unit / HOUR)
    runs = [(float(times[begin]), float(times[end])) for begin, end in _stretches(chosen)]
    if chosen[0]:
        runs[0] = (work.now, runs[0][1])
    return tuple(_cut(curve, work, runs))


def _unit(window: float) -> float:
    return next((unit for unit in UNITS if window <= STEPS * unit), HOUR)


def _cheapest_steps(emitted: Floats, needed: int, resuming: int, waiting: float) -> npt.NDArray[np.bool_]:
    """In which steps to run, so that `needed` of them are worked, at the least cost. By dynamic programming.

    `resuming` is how many steps a restart takes after a pause, `waiting` what each step costs until all is done.
    `running[k, w]` and `paused[k, w]` are the least cost from step k on with w steps left to run; there may be more
    steps than are needed for the work, since restarts add some.
    """
    steps, most = len(emitted), needed + resuming
    running = np.full((steps + 1, most + 1), np.inf)
    running[:, 0] = 0.0
    paused = running.copy()
    fresh = np.full(steps + 1, np.inf)  # not begun: all is left, and the first start is no restart
    for k in range(steps - 1, -1, -1):
        cost = emitted[k] + waiting
        np.add(paused[k + 1], waiting, out=paused[k])
        np.minimum(running[k + 1, :-1] + cost, paused[k, 1:], out=running[k, 1:])
        resumed = running[k + 1, resuming : resuming + needed] + cost
        np.minimum(paused[k, 1 : needed + 1], resumed, out=paused[k, 1 : needed + 1])
        fresh[k] = min(fresh[k + 1] + waiting, running[k + 1, needed - 1] + cost)
    return _chosen(emitted + waiting, running, paused, fresh, needed, resuming)


def _chosen(
    costs: Floats, running: Floats, paused: Floats, fresh: Floats, needed: int, resuming: int
) -> npt.NDArray[np.bool_]:
    """The steps that make up the least cost; running is preferred where it costs no more."""
    chosen = np.zeros(len(costs), dtype=bool)
    left, state = needed, fresh
    for k, cost in enumerate(costs):
        if left == 0:
            break
        restarts = resuming if state is paused else 0
        now = fresh[k] if state is fresh else state[k, left]
        chosen[k] = running[k + 1, left - 1 + restarts] + cost <= now + TINY
        if chosen[k]:
            left, state = left - 1 + restarts, running
        elif state is running:
            state = paused
    return chosen


def _stretches(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where runs of True begin and end.

    >>> _stretches(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    padded = np.concatenate([[False], chosen, [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(begin), int(end)) for begin, end in changes.reshape(-1, 2)]


def _cut(curve: Curve, work: Work, runs: list[Run]) -> list[Run]:
    """These runs without what they have too much, taken off where an end of one of them costs most."""
    while (excess := _excess(work, runs)) > TINY:
        costs = [(cost, i, end) for i, run in enumerate(runs) for end, cost in enumerate(_edge_costs(curve, run))]
        costs[-1] = (costs[-1][0] + work.delay_price, *costs[-1][1:])
        _, i, end = max(costs)
        begin, until = runs[i]
        inside = curve.boundaries(begin + TINY, until - TINY)
        if end:
            until = max(until - excess, float(inside[-1]) if len(inside) else begin)
        else:
            begin = min(begin + excess, float(inside[0]) if len(inside) else until)
        runs = [*runs[:i], *([(begin, until)] if until - begin > TINY else []), *runs[i + 1 :]]
    return runs


def _excess(work: Work, runs: Sequence[Run]) -> float:
    return sum(end - begin for begin, end in runs) - work.seconds - work.pause_seconds * (len(runs) - 1)


def _edge_costs(curve: Curve, run: Run) -> tuple[float, float]:
    return curve.at(run[0] + TINY), curve.at(run[1] - TINY)
