"""Jobs wait for cleaner hours, pause as the forecast turns, and end in time though its server dies. On a real API."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from berth.adapters.kube import KubeApi
from berth.control.ports import NODES, PODS, TRAINING_JOBS
from berth.control.status import from_rfc3339, to_rfc3339
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.watching import a_witness

pytestmark = pytest.mark.cluster

BOARD = "A30"
DUSK = "A100-PCIE-80GB"  # of which no other test has any
HOUR = 3600.0
QUICK = {"minRuntimeSeconds": 1, "restartSeconds": 1}
CLEAN, DIRTY, TURNS = (lambda hour: 50.0), (lambda hour: 500.0), (lambda hour: 500.0 if hour < 4 else 50.0)
# Runs at the start of every Python that is told a file: adds the seconds in it to the time of day.
SHIFTED = """
import os, time
if "SHIFTED_BY" in os.environ:
    def shifted(real=time.time, file=os.environ["SHIFTED_BY"]):
        with open(file) as by:
            return real() + float(by.read())
    time.time = shifted
"""


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


class Hours:
    """The operator's time of day, of which hours can be skipped."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.skipped, self._file = 0.0, folder / "skipped"
        (folder / "sitecustomize.py").write_text(SHIFTED)
        monkeypatch.setenv("SHIFTED_BY", str(self._file))
        paths = (str(folder), os.environ.get("PYTHONPATH", ""))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        self.skip(0)

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.skipped

    def skip(self, hours: float) -> None:
        """So many are over at once."""
        self.skipped += hours * HOUR
        new = self._file.with_suffix(".new")
        new.write_text(str(self.skipped))
        new.replace(self._file)


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


async def test_who_waits_or_is_paused_ends_before_its_deadline_though_the_carbon_server_has_died(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours are skipped; one job is paused and another waits when the server dies, four hours before it gets clean."""
    for region in ("east", "west"):
        pool = {"name": f"dusk-{region}", "count": 1, "board": DUSK, "boardsPerNode": 8, "region": region}
        await make_fleet(cluster.kubeconfig, pool)
    hours = Hours(tmp_path, monkeypatch)
    deadline = int(hours.now + 12 * HOUR)

    async def status(name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return found

    async def waits(name: str, begin: str, part: str = "") -> bool:
        told = (await status(name)).get("verdict") or {}
        message = str(told.get("message"))
        return told.get("reason") == "DeferredForCarbon" and message.startswith(begin) and part in message

    async def runs(name: str, attempt: int) -> bool:
        found = await status(name)
        return (found.get("state"), found.get("attempt")) == ("Running", attempt)

    async def has_ended(name: str) -> bool:
        return (await status(name)).get("state") == "Succeeded"

    async def end(name: str, attempt: int) -> None:
        """Its workers end well, as their kubelet would tell; it has ended before its deadline."""
        for pod in witness.members(name, attempt):
            told = {"status": {"phase": "Succeeded"}}
            await api.merge(PODS, namespace, pod["metadata"]["name"], told, subresource="status")
        await until(lambda: has_ended(name), f"{name} has ended")
        assert hours.now - HOUR < from_rfc3339((await status(name))["finishedAt"]) < deadline

    async def make(name: str) -> None:
        terms = {"carbon": {"budget": "20%"}, "estimatedRuntime": "4h", "deadline": to_rfc3339(deadline)}
        asks = {"gpus": {"count": 4, "models": [DUSK]}, "checkpoint": {"graceSeconds": 1}, **terms}
        await api.create(TRAINING_JOBS, namespace, a_training_job(name, namespace=namespace, **asks))

    async with a_sky() as sky, a_witness(api) as witness:
        carbon = {"source": "carbonAwareSdk", "url": sky.url, "pollSeconds": 1, "keptFolder": str(tmp_path)}
        settings = {"carbon": {**carbon, "staleSeconds": 1800}, "consolidation": QUICK, "bindTimeoutSeconds": 86400}
        with an_operator(cluster.kubeconfig, **settings):
            sky.grams["west"] = CLEAN
            await make("paused")
            await until(lambda: runs("paused", 1), "it runs while it is clean")
            sky.grams["west"] = TURNS
            await until(lambda: waits("paused", "goes on "), "it pauses when the forecast turns")
            await make("waiting")
            await until(lambda: waits("waiting", "starts "), "it waits for the clean hours")
            sky.dead = True
            hours.skip(1)
            for name, begin in (("paused", "goes on "), ("waiting", "starts ")):
                await until(lambda n=name, b=begin: waits(n, b, "stale forecast"), f"{name} keeps to what it knows")  # type: ignore[misc]
            hours.skip(3)
            await until(lambda: runs("paused", 2), "it goes on in the hour that was forecast to be clean")
            await until(lambda: runs("waiting", 1), "it starts in that hour")
            for name in ("paused", "waiting"):
                started = from_rfc3339((await status(name))["startedAt"])
                assert started + 4 * HOUR < deadline
            hours.skip(4)
            await end("paused", 2)
            await end("waiting", 1)
    assert not witness.broken
