"""`berth bench carbon`: rules of others by hand, laws of ours, the published figures where the traces are present."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from berth.bench.carbon import COMPARATORS, Setting, compare, compare_rules, requests
from berth.bench.carbon_data import Intensities, Job, load_hours, load_jobs
from berth.bench.shifting import (
    Request,
    carbon_time,
    ecovisor,
    lowest_slot,
    lowest_window,
    wait_awhile,
    wait_awhile_window,
)
from berth.cli.main import app
from berth.planning.deferral import HOUR, Curve, Run
from tests.bench.openb import DATA

CARBON, JOBS = DATA.parent / "carbon" / "2022-hourly.csv.gz", DATA.parent / "jobs" / "gaia-pai-1k.csv"
FIGURES = ["carbon_ratio", "mean_wait_hours", "mean_kg", "mean_dollars", "missed_deadlines", "restarts"]
OURS = ["berth", "berth_window", "berth_usual_length", "berth_prompt", "berth_noisy"]


def a_job(hours: float, *, wait: float, at: float = 0.0, usual: float = 1.0) -> Request:
    return Request(at * HOUR, hours * HOUR, 1, wait * HOUR, usual * HOUR)


def in_hours(runs: tuple[Run, ...]) -> list[tuple[float, float]]:
    return [(begin / HOUR, end / HOUR) for begin, end in runs]


def test_lowest_slot_looks_at_the_first_hour_alone() -> None:
    curve = Curve(0, [300, 100, 900, 200, 200])
    assert in_hours(lowest_slot(curve, a_job(2, wait=3, at=0.5))) == [(1, 3)]


def test_lowest_window_knows_the_usual_length_alone() -> None:
    curve = Curve(0, [350, 100, 900, 200, 200, 900])
    assert in_hours(lowest_window(curve, a_job(3, wait=3, usual=2))) == [(3, 6)]


def test_carbon_time_would_rather_save_soon() -> None:
    curve = Curve(0, [300, 100, 300, 300, 300, 90])
    assert in_hours(lowest_window(curve, a_job(1, wait=5))) == [(5, 6)]
    assert in_hours(carbon_time(curve, a_job(1, wait=5))) == [(1, 2)]


def test_ecovisor_runs_below_the_quantile_of_the_day_until_it_has_waited_enough() -> None:
    curve = Curve(0, [400, 50, 400, 50, *[400] * 6, *[100] * 14])
    assert in_hours(ecovisor(curve, a_job(2, wait=9))) == [(1, 2), (3, 4)]
    assert in_hours(ecovisor(curve, a_job(2, wait=1.5))) == [(1, 2), (2.5, 3.5)]


def test_wait_awhile_takes_the_cleanest_hours_or_the_cleanest_window() -> None:
    curve = Curve(0, [400, 100, 300, 100, 250, 400])
    assert in_hours(wait_awhile(curve, a_job(2, wait=4))) == [(1, 2), (3, 4)]
    assert in_hours(wait_awhile_window(curve, a_job(2, wait=4))) == [(3, 5)]


def test_what_a_job_may_wait_and_its_usual_length_depend_on_its_own() -> None:
    jobs = [Job(0, 600, 1), Job(0, 1200, 2), Job(5, 4 * HOUR, 1)]
    assert requests(jobs, Setting()) == [
        Request(0, 600, 1, 6 * HOUR, 900),
        Request(0, 1200, 2, 6 * HOUR, 900),
        Request(5, 4 * HOUR, 1, 24 * HOUR, 4 * HOUR),
    ]


@settings(max_examples=25)
@given(
    st.lists(st.floats(1, 900), min_size=24, max_size=120),
    st.lists(st.tuples(st.floats(0, 9e4), st.floats(60, 9e4), st.integers(1, 4)), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.1]),
)
def test_nobody_is_late_and_ours_is_between_the_optimum_and_running_at_once(
    hours: list[float], jobs: list[tuple[float, float, int]], restart: float
) -> None:
    setting = Setting(restart_overhead_hours=restart, seeds=0)
    found = compare(Curve(0, hours).hours, requests([Job(*job) for job in jobs], setting), setting)
    on_time = [*OURS[:-1], *(COMPARATORS if not restart else ())]
    assert dict.fromkeys(on_time, 0) == {name: found[name].missed_deadlines for name in on_time}
    assert found["clairvoyant"].carbon_ratio - 1e-9 <= found["berth"].carbon_ratio <= 1 + 1e-9
    assert found["berth"].carbon_ratio <= found["berth_window"].carbon_ratio + 1e-9
    assert found["berth_prompt"].mean_wait_hours <= found["ecovisor"].mean_wait_hours + 1e-5


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two days of two zones, and three jobs."""
    lines = [f"2022-01-{1 + h // 24:02}T{h % 24:02}:00Z,{300 + 10 * (h % 24)},{100 + h % 7}" for h in range(48)]
    (tmp_path / "hours.csv").write_text("\n".join(["datetime_utc,DE,FR", *lines]))
    (tmp_path / "jobs.csv").write_text("arrival_time,length,cpus\n0,3600,1\n1800,9000,2\n40000,600,1\n")
    return ["--carbon", f"{tmp_path}/hours.csv", "--jobs", f"{tmp_path}/jobs.csv", "--first-hour=0", "--hours=48"]


