"""`berth drain` on a real API server, with the rights that the chart's role gives, beside the running operator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from berth.adapters.kube import KubeApi
from berth.cli.main import app
from berth.control.ports import INFERENCE_SERVICES, NODES, TRAINING_JOBS
from berth.control.status import is_true
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.users import a_user
from tests.integration.watching import a_witness

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MODEL = "L4"  # of which no other test has any


async def berth(*line: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    result = await asyncio.to_thread(CliRunner().invoke, app, line)
    return result.exit_code, result.output


async def test_a_gang_moves_off_and_the_node_is_safe(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "drained", "count": 2, "board": MODEL, "boardsPerNode": 8})
    ops = f"--kubeconfig={await a_user(api, cluster, namespace, tmp_path, 'ops', 'berth-drain')}"
    bob = f"--kubeconfig={await a_user(api, cluster, namespace, tmp_path, 'bob')}"
    gpus = {"count": 4, "models": [MODEL]}

    async def status() -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
        return found

    async def runs() -> bool:
        return is_true((await status()).get("conditions"), "PodsReady")

    async def node() -> str:
        (assignment,) = (await status())["placement"]["assignments"]
        return str(assignment["node"])

    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig):
            await api.create(TRAINING_JOBS, namespace, a_training_job("llm", namespace=namespace, workers=2, gpus=gpus))
            await until(runs, "the gang runs")
            old = await node()
            code, said = await berth("drain", old, bob)
            assert (code, "the rights to get and patch nodes" in said) == (1, True)
            code, said = await berth("drain", old, "--timeout=2m", ops)
            assert code == 0, said
            assert f"{old}: safe, nothing of Berth's work is left on it" in said.splitlines()
            await until(runs, "the gang runs elsewhere")
            assert await node() != old
            assert not any(p["spec"].get("nodeName") == old for p in witness.members("llm", attempt=2))
            (loss,) = (await status())["losses"]["byReason"]
            assert (loss["reason"], loss["attempts"]) == ("Drain", 1)
            assert await berth("undrain", old, ops) == (0, f"{old}: takes work again\n")
            raw = await api.get(NODES, "", old)
            assert "berth.dev/drain" not in raw["metadata"]["annotations"]
            assert not raw["spec"].get("unschedulable")
    assert not witness.broken


async def test_a_service_that_can_spare_no_replica_holds_it_up_until_there_is_room_for_another(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "spared", "count": 1, "board": "L40S", "boardsPerNode": 2})
    admin = f"--kubeconfig={cluster.kubeconfig}"
    template = {"spec": {"containers": [{"name": "serve", "image": "berth/samples:latest"}]}}
    spec = {"replicas": 1, "port": 80, "gpus": {"count": 1, "models": ["L40S"]}, "template": template}

    async def ready(count: int) -> bool:
        found = (await api.get(INFERENCE_SERVICES, namespace, "chat")).get("status") or {}
        return bool(found.get("readyReplicas") == count)

    async def nodes() -> list[str]:
        pods = (await api.request("GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]
        return [p["spec"]["nodeName"] for p in pods if not p["metadata"].get("deletionTimestamp")]

    with an_operator(cluster.kubeconfig):
        metadata = {"name": "chat", "namespace": namespace}
        body = {"apiVersion": "berth.dev/v1alpha1", "kind": "InferenceService", "metadata": metadata, "spec": spec}
        await api.create(INFERENCE_SERVICES, namespace, body)
        await until(lambda: ready(1), "the replica is ready")
        (old,) = await nodes()
        code, said = await berth("drain", old, "--timeout=5s", admin)
        assert code == 1
        assert "its disruption budget, which needs 1 ready of 1, holds it up until another is ready" in said
        await make_fleet(cluster.kubeconfig, {"name": "room", "count": 1, "board": "L40S", "boardsPerNode": 2})
        code, said = await berth("drain", old, "--timeout=2m", admin)
        assert code == 0, said
        assert old not in await nodes()
        await berth("undrain", old, admin)
