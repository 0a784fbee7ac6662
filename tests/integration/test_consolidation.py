"""Running gangs move for one that waits, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import TRAINING_JOBS
from berth.control.status import is_true
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.watching import a_witness

pytestmark = pytest.mark.cluster

QUICK = {"enabled": True, "minRuntimeSeconds": 1, "restartSeconds": 1}
MODEL = "B200"  # of which no other test has any


async def test_a_gang_moves_for_one_that_waits(cluster: Cluster, api: KubeApi, namespace: str) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "moves", "count": 2, "board": MODEL, "boardsPerNode": 8})

    async def make(name: str, boards: int) -> None:
        gpus = {"count": boards, "models": [MODEL]}
        await api.create(TRAINING_JOBS, namespace, a_training_job(name, namespace=namespace, gpus=gpus))

    async def status(name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return found

    async def runs(name: str) -> bool:
        return is_true((await status(name)).get("conditions"), "PodsReady")

    async def node(name: str) -> str:
        return str((await status(name))["placement"]["assignments"][0]["node"])

    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig, consolidation=QUICK):
            for name, boards in (("first", 6), ("beside", 3), ("with-first", 2)):
                await make(name, boards)
                await until(lambda name=name: runs(name), f"{name} runs")  # type: ignore[misc]
            assert await node("first") == await node("with-first") != await node("beside")
            await api.delete(TRAINING_JOBS, namespace, "first")
            await make("big", 8)
            for name in ("big", "beside", "with-first"):
                await until(lambda name=name: runs(name), f"{name} runs in the end", 120.0)  # type: ignore[misc]
            assert await node("beside") == await node("with-first") != await node("big")
            attempts = {name: (await status(name))["attempt"] for name in ("big", "beside", "with-first")}
        assert sorted(attempts.values()) == [1, 1, 2]
    assert not witness.broken
