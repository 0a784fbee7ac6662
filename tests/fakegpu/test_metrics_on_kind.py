"""The chart's agents on two real workers, asked by Prometheus' way: each pod does what its device was told to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.cluster.kind import KindCluster
from e2e.demo import install
from e2e.fakegpu.deploy import on_simulated_boards, plugin_manifests
from e2e.fakegpu.kube import Kube, connect
from e2e.fakegpu.objects import LOAD
from tests.agent.nodes import wanted
from tests.chart.helm import render, the
from tests.fakegpu.api import create, until
from tests.fakegpu.test_agent_on_kind import GPUNODES, PODS, SLOW, collection

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1200)]

AGENTS = f"/api/v1/namespaces/{install.NAMESPACE}/pods"
DAEMONS = f"/apis/apps/v1/namespaces/{install.NAMESPACE}/daemonsets"
APP = "metrics-agent"
HALF = "nvidia.com/mig-3g.40gb"
INTERVAL_SECONDS = 10  # of scrapes
Series = dict[str, tuple[dict[str, str], float]]  # by pod: labels and utilization


@pytest.fixture
async def kube(cluster: KindCluster, image: str) -> AsyncIterator[Kube]:
    """Agents of their own on two workers; what else is on these nodes is not asked."""
    chart = [m for m in render(agent={"enabled": True, "runtimeClassName": ""}) if "agent" in m["metadata"]["name"]]
    daemons = the("DaemonSet", chart)
    chart.remove(daemons)
    daemons["metadata"]["name"] = APP
    template = daemons["spec"]["template"]
    daemons["spec"]["selector"] = {"matchLabels": {"app": APP}}
    template["metadata"]["labels"] = {"app": APP}
    template["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}
    template["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": one_of(*nodes_of(cluster))}
    }
    async with connect(str(cluster.kubeconfig)) as kube:
        await kube.request("DELETE", DAEMONS)  # the agents of other tests have the same port of their nodes
        for manifest in (*plugin_manifests(image), *chart):
            await create(kube, collection(manifest), manifest)
        await until(kube, AGENTS, lambda found: not found["items"], SLOW)
        await create(kube, DAEMONS, on_simulated_boards(daemons, image))
        yield kube
        await kube.request("DELETE", f"{DAEMONS}/{APP}")
        for node in nodes_of(cluster):
            await tell(kube, node, None)


def one_of(*nodes: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    return {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}


def nodes_of(cluster: KindCluster) -> tuple[str, str]:
    return f"{cluster.name}-worker2", f"{cluster.name}-worker3"


async def tell(kube: Kube, node: str, load: dict[str, float] | None) -> None:
    """Have the node's boards and instances do this."""
    text = ",".join(f"{device}={share}" for device, share in load.items()) if load else None
    await kube.merge(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {LOAD: text}}})


async def run_pod(kube: Kube, image: str, node: str, name: str, resource: str) -> None:
    """A pod of a workload that runs for long on a node."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {resource: "1"}},
    }
    metadata = {"name": name, "labels": {"berth.dev/name": "llm"}, "annotations": {"berth.dev/queue": "research"}}
    spec = {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container], "restartPolicy": "Never"}
    await kube.request("POST", PODS, {"metadata": metadata, "spec": spec})
    await until(kube, f"{PODS}/{name}", lambda pod: pod["status"]["phase"] == "Running", SLOW)


async def scraped(cluster: KindCluster, kube: Kube, node: str) -> str:
    """The page of the node's agent; "" while it does not answer."""
    pods = (await kube.request("GET", AGENTS, labelSelector=f"app={APP}"))["items"]
    name = next((pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node), "")
    path = f"{AGENTS}/{name}:8082/proxy/metrics"
    try:
        return await asyncio.to_thread(install.kubectl, cluster.kubeconfig, "get", "--raw", path)
    except Exception:
        return ""


