"""`berth bench spot` and `berth bench joint`: what they print, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from berth.cli.main import app

FIGURES = {"mean_dollars", "mean_kg", "mean_wait_hours", "missed_deadlines", "restarts"}
TERMS = ("--work-hours=3", "--deadline-hours=5", "--restart-overhead-hours=0.25")
START = "2023-12-31T22:30:00Z"  # the year of carbon ends during the window


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two aligned pools of two windows each, and a year of two days of carbon."""
    windows = [
        {"pool": pool, "window": number, "start": START, "gap_seconds": 900, "available": [1, 0, 1, 1, 1] * 4}
        for pool in ("us-west-2a_v100_1", "mine")
        for number in (0, 1)
    ]
    (tmp_path / "spot.jsonl").write_text("".join(json.dumps(window) + "\n" for window in windows))
    hours = [f"2022-01-{day:02}T{hour:02}:00Z,{100 + hour},{500 - hour}" for day in (1, 2) for hour in range(24)]
    (tmp_path / "carbon.csv").write_text("\n".join(["datetime_utc,US-NW-PACW,DE", *hours]) + "\n")
    return tmp_path


def spot(files: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["bench", "spot", f"--spot={files}/spot.jsonl", *TERMS, *options])


def joint(files: Path, *options: str) -> Result:
    where = [f"--spot={files}/spot.jsonl", f"--carbon={files}/carbon.csv"]
    return CliRunner().invoke(app, ["bench", "joint", *where, *TERMS, *options])


def test_spot_prints_the_figures_of_each_policy_as_json(files: Path) -> None:
    read = json.loads(spot(files, "--output=json").stdout)
    assert set(read["policies"]) == {"on_demand_now", "greedy", "uniform_progress", "berth", "clairvoyant"}
    assert all(set(row) == FIGURES for row in read["policies"].values())
    assert set(read["pools"]) == {"us-west-2a_v100_1", "mine"}
    assert read["policies"]["on_demand_now"]["mean_dollars"] == pytest.approx(3.25 * 3.06)


def test_spot_runs_the_operators_own_plan_too(files: Path) -> None:
    policies = json.loads(spot(files, "--live", "--output=json").stdout)["policies"]
    assert policies["operator"]["missed_deadlines"] == 0
    assert policies["operator"]["mean_dollars"] < policies["on_demand_now"]["mean_dollars"]


def test_spot_prints_a_table_for_each_pool(files: Path) -> None:
    printed = spot(files).stdout
    assert printed.count("uniform_progress") == 3
    assert "all windows" in printed


@pytest.mark.parametrize("move", [(), ("--move", "--move-overhead-hours=0.5")])
def test_joint_weighs_carbon_by_its_price(files: Path, move: tuple[str, ...]) -> None:
    zones = "--zones=us-west-2a_v100_1,mine=DE"
    free = json.loads(joint(files, "--output=json", zones, "--carbon-price=0", *move).stdout)["policies"]
    dear = json.loads(joint(files, "--output=json", zones, "--carbon-price=1000", *move).stdout)["policies"]
    assert {"wait_awhile", "naive"} < set(free)
    assert dear["clairvoyant"]["mean_kg"] < free["clairvoyant"]["mean_kg"]
    assert dear["berth"]["mean_kg"] < free["berth"]["mean_kg"]
    assert not any(row["missed_deadlines"] for row in (*free.values(), *dear.values()))


def test_joint_draws_the_frontier(files: Path) -> None:
    pytest.importorskip("matplotlib")
    assert joint(files, "--zones=us-west-2a_v100_1", f"--plot={files}/frontier.svg").exit_code == 0
    assert "<svg" in (files / "frontier.svg").read_text()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1: is no JSON"),
        ('{"pool": "a", "window": 0}', "line 1: lacks gap_seconds, available; wanted an object with pool, window"),
        ('{"pool": "a", "window": 0, "gap_seconds": 0, "available": [1]}', "gap_seconds is 0, no number above 0"),
        ('{"pool": "a", "window": 0, "gap_seconds": 9, "available": [2]}', "available is no list of 0 and 1"),
        ('{"pool": "a", "window": 0, "gap_seconds": 9, "available": [1], "start": "soon"}', "start is 'soon', no time"),
        ("", "lists no window; wanted lines with pool, window, gap_seconds, available"),
    ],
)
def test_a_line_that_is_no_window_is_named(files: Path, line: str, complaint: str) -> None:
    (files / "spot.jsonl").write_text(line + "\n")
    refused = spot(files)
    assert refused.exit_code == 2
    assert f"{files}/spot.jsonl" in refused.stderr
    assert complaint in refused.stderr


def test_an_unknown_pool_is_refused_with_those_there_are(files: Path) -> None:
    refused = spot(files, "--zones=yours")
    assert refused.exit_code == 2
    assert "no window of yours; there are mine, us-west-2a_v100_1" in refused.stderr


def test_a_pool_of_no_known_region_needs_its_carbon_zone(files: Path) -> None:
    refused = joint(files)
    assert refused.exit_code == 2
    assert "name it, as in --zones mine=DE" in refused.stderr


def test_a_deadline_that_on_demand_capacity_cannot_keep_is_refused(files: Path) -> None:
    refused = spot(files, "--deadline-hours=3.1")
    assert refused.exit_code == 2
    assert "needs 3.25 h, its start included" in " ".join(refused.stderr.replace("│", " ").split())
