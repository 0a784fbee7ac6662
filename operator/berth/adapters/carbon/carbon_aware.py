"""The Green Software Foundation's Carbon Aware SDK (WebAPI), and the ConfigMap that Azure's exporter makes of it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import msgspec

from berth.adapters.carbon.web import Web, hours_of, seconds_of
from berth.control.ports import CONFIG_MAPS, Api, ApiError, Silent, Unusable
from berth.model.carbon import CarbonForecast

MINUTE = 60.0
LONGEST_MINUTES = 24 * 60.0
SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d+)?", re.ASCII)  # .NET's: days.hours:minutes:seconds


class _Point(msgspec.Struct):
    """One stretch, as the WebAPI names its fields; the exporter has also called them time and rating."""

    timestamp: str = ""
    time: str = ""
    value: float | None = None
    rating: float | None = None
    duration: float | str = 5.0  # minutes, or a span
    location: str = ""


class _Forecast(msgspec.Struct, rename="camel"):
    forecast_data: list[_Point]
    generated_at: str | None = None


@dataclass(frozen=True, slots=True)
class CarbonAwareSdk:
    """Implements `control.ports.CarbonSource`. A zone is a location of the SDK's, such as westus."""

    web: Web
    name: str = "Carbon Aware SDK"

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """The current forecast, as far as it reaches."""
        found = await self.web.get("/emissions/forecasts/current", list[_Forecast], query={"location": zone})
        if not found:
            raise Unusable(f"has no forecast for {zone}")
        points = [point for forecast in found for point in forecast.forecast_data]
        issued = found[0].generated_at
        return CarbonForecast(seconds_of(issued) if issued else now, _hours(points, zone))


@dataclass(frozen=True, slots=True)
class AzureExporter:
    """Implements `control.ports.CarbonSource` by the exporter's ConfigMap, which has one location only."""

    api: Api
    namespace: str = "kube-system"
    config_map: str = "carbon-intensity"
    name: str = "Azure carbon intensity exporter"

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """A forecast that begins with its first value, and is as old."""
        try:
            found = await self.api.get(CONFIG_MAPS, self.namespace, self.config_map)
        except ApiError as error:
            raise Silent(f"ConfigMap {self.namespace}/{self.config_map}: {error}") from error
        try:
            content = base64.b64decode((found.get("binaryData") or {})["data"], validate=True)
            points = msgspec.json.decode(content, type=list[_Point])
        except (KeyError, binascii.Error, ValueError) as error:
            raise Unusable(f"ConfigMap {self.namespace}/{self.config_map}: binaryData.data: {error}") from error
        hours = _hours(points, zone)
        return CarbonForecast(min(now, min(seconds_of(p.timestamp or p.time) for p in points)), hours)


def _hours(points: list[_Point], zone: str) -> dict[int, float]:
    others = sorted({p.location for p in points if p.location and p.location.lower() != zone.lower()})
    if others:
        raise Unusable(f"tells of {', '.join(others)}, not of {zone}")
    return hours_of(
        (p.timestamp or p.time, _minutes(p.duration) * MINUTE, p.rating if p.value is None else p.value) for p in points
    )


def _minutes(duration: float | str) -> float:
    """Minutes of a number of them, or of a span.

    >>> _minutes(5), _minutes("00:05:00"), _minutes("1.00:00:00")
    (5.0, 5.0, 1440.0)
    """
    if isinstance(duration, str):
        found = SPAN.fullmatch(duration)
        if found is None:
            raise Unusable(f"{duration!r} is no duration")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        duration = 24 * 60 * days + 60 * hours + minutes + seconds / 60
    if not 0 < duration <= LONGEST_MINUTES:
        raise Unusable(f"a value can't last {duration:g} minutes")
    return float(duration)
