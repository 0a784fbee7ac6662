"""What changes around a scenario's work: spot capacity that comes and goes, and the carbon intensity of hours."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from berth.api.problems import Misconfigured
from berth.model.carbon import HOUR_SECONDS
from berth.planning.carbon import DAY_HOURS, Origin, Outlook
from berth.simulation.pools import SpotWindows
from berth.simulation.scenario import CarbonSeries, Scenario

TIME_COLUMN = "datetime_utc"
AHEAD = 96  # hours that forecasts reach

Away = tuple[float, float]
"""When a pool's capacity goes, in seconds since the start, and for how long."""


@dataclass
class Sky:
    """The intensity of hours in truth; forecasts say the same, as far as they reach."""

    regions: Mapping[str, Sequence[float]]  # gCO2eq/kWh hour by hour
    begins: int  # the first of these hours, since the planner's epoch
    _told: dict[int, Mapping[str, Outlook]] = field(default_factory=dict)  # by hour, the last one

    def intensity(self, region: str, hour: int) -> float | None:
        """The g/kWh of an hour in a region; None where the series does not say."""
        grams, i = self.regions.get(region, ()), hour - self.begins
        return grams[i] if 0 <= i < len(grams) else None

    def outlooks(self, now: float) -> Mapping[str, Outlook]:
        """What is expected of the hours from now on: the same object until the hour is over."""
        hour = int(now // HOUR_SECONDS)
        if hour not in self._told:
            self._told = {hour: {region: self._outlook(region, hour) for region in self.regions}}
        return self._told[hour]

    def _outlook(self, region: str, start: int) -> Outlook:
        """Hours after the end of the series are as those of the day before."""
        grams: list[float] = []
        origins: list[Origin] = []
        for hour in range(start, start + AHEAD):
            known = self.intensity(region, hour)
            grams.append(known if known is not None else grams[-DAY_HOURS] if len(grams) >= DAY_HOURS else grams[-1])
            origins.append(Origin.FORECAST if known is not None else Origin.YESTERDAY)
        return Outlook(start, tuple(grams), tuple(origins))


def sky_of(scenario: Scenario, folder: Path, epoch: float) -> Sky | None:
    """The series that a scenario names, from the hour at which it begins. Raises Misconfigured."""
    asked = scenario.carbon
    if asked is None:
        return None
    hours = -(-scenario.horizon // HOUR_SECONDS)
    regions: dict[str, Sequence[float]] = {}
    for i, zone in enumerate(asked.zones):
        grams = _hours(folder / asked.file, asked, zone.zone, f"carbon.zones[{i}].zone")
        if len(grams) < hours:
            raise Misconfigured(
                "carbon.file",
                f"has {len(grams)} hours of {zone.zone} from carbon.begins on; the horizon has {hours:.0f}",
            )
        regions |= dict.fromkeys(zone.regions or [zone.zone], grams)
    return Sky(regions, int(epoch // HOUR_SECONDS))


def absences(windows: SpotWindows, folder: Path, where: str) -> tuple[Away, ...]:
    """When a pool's capacity is not there. Raises Misconfigured."""
    if windows.away is not None:
        return tuple(sorted((away.at, away.lasting) for away in windows.away))
    seen, gap = _window(folder / str(windows.trace), windows, f"{where}.trace")
    found: list[Away] = []
    at = 0
    for there, run in groupby(seen):
        steps = len(list(run))
        if not there:
            found.append((at * gap, steps * gap))
        at += steps
    return tuple(found)


def _hours(file: Path, asked: CarbonSeries, zone: str, where: str) -> list[float]:
    rows = list(csv.DictReader(_text(file, "carbon.file").splitlines()))
    names = rows[0].keys() if rows else ()
    if TIME_COLUMN not in names:
        raise Misconfigured("carbon.file", f"{file.name} has no hour, or no column {TIME_COLUMN!r}")
    if zone not in names:
        raise Misconfigured(where, f"{file.name} has no column {zone!r}: use one of {', '.join(sorted(names)[:20])}")
    first = 0
    try:
        times = [_utc(row[TIME_COLUMN]) for row in rows]
        if asked.begins is not None:
            first = times.index(_utc(asked.begins))
        return [float(row[zone]) for row in rows[first:]]
    except ValueError as error:
        raise Misconfigured("carbon", f"{file.name}: no such hour, or an entry that is no number: {error}") from error


def _utc(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _window(file: Path, windows: SpotWindows, where: str) -> tuple[list[int], float]:
    try:
        entries: list[dict[str, Any]] = [json.loads(line) for line in _text(file, where).splitlines() if line.strip()]
        for entry in entries:
            if entry["window"] == windows.window and windows.pool in (None, entry["pool"]):
                return [int(look) for look in entry["available"]], float(entry["gap_seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(where, f"{file.name}: a line is no window: {error!r}") from error
    pools = sorted({str(entry["pool"]) for entry in entries})
    raise Misconfigured(
        where, f"{file.name} has no window {windows.window} of {windows.pool}: it has {', '.join(pools)}"
    )


def _text(file: Path, where: str) -> str:
    try:
        content = file.read_bytes()
        return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise Misconfigured(where, f"{file} can't be read: {error}") from error
