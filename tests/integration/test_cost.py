"""A job on two regions' prices, on a real API server: it is charged what hand calculation gives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from berth.adapters.kube import KubeApi
from berth.cli.main import app
from berth.control.ports import TRAINING_JOBS
from berth.control.status import from_rfc3339
from berth.model.gpus import MODELS
from berth.model.usage import week_of
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until, watch
from tests.integration.users import a_user

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MODEL = "A100-PCIE-40GB"  # of which no other test has any
WEST, EAST = "cost-west", "cost-east"
BOARDS = 4
SPOT_USD, WEST_USD, EAST_USD = 1.25, 2.5, 3.5
WEST_GRAMS, EAST_GRAMS = 100.0, 400.0
PRICES = {
    "prices": [
        {"model": MODEL, "region": WEST, "capacity": "spot", "usdPerHour": SPOT_USD},
        {"model": MODEL, "region": WEST, "usdPerHour": WEST_USD},
        {"model": MODEL, "region": EAST, "usdPerHour": EAST_USD},
    ]
}
LEAST_SECONDS = 6.0  # of each attempt, so that whole seconds tell prices apart


@asynccontextmanager
async def statuses(api: KubeApi, namespace: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Every status that the namespace's job had."""
    listed = await api.list(TRAINING_JOBS)
    found: list[dict[str, Any]] = []

    async def follow() -> None:
        async for _, raw in watch(api, TRAINING_JOBS, listed["metadata"]["resourceVersion"]):
            if raw["metadata"]["namespace"] == namespace:
                found.append(raw.get("status") or {})

    task = asyncio.create_task(follow())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def hours_held(seen: list[dict[str, Any]], attempt: int) -> float:
    """From an attempt's admission to the write that ended it, as the statuses tell."""
    held = [i for i, status in enumerate(seen) if status.get("attempt") == attempt and status.get("placement")]
    admitted, ended = seen[held[0]]["admittedAt"], seen[held[-1] + 1]["usage"]["until"]
    return (from_rfc3339(ended) - from_rfc3339(admitted)) / 3600


async def berth(*line: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, line)
    assert result.exit_code == 0, result.output
    return result.output


async def test_what_a_job_cost_in_two_regions(cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path) -> None:
    spot = {"karpenter.sh/capacity-type": "spot"}
    west = {"name": WEST, "count": 1, "board": MODEL, "boardsPerNode": BOARDS, "region": WEST, "labels": spot}
    await make_fleet(cluster.kubeconfig, west, {**west, "name": EAST, "region": EAST, "labels": {}})
    viewer = await a_user(api, cluster, namespace, tmp_path, "viewer", "berth-explain")

    async def status() -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
        return found

    async def has_run(region: str, attempt: int) -> bool:
        found = await status()
        if (found.get("state"), found.get("attempt")) != ("Running", attempt):
            return False
        assert found["placement"]["assignments"][0]["node"].startswith(region)
        return time.time() >= from_rfc3339(found["admittedAt"]) + LEAST_SECONDS

    async def is_out() -> bool:
        return (await status()).get("state") == "Suspended"

    async def prices(_: web.Request) -> web.Response:
        return web.json_response(PRICES)

    application = web.Application()
    application.router.add_get("/prices", prices)
    zones = [{"zone": WEST, "gramsPerKwh": WEST_GRAMS}, {"zone": EAST, "gramsPerKwh": EAST_GRAMS}]
    async with TestServer(application) as server, statuses(api, namespace) as seen:
        source = {"source": "json", "url": str(server.make_url("/prices")), "keptFolder": str(tmp_path)}
        carbon = {"zones": zones, "keptFolder": str(tmp_path / "carbon")}
        with an_operator(cluster.kubeconfig, prices=source, carbon=carbon):
            gpus = {"count": BOARDS, "models": [MODEL]}
            await api.create(TRAINING_JOBS, namespace, a_training_job("llm", namespace=namespace, gpus=gpus))
            await until(lambda: has_run(WEST, 1), "it runs where it costs least")
            drained = next(status["placement"]["assignments"][0]["node"] for status in seen if status.get("placement"))
            await berth("drain", drained, "--timeout=2m", f"--kubeconfig={cluster.kubeconfig}")
            await until(lambda: has_run(EAST, 2), "it goes on in the other region")
            await api.merge(TRAINING_JOBS, namespace, "llm", {"spec": {"suspend": True}})
            await until(is_out, "it is suspended")
        usage = (await status())["usage"]

    first, second = hours_held(seen, 1), hours_held(seen, 2)
    assert min(first, second) * 3600 >= LEAST_SECONDS
    rated = next(model for model in MODELS if model.name == MODEL).power_watts
    kilowatts = BOARDS * (0.115 + 0.8 * 0.885) * rated * 1.5 * 1.2 / 1000
    by_hand = {
        "gpuHours": BOARDS * (first + second),
        "usd": BOARDS * (first * SPOT_USD + second * EAST_USD),
        "kWh": kilowatts * (first + second),
        "kgCO2e": kilowatts * (first * WEST_GRAMS + second * EAST_GRAMS) / 1000,
        "onDemandUsd": BOARDS * second * EAST_USD,  # nothing of the first attempt was saved
        "onDemandKgCO2e": kilowatts * second * EAST_GRAMS / 1000,
    }
    assert {key: usage[key] for key in by_hand} == pytest.approx(by_hand, abs=1e-5)
    assert [(one["capacityType"], one["region"]) for one in usage["byCapacity"]] == [
        ("spot", WEST),
        ("on-demand", EAST),
    ]
    assert "unknownCarbonKWh" not in usage
    assert [one["week"] for one in usage["weeks"]][-1] == week_of(from_rfc3339(usage["until"]))

    line = ["cost", "--by=workload", f"-n{namespace}", "--output=json", f"--kubeconfig={viewer}"]
    (row,) = json.loads(await berth(*line))["rows"]
    assert row["name"] == f"TrainingJob {namespace}/llm"
    assert {key: row[key] for key in by_hand} == pytest.approx(by_hand, abs=1e-5)
