"""Room made in quiet hours, within a budget, for the largest gang in use of which another would not fit.

Each gang that is moved carries what its move cost in its status, so that the budget holds over restarts. See
docs/decisions/0014-consolidation.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import floor

from berth.model.workloads import Kind, Ref, Workload
from berth.planning.actions import Stop
from berth.planning.consolidation import LOOKING, Settle, consolidate, stop_all
from berth.planning.scratch import Scratch, boards_asked
from berth.planning.whatif import order, with_workload

LOOK_SECONDS = 900.0  # moves are looked for so often in quiet hours
MOST_SHAPES = 4  # kinds of gangs that room is looked for, the largest; each may take a search


def open_up(s: Scratch, settle: Settle) -> None:
    """In quiet hours, stop the gangs whose moves open room, as far as the budget of these hours still goes.

    Room is opened for one more gang like the largest that runs, as consolidation would for one that waits. A kind of
    which another fits already, or that can't be helped within the budget, is passed over for the next largest. A gang
    that started in these hours is left alone, so none moves twice in them.
    """
    quiet = s.policy.consolidation.quiet
    if quiet is None:
        return
    began, _ = quiet.window(s.now)
    if not _is_time(s, began) or _is_busy(s):
        return
    left = quiet.budget_usd - sum(w.moved[1] for w in s.snapshot.workloads if w.moved and w.moved[0] >= began)
    longest = max(s.policy.consolidation.min_runtime_seconds, s.now - began)
    rules = replace(s.policy.consolidation, min_runtime_seconds=longest)
    for w in _another(s):
        found = s.guard(w, consolidate, with_workload(s.snapshot, w), w, settle, rules)
        if found is not None and found.usd <= left:
            stop_all(s, found, f"moved elsewhere in quiet hours so that {w.ref.name} would fit", quiet=True)
            return


def _is_time(s: Scratch, began: float) -> bool:
    """Whether to look for moves now: at the beginning of each quarter of an hour, since the search takes long."""
    if s.now < began:
        s.wake(began)
        return False
    turn = began + floor((s.now - began) / LOOK_SECONDS) * LOOK_SECONDS
    s.wake(turn + LOOK_SECONDS)
    return s.now - turn <= LOOK_SECONDS * LOOKING


def _is_busy(s: Scratch) -> bool:
    """Whether a job waits, also for its first look in this very plan, or an attempt stops."""
    stops = any(isinstance(action, Stop) for action in s.actions)
    return stops or any(w.attempt.stopping if w.attempt else _waits(w) for w in s.snapshot.workloads)


def _waits(w: Workload) -> bool:
    wants = w.ref.kind is Kind.TRAINING_JOB and w.request is not None
    return wants and not (w.finished or w.deleting or w.suspend)


def _another(s: Scratch) -> Iterator[Workload]:
    """One more of each kind of gang that runs on whole boards, the largest first; of no priority, in the default queue.

    So those of higher priority are not moved for it.
    """
    running = [w for w in s.snapshot.workloads if w.ref.kind is Kind.TRAINING_JOB and w.attempt and boards_asked(w)]
    kinds = dict.fromkeys(w.request for w in sorted(running, key=lambda w: (-boards_asked(w), *order(w))))
    for request in list(kinds)[:MOST_SHAPES]:
        if request is not None:
            name = f"another {request.workers} x {request.demand.count} boards"
            ref = Ref(Kind.TRAINING_JOB, "", name, f"{name} of {request.demand}")
            yield Workload(ref, s.now, request, queue=s.policy.default_queue)
