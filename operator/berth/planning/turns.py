"""Words for whose turn it is: who is served before, when a start is expected, and for whom room is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

import numpy as np

from berth.model.reasons import Verdict
from berth.model.workloads import Kind, Ref, Request, Workload
from berth.planning.admission import Choice
from berth.planning.field import Field
from berth.planning.packing import pack
from berth.planning.reserved import Held, Reservation
from berth.planning.scratch import Scratch, gang_of, linked_boards

MOST_AWAITED = 2  # workloads named in a sentence
HOUR, DAY = 3600.0, 86400.0


class Turns:
    """Those that wait, told in the order in which they are served."""

    def __init__(self, s: Scratch) -> None:
        """Nobody has been told of yet."""
        self._s = s
        self._ahead: dict[str, list[Ref]] = {}  # by the model that they would first be placed on

    def told(self, w: Workload, request: Request, verdict: Verdict) -> Verdict:
        """The verdict with what is expected of the next one's start, and how many are served before."""
        options = self._s.options(request.demand, request.tensor)
        ahead = self._ahead.setdefault(options[0].device.model if options else "", [])
        held = self._s.reserved.of(w.ref)
        more = [expected(self._s, held.reservation) if held is not None else "", _turn(ahead)]
        ahead.append(w.ref)
        return replace(verdict, message="; ".join(filter(None, (verdict.message, *more))))


def _turn(ahead: Sequence[Ref]) -> str:
    return f"{many(len(ahead))} ahead, {ahead[0].namespace}/{ahead[0].name} first" if ahead else ""


def kept_for_another(s: Scratch, w: Workload, request: Request, fields: Sequence[tuple[Choice, Field]]) -> str:
    """For whom the room or the quota is kept that a workload would fit in now, in words; "" where it fits in none.

    Of a service one replica is looked at.
    """
    members = request.workers if w.ref.kind is Kind.TRAINING_JOB else 1
    until = s.estimates.end_if_admitted(w, members)
    for choice, field in fields:
        if pack(field, gang_of(request, field.device, s.fleet.levels, members)) is None:
            continue
        held = _in_the_way(s, w, request, choice, until, members)
        if held is not None:
            return _kept(s, w, held, until)
    return ""


def expected(s: Scratch, kept: Reservation) -> str:
    """When a workload is to start, and what it waits for, in words."""
    at, ends = clock(kept.start, s.now), _ends(kept.awaits)
    if kept.known:
        return f"starts about {at}{f', when {ends}' if ends else ''}"
    return f"starts when {ends}: about {at}, if what nobody has estimated runs as long again as it has"


def many(count: int) -> str:
    """A number in words that change seldom where it is large.

    >>> many(3), many(47), many(1234)
    ('3', 'more than 40', 'more than 1200')
    """
    step = 1 if count <= 10 else 10 if count <= 100 else 100
    return str(count) if step == 1 else f"more than {(count - 1) // step * step}"


def clock(at: float, now: float) -> str:
    """A time to come, up to minutes that make no promise: a sentence that changes all the time says less.

    >>> clock(1_000_020, 1_000_000), clock(1_010_000, 1_000_000), clock(1_100_000, 1_000_000)
    ('13:47 UTC', '16:40 UTC', '1970-01-13 17:40 UTC')
    """
    step = 60 if at - now < HOUR else 600
    time = datetime.fromtimestamp(ceil(at / step) * step, UTC)
    return f"{time:%H:%M} UTC" if at - now < DAY / 2 else f"{time:%Y-%m-%d %H:%M} UTC"


def _in_the_way(s: Scratch, w: Workload, request: Request, choice: Choice, until: float, members: int) -> Held | None:
    device = choice.option.device
    needed: Fraction = choice.option.boards * members
    for held in s.reserved:
        if held.reservation.ref == w.ref or not held.binds(until):
            continue
        left = held.left(w.queue, s.model(device.model))
        if left is not None and left < needed:
            return held
    field = s.field(request.shape, device, s.avoided(w), linked_boards(request, device))
    gang = gang_of(request, device, s.fleet.levels, members)
    for held in s.reserved.in_pool(device.model) if field is not None else ():
        if held.reservation.ref == w.ref:
            break
        if field is not None and held.binds(until):
            then = held.then(field, (request.shape, device))
            field = field.with_capacity(np.minimum(field.capacity, 0 if held.closed else then.capacity))
            if pack(field, gang) is None:
                return held
    return None


def _kept(s: Scratch, w: Workload, held: Held, until: float) -> str:
    kept = held.reservation
    what = "the room" if held.room is not None else f"the quota of queue {held.queue}"
    name = f"{kept.ref.namespace}/{kept.ref.name}"
    start = f"to start about {clock(kept.start, s.now)}"
    text = f"would fit now, but {what} is kept for {name}, which is served before it and is {start}"
    if held.closed or kept.firm:
        return f"{text}, and has waited for too long to be passed: wait"
    if s.estimates.run_seconds(w) is None and w.ref.kind is Kind.TRAINING_JOB:
        return f"{text}: set spec.estimatedRuntime, if it ends before that, or wait"
    return f"{text}: wait, or ask for less"


def _ends(awaited: Sequence[Ref]) -> str:
    """Whose ends are waited for, the last ones first."""
    names = [f"{ref.namespace}/{ref.name}" for ref in awaited[:MOST_AWAITED]]
    rest = len(awaited) - len(names)
    if not names:
        return ""
    if rest:
        return f"{', '.join(names)} and {rest} more have ended"
    return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} ended"
