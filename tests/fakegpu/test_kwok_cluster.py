"""The KWOK fleet against a real API server, scheduler and KWOK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from e2e.cluster.provider import Cluster, Provider, running
from e2e.fakegpu.kube import ApiError, Kube, connect
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.objects import HOLD, UNHEALTHY
from tests.fakegpu.api import boards, create, holders, install_crd, starts, until
from tests.fakegpu.machines import a_fleet, change, mig_configs

pytestmark = pytest.mark.cluster

PODS = "/api/v1/namespaces/default/pods"
NODE = "/api/v1/nodes/n-0"
GPUNODE = "/apis/berth.dev/v1alpha1/gpunodes/n-0"
STATE = "nvidia.com/mig.config.state"
CONFIG = "/api/v1/namespaces/gpu-operator/configmaps"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(Provider.LOCAL) as cluster:
        yield cluster


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    async with connect(str(cluster.kubeconfig)) as kube:
        await install_crd(kube)
        await create(kube, "/api/v1/namespaces", {"metadata": {"name": "gpu-operator"}})
        yield kube
        await kube.request("DELETE", PODS, gracePeriodSeconds="0")
        await kube.request("DELETE", CONFIG)
        await _gone(kube, NODE)
        await _gone(kube, GPUNODE)


async def _gone(kube: Kube, path: str) -> None:
    """Delete an object, and wait until it is gone."""
    while True:
        try:
            await kube.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return
        await asyncio.sleep(0.05)


@asynccontextmanager
async def playing(kube: Kube, **pool: Any) -> AsyncIterator[KwokFleet]:
    """The fleet of one node "n-0", while the block runs."""
    fleet = KwokFleet(kube, a_fleet(count=1, **pool))
    await fleet.create()
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def run_pod(kube: Kube, name: str, node: str | None = None, **limits: int) -> None:
    """Create a pod; with a node, as if the scheduler had chosen it."""
    resources = {f"nvidia.com/{key}": str(count) for key, count in limits.items()}
    container = {"name": "main", "image": "none", "resources": {"limits": resources}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0} | ({"nodeName": node} if node else {})
    await kube.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})


async def test_a_pod_runs_and_its_boards_show_it_until_it_ends(kube: Kube) -> None:
    async with playing(kube):
        await run_pod(kube, "train", gpu=2)
        await until(kube, f"{PODS}/train", lambda pod: pod["status"]["phase"] == "Running")
        seen = await until(kube, GPUNODE, lambda found: list(holders(found).values()) == ["train", "train"])
        assert seen["metadata"]["ownerReferences"][0]["kind"] == "Node"
        await kube.request("DELETE", f"{PODS}/train")
        await until(kube, GPUNODE, lambda found: not holders(found))


async def test_pods_bound_beyond_the_boards_fail_as_a_kubelet_fails_them(kube: Kube) -> None:
    async with playing(kube):
        for name in ("first", "second", "third"):
            await run_pod(kube, name, node="n-0", gpu=1)
        pod = await until(kube, f"{PODS}/third", lambda pod: pod["status"]["phase"] == "Failed")
        assert pod["status"]["reason"] == "UnexpectedAdmissionError"


async def test_a_restarted_fleet_remembers_who_holds_what(kube: Kube) -> None:
    async with playing(kube, boardsPerNode=8):
        for name in ("c", "b", "a"):
            await run_pod(kube, name, node="n-0", gpu=2)
        before = await until(kube, GPUNODE, lambda found: len(holders(found)) == 6)
        await kube.request("DELETE", f"{PODS}/b")
        await until(kube, GPUNODE, lambda found: len(holders(found)) == 4)
    async with playing(kube, boardsPerNode=8):
        await run_pod(kube, "d", node="n-0", gpu=1)
        after = await until(kube, GPUNODE, lambda found: len(holders(found)) == 5)
    kept = {uuid: pod for uuid, pod in holders(before).items() if pod != "b"}
    assert kept.items() < holders(after).items()


async def test_the_label_repartitions_a_node_and_its_labels_follow(kube: Kube) -> None:
    everywhere = [{"layout": "all-1g.10gb"}]
    text = mig_configs(halves=[change("all", p_3g_40gb=2)])
    await kube.request(
        "POST", CONFIG, {"metadata": {"name": "default-mig-parted-config"}, "data": {"config.yaml": text}}
    )
    async with playing(kube, mig=everywhere):
        await until(kube, NODE, lambda node: node["status"]["allocatable"].get("nvidia.com/mig-1g.10gb") == "14")
        labels = {"nvidia.com/mig.config": "halves"}
        await kube.merge(NODE, {"metadata": {"labels": labels, "annotations": {HOLD: "until it was seen"}}})
        await until(kube, NODE, lambda node: node["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] == "0")
        await kube.merge(NODE, {"metadata": {"annotations": {HOLD: None}}})
        node = await until(kube, NODE, lambda node: node["status"]["allocatable"].get("nvidia.com/mig-3g.40gb") == "4")
        node = await until(kube, NODE, lambda node: node["metadata"]["labels"].get(STATE) == "success")
        labels = node["metadata"]["labels"]
        assert labels["nvidia.com/mig-3g.40gb.count"] == "4"
        assert not any(key.startswith("nvidia.com/mig-1g.10gb") for key in labels)
        await until(kube, GPUNODE, lambda found: starts(found) == [0, 4])


async def test_broken_boards_leave_allocatable_and_show_in_the_gpunode(kube: Kube) -> None:
    async with playing(kube):
        await kube.merge(NODE, {"metadata": {"annotations": {UNHEALTHY: "1"}}})
        await until(kube, NODE, lambda node: node["status"]["allocatable"]["nvidia.com/gpu"] == "1")
        await until(kube, GPUNODE, lambda found: [b["healthy"] for b in boards(found)] == [True, False])


async def test_labels_of_others_stay(kube: Kube) -> None:
    async with playing(kube):
        await kube.merge(NODE, {"metadata": {"labels": {"example.com/theirs": "1"}}})
        await kube.merge(NODE, {"metadata": {"annotations": {UNHEALTHY: "0"}}})
        node = await until(kube, NODE, lambda node: node["status"]["allocatable"]["nvidia.com/gpu"] == "1")
        assert node["metadata"]["labels"]["example.com/theirs"] == "1"
