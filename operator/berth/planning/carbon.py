"""What to expect of a zone's carbon intensity when its forecast is old, has gaps, or is not there at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from berth.model.carbon import HOUR_SECONDS, CarbonForecast, Known
from berth.planning.deferral import Curve

DAY_HOURS = 24
DAYS_BACK = 7  # a value older than that says no more about an hour than the table does
KEPT_HOURS = DAYS_BACK * DAY_HOURS
WORLD_GRAMS = 480.0  # gCO2eq/kWh of the world's electricity, Ember 2024: for zones that no table has


class Origin(StrEnum):
    """Where an hour's value comes from, the best first."""

    FORECAST = "forecast"
    STALE = "stale forecast"  # of one that is older than it should be
    YESTERDAY = "same hour of a day before"
    STATIC = "static table"
    WORLD = "world mean"


@dataclass(frozen=True, eq=False)
class Outlook:
    """A zone's hours to come, without gaps. Two are the same only if they are one: schedules are kept by outlook."""

    start: int  # the first hour, since the epoch
    grams: tuple[float, ...]  # gCO2eq/kWh
    origins: tuple[Origin, ...]  # one for each hour

    @cached_property
    def curve(self) -> Curve:
        """The hours as schedules want them."""
        return Curve(float(self.start * HOUR_SECONDS), self.grams)

    @property
    def counts(self) -> dict[Origin, int]:
        """How many hours come from where, the best first."""
        found = Counter(self.origins)
        return {origin: found[origin] for origin in Origin if found[origin]}


def outlook(known: Known | None, assumed: float | None, now: float, hours: int, stale_seconds: float) -> Outlook:
    """So many hours from the current one on.

    `assumed`: what the table says of the zone, if it has it. `stale_seconds`: the age at which a forecast is stale.
    """
    start = int(now // HOUR_SECONDS)
    fresh = known is not None and now - known.issued_at <= stale_seconds
    found = [_expected(known, assumed, hour, fresh) for hour in range(start, start + hours)]
    return Outlook(start, tuple(grams for grams, _ in found), tuple(origin for _, origin in found))


def merged(known: Known | None, source: str, forecast: CarbonForecast, now: float) -> Known:
    """What is known with a new forecast: its hours win over those known before, of which a week is kept.

    What another source told is forgotten: it may have meant something else, such as marginal plants.
    """
    oldest = int(now // HOUR_SECONDS) - KEPT_HOURS
    before = known.hours if known and known.source == source else {}
    hours = {hour: grams for hour, grams in sorted({**before, **forecast.hours}.items()) if hour >= oldest}
    return Known(source, forecast.issued_at, now, hours)


def _expected(known: Known | None, assumed: float | None, hour: int, fresh: bool) -> tuple[float, Origin]:
    if known:
        if hour in known.hours:
            return known.hours[hour], Origin.FORECAST if fresh else Origin.STALE
        for days in range(1, DAYS_BACK + 1):
            if (before := hour - DAY_HOURS * days) in known.hours:
                return known.hours[before], Origin.YESTERDAY
    return (WORLD_GRAMS, Origin.WORLD) if assumed is None else (assumed, Origin.STATIC)
