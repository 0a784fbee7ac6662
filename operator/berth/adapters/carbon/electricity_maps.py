"""Electricity Maps, API v3: hours to come, and the last 24, for plans without forecasts too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from berth.adapters.carbon.web import Web, hours_of, seconds_of, secret
from berth.control.ports import Denied, Unusable
from berth.model.carbon import HOUR_SECONDS, CarbonForecast

URL = "https://api.electricitymaps.com/v3"


class _Hour(msgspec.Struct, rename="camel"):
    datetime: str
    carbon_intensity: float | None = None  # null while nobody knows


class _Forecast(msgspec.Struct, rename="camel"):
    forecast: list[_Hour]
    updated_at: str | None = None


class _History(msgspec.Struct):
    history: list[_Hour]


@dataclass(frozen=True, slots=True)
class ElectricityMaps:
    """Implements `control.ports.CarbonSource`. The credential is a file `token`."""

    web: Web
    credentials: Path | None
    name: str = "Electricity Maps"

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """Past hours where there is no forecast, or where the plan does not include it."""
        headers = {"auth-token": secret(self.credentials, "token")}
        query = {"zone": zone}
        past = await self.web.get("/carbon-intensity/history", _History, query=query, headers=headers)
        try:
            ahead = await self.web.get("/carbon-intensity/forecast", _Forecast, query=query, headers=headers)
        except (Denied, Unusable):
            ahead = _Forecast([])
        hours = hours_of((hour.datetime, HOUR_SECONDS, hour.carbon_intensity) for hour in past.history + ahead.forecast)
        return CarbonForecast(seconds_of(ahead.updated_at) if ahead.updated_at else now, hours)
