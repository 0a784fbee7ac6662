"""`berth explain` against an API over HTTP: what it reads, what it prints, and what it says when it may not read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.cli.clusters import Cli, a_cluster, a_foreign_pod
from tests.control.builders import a_queue, a_service, a_training_job


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with a_cluster(tmp_path) as cluster:
        yield cluster


async def test_a_pending_job_is_explained(cli: Cli) -> None:
    cli.lists.put("trainingjobs", a_training_job("llm", workers=3, boards=8))
    cli.lists.put("pods", a_foreign_pod("theirs", node="n1"))
    result = await cli("explain", "tj/llm")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("TrainingJob team/llm: Pending\n")
    assert "asks for  3 workers with 8 boards each" in result.output
    assert "WaitingForCapacity: 1 of 3 workers fit" in result.output
    assert "1      lack free GPUs  n1" in result.output
    assert "1 worker instead of 3: 1 worker on node n2" in result.output
    assert "2 more nodes with H100-80GB like n1" in result.output
    assert "\x1b" not in result.output


async def test_programs_get_the_same_as_json(cli: Cli) -> None:
    cli.lists.put("trainingjobs", a_training_job("llm", workers=3, boards=8))
    result = await cli("explain", "trainingjob/llm", "--output=json")
    told = json.loads(result.output)
    assert (told["kind"], told["state"], told["verdict"]["fits"]) == ("Explanation", "Pending", 2)
    assert told["options"][0]["usdPerHour"] == 192.0
    assert {r["way"] for r in told["remedies"]} == {"FewerMembers", "MoreNodes"}
    assert next(r for r in told["remedies"] if r["way"] == "FewerMembers")["members"] == 2


async def test_a_running_job_is_explained(cli: Cli) -> None:
    job = a_training_job("llm", workers=2, boards=4)
    device = {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 4}
    placement = {"device": device, "assignments": [{"node": "n1", "ranks": "0-1"}]}
    job["status"] = {"attempt": 1, "placement": placement, "admittedAt": "2026-01-01T00:00:00Z"}
    cli.lists.put("trainingjobs", job)
    result = await cli("explain", "tj/llm")
    assert "TrainingJob team/llm: Running" in result.output
    assert "2 workers on node n1" in result.output
    assert "$64.00/h: 2 x 4 x H100-80GB at $32.00/h, list price" in result.output
    assert "elsewhere  2 workers on node n2; breaks into 1 free node" in result.output


async def test_a_service_and_a_queue_are_read_too(cli: Cli) -> None:
    cli.lists.put("inferenceservices", a_service("chat", replicas=5, boards=4, queueName="red"))
    cli.lists.put("queues", a_queue("red", H100=8))
    result = await cli("explain", "infer/chat")
    assert result.exit_code == 0, result.output
    assert "InferenceService team/chat: Pending" in result.output
    assert "queue red" in result.output


async def test_a_name_that_comes_close_is_suggested(cli: Cli) -> None:
    cli.lists.put("trainingjobs", a_training_job("llama"), a_training_job("lama", namespace="other"))
    result = await cli("explain", "tj/lama")
    assert result.exit_code == 1
    assert "there is no TrainingJob lama in namespace team: did you mean tj/llama or tj/lama in namespace other?" in (
        result.output
    )


@pytest.mark.parametrize("wrong", ["llm", "pod/llm", "tj/", "tj/a/b"])
async def test_a_wrong_command_line_is_status_2(cli: Cli, wrong: str) -> None:
    result = await cli("explain", wrong)
    assert result.exit_code == 2
    assert "write tj/NAME or infer/NAME" in result.output.replace("\n", " ")


async def test_every_missing_right_is_named_and_the_recorded_verdict_shown(cli: Cli) -> None:
    job = a_training_job("llm")
    job["status"] = {"verdict": {"reason": "WaitingForQuota", "message": "asks 8 boards"}}
    cli.lists.put("trainingjobs", job)
    cli.lists.forbidden = ("nodes", "pods")
    result = await cli("explain", "tj/llm")
    assert result.exit_code == 1
    assert 'can\'t list nodes: nodes is forbidden: User "ann" cannot list resource "nodes"' in result.output
    assert "can't list pods" in result.output
    assert "docs/explain.md" in result.output
    assert "the operator last wrote: WaitingForQuota: asks 8 boards" in result.output


async def test_what_is_only_good_to_have_may_be_missing(cli: Cli) -> None:
    cli.lists.put("trainingjobs", a_training_job("llm", priorityClassName="high"))
    cli.lists.forbidden = ("priorityclasses", "persistentvolumes", "configmaps")
    result = await cli("explain", "tj/llm")
    assert result.exit_code == 0, result.output
    assert "Misconfigured" not in result.output
    assert "can't list priorityclasses" in result.output
    assert "the operator's configuration is not known" in result.output


async def test_the_operator_s_levels_are_those_of_its_configuration(cli: Cli) -> None:
    config = {"metadata": {"name": "berth"}, "data": {"config.yaml": "levels: [{name: pod, labels: [x/pod]}]"}}
    cli.lists.put("configmaps", config)
    cli.lists.put("trainingjobs", a_training_job("llm", topology={"level": "rack", "mode": "Required"}))
    result = await cli("explain", "tj/llm")
    assert 'unknown level "rack": use one of pod' in result.output


async def test_what_the_api_server_said_of_a_template_is_taken_from_the_status(cli: Cli) -> None:
    job = a_training_job("llm")
    message = "spec.template.spec.containers[0].image: Required value"
    condition = {"type": "Misconfigured", "status": "True", "message": message, "observedGeneration": 1}
    job["status"] = {"conditions": [condition]}
    cli.lists.put("trainingjobs", job)
    result = await cli("explain", "tj/llm")
    assert "TrainingJob team/llm: Misconfigured" in result.output
    assert message in result.output


async def test_a_server_that_is_not_there(cli: Cli) -> None:
    text = yaml.safe_load(cli.kubeconfig.read_text())
    text["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    cli.kubeconfig.write_text(yaml.safe_dump(text))
    result = await cli("explain", "tj/llm")
    assert result.exit_code == 1
    assert "berth: " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", [b"clusters: [", b"no fields", b"\xff\xfe", b""])
@pytest.mark.parametrize("more", [[], ["--namespace=team"]])
async def test_a_kubeconfig_that_is_none(cli: Cli, content: bytes, more: list[str]) -> None:
    cli.kubeconfig.write_bytes(content)
    result = await cli("explain", "tj/llm", *more)
    assert result.exit_code == 1
    assert result.output.startswith("berth: ")
