"""What carbon benchmarks read: hourly intensities of zones, and jobs with their arrivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from berth.bench.tables import Row, TraceError, lines, rows

TIME_COLUMN = "datetime_utc"
JOB_COLUMNS = ("arrival_time", "length", "cpus")
HOUR = timedelta(hours=1)

Intensities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CarbonHours:
    """Intensities of several zones, gCO2eq/kWh, hour after hour without a gap."""

    path: Path
    start: datetime  # in UTC
    zones: Mapping[str, Intensities]

    def of(self, zone: str) -> Intensities:
        """All hours of a zone. TraceError says which zones there are."""
        try:
            return self.zones[zone]
        except KeyError:
            raise TraceError(f"{self.path}: has no zone {zone!r}; it has {', '.join(self.zones)}") from None

    def span(self, zone: str, first: int, count: int) -> Intensities:
        """So many hours of a zone from the hour `first`, counted from 0. TraceError where the file ends before."""
        found = self.of(zone)[first : first + count]
        if len(found) < count:
            raise TraceError(f"{self.path}: has {len(self.of(zone))} hours, not {first + count}")
        return found


@dataclass(frozen=True, slots=True)
class Job:
    """Work that arrives, in seconds after the beginning of the trace, and runs for so long on so many CPUs."""

    arrival: float
    seconds: float
    cpus: int


def load_hours(path: Path) -> CarbonHours:
    """Read a table with a column of times (`2022-01-01T00:00Z`) and one for each zone."""
    header = lines(path)[:1]
    zones = [name for name in "".join(header).split(",") if name != TIME_COLUMN]
    table = [(row, _time(row)) for row in rows(path, (TIME_COLUMN,), lambda row: row)]
    if not table or not zones:
        raise TraceError(f"{path}: lists no hour of any zone")
    start = table[0][1]
    for hour, (row, time) in enumerate(table):
        if time != start + hour * HOUR:
            raise row.wrong(TIME_COLUMN, f"is not one hour after the line before: wanted {start + hour * HOUR:%FT%RZ}")
    return CarbonHours(path, start, {zone: np.array([row.number(zone) for row, _ in table]) for zone in zones})


def load_jobs(path: Path) -> tuple[Job, ...]:
    """Read a table of jobs, in the order of their arrival."""
    jobs = sorted(rows(path, JOB_COLUMNS, _job), key=lambda job: job.arrival)
    if not jobs:
        raise TraceError(f"{path}: lists no job")
    return tuple(jobs)


def _time(row: Row) -> datetime:
    try:
        found = datetime.fromisoformat(row.text(TIME_COLUMN))
    except ValueError as error:
        raise row.wrong(TIME_COLUMN, "is no time such as 2022-01-01T00:00Z") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _job(row: Row) -> Job:
    job = Job(row.number("arrival_time"), row.number("length"), row.whole("cpus"))
    if not job.seconds:
        raise row.wrong("length", "is no time above 0")
    return job
