"""Hourly intensities and jobs, as files hold them."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from berth.bench.carbon_data import Job, load_hours, load_jobs
from berth.bench.tables import TraceError

HOURS = "datetime_utc,DE,FR\n2022-01-01T00:00Z,400,50\n2022-01-01T01:00Z,380.5,55\n"
JOBS = "arrival_time,length,cpus\n60.0,100.0,2\n0,7200,1\n"


def saved(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


@pytest.mark.parametrize("name", ["hours.csv", "hours.csv.gz"])
def test_each_zone_has_its_hours(tmp_path: Path, name: str) -> None:
    hours = load_hours(saved(tmp_path, HOURS, name))
    assert hours.start == datetime(2022, 1, 1, tzinfo=UTC)
    assert hours.of("DE").tolist() == [400, 380.5]
    assert hours.span("FR", 1, 1).tolist() == [55]


def test_jobs_come_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    assert load_jobs(saved(tmp_path, JOBS)) == (Job(0, 7200, 1), Job(60, 100, 2))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lacks column 'datetime_utc'"),
        ("datetime_utc,DE\n", "lists no hour of any zone"),
        ("datetime_utc\n2022-01-01T00:00Z\n", "lists no hour of any zone"),
        (HOURS.replace("380.5", ""), "line 3, column 'DE': '' is no number >= 0"),
        (HOURS.replace("380.5", "nan"), "line 3, column 'DE': 'nan' is no number >= 0"),
        (HOURS.replace(",55", ""), "line 3 ends before column 'FR'"),
        (HOURS.replace("T01", "T02"), "line 3, column 'datetime_utc': .* wanted 2022-01-01T01:00Z"),
        (HOURS.replace("2022-01-01T01:00Z", "one o'clock"), "line 3, column 'datetime_utc': .* is no time"),
    ],
)
def test_says_what_is_wrong_with_hours(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=complaint):
        load_hours(saved(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("arrival_time,length\n1,1\n", "lacks column 'cpus'"),
        ("arrival_time,length,cpus\n", "lists no job"),
        (JOBS.replace("7200", "0"), "line 3, column 'length': '0' is no time above 0"),
        (JOBS.replace("60.0", "-1"), "line 2, column 'arrival_time': '-1' is no number >= 0"),
    ],
)
def test_says_what_is_wrong_with_jobs(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=complaint):
        load_jobs(saved(tmp_path, text))


def test_says_which_zones_and_how_many_hours_there_are(tmp_path: Path) -> None:
    hours = load_hours(saved(tmp_path, HOURS))
    with pytest.raises(TraceError, match="has no zone 'GB'; it has DE, FR"):
        hours.of("GB")
    with pytest.raises(TraceError, match="has 2 hours, not 3"):
        hours.span("DE", 1, 2)
