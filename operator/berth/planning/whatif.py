"""Changed copies of a snapshot: what would be seen if work had ended, asked otherwise, or had more to run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from berth.model.boards import Board
from berth.model.nodes import Node
from berth.model.resources import Resources
from berth.model.workloads import Device, PodPhase, PodShape, Request, Workload
from berth.planning.cohorts import Cohorts
from berth.planning.field import Field
from berth.planning.ledger import PODS, needs_of
from berth.planning.lifecycle import ON_NODES
from berth.planning.scratch import NOWHERE, Scratch, boards_asked, linked_boards
from berth.planning.snapshot import Snapshot

Held = tuple[tuple[str, Resources], ...]
"""The node of each member, and what it takes there."""
RUN = (PodPhase.BOUND, PodPhase.READY, PodPhase.SUCCEEDED)


def room_for(
    s: Scratch, w: Workload, request: Request, device: Device, avoid: Collection[str] = NOWHERE
) -> Field | None:
    """Where members with this device fit now; None where no node has such boards."""
    return s.field(request.shape, device, s.avoided(w) | frozenset(avoid), linked_boards(request, device))


def order(w: Workload) -> tuple[int, float, int, str]:
    """The order within one queue: by priority, then age, then boards, most first, then uid. See `line` for all."""
    return -w.priority, w.created, -boards_asked(w), w.ref.uid


def with_workload(snapshot: Snapshot, changed: Workload) -> Snapshot:
    """The snapshot with another state of one workload."""
    others = tuple(w for w in snapshot.workloads if w.ref.uid != changed.ref.uid)
    return replace(snapshot, workloads=(*others, changed))


def concerning(snapshot: Snapshot, w: Workload, *others: Workload) -> Snapshot:
    """The snapshot with no more workloads than have a say in what a pending job gets, and then these others.

    Pending jobs that are served later have none. Where another is served before, all that runs has: what ends when,
    and what such work took before, says which start is kept for that one.
    """
    first = not any(_asks_before(v, w) for v in snapshot.workloads if v.ref.uid != w.ref.uid)
    if first:
        return first_in_line(snapshot, w, *others)
    kept = (v for v in snapshot.workloads if v.attempt or v.finished or v.pods or _may_precede(v, w))
    return replace(snapshot, workloads=tuple(kept), crashed=_crashed(snapshot), until=w.ref.uid)


def first_in_line(snapshot: Snapshot, w: Workload, *others: Workload) -> Snapshot:
    """The same for a job before which nobody waits, so that nothing is kept for others: much less has a say.

    Pending jobs that are served later have none. Nor has work whose members all run, since its room is in `used`,
    unless it is of the same tree as one of those that ask, and that has a quota. A plan for 10,000 running jobs takes a
    second, this one milliseconds. Of nodes that do equally well it may choose others, since what is left out is not
    expected to come again.
    """
    asking = [v for v in snapshot.workloads if not (v.attempt or v.finished) and _may_precede(v, w)]
    cohorts = Cohorts(snapshot.queues)
    trees = {cohorts.root(v.queue) for v in (*asking, w, *others) if cohorts.is_bound(v.queue)}
    shared = {name for root in trees for name in cohorts.members(root)}
    kept, elsewhere = [], {queue: Counter(held) for queue, held in snapshot.elsewhere.items()}
    for v in snapshot.workloads:
        if _matters(v, w, shared):
            kept.append(v)
        elif v.attempt is not None and not v.finished:
            placement = v.attempt.placement
            elsewhere.setdefault(v.queue, Counter())[placement.device] += len(placement.nodes)
    return replace(snapshot, workloads=tuple(kept), elsewhere=elsewhere, crashed=_crashed(snapshot), until=w.ref.uid)


def _crashed(snapshot: Snapshot) -> tuple[Workload, ...]:
    return tuple(v for v in (*snapshot.crashed, *snapshot.workloads) if v.failures.last)


def _may_precede(v: Workload, w: Workload) -> bool:
    """Whether one pending workload could be served before another: which queue comes first, only a plan can tell."""
    return order(v) <= order(w) if v.queue == w.queue else v.priority >= w.priority


def _asks_before(v: Workload, w: Workload) -> bool:
    return not (v.attempt or v.finished or v.suspend) and _may_precede(v, w)


def _matters(v: Workload, w: Workload, shared: Collection[str]) -> bool:
    if v.finished:
        return False
    if v.attempt is None:
        return bool(v.pods) or _may_precede(v, w)
    there = {p.index for p in v.pods if p.phase in RUN and p.attempt == v.attempt.number}
    return v.queue in shared or len(there | v.attempt.done) < len(v.attempt.placement.nodes)


def without(snapshot: Snapshot, ended: Collection[Workload]) -> Snapshot:
    """The snapshot once these workloads have ended and their pods are gone."""
    gone = {w.ref.uid for w in ended}
    used = {node: dict(taken) for node, taken in snapshot.used.items()}
    for w in ended:
        for node, needs in on_nodes(w):
            taken = used.get(node, {})
            taken.update({name: max(0, taken.get(name, 0) - n) for name, n in needs.items()})
    pods = {f"{w.ref.namespace}/{pod.name}" for w in ended for pod in w.pods}
    vacated = {name: _vacated(node, pods) for name, node in snapshot.nodes.items() if node.boards}
    changed = {name: node for name, node in vacated.items() if node is not snapshot.nodes[name]}
    nodes = {**snapshot.nodes, **changed} if changed else snapshot.nodes  # nodes that stay need not be arranged anew
    kept = tuple(w for w in snapshot.workloads if w.ref.uid not in gone)
    holding = {
        node: {pod: made for pod, made in held.items() if pod not in pods} for node, held in snapshot.holding.items()
    }
    return replace(snapshot, used=used, nodes=nodes, workloads=kept, holding=holding)


def with_quota(snapshot: Snapshot, queue: str, name: str, boards: int) -> Snapshot:
    """The snapshot with another nominal quota of a queue for one model or family."""
    known = snapshot.queues[queue]
    changed = replace(known, nominal={**(known.nominal or {}), name: boards})
    return replace(snapshot, queues={**snapshot.queues, queue: changed})


def with_nodes(snapshot: Snapshot, nodes: Iterable[Node]) -> Snapshot:
    """The snapshot with more nodes, all of them empty."""
    return replace(snapshot, nodes={**snapshot.nodes, **{node.name: node for node in nodes}})


def unplaced(w: Workload) -> Workload:
    """A job as it was before its live attempt."""
    return replace(w, attempt=None, pods=(), started_at=0.0, not_before=0.0, verdict=None)


def on_nodes(w: Workload) -> Held:
    """What the pods of a workload take from the nodes that they are bound or pinned to."""
    return tuple((pod.node, _needs(w, pod.device)) for pod in w.pods if pod.phase in ON_NODES and pod.node)


def held_by(w: Workload) -> Held:
    """What a workload holds: the room of its pods, and what is set aside for members that have none yet."""
    held = on_nodes(w)
    attempt = w.attempt
    if attempt is None or attempt.stopping:
        return held
    there = {p.index for p in w.pods if p.phase in (*ON_NODES, PodPhase.SUCCEEDED) and p.attempt == attempt.number}
    absent = (n for i, n in enumerate(attempt.placement.nodes) if n and i not in there and i not in attempt.done)
    return (*held, *((node, _needs(w, None)) for node in absent))


def device_of(w: Workload) -> Device | None:
    """The device that the members of a workload have; None where they have none."""
    return w.attempt.placement.device if w.attempt else w.served_device


def _needs(w: Workload, own: Device | None) -> Mapping[str, int]:
    device = own or device_of(w)
    shape = w.request.shape if w.request else PodShape()
    return needs_of(shape, device) if device else {PODS: 1}


def _vacated(node: Node, pods: Collection[str]) -> Node:
    boards = tuple(_without_holders(board, pods) for board in node.boards)
    return node if boards == node.boards else replace(node, boards=boards)


def _without_holders(board: Board, pods: Collection[str]) -> Board:
    instances = tuple(replace(i, holder="") if i.holder in pods else i for i in board.instances)
    return replace(board, instances=instances, holder="" if board.holder in pods else board.holder)
