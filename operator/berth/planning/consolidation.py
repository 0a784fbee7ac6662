"""Room for a pending gang by moving others: the cheapest set of moves, simulated whole.

A move stops a gang and admits it again elsewhere at once; it loses the work since its last durable checkpoint, or since
its start where none is known, and the time of a restart. Nothing is moved unless the pending gang and every gang that
moves have their new places in the same simulation. See docs/decisions/0014-consolidation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, log

from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Kind, Placement, Ref, RunPhase, Workload
from berth.planning.actions import Admit, Stop
from berth.planning.admission import admit, choices, fields_of, problem_of
from berth.planning.cohorts import stopped
from berth.planning.covering import cheapest
from berth.planning.freeing import Holder, Lack, holder
from berth.planning.markets import within_price
from berth.planning.options import boards_of
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Consolidating, Snapshot
from berth.planning.whatif import first_in_line, order, unplaced, without

HOUR = 3600.0
CONSOLIDATED = "Consolidated"  # the reason of a gang that is stopped to go elsewhere
FIRST_LOOK_SECONDS = 30.0  # what waits for less is not worth a move, nor the search
LATER = 1.25  # looked at again when the wait is so many times as long
LOOKING = 0.05  # for this share of the wait, so that a plan falls into it even where plans take seconds
AWAY_SECONDS = 900.0  # for how long it keeps off the nodes that it leaves; the longest grace period, 600, and some more

Settle = Callable[[Snapshot], Scratch]
"""The working copy after a plan for a snapshot, at the time in question: what is left, and what was decided."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """One running gang that goes elsewhere."""

    ref: Ref
    before: Placement
    after: Placement
    usd: float  # work lost and time to restart


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Moves that make room for one pending gang, and where it then fits."""

    ref: Ref
    placement: Placement
    moves: tuple[Relocation, ...]
    usd: float
    worth_usd: float  # of the waiting it ends: its boards' price for as long as it has waited already

    @property
    def pays(self) -> bool:
        """Whether moving costs no more than the waiting it ends.

        Who has waited for long is likely to wait for as long again. And who moves others just when the wait has cost as
        much as the moves never pays more than twice what the best choice in hindsight would have.
        """
        return self.usd <= self.worth_usd


def consolidate(
    snapshot: Snapshot,
    w: Workload,
    settle: Settle,
    rules: Consolidating,
) -> Consolidation | None:
    """The cheapest moves by which a pending job would fit now; None where it fits as it is, or no moves do.

    `settle` plans without consolidation.
    """
    s = settle(first_in_line(snapshot, w))
    if w.request is None or problem_of(s, w) or _admitted(s, w) is not None:
        return None

    def cost(v: Workload, boards: Fraction) -> float:
        return _cost(s, v, boards, rules)

    least = w.request.smallest
    lacks = [Lack(s, w, least, field) for _, field in fields_of(s, w, least, choices(s, w, least))]
    free = (v for v in snapshot.workloads if _movable(v, w, rules, s.now) and not stopped(s.quota.cohorts, v.queue))
    movable = (holder(s, v, cost) for v in free)
    held = [one for one in movable if one is not None]
    found = cheapest(lacks, held, lambda ended: _simulate(snapshot, w, settle, ended), rules.most_moves)
    if found is None:
        return None
    _, (placement, moves) = found
    return Consolidation(w.ref, placement, moves, sum(m.usd for m in moves), _worth(s, w, placement))


def gathering(workloads: Iterable[Workload]) -> bool:
    """Whether gangs are being stopped for a job that waits.

    Meanwhile what is served after the first job that waits is not admitted: it would take the room that is gathered, or
    the places of those that move.
    """
    return any(v.attempt is not None and v.attempt.stopping == CONSOLIDATED for v in workloads)


def gather(s: Scratch, w: Workload, settle: Settle) -> bool:
    """Stop the gangs whose moves make room for the first job that waits, where that is allowed and pays by now.

    Their next attempts keep off the nodes that they make room on, so they go where the simulation had them.
    """
    if not s.policy.consolidation.enabled or gathering(s.snapshot.workloads) or not _is_time(s, w):
        return False
    found = consolidate(s.snapshot, w, settle, s.policy.consolidation)
    if found is None or not found.pays:
        return False
    if not stop_all(s, found, f"moved elsewhere so that {w.ref.namespace}/{w.ref.name} fits"):
        return False
    names = ", ".join(sorted(f"{move.ref.namespace}/{move.ref.name}" for move in found.moves))
    price = f"which costs ${found.usd:.2f} and ends a wait that has cost ${found.worth_usd:.2f} so far"
    s.decide(w.ref, Verdict(Reason.WAITING_FOR_CAPACITY, f"waits for {names} to move elsewhere, {price}"))
    return True


