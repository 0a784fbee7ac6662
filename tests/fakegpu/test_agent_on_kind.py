"""The chart's agent under a real kubelet, on the third worker of the preset `kind`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from e2e.cluster.kind import KindCluster
from e2e.demo import install
from e2e.fakegpu.deploy import on_simulated_boards, plugin_manifests
from e2e.fakegpu.kube import Kube, connect
from e2e.fakegpu.metadata import Cloud
from tests.agent.nodes import wanted
from tests.chart.helm import render, the
from tests.fakegpu.api import create, holders, until

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1200)]

PODS = "/api/v1/namespaces/default/pods"
GPUNODES = "/apis/berth.dev/v1alpha1/gpunodes"
SLOW = 180  # seconds for what a kubelet, a scheduler and a busy machine do together


@pytest.fixture
async def kube(cluster: KindCluster, image: str) -> AsyncIterator[Kube]:
    agent = {
        "enabled": True,
        "runtimeClassName": "",
        "nodeSelector": {"kubernetes.io/hostname": node_of(cluster)},
    }
    chart = [m for m in render(agent=agent) if "agent" in m["metadata"]["name"]]
    daemons = the("DaemonSet", chart)
    chart[chart.index(daemons)] = on_simulated_boards(daemons, image)
    async with connect(str(cluster.kubeconfig)) as kube:
        for manifest in (*plugin_manifests(image), *chart):
            await create(kube, collection(manifest), manifest)
        yield kube


def node_of(cluster: KindCluster) -> str:
    """The worker that has an agent."""
    return f"{cluster.name}-worker3"


def collection(manifest: dict[str, Any]) -> str:
    version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
    scope = f"/namespaces/{namespace}" if namespace else ""
    plural = manifest["kind"].lower().removesuffix("y") + ("ies" if manifest["kind"].endswith("y") else "s")
    return f"/{'api' if version == 'v1' else 'apis'}/{version}{scope}/{plural}"


async def run_pod(kube: Kube, image: str, node: str, name: str, resource: str) -> None:
    """A pod that runs for long on a node."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {resource: "1"}},
    }
    there = {"kubernetes.io/hostname": node}
    spec = {"nodeSelector": there, "containers": [container], "terminationGracePeriodSeconds": 0}
    await kube.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})
    await until(kube, f"{PODS}/{name}", lambda pod: pod["status"]["phase"] == "Running", SLOW)


def laid_out(found: Any) -> bool:
    status = found["status"]
    (condition,) = status.get("conditions") or [{"status": "Unknown"}]
    return bool(status["observedGeneration"] == found["metadata"]["generation"] and condition["status"] == "True")


async def test_new_instances_come_beside_a_busy_one_whose_process_never_notices(
    cluster: KindCluster, kube: Kube, image: str
) -> None:
    node = node_of(cluster)
    path = f"{GPUNODES}/{node}"
    seen = await until(kube, path, lambda found: len(found.get("status", {}).get("boards", ())) == 4, SLOW)
    assert seen["status"]["layouts"] == "Agent"
    assert seen["metadata"]["ownerReferences"][0]["name"] == node

    await run_pod(kube, image, node, "busy", "nvidia.com/mig-3g.40gb")
    seen = await until(kube, path, lambda found: list(holders(found).values()) == ["busy"], SLOW)
    (busy,) = (i for i in seen["status"]["boards"][2]["instances"] if "pod" in i)
    before = (await kube.request("GET", f"{PODS}/busy"))["status"]["containerStatuses"][0]

    other = 4 - busy["start"]
    board = wanted(f"3g.40gb@{busy['start']}", f"3g.40gb@{other}", board=2)
    await kube.merge(path, {"spec": {"boards": [board]}})
    await until(kube, path, laid_out, SLOW)
    await run_pod(kube, image, node, "newcomer", "nvidia.com/mig-3g.40gb")
    seen = await until(kube, path, lambda found: sorted(holders(found).values()) == ["busy", "newcomer"], SLOW)
    assert holders(seen)[busy["uuid"]] == "busy"
    after = (await kube.request("GET", f"{PODS}/busy"))["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)

    await kube.merge(path, {"spec": {"boards": [wanted("7g.80gb@0", board=2)]}})
    seen = await until(kube, path, lambda found: not laid_out(found) and _reason(found) == "BoardBusy", SLOW)
    assert len(holders(seen)) == 2
    for pod in ("busy", "newcomer"):
        await kube.request("DELETE", f"{PODS}/{pod}", gracePeriodSeconds="0")
    seen = await until(kube, path, laid_out, SLOW)
    assert [i["profile"] for i in seen["status"]["boards"][2]["instances"]] == ["7g.80gb"]


async def test_workers_hear_from_their_fake_clouds_that_they_are_taken_back(cluster: KindCluster, kube: Kube) -> None:
    cloud = Cloud(kube)
    for node in (f"{cluster.name}-worker", node_of(cluster)):
        path = f"{GPUNODES}/{node}"
        await until(kube, path, lambda found: len(found.get("status", {}).get("boards", ())) == 4, SLOW)
        await cloud.fault(node)
        told = await cloud.notice(node, kind="spot", seconds=120)
        seen = await until(kube, path, lambda found: "interruption" in found["status"], SLOW)
        assert time.time() - told < 3
        assert seen["status"]["interruption"]["reason"] == "SpotInterruption"
        await cloud.clear(node)
        await until(kube, path, lambda found: "interruption" not in found["status"], SLOW)


async def test_goes_on_after_its_pod_was_deleted_in_the_middle(cluster: KindCluster, kube: Kube) -> None:
    path = f"{GPUNODES}/{node_of(cluster)}"
    await until(kube, path, lambda found: len(found.get("status", {}).get("boards", ())) == 4, SLOW)
    sevens = [wanted(*(f"1g.10gb@{start}" for start in range(7)), board=index) for index in range(4)]
    await kube.merge(path, {"spec": {"boards": sevens}})
    agents = f"/api/v1/namespaces/{install.NAMESPACE}/pods"
    for pod in (await kube.request("GET", agents))["items"]:
        await kube.request("DELETE", f"{agents}/{pod['metadata']['name']}", gracePeriodSeconds="0")
    seen = await until(kube, path, laid_out, SLOW)
    assert [len(board["instances"]) for board in seen["status"]["boards"]] == [7, 7, 7, 7]
    node = f"/api/v1/nodes/{node_of(cluster)}"
    found = await until(
        kube, node, lambda found: found["status"]["allocatable"].get("nvidia.com/mig-1g.10gb") == "28", SLOW
    )
    assert found["status"]["allocatable"]["nvidia.com/gpu"] == "0"


def _reason(found: Any) -> str:
    return str((found["status"].get("conditions") or [{"reason": ""}])[0]["reason"])
