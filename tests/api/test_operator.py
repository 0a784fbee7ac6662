"""Bad objects meet the running operator: each gets its condition, nothing comes of it, and the others are served."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from berth.adapters.kube import KubeApi, connect
from berth.control.ports import DEPLOYMENTS, INFERENCE_SERVICES, JOBS, PODS, SERVICES, TRAINING_JOBS, Resource
from berth.control.status import condition
from e2e import harness
from e2e.cluster.provider import Cluster
from tests.api.builders import a_training_job
from tests.api.cluster import Api, collection
from tests.api.manifests import bad_manifests

NAMESPACE = "refusals"
BAD = bad_manifests("misconfigured") + bad_manifests("misconfigured", "operator")
KINDS = {"TrainingJob": TRAINING_JOBS, "InferenceService": INFERENCE_SERVICES}


@pytest.mark.cluster
@pytest.mark.timeout(600)
async def test_bad_objects_are_misconfigured_and_the_others_served(cluster: Cluster, api: Api) -> None:
    for kind in KINDS:
        api.call("DELETE", collection(kind))  # what other tests left would take the boards
    async with connect(str(cluster.kubeconfig)) as kube:
        await harness.install(kube)
        await harness.make_namespace(kube, NAMESPACE)
        await harness.make_fleet(
            cluster.kubeconfig, {"name": "h100", "count": 1, "board": "H100-80GB", "boardsPerNode": 8}
        )
        with harness.an_operator(cluster.kubeconfig):
            for bad in BAD:
                await kube.create(KINDS[bad.manifest["kind"]], NAMESPACE, _here(bad.manifest))
            await kube.create(TRAINING_JOBS, NAMESPACE, _here(a_training_job()))
            await harness.until(lambda: _is_admitted(kube, "llm"), "the good job is admitted")
            unclear = await _unclear(kube)
        assert unclear == {}
        made = [item for resource in (JOBS, PODS, DEPLOYMENTS, SERVICES) for item in await _items(kube, resource)]
        owners = {item["metadata"]["labels"].get("berth.dev/name") for item in made}
        assert owners == {"llm"}


def _here(manifest: dict[str, Any]) -> dict[str, Any]:
    return {**manifest, "metadata": {"name": manifest["metadata"]["name"], "namespace": NAMESPACE}}


async def _unclear(kube: KubeApi) -> dict[str, str]:
    """What the conditions say, or don't, of objects whose fault they do not name; empty once all are named."""
    unclear: dict[str, str] = {}

    async def all_are_named() -> bool:
        items = [item for resource in KINDS.values() for item in await _items(kube, resource)]
        said = {item["metadata"]["name"]: _problem(item) for item in items}
        for bad in BAD:
            unclear[bad.name] = said[bad.name]
            if said[bad.name].startswith(bad.field) and bad.message in said[bad.name]:
                del unclear[bad.name]
        return not unclear

    with suppress(AssertionError):
        await harness.until(all_are_named, "all are named", every=1)
    return unclear


def _problem(item: dict[str, Any]) -> str:
    found = condition((item.get("status") or {}).get("conditions"), "Misconfigured")
    return found["message"] if found and found["status"] == "True" else ""


async def _is_admitted(kube: KubeApi, name: str) -> bool:
    status = (await kube.get(TRAINING_JOBS, NAMESPACE, name)).get("status") or {}
    found = condition(status.get("conditions"), "Admitted")
    return found is not None and found["status"] == "True"


async def _items(kube: KubeApi, resource: Resource) -> list[dict[str, Any]]:
    listed = (await kube.list(resource))["items"]
    return [item for item in listed if item["metadata"]["namespace"] == NAMESPACE]
