"""`berth status`: the fleet on one screen."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from berth.cli.fleet import Boards, health_of
from berth.cli.main import app
from berth.control.status import to_rfc3339
from tests.cli.clusters import Cli, a_cluster, a_foreign_pod
from tests.control.builders import a_node, a_queue, a_service, a_training_job


def a_lease(age: float = 1.0, holder: str = "berth-0") -> dict[str, Any]:
    """The operator's Lease, renewed so many seconds ago."""
    renewed = to_rfc3339(time.time() - age)
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}
    return {"metadata": {"name": "berth", "namespace": "berth-system"}, "spec": spec}


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """Four nodes, of which one is cordoned; one job that waits for more than there is, and one that is suspended."""
    async with a_cluster(tmp_path) as cluster:
        cordoned = a_node("n3", boards=8)
        cordoned["spec"]["unschedulable"] = True
        cluster.lists.put("nodes", cordoned, a_node("n4", boards=8))
        cluster.lists.put("pods", a_foreign_pod("theirs", node="n1", boards=3))
        cluster.lists.put("leases", a_lease())
        cluster.lists.put("queues", a_queue("red", H100=16))
        waiting = a_training_job("big", workers=9, boards=8, queueName="red")
        waiting["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.lists.put("trainingjobs", waiting, a_training_job("off", suspend=True))
        yield cluster


async def test_one_screen_tells_of_all(cli: Cli) -> None:
    result = await cli("status")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.output.splitlines()]
    assert lines[0].startswith("operator: berth-0 acts, Lease renewed ")
    assert lines[1] == "workloads: 1 pending, 1 suspended"
    assert next(line.split() for line in lines if line.startswith("H100")) == [
        "H100-80GB",
        "32",
        "3",
        "21",
        "0",
        "0",
        "8",
    ]
    assert any(line.startswith("red") and "0 of 16 H100" in line for line in lines)
    assert any(line.startswith("team/big") and "ExceedsMaxQuota" in line for line in lines)
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_programs_get_the_same(cli: Cli, output: str, parse: Any) -> None:
    told = parse((await cli("status", "-o", output)).output)
    assert told["operator"]["acting"] is True
    (boards,) = told["boards"]
    assert (boards["model"], boards["total"]) == ("H100-80GB", 32)
    assert (boards["held"], boards["idle"], boards["goingAway"]) == (3, 21, 8)
    assert {"kind": "TrainingJob", "state": "Suspended", "count": 1} in told["workloads"]
    assert told["longestWaiting"][0]["workload"]["name"] == "big"


@pytest.mark.parametrize(
    ("lease", "said"),
    [
        ({}, "there is no Lease berth-system/berth"),
        ({"age": 3600}, "its Lease was not renewed for 1 h"),
        ({"holder": ""}, "nobody holds the Lease"),
    ],
)
async def test_an_operator_that_does_not_act_is_status_1(cli: Cli, lease: dict[str, Any], said: str) -> None:
    cli.lists.objects["leases"] = [a_lease(**lease)] if lease else []
    result = await cli("status")
    assert result.exit_code == 1
    assert said in result.output


async def test_who_may_not_read_the_lease_sees_the_rest(cli: Cli) -> None:
    cli.lists.hidden = ("leases",)
    result = await cli("status")
    assert result.exit_code == 0
    assert "operator: not known, its Lease can't be read" in result.output


async def test_a_saved_cluster_has_a_status_too(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    assert (await cli("snapshot", "-o", str(file))).exit_code == 0
    result = CliRunner().invoke(app, ["status", f"--snapshot={file}"])
    assert result.exit_code == 0
    assert "a snapshot does not tell whether the operator runs" in result.output
    assert "1 pending, 1 suspended" in result.output


async def test_an_empty_cluster_has_one(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as cli:
        cli.lists.objects["nodes"] = []
        cli.lists.put("leases", a_lease())
        result = await cli("status")
    assert result.exit_code == 0
    assert "workloads: none" in result.output
    assert "None of 0 nodes has GPUs" in result.output


async def test_each_board_counts_once(cli: Cli) -> None:
    node = {
        "metadata": {"name": "n4"},
        "status": {
            "boards": [
                {"index": i, "uuid": f"u{i}", "model": "H100-80GB", "memoryMiB": 81559, "healthy": i != 0}
                for i in range(8)
            ]
        },
    }
    cli.lists.put("gpunodes", node)
    cli.lists.put("pods", a_foreign_pod("all", node="n4", boards=8))
    told = json.loads((await cli("status", "-ojson")).output)
    (boards,) = told["boards"]
    assert (boards["unhealthy"], boards["held"], boards["idle"]) == (1, 3 + 7, 13)
    assert sum(boards[key] for key in ("held", "idle", "beingLaidOut", "unhealthy", "goingAway")) == boards["total"]


async def test_services_count_as_workloads(cli: Cli) -> None:
    cli.lists.put("inferenceservices", a_service("chat", replicas=1))
    assert "2 pending, 1 suspended" in (await cli("status")).output


def test_boards_add_up() -> None:
    assert Boards(8, 3, 5) + Boards(4, 0.5, 3.5) == Boards(12, 3.5, 8.5)


def test_a_lease_of_a_clock_that_is_ahead_is_fresh() -> None:
    assert health_of(a_lease(age=-30), time.time()).acting is True
