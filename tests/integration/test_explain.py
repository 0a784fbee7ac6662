"""`berth explain` on a real API server, with the rights that the chart's role gives, beside the running operator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from berth.adapters.kube import KubeApi
from berth.cli.main import app
from berth.control.ports import TRAINING_JOBS
from berth.control.status import is_true
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.integration.users import a_user

pytestmark = pytest.mark.cluster

BOARDS = {"count": 8, "models": ["H200"]}  # of which no other test has any


async def explain(kubeconfig: Path, namespace: str, name: str, status: int = 0) -> Any:
    """What the command says: as data, or, of one that fails, its words."""
    line = ["explain", f"tj/{name}", f"--namespace={namespace}", f"--kubeconfig={kubeconfig}", "--output=json"]
    result = await asyncio.to_thread(CliRunner().invoke, app, line)
    assert result.exit_code == status, result.output
    return json.loads(result.output) if status == 0 else result.output


async def test_what_it_says_would_fit_does(cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "ex", "count": 3, "board": "H200", "boardsPerNode": 8})
    ann = await a_user(api, cluster, namespace, tmp_path, "ann", "berth-explain")

    async def make(name: str, **spec: Any) -> None:
        await api.create(TRAINING_JOBS, namespace, a_training_job(name, namespace=namespace, **spec))

    async def admitted(name: str) -> bool:
        status = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return is_true(status.get("conditions"), "Admitted")

    async def waits(name: str) -> bool:
        verdict = ((await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}).get("verdict") or {}
        return verdict.get("reason") == "WaitingForCapacity"

    with an_operator(cluster.kubeconfig):
        await make("small", gpus={"count": 2, "models": ["H200"]})
        await until(lambda: admitted("small"), "the small job is admitted")
        await make("big", workers=3, gpus=BOARDS)
        await until(lambda: waits("big"), "the big job waits")

        told = await explain(ann, namespace, "big")
        assert told["state"] == "Pending"
        assert told["verdict"]["message"] == told["recordedVerdict"]["message"]
        assert {"cause": "lack free GPUs", "count": 1} in [
            {key: entry[key] for key in ("cause", "count")} for entry in told["nodes"]
        ]
        remedies = {remedy["way"]: remedy for remedy in told["remedies"]}
        assert [w["name"] for w in remedies["FreeWorkloads"]["workloads"]] == ["small"]
        assert remedies["MoreNodes"]["count"] == 1

        running = await explain(ann, namespace, "small")
        assert running["state"] == "Running"
        assert running["running"]["price"][0]["usd"] == 18.0

        await api.merge(TRAINING_JOBS, namespace, "big", {"spec": {"suspend": True}})  # no room is kept for it then
        await make("less", workers=remedies["FewerMembers"]["members"], gpus=BOARDS)
        await until(lambda: admitted("less"), "as many workers as it said fit")
        await api.delete(TRAINING_JOBS, namespace, "less")
        await api.merge(TRAINING_JOBS, namespace, "big", {"spec": {"suspend": False}})
        await api.delete(TRAINING_JOBS, namespace, "small")
        await until(lambda: admitted("big"), "the end of the job that it named makes room")


async def test_who_may_not_read_is_told_which_rights_are_missing(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    bob = await a_user(api, cluster, namespace, tmp_path, "bob")
    said = await explain(bob, namespace, "any", status=1)
    for kind in ("trainingjobs", "queues", "nodes", "pods"):
        assert f"can't list {kind}" in said
    assert 'cannot list resource "nodes" in API group "" at the cluster scope' in said.replace("\n", " ")
