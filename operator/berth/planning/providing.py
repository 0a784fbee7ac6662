"""For what found no place: jobs and replicas that boards can be laid out for, each in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from berth.model.reasons import Reason
from berth.model.workloads import Kind, Workload
from berth.planning.ahead import Ahead
from berth.planning.ledger import needs_of
from berth.planning.lifecycle import ON_NODES
from berth.planning.relayout import provide

LACKS_ROOM = (Reason.NO_MATCHING_GPU, Reason.NO_FEASIBLE_MIG_LAYOUT, Reason.WAITING_FOR_CAPACITY)


def provided(ahead: Ahead, idle: Sequence[Workload], waits: Sequence[Workload]) -> list[Workload]:
    """Have boards laid out for jobs that wait, and for services that lack replicas; the jobs that this leaves waiting.

    They are served in the order of `idle`, of which `waits` are some: a service by its priority too.
    """
    left = {w.ref.uid for w in waits}
    for w in idle:
        if w.ref.kind is Kind.INFERENCE_SERVICE:
            ahead.s.guard(w, _replicas, ahead, w)
        elif w.ref.uid in left and ahead.s.guard(w, _job, ahead, w):
            left.remove(w.ref.uid)
            continue
        ahead.s.guard(w, _keep, ahead, w)
    return [w for w in waits if w.ref.uid in left]


def _job(ahead: Ahead, w: Workload) -> bool:
    promise = provide(ahead, w, w.request.smallest) if w.request is not None else None
    if promise is not None:
        ahead.s.decide(w.ref, promise.verdict)
    return promise is not None


def _keep(ahead: Ahead, w: Workload) -> None:
    """Lay out nothing where room is kept for a workload, for those that are served after it."""
    held = ahead.s.reserved.of(w.ref)
    if held is None or w.request is None or not (ahead.able or ahead.under_way):
        return
    for node in held.reservation.nodes:
        ahead.promise(node, needs_of(w.request.shape, held.reservation.device))


def _replicas(ahead: Ahead, w: Workload) -> None:
    """A place for as many replicas as can get one, each by itself, with the device that the others have."""
    told = ahead.s.verdicts.get(w.ref.uid)
    if w.request is None or told is None or told.reason not in LACKS_ROOM:
        return
    single = replace(w.request, workers=1)
    held = any(p.phase in ON_NODES and not p.terminating for p in w.pods)
    device = w.served_device if held else None
    waits = None
    for _ in range((told.wanted or 0) - (told.fits or 0)):
        promise = provide(ahead, w, single, device)
        if promise is None:
            break
        waits, device = promise.verdict, promise.device
    if waits is not None:
        ahead.s.decide(w.ref, replace(told, reason=waits.reason, message=f"{told.message}; {waits.message}"))
