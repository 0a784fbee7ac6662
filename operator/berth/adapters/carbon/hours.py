"""Carbon intensity from a file: a CSV with a column of times and one of gCO2eq/kWh for each zone."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from berth.adapters.carbon.web import hours_of
from berth.control.ports import Silent, Unusable
from berth.model.carbon import HOUR_SECONDS, CarbonForecast

TIME_COLUMN = "datetime_utc"


@dataclass(frozen=True, slots=True)
class HoursFile:
    """Implements `control.ports.CarbonSource`. The file is read anew each time: a job may be writing it."""

    path: Path
    name: str = "file of hours"

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """All hours of the file; empty cells are gaps."""
        try:
            lines = self.path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Silent(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        table = csv.DictReader(lines)
        missing = [column for column in (TIME_COLUMN, zone) if column not in (table.fieldnames or ())]
        if missing:
            raise Unusable(f"{self.path}: has no column {missing[0]!r}")
        return CarbonForecast(now, hours_of((row[TIME_COLUMN], HOUR_SECONDS, _number(row[zone])) for row in table))


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell and cell.strip() else None
    except ValueError as error:
        raise Unusable(f"{cell!r} is no number") from error
