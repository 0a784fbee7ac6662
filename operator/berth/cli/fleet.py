"""A fleet at a glance: its boards, queues and workloads, who waits longest, and whether the operator acts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from berth.cli.queues import Row, rows_of
from berth.cli.told import section, show, table
from berth.control.status import from_rfc3339, to_rfc3339
from berth.model.gpus import WHOLE_BOARD
from berth.model.nodes import Node
from berth.model.reasons import Verdict
from berth.model.resources import Resources
from berth.model.workloads import Device, Kind, Workload
from berth.planning.explain import State, asks, state_of
from berth.planning.options import boards_of
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.trials import duration

MOST_WAITING = 5  # named on one screen
NO_LEASE = "a snapshot does not tell whether the operator runs"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an operator acts, as its Lease says."""

    acting: bool | None  # None: it is not known
    holder: str = ""
    age_seconds: float | None = None  # since it was renewed
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Boards:
    """What the boards of one model do, each counted once; parts of boards are MIG instances."""

    total: float = 0
    held: float = 0  # by pods, on nodes that stay
    idle: float = 0
    laid_out: float = 0  # whose MIG layout is being changed
    unhealthy: float = 0
    away: float = 0  # on nodes that go away, are cordoned or not ready

    def __add__(self, other: Boards) -> Boards:
        mine, theirs = asdict(self), asdict(other)
        return Boards(**{key: mine[key] + theirs[key] for key in mine})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A workload that waits, and why."""

    workload: Workload
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything on one screen."""

    now: float
    health: Health
    nodes: int
    boards: Mapping[str, Boards]  # by model
    queues: tuple[Row, ...]
    states: Mapping[tuple[Kind, State], int]
    waiting: tuple[Waiting, ...]  # those that have waited longest
    notes: tuple[str, ...] = ()


def fleet(snapshot: Snapshot, policy: Policy, now: float, health: Health, notes: tuple[str, ...] = ()) -> Fleet:
    """The fleet of a snapshot; now in seconds since the epoch."""
    made = plan(snapshot, policy, now)
    boards: dict[str, Boards] = {}
    for node in snapshot.nodes.values():
        if node.board is not None:
            name = node.board.name
            boards[name] = boards.get(name, Boards()) + _boards(node, snapshot.used.get(node.name, {}))
    states = {w.ref.uid: state_of(w, made.verdicts.get(w.ref.uid)) for w in snapshot.workloads}
    pending = [w for w in snapshot.workloads if states[w.ref.uid] is State.PENDING]
    pending.sort(key=lambda w: (w.created, w.ref.uid))
    return Fleet(
        now,
        health,
        len(snapshot.nodes),
        dict(sorted(boards.items())),
        rows_of(snapshot, policy, made),
        Counter((w.ref.kind, states[w.ref.uid]) for w in snapshot.workloads),
        tuple(Waiting(w, made.verdicts[w.ref.uid]) for w in pending[:MOST_WAITING] if w.ref.uid in made.verdicts),
        notes,
    )


def health_of(lease: Mapping[str, Any], now: float) -> Health:
    """What a Lease tells: who holds it acts, as long as it is renewed in time."""
    spec = lease.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), from_rfc3339(spec.get("renewTime"))
    if not holder:
        return Health(False, problem="nobody holds the Lease: the operator does not run, or is just starting")
    age, longest = max(0.0, now - renewed), spec.get("leaseDurationSeconds") or 0
    late = f"its Lease was not renewed for {duration(age)}: see `kubectl --namespace berth-system get pods`"
    return Health(age <= longest, holder, age, "" if age <= longest else late)


def _boards(node: Node, used: Resources) -> Boards:
    assert node.board is not None
    total = float(len(node.boards) or _counted(node, node.allocatable))
    if node.interruption is not None or node.lost_since or not node.ready or node.unschedulable:
        return Boards(total, away=total)
    changing = {board.index for board in node.relayout.boards} if node.relayout else set()
    unhealthy = sum(not board.healthy for board in node.boards)
    laid_out = sum(board.healthy and board.index in changing for board in node.boards)
    held = min(float(_counted(node, used)), total - unhealthy - laid_out)
    return Boards(total, held, total - unhealthy - laid_out - held, laid_out, unhealthy)


