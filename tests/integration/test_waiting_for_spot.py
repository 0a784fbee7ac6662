"""A job with a far deadline waits for spot capacity though capacity on demand is free. On a real API server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import TRAINING_JOBS
from berth.control.status import to_rfc3339
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.watching import a_witness

pytestmark = pytest.mark.cluster

BOARD = "H100-PCIE-80GB"  # of which no other test has any
HOUR = 3600.0


async def test_a_job_waits_for_spot_capacity_and_another_without_time_does_not(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    node = {"count": 1, "board": BOARD, "boardsPerNode": 4}
    spot = {**node, "name": "comes", "labels": {"karpenter.sh/capacity-type": "spot"}}
    await make_fleet(cluster.kubeconfig, spot, {**node, "name": "stays"})

    async def status(name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return found

    async def runs_on(name: str, pool: str) -> bool:
        found = await status(name)
        if found.get("state") != "Running":
            return False
        assert found["placement"]["assignments"][0]["node"].startswith(pool)
        return True

    async def waits(name: str) -> bool:
        told = (await status(name)).get("verdict") or {}
        assert told.get("reason") != "Placed"
        return bool(told.get("reason") == "WaitingForSpot")

    async def make(name: str, **spec: Any) -> None:
        asks = {"gpus": {"count": 4, "models": [BOARD]}, "checkpoint": {"graceSeconds": 1}}
        await api.create(TRAINING_JOBS, namespace, a_training_job(name, namespace=namespace, **{**asks, **spec}))

    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig):
            await make("first", spot="Only")
            await until(lambda: runs_on("first", "comes"), "spot capacity is taken")
            far = to_rfc3339(time.time() + 24 * HOUR)
            await make("patient", estimatedRuntime="4h", deadline=far)
            await until(lambda: waits("patient"), "it waits for spot capacity")
            near = to_rfc3339(time.time() + 4.2 * HOUR)
            await make("urgent", estimatedRuntime="4h", deadline=near)
            await until(lambda: runs_on("urgent", "stays"), "what has no time runs on demand")
            assert await waits("patient")
            await api.delete(TRAINING_JOBS, namespace, "first")
            await until(lambda: runs_on("patient", "comes"), "it runs on spot capacity once that is free")
    assert not witness.broken
