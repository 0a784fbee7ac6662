"""A job waits for a cleaner hour, pauses as the forecast turns, and its server dies. On a real API server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from berth.adapters.kube import KubeApi
from berth.control.ports import NODES, TRAINING_JOBS
from berth.control.status import to_rfc3339
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.watching import a_witness

pytestmark = pytest.mark.cluster

BOARD = "A30"
QUICK = {"minRuntimeSeconds": 1, "restartSeconds": 1}
CLEAN, DIRTY, TURNS = (lambda hour: 50.0), (lambda hour: 500.0), (lambda hour: 500.0 if hour < 4 else 50.0)


class Sky:
    """A Carbon Aware SDK: for each location, g/kWh by the hours from now on; no answer once it is dead."""

    def __init__(self) -> None:
        self.grams: dict[str, Callable[[int], float]] = {"east": DIRTY, "west": TURNS}
        self.dead = False
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """The current forecast of a location."""
        if self.dead:
            return web.Response(status=503)
        location, start = request.query["location"], int(time.time() // 3600) * 3600
        points = [
            {"timestamp": _iso(start + i * 3600), "duration": 60, "value": grams, "location": location}
            for i, grams in enumerate(map(self.grams[location], range(48)))
        ]
        return web.json_response([{"generatedAt": _iso(time.time()), "forecastData": points}])


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@asynccontextmanager
async def a_sky() -> AsyncIterator[Sky]:
    """One that answers at an address of its own."""
    sky, app = Sky(), web.Application()
    app.router.add_get("/emissions/forecasts/current", sky.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sky.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield sky
    finally:
        await runner.cleanup()


async def test_a_job_waits_starts_pauses_goes_on_and_meets_its_deadline(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    for region in ("east", "west"):
        pool = {"name": f"sky-{region}", "count": 1, "board": BOARD, "boardsPerNode": 4, "region": region}
        await make_fleet(cluster.kubeconfig, pool)

    async def status(name: str) -> dict[str, object]:
        found: dict[str, object] = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return found

    async def waits(name: str, begin: str) -> bool:
        told = (await status(name)).get("verdict") or {}
        assert isinstance(told, dict)
        return told.get("reason") == "DeferredForCarbon" and str(told.get("message")).startswith(begin)

    async def runs(name: str, attempt: int) -> bool:
        found = await status(name)
        return (found.get("state"), found.get("attempt")) == ("Running", attempt)

    async def make(name: str, **spec: object) -> None:
        asks = {"gpus": {"count": 4, "models": [BOARD]}, "estimatedRuntime": "4h", "checkpoint": {"graceSeconds": 1}}
        await api.create(TRAINING_JOBS, namespace, a_training_job(name, namespace=namespace, **{**asks, **spec}))

    async with a_sky() as sky, a_witness(api) as witness:
        carbon = {"source": "carbonAwareSdk", "url": sky.url, "pollSeconds": 1, "keptFolder": str(tmp_path)}
        with an_operator(cluster.kubeconfig, carbon=carbon, consolidation=QUICK):
            await make("patient", carbon={"budget": "20%", "maxDelay": "1d"})
            await until(lambda: waits("patient", "starts "), "it waits for a clean hour")
            sky.grams["west"] = CLEAN
            await until(lambda: runs("patient", 1), "it starts as soon as it is clean", 60.0)
            placement = (await status("patient"))["placement"]
            assert isinstance(placement, dict)
            node = await api.get(NODES, "", placement["assignments"][0]["node"])
            assert node["metadata"]["labels"]["topology.kubernetes.io/region"] == "west"
            sky.grams["west"] = TURNS
            await until(lambda: waits("patient", "goes on "), "it pauses when the forecast turns", 90.0)
            sky.grams["west"] = CLEAN
            await until(lambda: runs("patient", 2), "it goes on when it is clean again", 90.0)
            sky.grams["west"] = TURNS
            soon = to_rfc3339(time.time() + 5 * 3600)
            await make("urgent", gpus={"count": 1, "models": [BOARD]}, deadline=soon, carbon={"budget": "5%"})
            sky.dead = True
            await until(lambda: runs("urgent", 1), "what has no slack starts, server or none", 60.0)
    assert not witness.broken
