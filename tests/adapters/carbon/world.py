"""Servers that answer as each source's documentation says, and that misbehave as told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from berth.adapters.carbon.carbon_aware import AzureExporter, CarbonAwareSdk
from berth.adapters.carbon.electricity_maps import ElectricityMaps
from berth.adapters.carbon.uk import UnitedKingdom
from berth.adapters.carbon.watttime import GRAMS_PER_KWH, WattTime
from berth.adapters.carbon.web import Web
from berth.control.ports import Api, CarbonSource, NotFound, Resource

NOW = 1_700_000_400.0  # 2023-11-14T22:20:00Z
HOUR = int(NOW // 3600)
PATIENCE = 30.0  # seconds, of the sessions of tests that want an answer

Values = list[float | None]  # hour by hour, from the current one
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def at(hour: int, minute: int = 0, offset: int = 0) -> str:
    """An hour after the current one, as ISO 8601 in a time zone so many hours east."""
    zone = UTC if not offset else timezone(timedelta(hours=offset))
    return datetime.fromtimestamp((HOUR + hour) * 3600 + minute * 60, zone).isoformat().replace("+00:00", "Z")


@dataclass
class Server:
    """What is answered to which path, once it is told so."""

    answers: dict[str, Any] = field(default_factory=dict)  # JSON, or an Answer, by the end of the path
    mishaps: list[Answer] = field(default_factory=list)  # what the next requests get instead
    requests: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.requests.append(request)
        if self.mishaps:
            return await self.mishaps.pop(0)(request)
        found = next((answer for end, answer in self.answers.items() if request.path.endswith(end)), None)
        if callable(found):
            return cast(web.StreamResponse, await found(request))
        return web.json_response(status=404) if found is None else web.json_response(found)


@asynccontextmanager
async def serving(server: Server, patience: float = PATIENCE) -> AsyncIterator[Web]:
    """The server, and a session that asks it."""
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    limit = aiohttp.ClientTimeout(total=patience)
    async with TestServer(app) as test, aiohttp.ClientSession(timeout=limit) as session:
        yield Web(session, str(test.make_url("")).rstrip("/"))


def status(code: int, **headers: str) -> Answer:
    """An error."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=code, text="secret or not", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


def body(content: bytes) -> Answer:
    """A success that says just this."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type="application/json")

    return answer


async def silence(_: web.Request) -> web.StreamResponse:
    """No answer in time."""
    await asyncio.sleep(30)
    raise AssertionError("the request should have been given up")


@dataclass(frozen=True)
class Subject:
    """A source under test: how it is made, and what its server answers for such values."""

    name: str
    zone: str
    make: Callable[[Web, Path], CarbonSource]
    answers: Callable[[Values, int], dict[str, Any]]  # of values, with times in a zone so many hours east

    def __str__(self) -> str:
        return self.name


def _electricity_maps(values: Values, offset: int) -> dict[str, Any]:
    def hours(first: int, found: Values) -> list[dict[str, Any]]:
        return [{"datetime": at(first + n, 0, offset), "carbonIntensity": value} for n, value in enumerate(found)]

    return {
        "/carbon-intensity/history": {"zone": "DE", "history": hours(0, values[:1])},
        "/carbon-intensity/forecast": {"zone": "DE", "forecast": hours(1, values[1:]), "updatedAt": at(0, 10)},
    }


def _watttime(values: Values, offset: int) -> dict[str, Any]:
    data = [
        {"point_time": at(n, minute, offset), "value": None if value is None else value / GRAMS_PER_KWH}
        for n, value in enumerate(values)
        for minute in range(0, 60, 5)
    ]
    meta = {"units": "lbs_co2_per_mwh", "generated_at": at(0, 10), "data_point_period_seconds": 300}
    return {"/login": {"token": "t"}, "/v3/forecast": {"data": data, "meta": meta}}


def _slots(values: Values, offset: int) -> list[dict[str, Any]]:
    return [
        {
            "from": at(n, minute, offset),
            "to": at(n, minute + 30, offset),
            "intensity": {"forecast": value, "actual": None, "index": "moderate"},
        }
        for n, value in enumerate(values)
        for minute in (0, 30)
    ]


def _sdk_points(values: Values, offset: int) -> list[dict[str, Any]]:
    return [
        {"location": "westus", "timestamp": at(n, minute, offset), "duration": 10, "value": value}
        for n, value in enumerate(values)
        for minute in range(0, 60, 10)
    ]


def _sdk(values: Values, offset: int) -> dict[str, Any]:
    forecast = {"generatedAt": at(0, 10), "location": "westus", "windowSize": 10}
    return {"/emissions/forecasts/current": [{**forecast, "forecastData": _sdk_points(values, offset)}]}


def _exporter(values: Values, offset: int) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(_sdk_points(values, offset)).encode()).decode()
    return {"configmaps/carbon-intensity": {"data": {"message": ""}, "binaryData": {"data": data}}}


@dataclass(frozen=True)
class ConfigMaps:
    """As much of an API server as the exporter's ConfigMap needs."""

    web: Web

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        """What a server has under that name."""
        async with self.web.session.get(self.web.base + resource.path(namespace, name)) as response:
            if response.status != 200:
                raise NotFound(f"configmaps {name!r} not found")
            return cast(dict[str, Any], await response.json())


SUBJECTS = [
    Subject("electricity-maps", "DE", lambda web, folder: ElectricityMaps(web, folder), _electricity_maps),
    Subject("watttime", "CAISO_NORTH", lambda web, folder: WattTime(web, folder), _watttime),
    Subject("uk", "GB", lambda web, _: UnitedKingdom(web), lambda v, o: {"/fw48h": {"data": _slots(v, o)}}),
    Subject(
        "uk-region",
        "GB-13",
        lambda web, _: UnitedKingdom(web),
        lambda v, o: {"/regionid/13": {"data": {"regionid": 13, "data": _slots(v, o)}}},
    ),
    Subject("carbon-aware-sdk", "westus", lambda web, _: CarbonAwareSdk(web), _sdk),
]
EXPORTER = Subject("azure", "westus", lambda web, _: AzureExporter(cast(Api, ConfigMaps(web))), _exporter)
WITH_CREDENTIALS = SUBJECTS[:2]
