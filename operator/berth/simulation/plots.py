"""Pictures of runs: utilisation, fragmentation and waiting over time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berth.simulation.metrics import Result
from berth.simulation.report import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
# Okabe and Ito's colours, which people with any kind of colour vision tell apart; the yellow is too faint for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e5e5e5",
    "svg.hashsalt": "berth",  # else ids in the file differ from run to run
}
HOUR, DAY = 3600.0, 86400.0
NEVER = float("nan")  # leaves a gap in a line

Line = tuple[str, list[float], list[float]]
"""Its label, seconds since the start, and values."""


class PlotError(ValueError):
    """Nothing can be drawn; the message says what to do about it."""


def check(file: Path) -> None:
    """Raises PlotError where a plot can't be made, before anybody waits for a run."""
    if file.suffix not in FORMATS:
        raise PlotError(f"--plot {file}: must end in {' or '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise PlotError(f"--plot {file}: there is no folder {file.parent}")
    if find_spec("matplotlib") is None:
        raise PlotError('--plot needs matplotlib: pip install "berth[plots]"')


def draw(results: Sequence[Result], file: Path) -> None:
    """Draw runs into a PNG or SVG file: the same runs give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    horizon = max(result.horizon_seconds for result in results)
    unit, size = ("days", DAY) if horizon >= 3 * DAY else ("hours", HOUR)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 7.5), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True)
        for panel, (title, label, lines) in zip(panels, _panels(results), strict=True):
            _draw_lines(panel, lines, size)
            panel.set_title(title, loc="left", fontweight="bold")
            panel.set_ylabel(label)
            panel.set_ylim(bottom=0)
        for panel in panels[:2]:
            panel.set_ylim(0, 100)
        panels[-1].set_xlabel(f"time since the start ({unit})")
        panels[-1].set_xlim(0, horizon / size)
        panels[-1].xaxis.set_major_locator(MultipleLocator(_step(horizon / size)))
        panels[-1].yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})


def _step(length: float) -> float:
    """Hours or days between two marks: as people divide them, and no more than ten marks."""
    return next((step for step in (0.1, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48) if length <= 9 * step), length / 9)


def _panels(results: Sequence[Result]) -> list[tuple[str, str, list[Line]]]:
    """Title, label of the vertical axis, and lines."""
    if len(results) > 1:
        return [
            ("Utilisation", "boards allocated (%)", [_line(r, r.name, "allocated", 100) for r in results]),
            (
                "Fragmentation",
                "free and useless to\nthe mean workload (%)",
                [_line(r, "", "uselessToMean", 100) for r in results],
            ),
            ("Waiting", "workloads", [_line(r, _waits(r), "pending") for r in results]),
        ]
    (run,) = results
    kinds = [("boards", "boardsAllocated", "whole boards"), ("slices", "slicesAllocated", "MIG slices")]
    there = [(series, label) for key, series, label in kinds if run.summary["utilisation"][key] is not None]
    return [
        ("Utilisation", "allocated (%)", [_line(run, label, series, 100) for series, label in there]),
        (
            "Fragmentation",
            "of the free boards (%)",
            [
                _line(run, "of no use to the mean workload", "uselessToMean", 100),
                _line(run, "of no use to any", "uselessToAll", 100),
            ],
        ),
        ("Waiting", "workloads", [_line(run, _waits(run), "pending")]),
    ]


def _line(result: Result, label: str, series: str, factor: float = 1.0) -> Line:
    values = [NEVER if value is None else factor * value for value in result.series[series]]
    return label, [at for at in result.series["atSeconds"] if at is not None], values


def _waits(result: Result) -> str:
    waits = result.summary["waitingSeconds"]
    return f"half wait up to {duration(waits['p50'])}, 99 % up to {duration(waits['p99'])}"


def _draw_lines(panel: Axes, lines: Sequence[Line], size: float) -> None:
    for (label, times, values), colour in zip(lines, COLOURS * len(lines), strict=False):
        panel.plot([at / size for at in times], values, color=colour, linewidth=1.2, label=label, clip_on=False)
    if any(label for label, _, _ in lines):
        panel.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(lines), borderpad=0)