def busy(page: str) -> Series:
    """What each pod does."""
    found = (s for f in text_string_to_metric_families(page) for s in f.samples)
    utilization = (s for s in found if s.name == "berth_gpu_utilization_ratio")
    return {s.labels["pod"]: (s.labels, s.value) for s in utilization if s.labels["pod"]}


async def until_scraped(cluster: KindCluster, kube: Kube, node: str, holds: Callable[[Series], bool]) -> Series:
    """What the pods of a node do, once it is so."""
    deadline, found = time.monotonic() + SLOW, Series()
    while time.monotonic() < deadline:
        found = busy(await scraped(cluster, kube, node))
        if holds(found):
            return found
        await asyncio.sleep(0.5)
    raise AssertionError(f"it never came to it on {node}: {found}")


async def lay_out(kube: Kube, node: str) -> None:
    """Two whole boards and one in halves, whatever other tests left there."""
    whole = [{"index": index, "migEnabled": False} for index in (0, 1)]
    path = f"{GPUNODES}/{node}"
    await until(kube, path, lambda found: len(found.get("status", {}).get("boards", ())) == 4, SLOW)
    await kube.merge(path, {"spec": {"boards": [*whole, wanted("3g.40gb@0", "3g.40gb@4", board=2)]}})

    def offered(found: Any) -> bool:
        allocatable = found["status"]["allocatable"]
        return int(allocatable.get("nvidia.com/gpu", 0)) >= 2 and int(allocatable.get(HALF, 0)) >= 2

    await until(kube, f"/api/v1/nodes/{node}", offered, SLOW)


async def test_each_pod_does_what_its_device_was_told_and_takes_it_along_to_another_node(
    cluster: KindCluster, kube: Kube, image: str
) -> None:
    there, here = nodes_of(cluster)
    for node in (here, there):
        await lay_out(kube, node)
    told = {"0": 0.8, "1": 0.3, "2@0": 0.1, "2@4": 0.5}
    await tell(kube, here, told)
    await tell(kube, there, {"0": 0.55, "1": 0.65})
    await run_pod(kube, image, here, "whole", "nvidia.com/gpu")
    await run_pod(kube, image, here, "slice", HALF)

    def as_told(found: Series) -> bool:
        return found.keys() == {"whole", "slice"} and all(
            value == pytest.approx(told[device_of(labels)]) for labels, value in found.values()
        )

    found = await until_scraped(cluster, kube, here, as_told)
    for labels, _ in found.values():
        assert (labels["node"], labels["workload"], labels["queue"]) == (here, "llm", "research")
    assert found["slice"][0]["profile"] == "3g.40gb"

    told |= {device: share / 2 for device, share in told.items()}
    await tell(kube, here, told)
    await until_scraped(cluster, kube, here, as_told)

    await kube.request("DELETE", f"{PODS}/whole", gracePeriodSeconds="5")
    await gone(kube, f"{PODS}/whole")
    went = time.monotonic()
    await until_scraped(cluster, kube, here, lambda found: found.keys() == {"slice"})
    assert time.monotonic() - went < INTERVAL_SECONDS
    await run_pod(kube, image, there, "whole", "nvidia.com/gpu")
    found = await until_scraped(cluster, kube, there, lambda found: "whole" in found)
    assert found["whole"][1] in (0.55, 0.65)
    assert found["whole"][0]["node"] == there
    assert "whole" not in busy(await scraped(cluster, kube, here))


def device_of(labels: dict[str, str]) -> str:
    """The device of a series as loads are told."""
    return f"{labels['gpu']}@{int(labels['instance']) - 1}" if labels["instance"] else labels["gpu"]


async def gone(kube: Kube, path: str) -> None:
    """Wait until the object is deleted."""
    names = path.rpartition("/")
    await until(
        kube, names[0], lambda found: names[2] not in [item["metadata"]["name"] for item in found["items"]], SLOW
    )
