"""When work that waits is to start, and where: what is kept for it while other work goes first.

See docs/decisions/0016-backfill.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

import numpy as np

from berth.model.reasons import Reason
from berth.model.workloads import Device, Request, Workload
from berth.planning.admission import Choice, choices
from berth.planning.endings import Ending, Endings
from berth.planning.estimates import UNKNOWN_SECONDS
from berth.planning.field import Field
from berth.planning.ledger import Room, needs_of
from berth.planning.options import boards_of
from berth.planning.packing import pack
from berth.planning.quota import Quota
from berth.planning.reserved import Held, Reservation
from berth.planning.scratch import Scratch, gang_of, linked_boards
from berth.planning.snapshot import Passing

NO_NODES = np.zeros(0, dtype=np.int64)
# The share of the time until a start in which work that goes first has to end. Users say too much more often than too
# little, so starts come early. Of the traces of `make bench-backfill`, small jobs waited 42 % less than in strict order
# at worst with 0.5, and 52 % less with 0.75; with 1, gangs waited 7 % longer where run times are all alike.
CLEAR_AFTER = 0.75
MOST_KEPT = 8  # starts kept in each pool, of the first that wait: each costs as much as placing some ten gangs
MOST_SOUGHT = 32  # starts sought in vain by one plan


def reserve(s: Scratch, w: Workload, request: Request, device: Device | None = None) -> Reservation | None:
    """Keep the earliest start of a workload that waits, if it is among the first that wait for room, or for quota.

    `device` is the only one that will do; None: any that satisfies the request. The answer is None where enough is
    kept for others already, and where no end of running work would let it start.
    """
    if s.policy.backfill.passing is Passing.ANYBODY:
        return None
    tried = [c for c in choices(s, w, request) if device in (None, c.option.device)]
    able = [c for c in tried if c.reason is None]
    if able:
        found = [held for c in able if (held := _with_room(s, w, request, c)) is not None]
    else:
        later = [c for c in tried if c.reason is Reason.WAITING_FOR_QUOTA][:1]
        found = [held for c in later if (held := _with_quota(s, w, request, c)) is not None]
    if not found:
        return None
    best = min(found, key=lambda held: held.reservation.start)
    s.reserved.add(best)
    if best.reservation.known:  # a guess is put off again and again
        s.wake(best.reservation.start)
    _book(s, w, request, best.reservation)
    return best.reservation


def _book(s: Scratch, w: Workload, request: Request, kept: Reservation) -> None:
    """Count on a start that is to come, for those that wait behind it."""
    known = s.estimates.run_seconds(w, request.workers)
    end = kept.start + (UNKNOWN_SECONDS if known is None else known)
    needs = needs_of(request.shape, kept.device)
    booked = Ending(w, end, kept.known and known is not None, kept.start, kept.device, kept.nodes, needs)
    s.reserved.booked.setdefault(kept.device.model, []).append(booked)


def _without(room: Room, booked: Sequence[Ending]) -> Room:
    """The room that is left once those booked have started, though they have not."""
    left = room.freed(NO_NODES, {})
    for start in booked:
        for node in start.nodes:
            left.take(left.pool.index[node], start.needs)
    return left


def _with_room(s: Scratch, w: Workload, request: Request, choice: Choice) -> Held | None:
    """The earliest start with a device for which there is quota now, but no room."""
    device = choice.option.device
    key = (request, device, s.avoided(w), w.queue)
    booked = s.reserved.booked.get(device.model, [])
    if len(booked) >= _most_kept(s) or key in s.reserved.hopeless or len(s.reserved.hopeless) >= MOST_SOUGHT:
        return None
    field = s.field(request.shape, device, s.avoided(w), linked_boards(request, device))
    found = _first_fit(s, w, request, field, booked) if field is not None else None
    if field is None or found is None:
        s.reserved.hopeless.add(key)
        return None
    before, room, nodes = found
    for node in nodes:
        room.take(room.pool.index[node], field.needs)
    kept = _reservation(s, w, device, before, nodes)
    return Held(kept, w.queue, room, _quota_then(s, w, request, choice, before), _uids(before), _closed(s))


def _first_fit(
    s: Scratch, w: Workload, request: Request, field: Field, booked: Sequence[Ending]
) -> tuple[Sequence[Ending], Room, tuple[str, ...]] | None:
    """After which ends a gang fits, the room there is then, and where it goes; None where it fits now, or never does.

    `booked` are those that start before it: what they take is theirs from now on, and until they end. Services don't.
    """
    here = [e for e in (*_all_ends(s), *booked) if e.device.model == field.device.model and e.at < inf]
    if not here or field.potential < request.workers:
        return None
    gang = gang_of(request, field.device, s.fleet.levels, request.workers)
    endings = Endings(field.pool, _in_order(s, w, here))
    left = _without(field.room, booked)

    def fit(count: int) -> tuple[str, ...] | None:
        return pack(field.on(endings.room(left, count)), gang)

    if pack(field.on(left) if booked else field, gang) is not None:
        return None
    count = _least(len(endings.ordered), lambda count: fit(count) is not None)
    nodes = fit(count) if count else None
    return (endings.ordered[:count], endings.room(left, count), nodes) if nodes is not None else None


def _with_quota(s: Scratch, w: Workload, request: Request, choice: Choice) -> Held | None:
    """The first moment at which its queue has enough, for a workload that lacks quota."""
    device = choice.option.device
    model = s.model(device.model)
    if s.reserved.keeps_quota(w.queue, model.name):
        return None
    needed = choice.option.boards * request.workers
    ends = _in_order(s, w, (e for e in _all_ends(s) if _shares(s, e.workload, w)))
    quota = s.quota.copy()
    for count, end in enumerate(ends, 1):
        _give_back(s, quota, end)
        left = quota.left(w.queue, model)
        if left is None or left >= needed:
            quota.charge(w.queue, model, needed)
            kept = _reservation(s, w, device, ends[:count], ())
            return Held(kept, w.queue, None, quota, _uids(ends[:count]), _closed(s))
    return None


def _quota_then(s: Scratch, w: Workload, request: Request, choice: Choice, before: Iterable[Ending]) -> Quota | None:
    """The quota that is left once these have ended and the workload has started; None where it needs none."""
    model = s.model(choice.option.device.model)
    if s.quota.left(w.queue, model) is None:
        return None
    quota = s.quota.copy()
    for end in before:
        if _shares(s, end.workload, w):
            _give_back(s, quota, end)
    quota.charge(w.queue, model, choice.option.boards * request.workers)
    return quota


def _reservation(
    s: Scratch, w: Workload, device: Device, before: Sequence[Ending], nodes: tuple[str, ...]
) -> Reservation:
    mine, start = set(nodes), max(e.at for e in before)
    awaited = [e for e in before if not nodes or not mine.isdisjoint(e.nodes)]
    awaited.sort(key=lambda e: (-e.at, e.workload.ref.uid))
    return Reservation(
        ref=w.ref,
        device=device,
        nodes=nodes,
        start=start,
        clear_by=s.now + CLEAR_AFTER * max(0.0, start - s.now),
        known=all(e.known for e in awaited),
        awaits=tuple(e.workload.ref for e in awaited),
        firm=_epoch(s, w) < inf,
    )


def _in_order(s: Scratch, w: Workload, ends: Iterable[Ending]) -> list[Ending]:
    """The ends in the order in which a workload that waits counts on them.

    1. Those of jobs that were admitted before the workload's epoch, before all others.
    2. Of these, as they are expected; of the others, as they were admitted.
    3. By uid.

    As long as it may be passed there is no epoch. After that, what begins where its room is not kept can't make it
    change its mind about that room, however soon that is said to end: so the room that is kept empties.
    """
    epoch = _epoch(s, w)

    def key(e: Ending) -> tuple[bool, float, str]:
        late = e.admitted > epoch
        return late, e.admitted if late else e.at, e.workload.ref.uid

    return sorted(ends, key=key)


def _epoch(s: Scratch, w: Workload) -> float:
    """The last moment at which a workload had waited for the most that it may be passed, or twice, four times... that.

    Never, where it may be passed still. A new epoch forgets what was chosen long ago: it may have been a bad choice.
    """
    since, most = max(w.created, w.not_before), s.policy.backfill.most_wait_seconds
    if s.now - since < most:
        return inf
    while s.now - since >= 2 * most:
        most *= 2
    return since + most


def _all_ends(s: Scratch) -> Iterable[Ending]:
    """The ends of all jobs that run, and of those that this plan admits."""
    return (*s.endings, *s.began)


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """The least number up to `most` for which something holds that goes on to hold; 0 where it does not for `most`."""
    if not holds(most):
        return 0
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _uids(ends: Iterable[Ending]) -> frozenset[str]:
    return frozenset(end.workload.ref.uid for end in ends)


def _give_back(s: Scratch, quota: Quota, end: Ending) -> None:
    model = s.model(end.device.model)
    quota.charge(end.workload.queue, model, -boards_of(end.device, model) * len(end.nodes))


def _shares(s: Scratch, v: Workload, w: Workload) -> bool:
    """Whether what one of them holds counts against the quota of the other."""
    return s.quota.cohorts.root(v.queue) == s.quota.cohorts.root(w.queue)


def _most_kept(s: Scratch) -> int:
    return 1 if _closed(s) else MOST_KEPT


def _closed(s: Scratch) -> bool:
    return s.policy.backfill.passing is Passing.NOBODY
