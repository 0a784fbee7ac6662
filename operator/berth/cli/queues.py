"""What queues have and who waits in them, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TextIO

from rich.console import Console

from berth.cli.told import section, show, table
from berth.control.status import to_rfc3339
from berth.model.reasons import Verdict
from berth.model.workloads import Queue, Workload
from berth.planning.actions import Plan, QueueUsage
from berth.planning.cohorts import Cohorts
from berth.planning.explain import asks
from berth.planning.plan import plan
from berth.planning.quota import stated_for
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.trials import duration

HEADINGS = ("queue", "model", "used", "owned", "borrowed", "lent", "weight", "part", "due", "admitted", "waiting")
INDENT = "  "


class UnknownQueue(Exception):
    """There is no Queue of that name; the message says which come close."""


@dataclass(frozen=True, slots=True)
class Row:
    """One queue and what it has."""

    queue: Queue
    depth: int  # below the root of its tree
    has: QueueUsage


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in a queue's line."""

    workload: Workload
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """Queues, each before those under it; and who waits, where it is about one of them."""

    now: float  # seconds since the epoch
    rows: tuple[Row, ...]
    name: str = ""  # "": it is about all queues
    waiting: tuple[Waiting, ...] = ()


def report(snapshot: Snapshot, policy: Policy, now: float, name: str = "") -> Report:
    """All queues, or one with those under it and the jobs that wait there in order. Raises UnknownQueue."""
    known = {**snapshot.queues}
    known.setdefault(policy.default_queue, Queue(policy.default_queue))
    if name and name not in known:
        close = get_close_matches(name, known, n=1)
        raise UnknownQueue(f"there is no Queue {name}" + (f": did you mean {close[0]}?" if close else ""))
    made = plan(snapshot, policy, now)
    rows = rows_of(snapshot, policy, made, name)
    shown = {row.queue.name for row in rows}
    line = [Waiting(w, made.verdicts[w.ref.uid]) for w in snapshot.workloads if w.ref.uid in made.verdicts]
    waiting = [one for one in line if name and one.verdict.position and one.workload.queue in shown]
    waiting.sort(key=lambda one: (one.workload.queue, one.verdict.position))
    return Report(now, rows, name, tuple(waiting))


def rows_of(snapshot: Snapshot, policy: Policy, made: Plan, name: str = "") -> tuple[Row, ...]:
    """What each queue has by a plan, each before those under it; of one and those under it where that is named."""
    known = {**snapshot.queues}
    known.setdefault(policy.default_queue, Queue(policy.default_queue))
    cohorts = Cohorts(known)
    return tuple(
        Row(known[queue], len(cohorts.path(queue)) - 1, made.queues[queue])
        for queue in _as_tree(cohorts)
        if not name or name in cohorts.path(queue)
    )


def write(told: Report, file: TextIO) -> None:
    """Print it."""
    show(lambda console: _draw(told, console), file)


def as_data(told: Report) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    said = {"apiVersion": "berth.dev/v1alpha1", "kind": "QueueReport", "time": to_rfc3339(told.now)}
    waiting = {"waiting": [_waiting_data(one, told.now) for one in told.waiting]} if told.name else {}
    return {**said, "queues": [_row_data(row) for row in told.rows], **waiting}


def _as_tree(cohorts: Cohorts) -> Iterator[str]:
    """Every queue, right before those under it."""
    left = sorted(cohorts.trees, reverse=True)
    while left:
        queue = left.pop()
        yield queue
        left += reversed(cohorts.children(queue))


def _draw(told: Report, console: Console) -> None:
    console.print(table([line for row in told.rows for line in _lines(row)], HEADINGS))
    wrong = [(row.queue.name, row.has.problem or row.has.stopped or row.has.not_default) for row in told.rows]
    if any(why for _, why in wrong):
        section(console, "What holds queues up", table([(name, why) for name, why in wrong if why]))
    if told.waiting:
        rows = (_waiting_line(one, told.now) for one in told.waiting)
        section(console, "Who waits, in order", table(rows, ("", "queue", "job", "priority", "for", "asks for", "why")))
    elif told.name:
        console.print("\nNo job waits here.")


def _lines(row: Row) -> Iterator[tuple[str, ...]]:
    has, stands = row.has, row.has.standing
    part, due = (f"{stands.part:.0%}", f"{stands.due:.0%}") if stands else ("", "")
    rest = (str(row.queue.weight), part, due, str(has.admitted), str(has.pending))
    for i, model in enumerate(has.names or ("",)):
        head = INDENT * row.depth + row.queue.name if i == 0 else ""
        owned = stated_for(row.queue.nominal or {}, model)
        numbers = (has.used.get(model, "0" if model else ""), "" if owned is None else str(owned))
        exchanged = (has.borrowed.get(model, ""), has.lent.get(model, ""))
        yield head, model, *numbers, *exchanged, *(rest if i == 0 else ("",) * len(rest))


def _waiting_line(one: Waiting, now: float) -> tuple[str, ...]:
    w = one.workload
    told = f"{one.verdict.reason}: {one.verdict.message}"
    job = f"{w.ref.namespace}/{w.ref.name}"
    return str(one.verdict.position), w.queue, job, str(w.priority), duration(now - w.created), asks(w), told


def _row_data(row: Row) -> dict[str, Any]:
    queue, has = row.queue, row.has
    stands = {"part": has.standing.part, "due": has.standing.due} if has.standing else {}
    return {
        "name": queue.name,
        "parent": queue.parent or None,
        "weight": queue.weight,
        "pending": has.pending,
        "admitted": has.admitted,
        **stands,
        "usage": [
            {
                "model": model,
                "used": has.used.get(model, "0"),
                "nominal": stated_for(queue.nominal or {}, model),
                "borrowed": has.borrowed.get(model, "0"),
                "lent": has.lent.get(model, "0"),
            }
            for model in has.names
        ],
        "problem": has.problem or has.stopped or has.not_default or None,
    }


def _waiting_data(one: Waiting, now: float) -> Mapping[str, Any]:
    w = one.workload
    return {
        "position": one.verdict.position,
        "queue": w.queue,
        "namespace": w.ref.namespace,
        "name": w.ref.name,
        "priority": w.priority,
        "waitedSeconds": round(now - w.created),
        "reason": one.verdict.reason,
        "message": one.verdict.message,
    }
