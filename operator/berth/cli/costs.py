"""What work used and cost, from statuses, for people and for programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console

from berth.cli.told import section, show, table
from berth.control.status import to_rfc3339
from berth.control.usages import amounts_status, usage_from
from berth.model.usage import MOST_WEEKS, NOTHING, Amounts, Usage, total

Raw = Mapping[str, Any]
HEADINGS = ("GPU hours", "kWh", "kg CO2e", "$", "$ on demand", "saved", "kg on demand")
DELETED = "workloads that are deleted: what they used went with them"


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload and what its status tells of its usage."""

    kind: str
    namespace: str
    name: str
    queue: str
    holds: bool  # boards, at this moment
    usage: Usage


@dataclass(frozen=True, slots=True)
class Row:
    """What some workloads used together."""

    name: str
    workloads: int
    used: Amounts


@dataclass(frozen=True, slots=True)
class Report:
    """Rows, the dearest first, and what is in none of them."""

    now: float  # seconds since the epoch
    by: str
    weeks: tuple[str, str] | None  # the first and the last that count; None: all time
    rows: tuple[Row, ...]
    until: float | None  # the moment that all of what still runs is counted to; None: nothing runs
    missing: tuple[str, ...]

    @property
    def total(self) -> Amounts:
        """All rows."""
        return total(row.used for row in self.rows)


BY: Mapping[str, Callable[[Workload], str]] = {
    "queue": lambda w: w.queue,
    "namespace": lambda w: w.namespace,
    "workload": lambda w: f"{w.kind} {w.namespace}/{w.name}",
}


def of_objects(objects: Iterable[Raw]) -> list[Workload]:
    """What TrainingJobs and InferenceServices tell. Raises ValueError or KeyError where a status is not as Berth's."""
    found = []
    for raw in objects:
        status, metadata = raw.get("status") or {}, raw["metadata"]
        running = bool(status.get("placement")) and not status.get("finishedAt")
        found.append(
            Workload(
                raw["kind"],
                metadata["namespace"],
                metadata["name"],
                status.get("queue") or "",
                running or bool(status.get("readyReplicas")),
                usage_from(status.get("usage")),
            )
        )
    return found


def report(workloads: Sequence[Workload], by: str, weeks: tuple[str, str] | None, now: float) -> Report:
    """What they used, in all or in these weeks."""
    groups: dict[str, list[Amounts]] = defaultdict(list)
    for w in workloads:
        if (used := _used(w.usage, weeks)) != NOTHING:
            groups[BY[by](w)].append(used)
    rows = [Row(name, len(found), total(found)) for name, found in groups.items()]
    rows.sort(key=lambda row: (-row.used.usd, -row.used.gpu_hours, row.name))
    until = min((w.usage.until for w in workloads if w.holds and w.usage.until), default=None)
    return Report(now, by, weeks, tuple(rows), until, tuple(_missing(workloads, weeks, total(r.used for r in rows))))


def write(told: Report, file: TextIO) -> None:
    """Print it."""
    show(lambda console: _draw(told, console), file)


def as_data(told: Report) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostReport",
        "time": to_rfc3339(told.now),
        "by": told.by,
        "weeks": {"first": told.weeks[0], "last": told.weeks[1]} if told.weeks else None,
        "countedUntil": None if told.until is None else to_rfc3339(told.until),
        "rows": [{"name": row.name, "workloads": row.workloads} | amounts_status(row.used) for row in told.rows],
        "total": amounts_status(told.total),
        "notCounted": list(told.missing),
    }


def _used(usage: Usage, weeks: tuple[str, str] | None) -> Amounts:
    if weeks is None:
        return usage.total
    first, last = weeks
    return total(amounts for week, amounts in usage.weeks if first <= week <= last)


def _missing(workloads: Sequence[Workload], weeks: tuple[str, str] | None, used: Amounts) -> Iterable[str]:
    yield DELETED
    if new := [w for w in workloads if w.holds and not w.usage.until]:
        yield f"{len(new)} workloads that hold boards, such as {_name(new)}: their statuses tell of no usage yet"
    full = [w for w in workloads if len(w.usage.weeks) == MOST_WEEKS]
    if weeks and (older := [w for w in full if weeks[0] < w.usage.weeks[0][0]]):
        first = max(w.usage.weeks[0][0] for w in older)
        yield f"weeks before {first} of {len(older)} workloads, such as {_name(older)}: {MOST_WEEKS} are kept of each"
    unknown = {one.model for w in workloads for one in w.usage.bought if one.amounts.gpu_hours and not one.amounts.usd}
    if unknown:
        yield f"dollars of {', '.join(sorted(unknown))}: the price book has none, or nothing, for them"
    if used.unknown_kwh > 0:
        yield (
            f"carbon of {used.unknown_kwh:,.1f} kWh: no source told of these hours; "
            "set carbon.zones[].gramsPerKwh for a figure then"
        )


def _name(workloads: Sequence[Workload]) -> str:
    return f"{workloads[0].namespace}/{workloads[0].name}"


def _draw(told: Report, console: Console) -> None:
    if not told.rows:
        console.print("Nothing was used.")
    else:
        lines = [(row.name, *_numbers(row.used)) for row in told.rows]
        console.print(table([*lines, ("in all", *_numbers(told.total))], (told.by, *HEADINGS)))
        console.print(f"\n{_when(told)}. On demand: if all had started at once and nothing had interrupted them.")
    section(console, "Not counted", table([(f"- {one}",) for one in told.missing]))


def _when(told: Report) -> str:
    period = "In all" if told.weeks is None else f"In {' to '.join(dict.fromkeys(told.weeks))}"
    return period if told.until is None else f"{period}; what runs is counted until {to_rfc3339(told.until)}"


def _numbers(used: Amounts) -> tuple[str, ...]:
    saved = f"{1 - used.usd / used.on_demand_usd:.0%}" if used.on_demand_usd > 0 else ""
    known = used.on_demand_kg is not None and not used.unknown_kwh
    emitted = f"{used.kg:,.2f}" if used.kg or not used.unknown_kwh else ""
    return (
        f"{used.gpu_hours:,.1f}",
        f"{used.kwh:,.1f}",
        emitted,
        f"{used.usd:,.2f}",
        f"{used.on_demand_usd:,.2f}",
        saved,
        f"{used.on_demand_kg:,.2f}" if known else "",
    )