def stop_all(s: Scratch, found: Consolidation, message: str, *, quiet: bool = False) -> bool:
    """Stop the gangs that are to move; False, and nothing done, where one of them takes another step first."""
    price = {move.ref.uid: move.usd for move in found.moves}
    if any(action.ref.uid in price for action in s.actions):
        return False
    for v in s.snapshot.workloads:
        if v.ref.uid in price and v.attempt is not None:
            moved = (s.now, price[v.ref.uid]) if quiet else None
            avoid = _away(v, found.placement, s.now)
            stop = Stop(v.ref, v.attempt.number, CONSOLIDATED, message, avoid, s.now, moved)
            s.decide(v.ref, Verdict(CONSOLIDATED, message), stop)
    return True


def _movable(v: Workload, w: Workload, rules: Consolidating, now: float) -> bool:
    """Whether a gang may be moved for a pending one: none of higher priority, none that waits for nodes or ends."""
    attempt = v.attempt
    return (
        v.ref.kind is Kind.TRAINING_JOB
        and v.ref.uid != w.ref.uid
        and attempt is not None
        and attempt.phase is RunPhase.RUNNING
        and not attempt.placement.pool
        and not (attempt.stopping or attempt.done or v.deleting or v.suspend or v.request is None)
        and v.priority <= w.priority
        and now - (v.started_at or attempt.admitted_at) >= rules.min_runtime_seconds
    )


def _cost(s: Scratch, v: Workload, boards: Fraction, rules: Consolidating) -> float:
    """What a move loses, in dollars of list price."""
    attempt = v.attempt
    if attempt is None:
        return 0.0
    lost = max(0.0, s.now - max(v.started_at, v.saved_at)) if v.started_at else 0.0
    usd_per_hour = float(boards) * s.model(attempt.placement.device.model).usd_per_hour
    return usd_per_hour * (lost + rules.restart_seconds) / HOUR


def _simulate(
    snapshot: Snapshot, w: Workload, settle: Settle, ended: Sequence[Holder]
) -> tuple[Placement, tuple[Relocation, ...]] | None:
    """Take the gangs out, plan, and admit each again; None unless the pending gang and all of them have places.

    What is served before the pending gang is planned first, so it may take the room; what is served after it waits.
    """
    stopped = [one.workload for one in ended]
    s = settle(first_in_line(without(snapshot, stopped), w, *stopped))
    placement = _admitted(s, w)
    if placement is None:
        return None
    moves: list[Relocation] = []
    for one in sorted(ended, key=lambda one: order(one.workload)):
        v, attempt = one.workload, one.workload.attempt
        away = within_price(s, replace(unplaced(v), avoid=_away(v, placement, s.now)))
        if attempt is None or away.request is None or not admit(s, away, away.request.at(v.size)):
            return None
        after = _admitted(s, v)
        if after is None:
            return None
        moves.append(Relocation(v.ref, attempt.placement, after, one.cost))
    stay = {
        m.ref.uid
        for m in moves
        if m.before.device == m.after.device and sorted(m.before.nodes) == sorted(m.after.nodes)
    }
    if stay:
        return _simulate(snapshot, w, settle, [one for one in ended if one.workload.ref.uid not in stay])
    return placement, tuple(moves)


def _away(v: Workload, placement: Placement, now: float) -> tuple[tuple[str, float], ...]:
    """What a moved gang is to avoid: besides what it did, the nodes that it makes room on."""
    return (*v.avoid, *((node, now + AWAY_SECONDS) for node in dict.fromkeys(placement.nodes)))


def _admitted(s: Scratch, w: Workload) -> Placement | None:
    return next((a.placement for a in s.actions if isinstance(a, Admit) and a.ref.uid == w.ref.uid), None)


def _worth(s: Scratch, w: Workload, placement: Placement) -> float:
    return _usd_per_hour(s, placement) * _waited(s, w) / HOUR


def _is_time(s: Scratch, w: Workload) -> bool:
    """Whether to look for moves now: after half a minute, and whenever the wait has grown by a quarter since.

    The search costs more than all else in a plan, and how a wait is to be ended becomes less urgent the longer it is.
    """
    began, waited = s.now - _waited(s, w), _waited(s, w)
    step = floor(log(waited / FIRST_LOOK_SECONDS, LATER)) if waited >= FIRST_LOOK_SECONDS else -1
    last = FIRST_LOOK_SECONDS * LATER**step
    s.wake(began + last * LATER + 1)
    return step >= 0 and waited - last <= last * LOOKING


def _waited(s: Scratch, w: Workload) -> float:
    return max(0.0, s.now - max(w.created, w.not_before))


def _usd_per_hour(s: Scratch, placement: Placement) -> float:
    model = s.model(placement.device.model)
    return float(boards_of(placement.device, model) * len(placement.nodes)) * model.usd_per_hour
