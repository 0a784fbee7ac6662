"""How long work runs, and when what runs is expected to end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import ceil, inf, log2
from statistics import median

from berth.model.workloads import Demand, Kind, Workload

# A job of which nothing is known is expected to run for so long, like one that says so. As with every expectation that
# is overrun, it then counts twice as much, and so on: who ran for long is likely to run for as long again.
UNKNOWN_SECONDS = 300.0
STARTING_SECONDS = 60.0  # from an admission until all members run; images that are not there yet take longer
STOPPING_SECONDS = 60.0  # until an attempt that is being stopped has gone; grace periods are 30 s unless set otherwise

Likeness = tuple[str, str, int, Demand] | tuple[str, int, Demand]


class Estimates:
    """Run times by what users say of them, else by what jobs like them took, never beyond `maxRuntime`."""

    def __init__(self, workloads: Sequence[Workload], now: float) -> None:
        """Nothing is looked up before someone asks."""
        self._workloads = workloads
        self._now = now

    def run_seconds(self, w: Workload, members: int | None = None, *, at_most: bool = False) -> float | None:
        """How long a run with so many members takes, else with those that it has; None: nobody knows.

        `at_most`: what nine of ten jobs like it took at most, instead of the median.

        Services run for ever. Of an elastic gang that has not as many members as it would like, it takes longer or
        shorter in proportion. Otherwise:

        1. What its user says, as `estimatedRuntime`.
        2. The median of the jobs of its name (but for numbers at the end), queue and size that ended well.
        3. The median of those of its queue and size, whatever their name.
        4. `maxRuntime`, which is also the most that any of these says.
        """
        if w.ref.kind is not Kind.TRAINING_JOB:
            return inf
        expected = self._expected(w, at_most)
        if expected is not None and w.request is not None and w.request.elastic is not None:
            expected *= w.request.workers / (members or w.size)
        limit = w.max_runtime_seconds
        return limit if expected is None or (limit is not None and limit < expected) else expected

    def end(self, w: Workload, members: int | None = None) -> tuple[float, bool]:
        """When an attempt is expected to end, in seconds since the epoch, and whether that is more than a guess.

        It is the live one, or one that begins now with so many members.

        One that has run for longer than expected is expected to run for twice as long, and so on, up to `maxRuntime`:
        of run times as they are, the longer one has lasted the longer it is to last.
        """
        if w.attempt is not None and (w.attempt.stopping or w.deleting):
            return self._now + STOPPING_SECONDS, True
        known = self.run_seconds(w, members)
        began = w.started_at or (w.attempt.admitted_at if w.attempt is not None else self._now)
        end = began + doubled(known or UNKNOWN_SECONDS, self._now - began)
        if w.max_runtime_seconds is not None:
            end = min(end, max(began + w.max_runtime_seconds, self._now))
        return end, known is not None

    def end_if_admitted(self, w: Workload, members: int | None = None) -> float:
        """When a workload has ended, most probably, if it is admitted now; never, where its run time is unknown.

        Run times have heavy tails: if each went first that took no longer than the median of those like it, half of
        them would be in the way of who waits.
        """
        known = self.run_seconds(w, members, at_most=True)
        return inf if known is None else self._now + STARTING_SECONDS + known

    def _expected(self, w: Workload, at_most: bool) -> float | None:
        if w.estimated_seconds is not None:
            return w.estimated_seconds
        found = (self._history.get(key) for key in _likenesses(w))
        return next((took[at_most] for took in found if took is not None), None)

    @cached_property
    def _history(self) -> dict[Likeness, tuple[float, float]]:
        """The median of what jobs took, and what nine of ten took at most."""
        took: dict[Likeness, list[float]] = {}
        for w in self._workloads:
            if w.finished == "Succeeded" and w.started_at and w.finished_at > w.started_at:
                for key in _likenesses(w):
                    took.setdefault(key, []).append(w.finished_at - w.started_at)
        return {key: (median(seconds), sorted(seconds)[ceil(0.9 * len(seconds)) - 1]) for key, seconds in took.items()}


def doubled(expected: float, elapsed: float) -> float:
    """The expectation, doubled until it lies beyond what has elapsed.

    >>> doubled(300.0, 0.0), doubled(300.0, 300.0), doubled(300.0, 700.0)
    (300.0, 600.0, 1200.0)
    """
    if elapsed < expected:
        return expected
    total: float = expected * 2.0 ** ceil(log2(elapsed / expected))
    return total if total > elapsed else 2 * total


def _likenesses(w: Workload) -> tuple[Likeness, ...]:
    """What makes jobs alike, the closest likeness first."""
    if w.request is None:
        return ()
    series = f"{w.ref.namespace}/{w.ref.name.rstrip('0123456789-')}"
    size = w.request.workers, w.request.demand
    return (w.queue, series, *size), (w.queue, *size)
