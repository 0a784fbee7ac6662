"""Gangs on spot capacity whose deadlines draw near: they move to capacity that stays, while that still keeps them.

Until the last moment they run on, since most are never interrupted; after it, moving would miss what staying may keep.
"""

from __future__ import annotations

from dataclasses import replace

from berth.model.workloads import Attempt, RunPhase, Spot, Workload
from berth.planning.estimates import STARTING_SECONDS, STOPPING_SECONDS
from berth.planning.markets import lost_by_leaving, remaining_seconds
from berth.planning.packing import pack
from berth.planning.scratch import Scratch, gang_of, linked_boards

AT_RISK = "DeadlineAtRisk"  # the reason of gangs that leave spot capacity for their deadline
LAST_SECONDS = 300.0  # in which they do: a plan falls into it even where it is late


def risk_to(s: Scratch, w: Workload, attempt: Attempt) -> str:
    """Why a gang leaves spot capacity now for its deadline, in words; "" where it stays."""
    if w.deadline is None or not w.checkpoints or not w.started_at or attempt.phase is not RunPhase.RUNNING:
        return ""
    if w.request is None or w.request.shape.spot is Spot.ONLY or not _on_spot(s, attempt):
        return ""
    seconds = remaining_seconds(s, w)
    if seconds is None:
        return ""
    again = lost_by_leaving(s, w, attempt) + STOPPING_SECONDS + STARTING_SECONDS
    spare = w.deadline - s.now - seconds - again - s.policy.consolidation.restart_seconds
    if spare > LAST_SECONDS:
        s.wake(s.now + spare - LAST_SECONDS)
        return ""
    if spare < 0 or not _has_room(s, w, attempt):
        return ""
    return f"on spot capacity an interruption would cost the deadline, {(w.deadline - s.now) / 3600:.1f} h from now"


def _on_spot(s: Scratch, attempt: Attempt) -> bool:
    nodes = (s.fleet.nodes.get(name) for name in attempt.placement.nodes)
    return any(node.spot for node in nodes if node is not None)


def _has_room(s: Scratch, w: Workload, attempt: Attempt) -> bool:
    """Whether its gang fits on capacity that stays now; the quota that it needs there it has."""
    assert w.request is not None
    device, members = attempt.placement.device, len(attempt.placement.nodes)
    shape = replace(w.request.shape, spot=Spot.NEVER)
    field = s.field(shape, device, s.avoided(w), linked_boards(w.request, device))
    return field is not None and pack(field, gang_of(w.request, device, s.fleet.levels, members)) is not None
