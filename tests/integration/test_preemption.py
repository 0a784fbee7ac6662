"""Who borrowed gives back, and runs again later; what is freed goes to whom it was freed for. On a real API server."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import QUEUES, TRAINING_JOBS
from berth.control.status import condition, is_true
from e2e.cluster.provider import Cluster
from e2e.harness import OperatorProcess, a_training_job, an_operator, make_fleet, until
from tests.integration.watching import Witness, a_witness, node_of

pytestmark = pytest.mark.cluster

AT_ONCE = {"minRuntimeSeconds": 0}
SLOW_TO_STOP = {"kwok.berth.dev/stop-seconds": "25"}  # of a grace period of 30


class Site:
    """A namespace, two queues of one tree, and boards of a model that no other test has."""

    def __init__(self, api: KubeApi, namespace: str, model: str) -> None:
        self.api, self.namespace, self.model = api, namespace, model

    async def queues(self, nominal: int) -> None:
        """An owner with so many boards, and a borrower that owns none."""
        await self._queue(f"{self.namespace}-root", {})
        await self._queue("owner", {"model": self.model, "nominal": nominal})
        await self._queue("borrower", {"model": self.model, "nominal": 0})

    async def _queue(self, name: str, quota: dict[str, Any]) -> None:
        root = f"{self.namespace}-root"
        spec = {"parent": root, "quotas": [quota]} if quota else {}
        metadata = {"name": name if name == root else f"{self.namespace}-{name}"}
        body = {"apiVersion": "berth.dev/v1alpha1", "kind": "Queue", "metadata": metadata, "spec": spec}
        await self.api.create(QUEUES, "", body)

    async def make(
        self,
        name: str,
        queue: str,
        workers: int = 1,
        annotations: Mapping[str, str] = MappingProxyType({}),
        **spec: Any,
    ) -> None:
        """A job of whole nodes; its pods have these annotations."""
        gpus = {"count": 8, "models": [self.model]}
        more = {"gpus": gpus, "queueName": f"{self.namespace}-{queue}", "workers": workers, **spec}
        body = a_training_job(name, namespace=self.namespace, annotations=dict(annotations), **more)
        await self.api.create(TRAINING_JOBS, self.namespace, body)

    async def status(self, name: str) -> dict[str, Any]:
        """What a job's status says."""
        found: dict[str, Any] = (await self.api.get(TRAINING_JOBS, self.namespace, name)).get("status") or {}
        return found

    async def runs(self, name: str) -> bool:
        """Whether all its pods are ready."""
        return is_true((await self.status(name)).get("conditions"), "PodsReady")

    async def is_its_turn(self, name: str) -> bool:
        """Whether it runs, or others are to give way to it."""
        verdict = (await self.status(name)).get("verdict") or {}
        return verdict.get("reason") == "WaitingForPreemption" or await self.runs(name)


async def test_a_borrower_gives_back_and_runs_again_later(cluster: Cluster, api: KubeApi, namespace: str) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "lent", "count": 1, "board": "B300", "boardsPerNode": 8})
    site = Site(api, namespace, "B300")
    await site.queues(nominal=8)
    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig, preemption=AT_ONCE):
            await site.make("lent", "borrower")
            await until(lambda: site.runs("lent"), "the borrower runs")
            await site.make("own", "owner")
            await until(lambda: site.runs("own"), "the owner has its boards back", 90.0)
            lent = await site.status("lent")
            evicted = condition(lent["conditions"], "Evicted")
            assert evicted is not None
            assert (evicted["status"], evicted["reason"]) == ("True", "Reclaimed")
            assert "takes back B300" in evicted["message"]
            assert lent["gaveWayTo"]["name"] == "own"
            await api.delete(TRAINING_JOBS, namespace, "own")
            await until(lambda: site.runs("lent"), "the borrower runs again", 90.0)
            lent = await site.status("lent")
            assert (lent["attempt"], lent.get("gaveWayTo")) == (2, None)
    assert not witness.broken


async def test_killed_between_the_stop_and_the_admission_it_keeps_what_is_freed(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Any
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "freed", "count": 2, "board": "H100-94GB", "boardsPerNode": 8})
    site = Site(api, namespace, "H100-94GB")
    await site.queues(nominal=16)
    operator = OperatorProcess(cluster.kubeconfig, tmp_path, {"preemption": AT_ONCE})
    async with a_witness(api) as witness:
        try:
            operator.start()
            operator.wait_ready()
            await site.make("held", "borrower", annotations=SLOW_TO_STOP)
            await until(lambda: site.runs("held"), "the borrower runs")
            await site.make("owned", "owner", workers=2)  # one node is free, and not enough
            await until(lambda: _ends(witness, "held"), "the borrower's worker is told to end", 90.0)
            operator.kill()
            await site.make("late", "borrower")  # would fit on the node that is free
            operator.start()
            operator.wait_ready()
            await until(lambda: _told(site, "late"), "the late one is told why it waits")
            await until(lambda: site.is_its_turn("owned"), "the owner waits for who gives way")
            assert not any(map(node_of, witness.members("late")))
            await until(lambda: site.runs("owned"), "the owner runs", 90.0)
            assert [name for name in ("late", "held") if await site.runs(name)] == []
        finally:
            operator.stop()
    assert not witness.broken


async def _ends(witness: Witness, job: str) -> bool:
    return any("deletionTimestamp" in pod["metadata"] for pod in witness.members(job))


async def _told(site: Site, name: str) -> bool:
    return "verdict" in await site.status(name)
