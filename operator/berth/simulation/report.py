"""The summary as a table, one column for each scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from berth.simulation.metrics import Result

Summary = Mapping[str, Any]

ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("workloads arrived", lambda s: f"{s['workloads']['arrived']:,}"),
    ("  placed", lambda s: f"{s['workloads']['placed']:,}"),
    ("  succeeded", lambda s: f"{s['workloads']['succeeded']:,}"),
    ("  failed", lambda s: f"{s['workloads']['failed']:,}"),
    ("  never placed", lambda s: f"{s['workloads']['neverPlaced']:,}"),
    ("waiting for a place, median", lambda s: duration(s["waitingSeconds"]["p50"])),
    ("  90 % within", lambda s: duration(s["waitingSeconds"]["p90"])),
    ("  99 % within", lambda s: duration(s["waitingSeconds"]["p99"])),
    ("  longest", lambda s: duration(s["waitingSeconds"]["max"])),
    ("workloads waiting, on average", lambda s: f"{s['pending']['mean']:.1f}"),
    ("  at most", lambda s: f"{s['pending']['max']:,}"),
    ("allocated, of all boards", lambda s: percent(s["utilisation"]["all"])),
    ("  whole boards", lambda s: percent(s["utilisation"]["boards"])),
    ("  MIG slices", lambda s: percent(s["utilisation"]["slices"])),
    ("free, and of no use to any workload", lambda s: percent(s["fragmentation"]["toAll"])),
    ("  of no use to the mean workload", lambda s: percent(s["fragmentation"]["toMean"])),
    ("goodput: useful, of what was allocated", lambda s: percent(s["goodput"])),
    ("evictions", lambda s: f"{sum(s['evictions'].values()):,}"),
    ("repartitions", lambda s: f"{s['repartitions']:,}"),
    ("board-hours allocated", lambda s: f"{s['boardHours']['held']:,.0f}"),
    ("  of", lambda s: f"{s['boardHours']['installed']:,.0f}"),
    ("list price of what was allocated", lambda s: f"${s['usd']['held']:,.0f}"),
    ("  of what was idle", lambda s: f"${s['usd']['idle']:,.0f}"),
    ("cost, by the scenario's prices", lambda s: f"${s['cost']['usd']:,.0f}"),
    ("  if started at once, on demand", lambda s: f"${s['cost']['onDemandUsd']:,.0f}"),
    ("energy", lambda s: f"{s['cost']['kWh']:,.0f} kWh"),
    ("CO2e", lambda s: _kilograms(s["cost"]["kgCO2e"])),
    ("  if started at once, on demand", lambda s: _kilograms(s["cost"]["onDemandKgCO2e"])),
    ("deadlines missed", lambda s: f"{s['cost']['deadlines']['missed']:,} of {s['cost']['deadlines']['due']:,}"),
    ("plans made", lambda s: f"{s['cycles']:,}"),
)


def table(results: Sequence[Result]) -> Table:
    """What the runs came to, side by side."""
    found = Table(show_edge=False, pad_edge=False)
    found.add_column("")
    for result in results:
        found.add_column(f"{result.name}\n{duration(result.horizon_seconds)}, seed {result.seed}", justify="right")
    for label, value in ROWS:
        found.add_row(label, *(value(result.summary) for result in results))
    for queue in sorted({name for result in results for name in result.summary["queues"]}):
        found.add_row(f"queue {queue}: part of its siblings' use", *(_part(r.summary, queue) for r in results))
    return found


def _part(summary: Summary, queue: str) -> str:
    told = summary["queues"].get(queue)
    return f"{percent(told['part'])} ({percent(told['due'])} due)" if told else "–"


def _kilograms(kg: float | None) -> str:
    return "–" if kg is None else f"{kg:,.1f} kg"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.05), duration(90), duration(5400), duration(604800)
    ('0.1 s', '1.5 min', '1.5 h', '7.0 d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def percent(share: float | None) -> str:
    """A share of 0 to 1 in percent; a dash where there is nothing to share."""
    return "–" if share is None else f"{100 * share:.1f} %"
