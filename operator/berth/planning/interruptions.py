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
from berth.planning.actions import Action, AskToSave, Stop, Suspend
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

    @property
    def leaving(self) -> Leaving:
        """What it means for the gang."""
        return Leaving(self.interruption.reason, str(self), "go on elsewhere", self.node, self.interruption.deadline)


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why a gang is to save and stop, and what becomes of it."""

    reason: str
    why: str  # as a part of a sentence
    then: str  # what its workers do later, such as "go on elsewhere"
    node: str = ""  # that goes away; "": none does
    deadline: float = 0.0  # when it does, in seconds since the epoch; 0: nobody says
    suspends: bool = False  # it is to stay stopped until its user says otherwise


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
    if pod.unhealthy:
        return Interruption(BOARD_UNHEALTHY, f"the device plugin of {pod.unhealthy}")
    holder = f"{w.ref.namespace}/{pod.name}"
    bad = next((b.index for b in node.boards if not b.healthy and holds(b, holder)), None)
    return None if bad is None else Interruption(BOARD_UNHEALTHY, f"board {bad}")


def holds(board: Board, holder: str) -> bool:
    """Whether that pod ("namespace/name") has the board or an instance on it."""
    return board.holder == holder or any(instance.holder == holder for instance in board.instances)


def leave(s: Scratch, w: Workload, attempt: Attempt, to: Leaving) -> None:
    """Have a gang save and go: at once where nobody of it asks for requests, else once it has, or must."""
    if attempt.number != w.listens:
        _stop(s, w, attempt, to, f"{to.why}: the workers are asked to save and stop, and {to.then}")
        return
    request = w.save_request
    if request is None or not _is_about(s, w, request, to):
        name = f"{attempt.number}-{int(s.now * 1000)}"
        request = SaveRequest(name, attempt.number, to.reason, to.node, s.now, to.deadline)
        message = f"{to.why}: the workers are asked to save, and {to.then} once they have"
        s.decide(w.ref, Verdict(to.reason, message), AskToSave(w.ref, request, message))
    elif w.saved_for == request.id:
        _stop(s, w, attempt, to, f"{to.why}: saved, to {to.then}")
    elif (end := _last_moment(w, request)) <= s.now:
        waited = f"no checkpoint after {end - request.at:.0f} s"
        _stop(s, w, attempt, to, f"{to.why}: {waited}, so the workers are stopped, to {to.then}")
    else:
        s.wake(end)
        known = w.verdict.message if w.verdict and w.verdict.reason == to.reason else ""
        s.decide(w.ref, Verdict(to.reason, known or f"{to.why}: the workers are to save"))


def _is_about(s: Scratch, w: Workload, request: SaveRequest, to: Leaving) -> bool:
    """Whether the members were asked for this very reason, and lately; a deadline that draws nearer is another one."""
    same = (request.attempt, request.reason, request.node) == (w.listens, to.reason, to.node)
    nearer = to.deadline and not 0 < request.deadline <= to.deadline + 1.0
    return same and not nearer and s.now <= _last_moment(w, request) + FORGOTTEN_SECONDS


def _last_moment(w: Workload, request: SaveRequest) -> float:
    """When members that have not answered are stopped: half of a notice is theirs, and all but the last seconds."""
    if not request.deadline:
        return request.at + w.grace_seconds
    notice = max(0.0, request.deadline - request.at)
    return request.at + max(notice / 2, notice - LAST_SECONDS)


def _stop(s: Scratch, w: Workload, attempt: Attempt, to: Leaving, message: str) -> None:
    stop: Action = Stop(w.ref, attempt.number, to.reason, message, w.avoid, s.now)
    s.decide(w.ref, Verdict(to.reason, message), Suspend(w.ref, to.reason, message) if to.suspends else stop)
