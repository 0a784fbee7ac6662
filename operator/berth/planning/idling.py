"""Gangs that hold boards and do next to nothing with them: seen, told, and by their own policy saved and suspended.

What boards do is known from their nodes' agents, as means of five minutes. A gang is idle only if each of its members'
boards is known to be: what nobody can say is taken for work. An instance counts as idle where its whole board is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from berth.model.idling import Idle, IdleAction
from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Pod, PodPhase, Workload
from berth.planning.actions import NoteIdle
from berth.planning.interruptions import Leaving, holds, leave
from berth.planning.scratch import Scratch

IDLE = "Idle"


def seen_to(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod]) -> bool:
    """Do what the policy wants of a gang that is idle; say whether that is all there is to decide."""
    most = busiest(s, w, pods)
    known = w.idle if w.idle is not None and w.idle.since >= w.started_at else None
    if most is None or most >= w.idle_policy.below:
        if w.idle is not None:
            s.actions.append(NoteIdle(w.ref, None))
        return False
    if known is None:
        s.actions.append(NoteIdle(w.ref, Idle(s.now)))
        s.wake(s.now + w.idle_policy.after_seconds)
        return False
    end = known.since + w.idle_policy.after_seconds
    if end > s.now:
        s.wake(end)
        return False
    message = _words(w, known)
    if not known.told:
        s.decide(w.ref, Verdict(IDLE, message), NoteIdle(w.ref, Idle(known.since, told=True), message))
    elif w.idle_policy.action is IdleAction.SUSPEND:
        leave(s, w, attempt, Leaving(IDLE, message, "wait until spec.suspend is false again", suspends=True))
    else:
        s.decide(w.ref, Verdict(IDLE, message))
    return True


def busiest(s: Scratch, w: Workload, pods: Sequence[Pod]) -> float | None:
    """The utilization of the board of a gang that does the most, 0 to 1; None where nobody can say that of each."""
    if not w.started_at or len(pods) < w.size or any(p.phase is not PodPhase.READY or p.terminating for p in pods):
        return None
    found: list[float | None] = []
    for pod in pods:
        fresh = s.snapshot.observed.get(pod.node, 0.0) + s.policy.stale_seconds > s.now
        holder = f"{w.ref.namespace}/{pod.name}"
        boards = s.snapshot.reported.get(pod.node, ()) if fresh else ()
        held = [board.utilization for board in boards if holds(board, holder)]
        found += held or [None]
    shares = [share for share in found if share is not None]
    return max(shares) if shares and len(shares) == len(found) else None


def _words(w: Workload, idle: Idle) -> str:
    since = datetime.fromtimestamp(idle.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    limit, policy = f"{100 * w.idle_policy.below:g} %", w.idle_policy
    what = f"all its boards have been below {limit} since {since}, for longer than {policy.after_seconds / 60:g} min"
    if policy.action is IdleAction.SUSPEND:
        return f"{what} (spec.idlePolicy)"
    return f"{what}: suspend the job, give it fewer, or raise spec.idlePolicy.afterMinutes"
