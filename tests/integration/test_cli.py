"""The commands that show and steer, on a real API server beside the running operator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from berth.adapters.kube import KubeApi
from berth.cli.main import app
from berth.control.ports import NODES, TRAINING_JOBS, VOLUME_CLAIMS, VOLUMES
from berth.control.status import to_rfc3339
from berth.worker.reports import Requests
from berth.worker.wire import Server
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Cluster
from e2e.harness import an_operator, make_fleet, until
from tests.integration.test_progress import reached, running_pod
from tests.integration.users import a_user

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MODEL = "V100-32GB"  # of which no other test has any
NODE = "shown-0"


async def berth(kubeconfig: Path, *line: str) -> Result:
    """A command that does not fail."""
    result = await said(kubeconfig, *line)
    assert result.exit_code == 0, result.output
    return result


async def said(kubeconfig: Path, *line: str) -> Result:
    """A command, however it ends."""
    return await asyncio.to_thread(CliRunner().invoke, app, [*line, f"--kubeconfig={kubeconfig}"])


class Program:
    """What a job's program would do: it polls for save requests, saves at once, and tells of it."""

    def __init__(self, server: Server) -> None:
        self.server, self.step = server, 40
        self.requests = Requests(server, self._told)

    def _told(self, answer: Mapping[str, Any]) -> None:
        if request := answer.get("saveRequest"):
            saved = {"step": self.step, "time": to_rfc3339(1_772_452_800), "bytes": 2**30, "seconds": 1.5}
            told = {"step": self.step, "totalSteps": 80, "checkpoint": saved, "answers": request["id"]}
            self.server.post({"berth": told})


async def test_a_job_is_made_shown_saved_suspended_and_resumed(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    admin, where = cluster.kubeconfig, f"--namespace={namespace}"
    await make_fleet(admin, {"name": "shown", "count": 1, "board": MODEL, "boardsPerNode": 4})
    await make_claim(api, namespace, "saves")
    ann = await a_user(api, cluster, namespace, tmp_path, "ann", "berth-explain")
    assert (await said(admin, "status")).exit_code in (0, 1)  # by what other tests left of the Lease
    with an_operator(admin, progressHost="localhost", progressPort=port):
        flags = ["--image=train:1", "--workers=2", "--gpus=2", f"--model={MODEL}", "--checkpoint-claim=saves", where]
        dry = await berth(admin, "submit", "llm", *flags, "--dry-run")
        assert yaml.safe_load(dry.stdout)["spec"]["gpus"] == {"count": 2, "models": [MODEL]}
        assert not [raw for raw in (await api.list(TRAINING_JOBS))["items"] if raw["metadata"]["name"] == "llm"]
        made = await berth(admin, "submit", "llm", *flags, "--wait", "--timeout=60s")
        assert "Running: Placed" in made.stderr
        manager = (await api.get(TRAINING_JOBS, namespace, "llm"))["metadata"]["managedFields"]
        assert any(one["manager"] == "berth-submit" and one["operation"] == "Apply" for one in manager)

        told = json.loads((await berth(ann, "status", "-ojson")).stdout)
        assert told["operator"]["acting"] is True
        assert told["operator"]["holder"] == "operator-under-test"
        (boards,) = [one for one in told["boards"] if one["model"] == MODEL]
        assert (boards["total"], boards["held"], boards["idle"]) == (4, 4, 0)

        deaf = await said(admin, "checkpoint", "llm", where)
        assert (deaf.exit_code, "ask for no save requests" in deaf.output) == (1, True)
        program = Program(await reached(api, namespace, await running_pod(api, namespace, 1), tmp_path))
        await until(lambda: listens(api, namespace), "the status says that somebody listens")
        saved = json.loads((await berth(admin, "checkpoint", "llm", where, "--timeout=60s", "-ojson")).stdout)
        assert saved == {"attempt": 1, "step": 40, "time": "2026-03-02T12:00:00Z", "bytes": 2**30, "seconds": 1.5}
        program.step = 60
        again = await berth(admin, "checkpoint", "tj/llm", where, "--timeout=60s")
        assert "saved step 60" in again.stdout
        program.requests.close()

        (row,) = json.loads((await berth(admin, "top", "--once", "-ojson", where)).stdout)["workloads"]
        assert (row["state"], row["nodes"], row["percent"], row["members"]) == ("Running", [NODE], 75, 2)
        assert row["checkpointAgeSeconds"] > 0
        table = (await berth(admin, "top", where)).stdout
        assert f"{namespace}/llm" in table
        assert "75%" in table

        stopped = await berth(admin, "suspend", "llm", where, "--wait", "--timeout=60s")
        assert "is suspended; its last checkpoint is step 60, of 2026-03-02T12:00:00Z" in stopped.stdout
        told = json.loads((await berth(ann, "status", "-ojson")).stdout)
        assert [one["held"] for one in told["boards"] if one["model"] == MODEL] == [0]
        assert (await berth(admin, "top", where)).stdout == "Nothing runs here.\n"
        resumed = await berth(admin, "resume", "llm", where, "--wait", "--timeout=60s")
        assert "TrainingJob" in resumed.stdout
        status = (await api.get(TRAINING_JOBS, namespace, "llm"))["status"]
        assert (status["attempt"], status["state"]) == (2, "Running")

        refused = await said(admin, "submit", "llm", "--image=train:1", "--gpus=4", where)
        assert (refused.exit_code, "--gpus (spec.gpus)" in refused.output) == (1, True), refused.output
    await api.delete(TRAINING_JOBS, namespace, "llm")
    await api.delete(NODES, "", NODE)


async def test_who_may_not_is_told_so_and_whom_to_ask(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    bob, where = await a_user(api, cluster, namespace, tmp_path, "bob"), f"--namespace={namespace}"
    for line in (
        ["submit", "llm", "--image=train:1", "--gpus=1"],
        ["suspend", "llm"],
        ["resume", "llm"],
        ["checkpoint", "llm"],
        ["top"],
    ):
        result = await said(bob, *line, where)
        assert result.exit_code == 1, result.output
        assert "trainingjobs" in result.output
        assert "ask an administrator for that right: docs/cli.md" in result.output


async def make_claim(api: KubeApi, namespace: str, name: str) -> None:
    """A claim with a volume that every node has."""
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp"}, **shared}
    own = {"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": f"{namespace}-{name}"}, "spec": volume}
    await api.create(VOLUMES, "", own)
    spec = {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"{namespace}-{name}", **shared}
    metadata = {"name": name, "namespace": namespace}
    claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": metadata, "spec": spec}
    await api.create(VOLUME_CLAIMS, namespace, claim)


async def listens(api: KubeApi, namespace: str) -> bool:
    """Whether members of the first attempt ask for save requests, as its status says."""
    return bool((await api.get(TRAINING_JOBS, namespace, "llm"))["status"].get("listens") == 1)
