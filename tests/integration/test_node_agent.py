"""The operator and the real node agent share the work: instances are made on a board that is in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import GPU_NODES, NODES, PODS, TRAINING_JOBS, NotFound
from e2e.cluster.provider import Cluster
from e2e.fakegpu.agents import Agents
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.node import Holder
from e2e.harness import a_training_job, an_operator, playing_fleet, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NODE = "agent-0"
PART, HALF = ({"profile": profile, "models": ["A100-80GB"]} for profile in ("1g.10gb", "3g.40gb"))


@dataclass
class Site:
    """One node of one board, all of it cut into 1g, with the agent that alone may change it."""

    api: KubeApi
    namespace: str
    driver: Driver

    async def create(self, name: str, gpus: dict[str, object]) -> None:
        """A job of one worker."""
        job = a_training_job(name, namespace=self.namespace, gpus=gpus)
        await self.api.create(TRAINING_JOBS, self.namespace, job)

    async def state(self, name: str) -> str:
        """What a job is at."""
        found = await self.api.get(TRAINING_JOBS, self.namespace, name)
        return str(found.get("status", {}).get("state", ""))

    async def runs(self, name: str) -> None:
        """Wait until a job runs."""

        async def running() -> bool:
            return await self.state(name) == "Running"

        await until(running, f"{name} runs")

    async def held(self) -> dict[str, Holder]:
        """Who holds which device at the moment."""
        return dict(self.driver.node.holders)

    def layout(self) -> list[str]:
        """What the board has now."""
        return sorted(self.driver.node.boards[0].profiles().elements())


@pytest.fixture
async def site(cluster: Cluster, api: KubeApi, namespace: str) -> AsyncIterator[Site]:
    cut = {"layout": "all-1g.10gb"}
    pool = {"name": "agent", "count": 1, "board": "A100-80GB", "boardsPerNode": 1, "agent": True, "mig": [cut]}
    async with playing_fleet(cluster.kubeconfig, pool) as fleet:
        agents = Agents(api, fleet)
        work = asyncio.create_task(agents.run())
        try:
            yield Site(api, namespace, agents.drivers[NODE])
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
    for pod in (await api.list(PODS, fields=f"spec.nodeName={NODE}"))["items"]:
        await api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
    for resource in (NODES, GPU_NODES):
        with suppress(NotFound):
            await api.delete(resource, "", NODE)


async def test_an_instance_is_made_beside_a_busy_one_on_the_only_board(cluster: Cluster, site: Site) -> None:
    with an_operator(cluster.kubeconfig):
        await site.create("neighbour", PART)
        await site.runs("neighbour")
        held = await until(site.held, "its instance is handed out")
        await site.create("half", HALF)
        await site.runs("half")
    assert "3g.40gb" in site.layout()
    assert held.items() <= site.driver.node.holders.items()
    assert await site.state("neighbour") == "Running"
    assert site.driver.wrongs == []


async def test_a_board_comes_back_whole_for_a_job_that_asks_for_one(cluster: Cluster, site: Site) -> None:
    with an_operator(cluster.kubeconfig):
        await site.create("whole", {"count": 1, "models": ["A100-80GB"]})
        await site.runs("whole")
    assert not site.driver.node.boards[0].mig_enabled
    assert site.driver.wrongs == []
