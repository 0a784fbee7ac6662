"""The device plugin under real kubelets: 4 boards on each worker without an agent, as the preset `kind` says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from e2e.cluster.engine import lease
from e2e.cluster.kind import KindCluster, KindError
from e2e.fakegpu.deploy import plugin_manifests
from e2e.fakegpu.kube import Kube, connect
from e2e.fakegpu.objects import HOLD
from tests.fakegpu.api import create, holders, until
from tests.fakegpu.machines import change, mig_configs

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1200)]

PODS = "/api/v1/namespaces/default/pods"
CONFIG = "/api/v1/namespaces/gpu-operator/configmaps"
GPUNODES = "/apis/berth.dev/v1alpha1/gpunodes"
STATE = "nvidia.com/mig.config.state"
SLOW = 120  # seconds for what a kubelet, a scheduler and a busy machine do together
COLLECTIONS = {"rbac.authorization.k8s.io/v1": "apis", "apps/v1": "apis", "v1": "api"}


@pytest.fixture
async def kube(cluster: KindCluster, image: str) -> AsyncIterator[Kube]:
    async with connect(str(cluster.kubeconfig)) as kube:
        for manifest in plugin_manifests(image):
            await create(kube, _collection(manifest), manifest)
        for worker in workers(cluster):
            await until(kube, f"/api/v1/nodes/{worker}", allocatable, SLOW)
        yield kube
        await kube.request("DELETE", PODS, gracePeriodSeconds="0")


WORKER = {
    "nvidia.com/gpu": 2,
    "nvidia.com/mig-1g.10gb": 4,
    "nvidia.com/mig-2g.20gb": 3,
    "nvidia.com/mig-3g.40gb": 1,
}


def workers(cluster: KindCluster) -> tuple[str, str]:
    """The names of both workers."""
    return f"{cluster.name}-worker", f"{cluster.name}-worker2"


def allocatable(node: Any) -> dict[str, int]:
    """What the kubelet says of GPU resources, without those that are down to 0."""
    resources = node["status"].get("allocatable", {})
    return {name: int(count) for name, count in resources.items() if name.startswith("nvidia.com/") and count != "0"}


def _collection(manifest: dict[str, Any]) -> str:
    version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/{COLLECTIONS[version]}/{version}{scope}/{manifest['kind'].lower()}s"


async def run_pod(kube: Kube, image: str, node: str, name: str, **limits: int) -> None:
    """A pod bound to the node that prints the devices it sees and goes on running."""
    program = "import os, time; print(os.environ['NVIDIA_VISIBLE_DEVICES'], flush=True); time.sleep(3600)"
    resources = {f"nvidia.com/{key.replace('mig_', 'mig-').replace('_', '.')}": str(n) for key, n in limits.items()}
    container = {"name": "main", "image": image, "command": ["python3", "-c", program]}
    container |= {"imagePullPolicy": "IfNotPresent", "resources": {"limits": resources}}  # type: ignore[dict-item]
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
    await kube.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})


async def devices_seen(cluster: KindCluster, kube: Kube, name: str) -> set[str]:
    """What the pod's program found in its environment."""
    await until(kube, f"{PODS}/{name}", lambda pod: pod["status"]["phase"] == "Running", SLOW)
    for _ in range(100):
        if printed := (await asyncio.to_thread(cluster.kubectl, "logs", name)).strip():
            return set(printed.split(","))
        await asyncio.sleep(0.2)
    raise AssertionError(f"{name} printed nothing")


async def test_each_pod_sees_its_devices_and_the_gpunode_names_their_holders(
    cluster: KindCluster, kube: Kube, image: str
) -> None:
    node = workers(cluster)[0]
    await run_pod(kube, image, node, "whole", gpu=2)
    await run_pod(kube, image, node, "part", mig_1g_10gb=2)
    whole, part = await devices_seen(cluster, kube, "whole"), await devices_seen(cluster, kube, "part")
    assert {device[:4] for device in whole} == {"GPU-"}
    assert {device[:4] for device in part} == {"MIG-"}
    assert (len(whole), len(part)) == (2, 2)
    seen = await until(kube, f"{GPUNODES}/{node}", lambda found: len(holders(found)) == 4, SLOW)
    assert {device for device, pod in holders(seen).items() if pod == "whole"} == whole
    assert {device for device, pod in holders(seen).items() if pod == "part"} == part