def bench(*options: str) -> Result:
    return CliRunner().invoke(app, ["bench", "carbon", *options])


def test_json_has_each_policy_with_its_figures(files: list[str]) -> None:
    found = json.loads(bench(*files, "--zones=DE", "--output=json").stdout)
    assert list(found) == ["policies", "zones"]
    assert list(found["policies"]) == [*COMPARATORS, "clairvoyant", *OURS]
    assert all(list(figures) == FIGURES for figures in found["policies"].values())
    assert found["zones"] == {"DE": {"policies": found["policies"]}}


def test_the_table_says_the_same_of_each_zone_and_of_their_mean(files: list[str]) -> None:
    result = bench(*files, "--zones=DE,FR")
    assert result.exit_code == 0
    assert all(title in result.stdout for title in ("DE", "FR", "mean of 2 zones", "wait_awhile_window"))


@pytest.mark.parametrize(
    ("option", "complaint"), [("--zones=GB", "has no zone 'GB'; it has DE, FR"), ("--hours=99", "has 48 hours, not 99")]
)
def test_says_what_can_not_be_used(files: list[str], option: str, complaint: str) -> None:
    result = bench(*files, "--zones=DE", option)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert complaint in result.stderr


needs_traces = pytest.mark.skipif(not (CARBON.exists() and JOBS.exists()), reason="the public traces are absent")


@pytest.fixture(scope="module")
def south_australia() -> Intensities:
    return load_hours(CARBON).span("AU-SA", 7000, 720)


@needs_traces
def test_published_figures_are_reproduced(south_australia: Intensities) -> None:
    jobs = requests(load_jobs(JOBS), Setting())
    found = {name: figures.carbon_ratio for name, figures in compare_rules(south_australia, jobs, Setting()).items()}
    published = {"lowest_slot": 0.780, "lowest_window": 0.684, "carbon_time": 0.725, "ecovisor": 0.639}
    assert {name: pytest.approx(ratio, abs=0.005) for name, ratio in published.items()} == {
        name: found[name] for name in published
    }


@needs_traces
def test_ours_is_near_the_optimum_and_below_ecovisor_when_as_prompt_or_as_ignorant_and_bears_noise(
    south_australia: Intensities,
) -> None:
    setting = Setting(seeds=1)
    found = compare(south_australia, requests(load_jobs(JOBS), setting)[::12], setting)
    assert found["berth"].carbon_ratio <= 1.05 * found["clairvoyant"].carbon_ratio
    assert found["berth_prompt"].mean_wait_hours <= found["ecovisor"].mean_wait_hours
    assert found["berth_prompt"].carbon_ratio < found["ecovisor"].carbon_ratio
    assert found["berth_usual_length"].carbon_ratio < found["ecovisor"].carbon_ratio
    assert found["berth_noisy"].carbon_ratio < found["berth"].carbon_ratio + 0.02
    assert dict.fromkeys(found, 0) == {name: figures.missed_deadlines for name, figures in found.items()}
