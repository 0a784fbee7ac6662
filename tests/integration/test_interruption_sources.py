"""From what a cloud says of a machine to the GPUNode, through a real API server; the cloud and the boards are fakes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from aiohttp.test_utils import TestServer

from berth.adapters.kube import KubeApi
from berth.adapters.metadata import Cloud
from berth.control.ports import GPU_NODES, NODES, NotFound
from e2e.cluster.provider import Cluster
from e2e.fakegpu.agents import Agents
from e2e.fakegpu.metadata import Metadata, Notice
from e2e.harness import playing_fleet, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NODE = "spot-0"


@pytest.mark.parametrize("cloud", list(Cloud))
async def test_a_notice_is_in_the_gpunode_within_two_seconds_and_leaves_when_it_is_over(
    cluster: Cluster, api: KubeApi, cloud: Cloud
) -> None:
    async def heard() -> dict[str, str] | None:
        with suppress(NotFound):
            found: dict[str, str] | None = (await api.get(GPU_NODES, "", NODE)).get("status", {}).get("interruption")
            return found
        return None

    async def nothing() -> bool:
        return await heard() is None

    services = Metadata()
    machine = services.machine(NODE)
    server = TestServer(services.app)
    await server.start_server(shutdown_timeout=0.1)
    pool = {"name": "spot", "count": 1, "board": "A100-80GB", "boardsPerNode": 1, "agent": True}
    async with server, playing_fleet(cluster.kubeconfig, pool) as fleet:
        work = asyncio.create_task(Agents(api, fleet, str(server.make_url("")).rstrip("/"), cloud).run())
        try:

            async def listening() -> bool:
                with suppress(NotFound):
                    return bool(machine.asked.total() and (await api.get(GPU_NODES, "", NODE)).get("status"))
                return False

            await until(listening, "the agent listens, and has reported its boards")
            began = time.monotonic()
            await machine.tell(Notice("spot", seconds=30))
            found = await until(heard, "the GPUNode says it")
            assert time.monotonic() - began < 2.0
            assert found["reason"] == "SpotInterruption"
            assert set(found) == {"reason", "source", "noticedAt", "deadline"}
            await machine.tell(None)
            await until(nothing, "the GPUNode says it no more")
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
    for resource in (NODES, GPU_NODES):
        with suppress(NotFound):
            await api.delete(resource, "", NODE)
