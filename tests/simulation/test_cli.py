"""`berth simulate` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from berth.cli.main import app
from berth.simulation import plots

SCENARIO = """
horizon: 2h
fleet:
  pools:
  - {name: dgx, model: H100-80GB, nodes: 1}
  - {name: a30, model: A30, nodes: 1, boards: 2, mig: [{layout: {2g.12gb: 2}}]}
workloads:
- {name: a, gpus: {count: 8}, duration: 30m}
- {name: b, gpus: {profile: 2g.12gb}, at: 10m, duration: 30m}
"""
runner = CliRunner()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SCENARIO)
    return file


def test_prints_a_table_with_a_column_for_each_scenario(scenario: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(SCENARIO.replace("nodes: 1", "nodes: 2").replace("boards: 2, ", ""))
    told = runner.invoke(app, ["simulate", str(scenario), str(other)])
    assert told.exit_code == 0
    assert "small" in told.stdout
    assert "other" in told.stdout
    assert any(
        line.split()[:2] == ["workloads", "arrived"] and line.split()[-1] == "2" for line in told.stdout.splitlines()
    )


def test_writes_nothing_but_json_to_stdout(scenario: Path) -> None:
    told = runner.invoke(app, ["simulate", str(scenario), "--json", "-"])
    (run,) = json.loads(told.stdout)["runs"]
    assert (run["scenario"], run["summary"]["workloads"]["succeeded"]) == ("small", 2)
    assert len({len(values) for values in run["series"].values()}) == 1
    assert "workloads arrived" in told.stderr


def test_draws_and_writes_into_files(scenario: Path, tmp_path: Path) -> None:
    png, svg, out = tmp_path / "run.png", tmp_path / "run.svg", tmp_path / "run.json"
    told = runner.invoke(app, ["simulate", str(scenario), "--plot", str(png), "--plot", str(svg), "--json", str(out)])
    assert told.exit_code == 0, told.stderr
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
    assert "runs" in json.loads(out.read_text())


@pytest.mark.parametrize(
    ("plot", "message"), [("run.gif", "must end in .png or .svg"), ("nowhere/run.png", "there is no folder")]
)
def test_says_at_once_where_it_can_not_draw(scenario: Path, tmp_path: Path, plot: str, message: str) -> None:
    told = runner.invoke(app, ["simulate", str(scenario), "--plot", str(tmp_path / plot)])
    assert (told.exit_code, told.stdout) == (2, "")
    assert message in told.stderr


def test_says_at_once_that_json_can_not_go_into_a_folder(scenario: Path, tmp_path: Path) -> None:
    told = runner.invoke(app, ["simulate", str(scenario), "--json", str(tmp_path)])
    assert (told.exit_code, told.stdout) == (2, "")
    assert "is a folder" in " ".join(told.stderr.replace("│", "").split())


def test_a_file_that_can_not_be_written_is_status_2(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "run.png").mkdir()
    told = runner.invoke(app, ["simulate", str(scenario), "--plot", str(tmp_path / "run.png")])
    assert told.exit_code == 2
    assert told.stderr == f"berth: {tmp_path}/run.png: Is a directory\n"


def test_says_how_to_get_what_plots_need(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    told = runner.invoke(app, ["simulate", str(scenario), "--plot", str(tmp_path / "run.png")])
    assert told.exit_code == 2
    assert 'pip install "berth[plots]"' in told.stderr


def test_only_checks_where_asked_to(scenario: Path) -> None:
    told = runner.invoke(app, ["simulate", str(scenario), "--validate"])
    assert (told.exit_code, told.stdout) == (0, "small: good, 2 workloads\n")


def test_a_bad_scenario_ends_with_status_2_and_one_line(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("count: 8", "count: 0"))
    told = runner.invoke(app, ["simulate", str(scenario)])
    assert told.exit_code == 2
    assert "small.yaml:8: workloads[0].gpus.count: must be greater than or equal to 1, got 0\n" in told.stderr


def test_prints_the_schema_of_scenarios() -> None:
    schema = json.loads(runner.invoke(app, ["simulate", "--schema"]).stdout)
    assert {"horizon", "fleet", "streams", "policy"} <= schema["properties"].keys()
    assert "gateTimeoutSeconds" in schema["$defs"]["PolicySettings"]["properties"]


def test_asks_for_a_scenario() -> None:
    told = runner.invoke(app, ["simulate"])
    assert told.exit_code == 2
    assert "name at least one scenario" in told.stderr
