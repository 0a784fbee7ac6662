"""Carbon intensity as sources tell it and as it is kept: one value for each hour, gCO2eq/kWh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Point:
    """The mean intensity of a stretch of time."""

    time: float  # its beginning, seconds since the epoch
    seconds: float
    grams: float  # gCO2eq/kWh


@dataclass(frozen=True, slots=True)
class CarbonForecast:
    """What a source said, past hours included where it tells them."""

    issued_at: float  # seconds since the epoch
    hours: Mapping[int, float]  # by hours since the epoch; there may be gaps


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a zone: the last forecast, and the hours before it."""

    source: str
    issued_at: float  # of the last forecast
    fetched_at: float  # when it was asked for
    hours: Mapping[int, float]


def hourly(points: Iterable[Point]) -> dict[int, float]:
    """The mean of each hour, weighted by time; of an hour that is covered in part, that of the part.

    >>> hourly([Point(0, 1800, 100.0), Point(1800, 3600, 200.0)])
    {0: 150.0, 1: 200.0}
    """
    sums: dict[int, tuple[float, float]] = {}
    for point in points:
        time, end = point.time, point.time + point.seconds
        while time < end:
            hour = int(time // HOUR_SECONDS)
            until = min(end, (hour + 1) * HOUR_SECONDS)
            grams, seconds = sums.get(hour, (0.0, 0.0))
            sums[hour] = (grams + point.grams * (until - time), seconds + until - time)
            time = until
    return {hour: grams / seconds for hour, (grams, seconds) in sorted(sums.items())}
