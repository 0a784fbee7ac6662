"""The claim that is made for a job's checkpoints, on a real API server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import NODES, TRAINING_JOBS, VOLUME_CLAIMS, VOLUMES, NotFound
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NODE = "claims-0"


def a_volume(namespace: str) -> dict[str, Any]:
    """One that can be mounted everywhere, for that claim."""
    spec = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shared",
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": namespace, "name": "llm-checkpoints"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"v-{namespace}"}, "spec": spec}


async def test_it_is_there_before_the_first_attempt_for_all_of_them_and_goes_with_the_job(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "claims", "count": 1, "board": "A30", "boardsPerNode": 1})
    template = {"size": "1Gi", "storageClassName": "shared"}
    gpus = {"count": 1, "models": ["A30"]}
    job = a_training_job("llm", namespace=namespace, gpus=gpus, checkpoint={"claimTemplate": template})

    async def claim() -> dict[str, Any] | None:
        with suppress(NotFound):
            return await api.get(VOLUME_CLAIMS, namespace, "llm-checkpoints")
        return None

    async def runs(attempt: int) -> bool:
        status = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
        return (status.get("state"), status.get("attempt")) == ("Running", attempt)

    async def stopped() -> bool:
        return bool((await api.get(TRAINING_JOBS, namespace, "llm"))["status"].get("state") == "Suspended")

    async def gone() -> bool:
        return await claim() is None

    await api.create(VOLUMES, "", a_volume(namespace))
    with an_operator(cluster.kubeconfig):
        await api.create(TRAINING_JOBS, namespace, job)
        await until(lambda: runs(1), "the first attempt runs")
        first = await claim()
        assert first is not None
        assert first["status"]["phase"] == "Bound"
        await api.merge(TRAINING_JOBS, namespace, "llm", {"spec": {"suspend": True}})
        await until(stopped, "it is stopped")
        await api.merge(TRAINING_JOBS, namespace, "llm", {"spec": {"suspend": False}})
        await until(lambda: runs(2), "the second attempt runs")
        second = await claim()
        assert second is not None
        assert second["metadata"]["uid"] == first["metadata"]["uid"]
        await api.delete(TRAINING_JOBS, namespace, "llm")
        await until(gone, "the claim goes with the job")
    await api.delete(VOLUMES, "", f"v-{namespace}")
    await api.delete(NODES, "", NODE)
