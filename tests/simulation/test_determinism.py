"""The same scenario and seed give the same output, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from berth.simulation.case import Case
from berth.simulation.plots import draw
from berth.simulation.run import simulate
from tests.simulation.builders import HOUR, a_case, a_job, a_pool

POOL = a_pool("a100", model="A100-80GB", boards=2, nodes=2, layoutsBy="agent", mig=[{"layout": {"1g.10gb": 7}}])
STREAM = {
    "name": "mixed",
    "arrivals": {"perHour": 20},
    "duration": {"lognormal": "20m", "sigma": 1.0},
    "mix": [{"weight": 2, "gpus": {"profile": "1g.10gb"}}, {"gpus": {"memory": "30Gi"}}],
}


def by_chance(**more: Any) -> Case:
    return a_case(**{"pools": (POOL,), "streams": [STREAM], "horizon": 4 * HOUR, **more})


def output(case: Case) -> str:
    return json.dumps(simulate(case).as_json())


def test_the_same_seed_gives_the_same_output() -> None:
    assert output(by_chance(seed=7)) == output(by_chance(seed=7))


def test_another_seed_gives_another() -> None:
    assert by_chance(seed=7).arrivals != by_chance(seed=8).arrivals


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plots_of_the_same_run_are_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    results = [simulate(a_case(a_job(), horizon=2 * HOUR))]
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    draw(results, first)
    draw(results, second)
    assert first.read_bytes() == second.read_bytes()


def test_one_more_stream_leaves_the_others_as_they_were() -> None:
    other = STREAM | {"name": "other"}
    both = by_chance(streams=[other, STREAM]).arrivals
    assert tuple(a for a in both if a.name.startswith("mixed")) == by_chance().arrivals


def test_the_distribution_of_durations_leaves_arrivals_and_shapes_as_they_were() -> None:
    longer = by_chance(streams=[STREAM | {"duration": "5h"}]).arrivals
    assert [(a.at, a.request) for a in longer] == [(a.at, a.request) for a in by_chance().arrivals]
