"""A service over two kinds of capacity on a real API server: its floor holds while it grows and gets smaller."""

from __future__ import annotations

from collections import Counter

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import INFERENCE_SERVICES, PODS
from e2e.cluster.provider import Cluster
from e2e.harness import an_operator, make_fleet, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MODEL = "V100-32GB"  # of which no other test has any


async def test_the_floor_holds_while_the_service_grows_and_gets_smaller(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    alike = {"count": 1, "board": MODEL, "boardsPerNode": 8}
    spots = [{"name": f"spot-{zone}", "zone": f"zone-{zone}", "capacityType": "spot", **alike} for zone in ("a", "b")]
    await make_fleet(cluster.kubeconfig, {"name": "steady", "zone": "zone-a", **alike}, *spots)
    template = {"spec": {"containers": [{"name": "serve", "image": "berth/samples:latest"}]}}
    spec = {"replicas": 8, "port": 80, "gpus": {"count": 1, "models": [MODEL]}, "template": template}

    async def split() -> dict[str, int]:
        """How many ready replicas each node has, once those are all that there are."""
        found = await api.get(INFERENCE_SERVICES, namespace, "chat")
        status, wanted = found.get("status") or {}, found["spec"]["replicas"]
        pods = [p for p in (await api.list(PODS))["items"] if p["metadata"]["namespace"] == namespace]
        if status.get("readyReplicas") != wanted or len(pods) != wanted:
            return {}
        return dict(Counter(pod["spec"]["nodeName"] for pod in pods))

    async def becomes(expected: dict[str, int]) -> bool:
        return await split() == expected

    with an_operator(cluster.kubeconfig):
        metadata = {"name": "chat", "namespace": namespace}
        body = {"apiVersion": "berth.dev/v1alpha1", "kind": "InferenceService", "metadata": metadata, "spec": spec}
        await api.create(INFERENCE_SERVICES, namespace, body)
        steps = [
            (8, {"steady-0": 4, "spot-a-0": 2, "spot-b-0": 2}),  # half on demand, a quarter in each zone
            (12, {"steady-0": 6, "spot-a-0": 3, "spot-b-0": 3}),
            (4, {"steady-0": 2, "spot-a-0": 1, "spot-b-0": 1}),
            (1, {"steady-0": 1}),
        ]
        for replicas, expected in steps:
            await api.merge(INFERENCE_SERVICES, namespace, "chat", {"spec": {"replicas": replicas}})
            await until(lambda e=expected: becomes(e), f"{replicas} replicas are {expected}")  # type: ignore[misc]