def _counted(node: Node, resources: Resources) -> Fraction:
    """Boards among resources, MIG instances as parts of one."""
    assert node.board is not None
    gpus = {name: n for name, n in resources.items() if name == WHOLE_BOARD or node.board.profile_of(name)}
    return sum((n * boards_of(Device(node.board.name, name, 1), node.board) for name, n in gpus.items()), Fraction())


def write(told: Fleet, file: TextIO) -> None:
    """Print it."""
    show(lambda console: _draw(told, console), file)


def as_data(told: Fleet) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    health = told.health
    age = None if health.age_seconds is None else round(health.age_seconds, 1)
    keys = {"laid_out": "beingLaidOut", "away": "goingAway"}
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "FleetStatus",
        "time": to_rfc3339(told.now),
        "operator": {
            "acting": health.acting,
            "holder": health.holder or None,
            "leaseAgeSeconds": age,
            "problem": health.problem or None,
        },
        "nodes": told.nodes,
        "boards": [
            {"model": model, **{keys.get(key, key): n for key, n in asdict(boards).items()}}
            for model, boards in told.boards.items()
        ],
        "queues": [_queue_data(row) for row in told.queues],
        "workloads": [{"kind": str(k), "state": str(s), "count": n} for (k, s), n in sorted(told.states.items())],
        "longestWaiting": [_waiting_data(one, told.now) for one in told.waiting],
        "notes": list(told.notes),
    }


def _queue_data(row: Row) -> dict[str, Any]:
    has = row.has
    return {
        "name": row.queue.name,
        "used": dict(has.used),
        "admitted": has.admitted,
        "pending": has.pending,
        "problem": has.problem or has.stopped or None,
    }


def _waiting_data(one: Waiting, now: float) -> dict[str, Any]:
    ref = one.workload.ref
    return {
        "workload": {"kind": str(ref.kind), "namespace": ref.namespace, "name": ref.name},
        "waitedSeconds": round(now - one.workload.created),
        "reason": one.verdict.reason,
        "message": one.verdict.message,
    }


def _draw(told: Fleet, console: Console) -> None:
    console.print(_operator(told.health))
    counts = (f"{n} {state.lower()}" for state, n in _by_state(told))
    console.print(f"workloads: {', '.join(counts) or 'none'}")
    if told.boards:
        rows = [
            (model, *(f"{n:.4g}" for n in (b.total, b.held, b.idle, b.laid_out, b.unhealthy, b.away)))
            for model, b in told.boards.items()
        ]
        headings = ("model", "boards", "held", "idle", "being laid out", "unhealthy", "going away")
        section(console, f"Boards of {told.nodes} nodes", table(rows, headings))
    else:
        console.print(f"\nNone of {told.nodes} nodes has GPUs that Berth knows.")
    rows = [(*_queue_line(row),) for row in told.queues]
    section(console, "Queues", table(rows, ("queue", "used of owned boards", "admitted", "waiting", "")))
    if told.waiting:
        lines = [_waiting_line(one, told.now) for one in told.waiting]
        section(console, "Waiting longest", table(lines, ("workload", "for", "asks for", "why")))
    if told.notes:
        section(console, "Notes", table([("-", note) for note in told.notes]))


def _operator(health: Health) -> Text:
    if health.acting:
        return Text(f"operator: {health.holder} acts, Lease renewed {duration(health.age_seconds or 0.0)} ago", "green")
    known = health.acting is False
    holder = f"{health.holder} does not act: " if known and health.holder else ""
    return Text(f"operator: {holder}{health.problem}", "red" if known else "yellow")


def _by_state(told: Fleet) -> Iterator[tuple[State, int]]:
    for state in State:
        if count := sum(n for (_, s), n in told.states.items() if s is state):
            yield state, count


def _queue_line(row: Row) -> tuple[str, ...]:
    has, nominal = row.has, row.queue.nominal or {}
    owned = {model: f" of {count}" for model, count in nominal.items()}
    models = has.names or sorted(has.used)
    used = ", ".join(f"{has.used.get(model, '0')}{owned.get(model, '')} {model}" for model in models)
    name = "  " * row.depth + row.queue.name
    return name, used or "none", str(has.admitted), str(has.pending), has.problem or has.stopped


def _waiting_line(one: Waiting, now: float) -> tuple[str, ...]:
    w = one.workload
    why = f"{one.verdict.reason}: {one.verdict.message}"
    return f"{w.ref.namespace}/{w.ref.name}", duration(now - w.created), asks(w), why
