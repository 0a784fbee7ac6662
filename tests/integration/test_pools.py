"""Gangs ask for nodes that are to come, on a real API server: kube-scheduler, the Job's controller, an autoscaler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import PODS, TRAINING_JOBS
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.watching import a_witness

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FIRST, SECOND = "GH200-96GB", "GH200-144GB"  # models of which no other test has any
KEY = "test.berth.dev/pool"
NAME = "asks"  # that no other test gives its job


def a_pool(name: str, model: str, **more: Any) -> dict[str, Any]:
    """A pool as the configuration has it, told by a label of its own."""
    made = {"name": name, "labels": {KEY: name}, "model": model, "boardsPerNode": 8, "nodesMost": 2}
    return made | more


@asynccontextmanager
async def an_autoscaler(kubeconfig: Path, api: KubeApi, pool: str, model: str) -> AsyncIterator[list[str]]:
    """Makes a node for each pod that kube-scheduler can't place and that asks for this pool: two at most."""
    made: list[str] = []

    async def look() -> None:
        wanted = sum(_lacks_a_node(pod, pool) for pod in (await api.list(PODS))["items"])
        if wanted > 0 and len(made) < 2:
            made.append(f"{pool}-{len(made) + 1}")
            node = {"name": made[-1], "count": 1, "board": model, "boardsPerNode": 8, "labels": {KEY: pool}}
            await make_fleet(kubeconfig, node)

    async def run() -> None:
        while True:
            await look()
            await asyncio.sleep(0.5)

    task = asyncio.create_task(run())
    try:
        yield made
    finally:
        if task.done():
            task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _lacks_a_node(pod: dict[str, Any], pool: str) -> bool:
    scheduled = [c for c in pod["status"].get("conditions", []) if c["type"] == "PodScheduled"]
    asks = (pod["spec"].get("nodeSelector") or {}).get(KEY) == pool
    return asks and any(c["status"] == "False" and c.get("reason") == "Unschedulable" for c in scheduled)


async def status_of(api: KubeApi, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, NAME)).get("status") or {}
    return found


async def ask(api: KubeApi, namespace: str, model: str, **spec: Any) -> None:
    """A gang of two whole nodes."""
    gpus = {"count": 8, "models": [model]}
    await api.create(TRAINING_JOBS, namespace, a_training_job(NAME, namespace=namespace, workers=2, gpus=gpus, **spec))


async def test_an_autoscaler_brings_nodes_and_the_gang_runs_there_though_the_operator_died_meanwhile(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    async def waits() -> bool:
        return (await status_of(api, namespace)).get("verdict", {}).get("reason") == "WaitingForNodes"

    async def runs() -> dict[str, Any] | None:
        found = await status_of(api, namespace)
        return found if found.get("state") == "Running" and found["verdict"]["reason"] == "Placed" else None

    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig, pools=[a_pool("grows", FIRST)]) as operator:
            await ask(api, namespace, FIRST)
            await until(waits, "it asks for nodes")
            assert (await status_of(api, namespace))["placement"]["pool"] == "grows"
            operator.kill()
            async with an_autoscaler(cluster.kubeconfig, api, "grows", FIRST):
                operator.start()
                operator.wait_ready()
                status = await until(runs, "nodes came, and it runs there")
    assert status["attempt"] == 1
    assert {a["node"] for a in status["placement"]["assignments"]} == {"grows-1-0", "grows-2-0"}
    assert "nodes of pool grows came after" in status["verdict"]["message"]
    assert not witness.broken


async def test_a_pool_that_brings_nothing_is_given_up_for_the_next(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    async def runs() -> dict[str, Any] | None:
        found = await status_of(api, namespace)
        return found if found.get("state") == "Running" else None

    dry = a_pool("dry", SECOND, provisionSeconds=5, capacityType="spot")
    pools = [dry, a_pool("rich", SECOND, provisionSeconds=120)]
    async with a_witness(api) as witness, an_autoscaler(cluster.kubeconfig, api, "rich", SECOND) as made:
        with an_operator(cluster.kubeconfig, pools=pools):
            await ask(api, namespace, SECOND, checkpoint={"graceSeconds": 1}, estimatedRuntime="4h")
            status = await until(runs, "the second pool delivers", 90.0)
    assert status["attempt"] == 2
    assert [fall["pool"] for fall in status["shortfalls"]] == ["dry"]
    assert not status.get("restarts")
    assert made == ["rich-1", "rich-2"]
    assert {p["spec"]["nodeSelector"][KEY] for p in witness.members(NAME, attempt=2)} == {"rich"}
    assert not witness.broken
