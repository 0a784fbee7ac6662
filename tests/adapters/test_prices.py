"""Live prices from servers that answer as documented, and that misbehave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from berth.adapters.prices import FileStore, OpenCost, PriceUrl
from berth.api.price_book import price_book
from berth.control.ports import Busy, Denied, PriceSource, Silent, SourceError, Unusable
from berth.model.gpus import MODELS
from berth.model.prices import CapacityType, KnownPrices, Place, Price, PriceBook
from tests.adapters.carbon.world import Answer, Server, body, serving, silence, status

H100 = next(model for model in MODELS if model.name == "H100-80GB")
L4 = next(model for model in MODELS if model.name == "L4")
WEST, SPOT = Place("us-west-2"), Place("us-west-2", CapacityType.SPOT)
NODES = {"a": (H100, WEST), "b": (H100, WEST), "c": (H100, SPOT), "d": (L4, WEST)}


def an_asset(name: str, *, hours: float, usd: float, kind: str = "Node") -> dict[str, Any]:
    """A node with eight boards, or what else costs money, as OpenCost encodes it."""
    return {
        "type": kind,
        "properties": {
            "category": "Compute",
            "provider": "AWS",
            "cluster": "one",
            "name": name,
            "providerID": f"i-{name}",
        },
        "labels": {"topology_kubernetes_io_region": "us-west-2"},
        "window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-27T00:00:00Z"},
        "start": "2026-11-26T00:00:00Z",
        "end": "2026-11-27T00:00:00Z",
        "minutes": hours * 60 / 8,
        "nodeType": "p5.48xlarge",
        "cpuCores": 192.0,
        "cpuCoreHours": 24 * hours,
        "GPUHours": hours,
        "cpuBreakdown": {"idle": 0.9, "other": 0, "system": 0.02, "user": 0.08},
        "preemptible": 0.0,
        "discount": 0.0,
        "cpuCost": usd * 0.1,
        "gpuCost": usd * 0.85,
        "gpuCount": 8.0,
        "ramCost": usd * 0.05,
        "adjustment": 0.0,
        "totalCost": usd,
    }


def assets(*found: dict[str, Any]) -> dict[str, Any]:
    return {f"AWS/one/{one['type']}/{one['properties']['name']}": one for one in found}


FLEET = assets(
    an_asset("a", hours=192, usd=1152),
    an_asset("b", hours=64, usd=256),
    an_asset("c", hours=80, usd=160),
    an_asset("cpu", hours=0, usd=50),
    an_asset("gone", hours=100, usd=100),
    {"type": "Disk", "properties": {"name": "pvc-1"}, "totalCost": 3.0, "byteHoursUsed": None},
)


@pytest.mark.parametrize(
    "data", [FLEET, [FLEET], [assets(an_asset("a", hours=256, usd=1408)), {"x": FLEET["AWS/one/Node/c"]}]]
)
async def test_opencost_tells_what_whole_nodes_cost_for_each_board_and_hour(data: Any) -> None:
    async with serving(Server({"/assets": {"code": 200, "data": data}})) as web:
        found = await OpenCost(web, lambda: NODES).book()
    assert set(found.prices) == {
        Price("H100-80GB", 5.5, "us-west-2"),
        Price("H100-80GB", 2.0, "us-west-2", CapacityType.SPOT),
    }


async def test_opencost_is_asked_for_a_day() -> None:
    server = Server({"/assets": {"code": 200, "data": FLEET}})
    async with serving(server) as web:
        await OpenCost(web, lambda: NODES).book()
    assert dict(server.requests[0].query) == {"window": "1d"}


def opencost(web: Any) -> PriceSource:
    return OpenCost(web, lambda: NODES)


def json_book(web: Any) -> PriceSource:
    return PriceUrl(web, "/prices", price_book)


@pytest.mark.parametrize("make", [opencost, json_book])
@pytest.mark.parametrize(
    ("mishap", "error"),
    [
        (silence, Silent),
        (status(500), Silent),
        (status(401), Denied),
        (status(403), Denied),
        (status(404), Unusable),
        (status(302, Location="http://elsewhere"), Unusable),
        (status(429, Retry_After="60"), Busy),
        (status(503, Retry_After="60"), Busy),
        (body(b'{"data": [{"x": {'), Unusable),
        (body(b"<html>"), Unusable),
        (body(b"[7]"), Unusable),
        (body(b'{"prices": "\xff", "data": "\xff"}'), Unusable),
        (body(b'{"data": 7, "prices": 7}'), Unusable),
        (body(b'{"data": [{"x": 7}], "prices": [7]}'), Unusable),
        (
            body(b'{"data": [{"x": {"type": "Node", "GPUHours": "many"}}], "prices": [{"usdPerHour": "many"}]}'),
            Unusable,
        ),
        (body(b"\xff\xfe"), Unusable),
    ],
)
async def test_every_mishap_is_a_source_error(make: Any, mishap: Answer, error: type[SourceError]) -> None:
    async with serving(Server(mishaps=[mishap]), patience=0.2) as web:
        with pytest.raises(error):
            await make(web).book()


@pytest.mark.parametrize(
    "data", [{}, [], None, assets(an_asset("stranger", hours=8, usd=8)), assets(an_asset("a", hours=0, usd=8))]
)
async def test_an_answer_without_our_nodes_is_none(data: Any) -> None:
    async with serving(Server({"/assets": {"code": 200, "data": data}})) as web:
        with pytest.raises(Unusable, match="no node of this cluster"):
            await OpenCost(web, lambda: NODES).book()


@pytest.mark.parametrize("usd", [-1.0, 1e9])
async def test_what_can_be_no_price_is_not_believed(usd: float) -> None:
    async with serving(Server({"/assets": {"data": assets(an_asset("a", hours=8, usd=usd))}})) as web:
        with pytest.raises(Unusable, match="no price"):
            await OpenCost(web, lambda: NODES).book()


def test_prices_are_kept_as_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FileStore(tmp_path / "kept" / "prices.json")
    assert store.load() is None
    known = KnownPrices("http://x", 1.0, PriceBook((Price("H100", 2.0, "west", CapacityType.SPOT),), spot_share=0.2))
    store.save(known)
    assert store.load() == known
    store.file.write_text("{")
    assert store.load() is None
    FileStore(tmp_path / "kept" / "prices.json" / "under").save(known)  # a folder that can't be
    assert [message.split(":")[0][:10] for message in caplog.messages] == ["the prices", "prices can"]
