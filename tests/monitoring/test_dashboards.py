"""Dashboards: the chart's files are those that Grafana's own types give, which know every field of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from e2e.monitoring.boards import DASHBOARDS
from e2e.monitoring.dashboards import FOLDER, stale, written

FILES = sorted(FOLDER.glob("*.json"))
PANELS = [panel for board in DASHBOARDS for panels in board.rows.values() for panel in panels]


def test_the_charts_dashboards_are_up_to_date() -> None:
    assert stale() == [], "run `make dashboards`"


def test_a_file_that_was_changed_by_hand_is_found(tmp_path: Path) -> None:
    for name, text in written().items():
        (tmp_path / name).write_text(text)
    assert stale(tmp_path) == []
    (tmp_path / "fleet.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    assert stale(tmp_path) == ["fleet.json", "other.json"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_grafanas_schema_knows_every_field(file: Path) -> None:
    register_default_plugins()
    told = json.loads(file.read_text())
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(told))) == told


def test_a_field_that_the_schema_does_not_know_would_be_lost() -> None:
    register_default_plugins()
    told = json.loads(FILES[0].read_text()) | {"tittle": "misspelt"}
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(told))) != told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_are_numbered_apart_and_ask_the_chosen_prometheus(file: Path) -> None:
    board: dict[str, Any] = json.loads(file.read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len({*places}) == len(places)
    assert board["uid"] == f"berth-{file.stem}"


def test_units_are_ones_that_grafana_has() -> None:
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert {panel.unit for panel in PANELS} <= known


def test_panels_say_what_they_show_and_have_titles_of_their_own() -> None:
    assert all(panel.about.endswith(".") for panel in PANELS)
    for board in DASHBOARDS:
        titles = [panel.title for panels in board.rows.values() for panel in panels]
        assert len({*titles}) == len(titles)
