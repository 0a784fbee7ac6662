"""Gangs whose nodes go away: asked to save, then stopped, so that they find a place elsewhere while there is time.

Members that ask for save requests have until their node's deadline is near; all others get SIGTERM at once. See
docs/decisions/0024-interruptions.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from berth.model.boards import Board
from berth.model.nodes import Interruption, Node
from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Pod, PodPhase, SaveRequest, Workload
from berth.planning.actions import Action, AskToSave, Stop
from berth.planning.scratch import Scratch

ON_NODE = (PodPhase.BOUND, PodPhase.READY)
NODE_LOST = "NodeLost"  # the reason of gangs whose node is gone, or not heard of
BOARD_UNHEALTHY = "BoardUnhealthy"  # and of those that hold a board that must not be used any more
LAST_SECONDS = 15.0  # of a notice are left to those that did not answer, to save at SIGTERM: as GKE leaves to pods
FORGOTTEN_SECONDS = 60.0  # after a request should have ended its attempt, another interruption is another matter


@dataclass(frozen=True, slots=True)
class Threat:
    """What is about to take a member's node or board away."""

    node: str
    member: int
    interruption: Interruption

    def __str__(self) -> str:
        """Why, where and whom, as a part of a sentence."""
        by = f" (says {self.interruption.source})" if self.interruption.source else ""
        return f"{self.interruption.reason} of {self.node}{by}"


def lost(s: Scratch, pods: Iterable[Pod]) -> Pod | None:
    """The first of the pods that are on nodes which are gone, or have not been heard of for too long."""
    return min((p for p in pods if p.phase in ON_NODE and _is_lost(s, p.node)), key=lambda p: p.index, default=None)


def is_out_of_reach(s: Scratch, pod: Pod) -> bool:
    """Whether a pod that is told to end may never be seen to: it writes where no later attempt does."""
    return pod.terminating and bool(pod.node) and _is_lost(s, pod.node)


def _is_lost(s: Scratch, name: str) -> bool:
    node = s.snapshot.nodes.get(name)
    if node is None:
        return True
    if node.ready or not node.lost_since:
        return False
    s.wake(node.lost_since + s.policy.lost_seconds)
    return node.lost_since + s.policy.lost_seconds <= s.now


def threat_to(s: Scratch, w: Workload, pods: Iterable[Pod]) -> Threat | None:
    """What takes a member's node or board away first."""
    found = []
    for pod in pods:
        node = s.snapshot.nodes.get(pod.node)
        if node is not None and pod.phase in ON_NODE and (why := _interruption(node, w, pod)) is not None:
            found.append(Threat(node.name, pod.index, why))
    return min(found, key=lambda t: (t.interruption.deadline or float("inf"), t.member), default=None)


def _interruption(node: Node, w: Workload, pod: Pod) -> Interruption | None:
    if node.interruption is not None:
        return node.interruption
    holder = f"{w.ref.namespace}/{pod.name}"
    bad = next((b.index for b in node.boards if not b.healthy and _holds(b, holder)), None)
    return None if bad is None else Interruption(BOARD_UNHEALTHY, f"board {bad}")


def _holds(board: Board, holder: str) -> bool:
    return board.holder == holder or any(instance.holder == holder for instance in board.instances)


def leave(s: Scratch, w: Workload, attempt: Attempt, threat: Threat) -> None:
    """Have a gang save and go: at once where nobody of it asks for requests, else once it has, or must."""
    why, deadline = threat.interruption.reason, threat.interruption.deadline
    if attempt.number != w.listens:
        _stop(s, w, attempt, why, f"{threat}: the workers are asked to save and stop, and go on elsewhere")
        return
    request = w.save_request
    if request is None or not _is_about(s, w, request, threat):
        name = f"{attempt.number}-{int(s.now * 1000)}"
        request = SaveRequest(name, attempt.number, why, threat.node, s.now, deadline)
        message = f"{threat}: the workers are asked to save, and move once they have"
        s.decide(w.ref, Verdict(why, message), AskToSave(w.ref, request, message))
    elif w.saved_for == request.id:
        _stop(s, w, attempt, why, f"{threat}: saved, and goes on elsewhere")
    elif (end := _last_moment(w, request)) <= s.now:
        _stop(s, w, attempt, why, f"{threat}: no checkpoint after {end - request.at:.0f} s, so the workers are stopped")
    else:
        s.wake(end)
        message = w.verdict.message if w.verdict and w.verdict.reason == why else f"{threat}: the workers are to save"
        s.decide(w.ref, Verdict(why, message))


def _is_about(s: Scratch, w: Workload, request: SaveRequest, threat: Threat) -> bool:
    """Whether the members were asked for this very reason, and lately; a deadline that draws nearer is another one."""
    same = (request.attempt, request.reason, request.node) == (w.listens, threat.interruption.reason, threat.node)
    nearer = threat.interruption.deadline and not 0 < request.deadline <= threat.interruption.deadline + 1.0
    return same and not nearer and s.now <= _last_moment(w, request) + FORGOTTEN_SECONDS


def _last_moment(w: Workload, request: SaveRequest) -> float:
    """When members that have not answered are stopped: half of a notice is theirs, and all but the last seconds."""
    if not request.deadline:
        return request.at + w.grace_seconds
    notice = max(0.0, request.deadline - request.at)
    return request.at + max(notice / 2, notice - LAST_SECONDS)


def _stop(s: Scratch, w: Workload, attempt: Attempt, reason: str, message: str) -> None:
    stop: Action = Stop(w.ref, attempt.number, reason, message, w.avoid, s.now)
    s.decide(w.ref, Verdict(reason, message), stop)
