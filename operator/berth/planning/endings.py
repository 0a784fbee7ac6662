"""What the ends of running jobs give back, and when they are expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from berth.model.workloads import Attempt, Device, Kind, PodShape, Workload
from berth.planning.estimates import Estimates
from berth.planning.fleet import Ints, Pool
from berth.planning.ledger import Room, needs_of


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of one running job gives back, and when it is expected."""

    workload: Workload
    at: float  # seconds since the epoch
    known: bool  # whether that is more than a guess
    admitted: float  # when it was, in seconds since the epoch
    device: Device
    nodes: tuple[str, ...]  # of the members that have not ended yet
    needs: Mapping[str, int]  # of each member


def ending(w: Workload, attempt: Attempt, at: float, known: bool) -> Ending:
    """The end of an attempt."""
    placement = attempt.placement
    nodes = tuple(node for i, node in enumerate(placement.nodes) if i not in attempt.done)
    shape = w.request.shape if w.request else PodShape()
    return Ending(w, at, known, attempt.admitted_at, placement.device, nodes, needs_of(shape, placement.device))


def running(workloads: Iterable[Workload], estimates: Estimates) -> list[Ending]:
    """The ends of all jobs that run. Services have none: what they hold they keep."""
    return [
        ending(w, w.attempt, *estimates.end(w))
        for w in workloads
        if w.attempt is not None and not w.finished and w.ref.kind is Kind.TRAINING_JOB
    ]


class Endings:
    """The ends of jobs on a pool, in the order in which a workload that waits counts on them."""

    def __init__(self, pool: Pool, ordered: Sequence[Ending]) -> None:
        """Lay out as arrays what each gives back."""
        self.ordered = tuple(ordered)
        places = [[pool.index[n] for n in e.nodes if n in pool.index] for e in self.ordered]
        self._counts = np.array([len(p) for p in places], dtype=np.int64)
        self._nodes = np.array([i for p in places for i in p], dtype=np.int64)

    def room(self, now: Room, count: int) -> Room:
        """The room there is once the first so many have ended."""
        cut = int(self._counts[:count].sum())
        return now.freed(self._nodes[:cut], {name: amounts[:cut] for name, amounts in self._amounts.items()})

    @cached_property
    def _amounts(self) -> dict[str, Ints]:
        """By resource, what each member of each job gives back."""
        names = sorted({name for e in self.ordered for name in e.needs})
        return {name: np.repeat(self._each(name), self._counts) for name in names}

    def _each(self, resource: str) -> Ints:
        return np.array([e.needs.get(resource, 0) for e in self.ordered], dtype=np.int64)