async def test_registers_again_after_the_kubelet_restarts(cluster: KindCluster, kube: Kube) -> None:
    node = workers(cluster)[0]
    with lease() as engine:
        engine.docker("exec", node, "systemctl", "restart", "kubelet")
    for _ in range(SLOW):
        if await asyncio.to_thread(registrations, cluster, node) == 2:
            break
        await asyncio.sleep(1)
    else:
        raise AssertionError("the plugin did not register again")
    await until(kube, f"/api/v1/nodes/{node}", lambda found: allocatable(found) == WORKER, SLOW)


def registrations(cluster: KindCluster, node: str) -> int:
    """How often a node's plugin registered its whole boards; 0 while the kubelet starts and serves no logs."""
    here = ("--namespace=gpu-operator", "--selector=app.kubernetes.io/name=berth-fakegpu")
    try:
        pod = cluster.kubectl("get", "pods", *here, f"--field-selector=spec.nodeName={node}", "--output=name").strip()
        return cluster.kubectl("logs", "--namespace=gpu-operator", pod).count("registered nvidia.com/gpu")
    except KindError:
        return 0


async def test_a_plugin_has_no_rights_beyond_its_work(cluster: KindCluster, kube: Kube) -> None:
    account = "--as=system:serviceaccount:gpu-operator:berth-fakegpu"
    for verb, resource in (("delete", "nodes"), ("list", "pods"), ("get", "secrets"), ("create", "pods")):
        with pytest.raises(KindError, match="can-i"):  # kubectl fails where the answer is no
            cluster.kubectl("auth", "can-i", verb, resource, account)


async def test_a_repartition_refuses_late_pods_and_spares_busy_boards(
    cluster: KindCluster, kube: Kube, image: str
) -> None:
    node = workers(cluster)[1]
    path = f"/api/v1/nodes/{node}"
    text = mig_configs(busy=[change([0, 1], p_7g_80gb=1)], idle=[change([1], p_3g_40gb=2)])
    metadata = {"name": "default-mig-parted-config"}
    await kube.request("POST", CONFIG, {"metadata": metadata, "data": {"config.yaml": text}})
    await run_pod(kube, image, node, "busy", gpu=1)
    (device,) = await devices_seen(cluster, kube, "busy")
    seen = await until(kube, f"{GPUNODES}/{node}", lambda found: list(holders(found)) == [device], SLOW)
    assert seen["status"]["boards"][0]["uuid"] == device

    await kube.merge(path, {"metadata": {"annotations": {HOLD: "until the late pod was refused"}}})
    await label_once_readable(kube, path, "idle")
    await until(kube, path, lambda found: not allocatable(found), SLOW)
    await run_pod(kube, image, node, "late", gpu=1)
    late = await until(kube, f"{PODS}/late", lambda pod: pod["status"]["phase"] == "Failed", SLOW)
    assert late["status"]["reason"] == "UnexpectedAdmissionError"
    assert state(await kube.request("GET", path)) == "pending"
    await kube.merge(path, {"metadata": {"annotations": {HOLD: None}}})
    await until(kube, path, lambda found: state(found) == "success", SLOW)
    expected = WORKER | {"nvidia.com/gpu": 1, "nvidia.com/mig-3g.40gb": 3}
    await until(kube, path, lambda found: allocatable(found) == expected, SLOW)
    assert (await devices_seen(cluster, kube, "busy")) == {device}

    await kube.merge(path, {"metadata": {"labels": {"nvidia.com/mig.config": "busy"}}})
    await until(kube, path, lambda found: state(found) == "failed", SLOW)
    await until(kube, path, lambda found: allocatable(found) == expected, SLOW)
    await kube.merge(path, {"metadata": {"labels": {"nvidia.com/mig.config": None}}})


async def label_once_readable(kube: Kube, path: str, entry: str) -> None:
    """Ask for an entry until the plugin has read it: its file lags behind the ConfigMap.

    Each change of the label is an attempt of its own, and the one that finds the entry is held: it can't be missed.
    """
    for _ in range(SLOW):
        await kube.merge(path, {"metadata": {"labels": {"nvidia.com/mig.config": entry}}})
        for _ in range(10):
            if state(await kube.request("GET", path)) == "pending":
                return
            await asyncio.sleep(0.1)
        await kube.merge(path, {"metadata": {"labels": {"nvidia.com/mig.config": None}}})
    raise AssertionError(f"{entry} was never read")


def state(node: Any) -> str:
    """What mig-manager says of its work."""
    return str(node["metadata"]["labels"][STATE])
