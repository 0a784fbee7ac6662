"""Grafana's dashboards, written by `make dashboards` into the chart: `python -m e2e.monitoring.dashboards [--check]`.

Built with Grafana's own types (docs/decisions/0030), so that a type checker refuses what their schema does not know.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders.bargauge import Panel as Bars
from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as Graph
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort

from e2e.monitoring.boards import DASHBOARDS
from e2e.monitoring.panels import Board, Panel

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "berth" / "files" / "dashboards"
SOURCE = DataSourceRef("prometheus", "${datasource}")
HALF = 12  # of a row of 24 columns
LEGEND = (
    VizLegendOptions()
    .show_legend(True)
    .display_mode(LegendDisplayMode.LIST)
    .placement(LegendPlacement.BOTTOM)
    .calcs([])
)


def written() -> dict[str, str]:
    """Every dashboard as JSON, by the name of its file."""
    return {f"{board.name}.json": _text(board) for board in DASHBOARDS}


def stale(folder: Path = FOLDER) -> list[str]:
    """The files that are not as `written` has them, too many ones included."""
    wanted = written()
    found = {path.name: path.read_text() for path in folder.glob("*")}
    return sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))


def _text(board: Board) -> str:
    made = Dashboard(f"Berth / {board.title}").uid(f"berth-{board.name}").tags(["berth"]).description(board.about)
    made = made.time("now-6h", "now").refresh("1m").timezone("browser").readonly()
    made = made.with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for name, values in board.variables.items():
        made = made.with_variable(
            QueryVariable(name)
            .label(name.capitalize())
            .query(values)
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    ids = count(1)
    for title, panels in board.rows.items():
        made = made.with_row(Row(title).id(next(ids)))
        for panel in panels:
            made = made.with_panel((_bars(panel) if panel.bars else _graph(panel)).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _graph(panel: Panel) -> Graph:
    graph = Graph().title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE)
    graph = graph.span(HALF).height(8).min(0).fill_opacity(10).legend(LEGEND)
    if panel.stacked:
        graph = graph.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    for query in _queries(panel):
        graph = graph.with_target(query.range())
    return graph


def _bars(panel: Panel) -> Bars:
    bars = Bars().title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE)
    bars = bars.span(HALF).height(8).min(0).orientation(VizOrientation.HORIZONTAL)
    for query in _queries(panel):
        bars = bars.with_target(query.instant())
    return bars


def _queries(panel: Panel) -> list[Dataquery]:
    named = zip("ABCDEF", panel.queries.items(), strict=False)
    return [
        Dataquery().expr(asked).legend_format(legend).ref_id(ref).datasource(SOURCE) for ref, (legend, asked) in named
    ]


def main(arguments: Sequence[str]) -> int:
    """Write them, or with --check say which are not as they should be; the exit status."""
    if "--check" in arguments:
        names = stale()
        print(f"run `make dashboards`: {', '.join(names)}" if names else "dashboards are up to date")
        return int(bool(names))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale():
        (FOLDER / name).unlink(missing_ok=True)
    for name, text in written().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
