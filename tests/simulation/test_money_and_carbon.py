"""Prices, spot windows, carbon series and deadlines in simulations, worked by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from berth.api.problems import Misconfigured
from berth.simulation.case import ScenarioError, load, prepare
from berth.simulation.metrics import Result
from berth.simulation.run import simulate
from tests.simulation.builders import HOUR, PLACED, READY, a_case, a_job, a_pool, a_service, record, run

START = READY - PLACED  # from a place to the run's beginning
STOP = 15.0  # from the word to stop to its end
KILOWATTS = 8 * (80.5 + 0.8 * 619.5) * 1.5 * 1.2 / 1000  # a node of H100 at work
PRICES = {
    "spotShare": 0.25,
    "prices": [{"model": "H100", "usdPerHour": 4.0}, {"model": "H100", "region": "west", "usdPerHour": 6.0}],
}


def a_region(name: str, **more: Any) -> dict[str, Any]:
    """A pool of one node with eight boards in a region."""
    return a_pool(name, topology={"region": name}, **more)


def a_sky(folder: Path, **grams: list[float]) -> dict[str, Any]:
    """A series from noon on, hour by hour; the scenario begins an hour later."""
    zones = sorted(grams)
    lines = [",".join(["datetime_utc", *zones])]
    for i, row in enumerate(zip(*(grams[zone] for zone in zones), strict=True)):
        lines.append(",".join([f"2026-03-0{1 + (12 + i) // 24}T{(12 + i) % 24:02}:00Z", *map(str, row)]))
    (folder / "sky.csv").write_text("\n".join(lines))
    return {"file": "sky.csv", "begins": "2026-03-01T13:00Z", "zones": [{"zone": zone} for zone in zones]}


def ran(folder: Path, *work: Any, **more: Any) -> Result:
    """What a scenario with files beside it comes to."""
    fields = {"horizon": 10 * HOUR, "fleet": {"pools": [a_pool()]}, "workloads": list(work), **more}
    return simulate(prepare("case", fields, folder))


def test_a_job_costs_what_its_boards_cost_from_its_admission_on() -> None:
    result = run(a_job(), pools=(a_region("east"),), prices=PRICES)
    hours = (START + HOUR + PLACED) / HOUR
    cost = result.summary["cost"]
    assert cost["usd"] == pytest.approx(8 * 4 * hours, abs=1e-3)
    assert cost["onDemandUsd"] == cost["usd"]
    assert cost["kWh"] == pytest.approx(KILOWATTS * hours, abs=1e-3)
    assert (cost["kgCO2e"], cost["onDemandKgCO2e"]) == (None, None)
    assert record(result, "job")["usd"] == cost["usd"]


def test_a_service_costs_what_its_replicas_hold() -> None:
    cost = run(a_service(gpus=2), prices=PRICES, horizon=2 * HOUR).summary["cost"]
    assert cost["usd"] == pytest.approx(2 * 4 * 2, rel=0.01)


def test_work_goes_where_the_book_says_that_it_costs_less() -> None:
    pools = (a_region("west"), a_region("east"))
    assert run(a_job(), pools=pools, prices=PRICES).summary["cost"]["usd"] == pytest.approx(32, rel=0.02)


def test_spot_capacity_that_is_taken_back_stops_a_job_which_goes_on_elsewhere_from_what_it_saved() -> None:
    spot = a_region("east", spot={"away": [{"at": "2h", "for": "9h"}], "notice": 120})
    work = a_job(duration=4 * HOUR, estimatedRuntime="4h", checkpoint={"every": "30m"})
    result = run(work, pools=(spot, a_region("west")), prices=PRICES)
    job = record(result, "job")
    assert (job["outcome"], job["evictions"]) == ("Succeeded", 1)
    saved = 2 * HOUR - 120 + PLACED - READY  # at the word to stop: the planner answers to the notice at once
    again = 2 * HOUR - 120 + PLACED + STOP + 2 * PLACED + START
    assert job["endedAt"] == pytest.approx(again + 4 * HOUR - saved, abs=1)
    on_spot, on_demand = 2 * HOUR - 120 + STOP, START + 4 * HOUR - saved
    assert job["usd"] == pytest.approx(8 * (1.0 * on_spot + 6.0 * on_demand) / HOUR, abs=0.05)
    # On demand it would have held boards for its work and one start, at the prices of where it did that work.
    assert job["onDemandUsd"] == pytest.approx(8 * (4.0 * saved + 6.0 * on_demand) / HOUR, abs=0.05)


def test_what_saves_nothing_begins_anew() -> None:
    spot = a_region("east", spot={"away": [{"at": "1h", "for": "1h"}]})
    job = record(run(a_job(duration=2 * HOUR), pools=(spot,), prices=PRICES), "job")
    assert job["endedAt"] == pytest.approx(2 * HOUR + PLACED + START + 2 * HOUR, abs=1)


def test_without_notice_what_was_done_since_the_last_periodic_save_is_lost() -> None:
    spot = a_region("east", spot={"away": [{"at": READY + 1.75 * HOUR, "for": "1h"}], "notice": 0})
    job = record(run(a_job(duration=2 * HOUR, checkpoint={"every": "30m"}), pools=(spot,), prices=PRICES), "job")
    assert job["endedAt"] == pytest.approx(READY + 2.75 * HOUR + START + 0.5 * HOUR, abs=1)


def test_capacity_that_is_not_there_at_first_is_waited_for() -> None:
    spot = a_region("east", spot={"away": [{"at": 0, "for": "1h"}]})
    assert record(run(a_job(), pools=(spot,)), "job")["placedAt"] == pytest.approx(HOUR + PLACED)


def test_windows_are_read_as_published_traces_have_them(tmp_path: Path) -> None:
    entries = [
        {"pool": "a", "window": 0, "gap_seconds": 600, "available": [1, 1]},
        {"pool": "b", "window": 1, "gap_seconds": 600, "available": [0, 0, 1, 1, 0, 1]},
    ]
    (tmp_path / "w.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, entries)).encode()))
    pool = a_pool(spot={"trace": "w.jsonl.gz", "pool": "b", "window": 1})
    fields = {"horizon": "5h", "fleet": {"pools": [pool]}, "workloads": [a_job()]}
    assert prepare("case", fields, tmp_path).away == {"dgx": ((0, 1200), (2400, 600))}


def test_a_job_waits_for_clean_hours_and_the_account_says_what_that_saved(tmp_path: Path) -> None:
    """Dirty for two hours, then clean; a deadline leaves time for both."""
    sky = a_sky(tmp_path, dgx=[999.0, *[500.0] * 2, *[100.0] * 20])
    terms = {"carbon": {"budget": "10%", "maxDelay": "6h"}, "estimatedRuntime": "2h", "deadline": "9h"}
    fields = {"carbon": sky, "fleet": {"pools": [a_region("dgx")]}}
    result = ran(tmp_path, a_job(duration=2 * HOUR, **terms), **fields)
    job, hours = record(result, "job"), (START + 2 * HOUR) / HOUR
    assert job["placedAt"] >= 2 * HOUR - START - 1
    assert job["kgCO2e"] == pytest.approx(KILOWATTS * 0.1 * hours, rel=0.01)
    assert job["onDemandKgCO2e"] == pytest.approx(KILOWATTS * 0.5 * 2, rel=0.01)
    assert result.summary["cost"]["deadlines"] == {"due": 1, "missed": 0}


def test_a_deadline_that_can_not_be_kept_is_counted() -> None:
    late = [a_job("late", duration=3 * HOUR, deadline="2h"), a_job("never", at=HOUR, deadline="1h")]
    result = run(*late, a_job("open", deadline="20h"))
    assert result.summary["cost"]["deadlines"] == {"due": 2, "missed": 2}
    assert record(result, "late")["deadlineAt"] == 2 * HOUR


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"carbon": {"file": "none.csv", "zones": [{"zone": "a"}]}}, "can't be read"),
        ({"carbon": {"file": "sky.csv", "zones": [{"zone": "b"}]}}, "has no column 'b': use one of a"),
        ({"carbon": {"file": "sky.csv", "begins": "2026-03-07T00:00Z", "zones": [{"zone": "a"}]}}, "no such hour"),
        ({"carbon": {"file": "sky.csv", "zones": [{"zone": "a"}]}, "horizon": "90h"}, "has 3 hours of a"),
        ({"fleet": {"pools": [a_pool(spot={"trace": "w.jsonl", "window": 3})]}}, "has no window 3"),
        ({"fleet": {"pools": [a_pool(spot={"trace": "bad.jsonl"})]}}, "a line is no window"),
    ],
)
def test_files_that_can_not_be_used_are_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    a_sky(tmp_path, a=[1.0, 2.0, 3.0])
    (tmp_path / "w.jsonl").write_text('{"pool": "a", "window": 0, "gap_seconds": 600, "available": [1]}')
    (tmp_path / "bad.jsonl").write_text("[]")
    with pytest.raises(Misconfigured) as caught:
        ran(tmp_path, a_job(), **change)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("spot: {}", "set exactly one of away"),
        ("spot: {away: [{at: soon, for: 1h}]}", "must be seconds"),
    ],
)
def test_windows_that_are_wrong_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(
        f"horizon: 1h\nfleet: {{pools: [{{name: a, model: L4, nodes: 1, {text}}}]}}\n"
        "workloads: [{name: b, gpus: {count: 1}}]\n"
    )
    with pytest.raises(ScenarioError, match=complaint):
        load(file)


@pytest.mark.parametrize("wrong", [{"deadline": "1h"}, {"checkpoint": {"every": "1h"}}, {"maxPricePerHour": 1}])
def test_services_have_no_deadlines_saves_or_prices(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no field of InferenceService"):
        a_case(a_service(**wrong))
