"""The frontier of dollars and CO2 over carbon prices, beside the policies that know no price."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from berth.bench.spot import Figures
from berth.simulation.plots import COLOURS, STYLE


def draw(points: Mapping[str, Figures], curves: Mapping[float, Mapping[str, Figures]], file: Path) -> None:
    """Draw into a PNG or SVG file: dollars and kg in percent of `on_demand_now`; curves by carbon price and policy."""
    import matplotlib
    from matplotlib.figure import Figure

    now = points["on_demand_now"]
    weighed = list(next(iter(curves.values())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 5), layout="constrained")
        panel = figure.subplots()
        for name, colour in zip(weighed, COLOURS, strict=False):
            rows = [curves[price][name] for price in curves]
            dollars, kilograms = _percent(rows, now)
            panel.plot(dollars, kilograms, marker="o", markersize=3, color=colour, label=name)
            for price, x, y in zip(curves, dollars, kilograms, strict=True):
                panel.annotate(f"${price:g}", (x, y), textcoords="offset points", xytext=(4, 4), color=colour)
        others = [name for name in points if name not in weighed]
        for name, colour in zip(others, COLOURS[len(weighed) :], strict=False):
            panel.plot(*_percent([points[name]], now), marker="s", linestyle="none", color=colour, label=name)
        panel.set_title("Dollars and CO2 by carbon price per kg", loc="left", fontweight="bold")
        panel.set_xlabel("dollars (% of on-demand at once)")
        panel.set_ylabel("CO2 (% of on-demand at once)")
        panel.legend(frameon=False)
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})


def _percent(rows: list[Figures], now: Figures) -> tuple[list[float], list[float]]:
    dollars = [100 * row.mean_dollars / now.mean_dollars for row in rows]
    return dollars, [100 * row.mean_kg / now.mean_kg if now.mean_kg else 100.0 for row in rows]
