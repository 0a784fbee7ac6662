"""`berth what-if` and `berth snapshot`: the same answer from a cluster and from what was saved of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from berth.api.convert import spec_digest
from berth.cli.main import app
from berth.control.last_words import HEADING
from tests.cli.clusters import Cli, a_cluster, a_foreign_pod
from tests.control.builders import a_queue, a_training_job


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with a_cluster(tmp_path) as cluster:
        yield cluster


def a_file(folder: Path, *documents: Mapping[str, Any] | str) -> Path:
    """A manifest of these."""
    file = folder / "asked.yaml"
    texts = [one if isinstance(one, str) else yaml.safe_dump(dict(one)) for one in documents]
    file.write_text("---\n".join(texts))
    return file


async def saved(cli: Cli, name: str = "saved.json.gz") -> Path:
    """What `berth snapshot` writes of the cluster."""
    file = cli.kubeconfig.parent / name
    result = await cli("snapshot", f"--output={file}")
    assert result.exit_code == 0, result.output
    return file


def offline(*line: str) -> Result:
    """A command that has no cluster."""
    return CliRunner().invoke(app, list(line), env={"KUBECONFIG": "/nowhere"})


async def test_where_a_job_would_run(cli: Cli, tmp_path: Path) -> None:
    result = await cli("what-if", "-f", str(a_file(tmp_path, a_training_job("llm", workers=2, boards=8))))
    assert result.exit_code == 0, result.output
    assert "TrainingJob team/llm" in result.output
    assert "the next plan of the operator places it: 2 workers on" in " ".join(result.output.split())
    assert "nobody would be stopped" in result.output


async def test_what_would_have_to_change_for_one_that_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    cli.lists.put("pods", a_foreign_pod("theirs", node="n1"))
    result = await cli("what-if", "-f", str(a_file(tmp_path, a_training_job("llm", workers=2, boards=8))), "-ojson")
    (told,) = json.loads(result.output)
    assert (told["kind"], told["verdict"]["reason"], told["verdict"]["fits"]) == ("Answer", "WaitingForCapacity", 1)
    assert {remedy["way"] for remedy in told["remedies"]} == {"FewerMembers", "MoreNodes"}


async def test_who_could_start_now_and_would_have_to_wait_is_named(cli: Cli, tmp_path: Path) -> None:
    cli.lists.put("priorityclasses", {"metadata": {"name": "high"}, "value": 10})
    cli.lists.put("trainingjobs", a_training_job("small", workers=1, boards=8))
    asked = a_training_job("big", workers=2, boards=8, priorityClassName="high")
    (told,) = json.loads((await cli("what-if", "-f", str(a_file(tmp_path, asked)), "-ojson")).output)
    assert [other["name"] for other in told["delays"]] == ["small"]


async def test_a_saved_cluster_gives_the_same_answer(cli: Cli, tmp_path: Path) -> None:
    cli.lists.put("queues", a_queue("red", H100=8))
    cli.lists.put("pods", a_foreign_pod("theirs", node="n2", boards=3))
    asked = str(a_file(tmp_path, a_training_job("llm", workers=2, boards=5, queueName="red")))
    (live,) = json.loads((await cli("what-if", "-f", asked, "-ojson")).output)
    (later,) = json.loads(offline("what-if", "-f", asked, f"--snapshot={await saved(cli)}", "-ojson").output)
    for answer in (live, later):
        answer.pop("time")
    assert live == later
    assert live["verdict"]["reason"] == "ExceedsMaxQuota"


async def test_a_saved_cluster_is_explained_too(cli: Cli) -> None:
    cli.lists.put("trainingjobs", a_training_job("llm", workers=3, boards=8))
    result = offline("explain", "tj/llm", f"--snapshot={await saved(cli, 'plain.json')}")
    assert result.exit_code == 0, result.output
    assert "WaitingForCapacity: 2 of 3 workers fit" in result.output


async def test_what_pods_keep_secret_is_not_saved(cli: Cli) -> None:
    job = a_training_job("llm")
    container = job["spec"]["template"]["spec"]["containers"][0]
    container |= {"env": [{"name": "TOKEN", "value": "hunter2"}], "args": ["--key=hunter2"]}
    job["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}
    message = f"worker 0 on n1 ended with exit code 1{HEADING}key hunter2 is not valid"
    failed = {"type": "Failed", "status": "True", "reason": "Failed", "message": message}
    job["status"] = {"verdict": {"reason": "Failed", "message": message}, "conditions": [failed]}
    cli.lists.put("trainingjobs", job)
    text = gzip.decompress((await saved(cli)).read_bytes()).decode()
    assert "hunter2" not in text
    assert "TOKEN" in text
    assert text.count('"worker 0 on n1 ended with exit code 1"') == 2


async def test_a_running_job_stays_what_it_was_admitted_as_when_saved(cli: Cli) -> None:
    job = a_training_job("llm", workers=2, boards=4)
    job["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TOKEN", "value": "hunter2"}]
    device = {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 4}
    placement = {"device": device, "assignments": [{"node": "n1", "ranks": "0-1"}]}
    admitted = {"attempt": 1, "placement": placement, "admittedAt": "2026-01-01T00:00:00Z"}
    job["status"] = {**admitted, "specDigest": spec_digest(job["spec"])}
    cli.lists.put("trainingjobs", job)
    live = json.loads((await cli("explain", "tj/llm", "-ojson")).output)
    told = json.loads(offline("explain", "tj/llm", f"--snapshot={await saved(cli)}", "-ojson").output)
    assert (told["state"], told["verdict"]) == ("Running", live["verdict"])
    assert "another spec" not in told["verdict"]["message"]


async def test_one_that_waits_is_asked_as_if_it_were_changed(cli: Cli, tmp_path: Path) -> None:
    cli.lists.put("trainingjobs", a_training_job("llm", workers=3, boards=8))
    result = await cli("what-if", "-f", str(a_file(tmp_path, a_training_job("llm", workers=2, boards=8))))
    text = " ".join(result.output.split())
    assert "team/llm waits already: asked as if it were changed to this" in text
    assert "the next plan of the operator places it" in text


async def test_a_misconfigured_job_is_told_its_field(cli: Cli, tmp_path: Path) -> None:
    result = await cli("what-if", "-f", str(a_file(tmp_path, a_training_job("llm", workers=0))))
    assert result.exit_code == 0, result.output
    assert "Misconfigured: spec.workers" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        (["a: ["], "is no YAML"),
        (["{kind: Queue, apiVersion: berth.dev/v1alpha1}"], "holds no TrainingJob or InferenceService"),
        (["{kind: TrainingJob, apiVersion: batch/v1}"], "write berth.dev/v1alpha1"),
        (["{kind: TrainingJob, apiVersion: berth.dev/v1alpha1}"], "without metadata or spec"),
    ],
)
def test_a_file_that_asks_for_nothing_is_status_2(tmp_path: Path, documents: list[str], said: str) -> None:
    result = offline("what-if", "-f", str(a_file(tmp_path, *documents)))
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not a file that `berth snapshot` wrote"),
        (b"\x1f\x8bnot gzip", "not a file that `berth snapshot` wrote"),
        (b'{"kind": "List"}', "its kind is 'List'"),
        (b'{"kind": "Snapshot"}', "not a file that `berth snapshot` wrote"),
    ],
)
def test_a_file_that_holds_no_cluster_is_status_1(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "saved").write_bytes(content)
    result = offline("explain", "tj/llm", f"--snapshot={tmp_path / 'saved'}")
    assert result.exit_code == 1
    assert said in result.output


async def test_a_folder_that_is_not_there_is_status_1(cli: Cli) -> None:
    result = await cli("snapshot", "--output=/nowhere/at/all.json")
    assert result.exit_code == 1
    assert "berth: /nowhere/at/all.json: No such file or directory" in result.output
