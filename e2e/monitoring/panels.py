"""What dashboards consist of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time, or bars of what came together in the time that is shown. `unit` is one of Grafana's."""

    title: str
    about: str
    unit: str
    queries: Mapping[str, str]  # by legend
    stacked: bool = False
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard, and the queries that give its variables their values."""

    name: str
    title: str
    about: str
    rows: Mapping[str, tuple[Panel, ...]]
    variables: Mapping[str, str] = field(default_factory=dict)


def quantiles(metric: str, labels: str = "", by: str = "") -> dict[str, str]:
    """The median and the 95th percentile of a histogram."""
    kept = f"le, {by}" if by else "le"
    rate = f"sum by ({kept}) (rate({metric}_bucket{labels}[$__rate_interval]))"
    name = f"{{{{{by}}}}} " if by else ""
    return {f"{name}p{q:.0f}": f"histogram_quantile({q / 100:g}, {rate})" for q in (50, 95)}
