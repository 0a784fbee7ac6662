"""An explanation for people, and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from berth.control.status import device_status, placement_status, to_rfc3339, verdict_status
from berth.model.workloads import Kind
from berth.planning.explain import Explanation, Offer
from berth.planning.options import name_of
from berth.planning.running import RunnerUp, Running

PLAIN_WIDTH = 120  # of what goes to a file or a pipe
COLOURS = {"Running": "green", "Succeeded": "green", "Failed": "red", "Misconfigured": "red"}


def write(told: Explanation, file: TextIO, others: Sequence[str] = ()) -> None:
    """Print it, and what it means to `others`."""
    show(lambda console: _draw(told, others, console), file)


def show(draw: Callable[[Console], None], file: TextIO) -> None:
    """Print what is drawn: in colour on a terminal, plain elsewhere."""
    if file.isatty():
        draw(Console(file=file, highlight=False))
        return
    drawn = StringIO()
    draw(Console(file=drawn, highlight=False, width=PLAIN_WIDTH))
    file.writelines(line.rstrip() + "\n" for line in drawn.getvalue().splitlines())


def _draw(told: Explanation, others: Sequence[str], console: Console) -> None:
    ref = told.ref
    state = Text(str(told.state), COLOURS.get(told.state, "yellow"))
    console.print(Text.assemble((f"{ref.kind} {ref.namespace}/{ref.name}", "bold"), ": ", state))
    console.print(Padding(_facts(told), (0, 0, 0, 2)))
    if told.running is not None:
        section(console, "Where it runs, and at what price", _running(told.running))
    if told.causes:
        section(console, "Nodes without room for one more", _causes(told))
    if told.offers:
        section(console, "What would do", _offers(told.offers, told.ref.kind))
    if told.remedies:
        found = _list(remedy.message for remedy in told.remedies)
        section(console, "Any one of these would place it (each was tried on a copy of what was seen)", found)
    elif told.causes:
        console.print("\nNo single change that was tried would place it.")
    if others:
        section(console, "What it would mean to others", _list(others))
    if told.notes:
        section(console, "Notes", _list(told.notes))


def as_data(told: Explanation) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    ref = told.ref
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Explanation",
        "workload": {"kind": str(ref.kind), "namespace": ref.namespace, "name": ref.name, "uid": ref.uid},
        "state": str(told.state),
        "time": to_rfc3339(told.now),
        "queue": told.queue,
        "priority": told.priority,
        "asks": told.asks,
        "verdict": verdict_status(told.verdict),
        "recordedVerdict": verdict_status(told.recorded) if told.recorded else None,
        "nodes": [{"cause": c.cause, "count": c.count, "examples": list(c.examples)} for c in told.causes],
        "options": [
            {
                "device": device_status(o.device),
                "usdPerHour": o.usd_per_hour,
                "boards": o.boards,
                "fits": o.fits,
                "wanted": o.wanted,
                "forbiddenBy": o.reason or None,
                "message": o.message or None,
            }
            for o in told.offers
        ],
        "remedies": [{"way": str(r.way), "message": r.message, **r.details} for r in told.remedies],
        "running": _running_data(told.running) if told.running else None,
        "notes": list(told.notes),
    }


def _running_data(running: Running) -> dict[str, Any]:
    return {
        "placement": placement_status(running.placement),
        "where": running.where,
        "price": [{"term": t.name, "usd": t.usd, "perHour": t.per_hour, "message": t.message} for t in running.terms],
        "freeNodesOpened": running.opens,
        "runnerUp": _runner_up_data(running.runner_up),
        "elsewhere": _runner_up_data(running.elsewhere),
    }


def _runner_up_data(up: RunnerUp | None) -> dict[str, Any] | None:
    if up is None:
        return None
    return {
        "device": device_status(up.device),
        "usdPerHour": up.usd_per_hour,
        "dearerBy": up.dearer_by,
        "nodes": list(up.nodes),
        "freeNodesOpened": up.opens,
        "message": up.message,
    }


def _facts(told: Explanation) -> Table:
    facts = [("asks for", told.asks), ("queue", f"{told.queue}, priority {told.priority}")]
    facts.append(("verdict", f"{told.verdict.reason}: {told.verdict.message}"))
    if told.recorded is not None and told.recorded != told.verdict:
        facts.append(("last written", f"{told.recorded.reason}: {told.recorded.message}"))
    return table([(name, value) for name, value in facts if value])


def _causes(told: Explanation) -> Table:
    rows = []
    for cause in told.causes:
        more = ", …" if cause.count > len(cause.examples) else ""
        rows.append((str(cause.count), cause.cause, ", ".join(cause.examples) + more))
    return table(rows, ("nodes", "cause", "such as"))


def _offers(offers: Iterable[Offer], kind: Kind) -> Table:
    members = "workers" if kind is Kind.TRAINING_JOB else "replicas"
    rows = [
        (
            name_of(o.device),
            f"{o.fits} of {o.wanted}",
            f"{o.usd_per_hour:.2f}",
            o.boards,
            f"{o.reason}: {o.message}" if o.reason else "nothing",
        )
        for o in offers
    ]
    return table(rows, ("each", f"{members} that fit now", "$/h for all", "boards", "forbidden by"))


def _running(running: Running) -> Table:
    prices = ((t.name, f"${t.usd:.2f}{'/h' if t.per_hour else ''}: {t.message}") for t in running.terms)
    rows = [("where", running.where), *prices]
    rows.append(("fragments", _opened(running.opens)))
    if (up := running.runner_up) is not None:
        change = f"${abs(up.dearer_by):.2f}/h {'more' if up.dearer_by >= 0 else 'less'}"
        fits = f"{up.message}; {_opened(up.opens)}" if up.nodes else f"not now: {up.message}"
        rows.append(("runner-up", f"{name_of(up.device)} each at ${up.usd_per_hour:.2f}/h, {change}: {fits}"))
    else:
        rows.append(("runner-up", "none: no other device of this fleet matches"))
    other = running.elsewhere
    nodes = f"{other.message}; {_opened(other.opens)}" if other else "the same device would not fit on other nodes now"
    rows.append(("elsewhere", nodes))
    rows.append(("", "Prices are list prices; what it is compared with was planned anew, as of now."))
    return table(rows)


def _opened(count: int) -> str:
    """What a place costs large work."""
    return f"breaks into {count} free node{'s' if count != 1 else ''}" if count else "breaks into no free node"


def _list(lines: Iterable[str]) -> Table:
    return table([("-", line) for line in lines])


def table(rows: Iterable[tuple[str, ...]], headings: tuple[str, ...] = ()) -> Table:
    drawn = Table(box=None, show_header=bool(headings), padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    rows = list(rows)
    for i in range(len(rows[0])):
        last = i == len(rows[0]) - 1
        drawn.add_column(headings[i] if headings else "", overflow="fold", no_wrap=not last)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def section(console: Console, title: str, body: Table) -> None:
    console.print()
    console.print(Text(title, "bold"))
    console.print(Padding(body, (0, 0, 0, 2)))
