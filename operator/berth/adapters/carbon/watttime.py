"""WattTime, API v3: what the marginal plant will emit."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from berth.adapters.carbon.web import Web, hours_of, seconds_of, secret
from berth.control.ports import Denied, Unusable
from berth.model.carbon import CarbonForecast

URL = "https://api.watttime.org"
UNITS = "lbs_co2_per_mwh"
GRAMS_PER_KWH = 0.45359237  # of one of these
HORIZON_HOURS = 72
TOKEN_SECONDS = 25 * 60.0  # it is good for 30 minutes


class _Login(msgspec.Struct):
    token: str


class _Point(msgspec.Struct):
    point_time: str
    value: float | None = None


class _Meta(msgspec.Struct):
    units: str
    generated_at: str | None = None
    data_point_period_seconds: float = 300.0


class _Answer(msgspec.Struct):
    data: list[_Point]
    meta: _Meta


@dataclass(slots=True)
class WattTime:
    """Implements `control.ports.CarbonSource`. The credentials are files `username` and `password`."""

    web: Web
    credentials: Path | None
    name: str = "WattTime"
    _token: str = field(default="", repr=False)
    _until: float = 0.0

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """`zone` is a region of theirs, such as CAISO_NORTH."""
        try:
            answer = await self._asked(zone, now)
        except Denied:
            if not self._token:
                raise
            self._token = ""  # it may have been taken back before its time: log in once more
            answer = await self._asked(zone, now)
        if answer.meta.units != UNITS:
            raise Unusable(f"values are in {answer.meta.units}, not in {UNITS}")
        seconds = answer.meta.data_point_period_seconds
        points = [(p.point_time, seconds, None if p.value is None else p.value * GRAMS_PER_KWH) for p in answer.data]
        issued = answer.meta.generated_at
        return CarbonForecast(seconds_of(issued) if issued else now, hours_of(points))

    async def _asked(self, zone: str, now: float) -> _Answer:
        if not self._token or now >= self._until:
            await self._login(now)
        query = {"region": zone, "signal_type": "co2_moer", "horizon_hours": str(HORIZON_HOURS)}
        return await self.web.get(
            "/v3/forecast", _Answer, query=query, headers={"Authorization": f"Bearer {self._token}"}
        )

    async def _login(self, now: float) -> None:
        self._token = ""
        pair = f"{secret(self.credentials, 'username')}:{secret(self.credentials, 'password')}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        self._token, self._until = (await self.web.get("/login", _Login, headers=headers)).token, now + TOKEN_SECONDS
