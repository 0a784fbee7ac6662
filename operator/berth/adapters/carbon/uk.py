"""The UK's Carbon Intensity API: Great Britain, and its regions. It needs no credential."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from berth.adapters.carbon.web import Web, hours_of, iso, seconds_of
from berth.control.ports import Unusable
from berth.model.carbon import HOUR_SECONDS, CarbonForecast

URL = "https://api.carbonintensity.org.uk"
COUNTRY = "GB"


class _Intensity(msgspec.Struct):
    forecast: float | None = None


class _Slot(msgspec.Struct, rename={"begin": "from"}):
    begin: str
    to: str
    intensity: _Intensity


class _Country(msgspec.Struct):
    data: list[_Slot]


class _Region(msgspec.Struct):
    data: _Country


@dataclass(frozen=True, slots=True)
class UnitedKingdom:
    """Implements `control.ports.CarbonSource`. A zone is GB, or GB-13 for the region with that id."""

    web: Web
    name: str = "UK Carbon Intensity"

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """Half hours of the two days to come."""
        path = f"/intensity/{iso(now - now % HOUR_SECONDS)}/fw48h"
        country, _, region = zone.partition("-")
        if country != COUNTRY or (zone != COUNTRY and not region.isdecimal()):
            raise Unusable(f"has no zone {zone!r}: wanted GB, or GB-13 for the region with that id")
        if region:
            slots = (await self.web.get(f"/regional{path}/regionid/{region}", _Region)).data.data
        else:
            slots = (await self.web.get(path, _Country)).data
        return CarbonForecast(now, hours_of((s.begin, _seconds(s), s.intensity.forecast) for s in slots))


def _seconds(slot: _Slot) -> float:
    seconds = seconds_of(slot.to) - seconds_of(slot.begin)
    if not 0 < seconds <= HOUR_SECONDS:
        raise Unusable(f"{slot.begin} to {slot.to} is no half hour")
    return seconds
