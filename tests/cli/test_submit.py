"""`berth submit`: a manifest from flags, applied and followed; errors that name the flag."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from berth.api.convert import to_request
from berth.cli import following
from berth.cli.main import app
from berth.cli.manifest import FLAGS
from berth.control.ports import INFERENCE_SERVICES, TRAINING_JOBS, Refused
from berth.model.workloads import Kind
from tests.cli.live import Live, living
from tests.control.builders import a_node
from tests.control.world import World

JOB = ["submit", "llm", "--image=train:1"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other closely."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Eight boards that are free."""
    async with living(World(a_node("n1", boards=8)), tmp_path) as cluster:
        yield cluster


def dry(*flags: str) -> Result:
    """A manifest, made without a cluster."""
    return CliRunner().invoke(app, [*JOB, "--dry-run", *flags])


def made(*flags: str) -> dict[str, Any]:
    """The manifest of these flags."""
    result = dry(*flags)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = yaml.safe_load(result.stdout)
    return found


def test_every_flag_is_in_the_manifest() -> None:
    flags = "--gpus=8 --model=H100 --model=H200 --workers=4 --tensor=8 --topology=rack:Required --queue=team-a"
    more = "--priority-class=high --spot=Allow --deadline=2026-03-02T06:00:00Z --max-runtime=2d --estimated-runtime=1d"
    last = "--max-price=200 --checkpoint-size=1Ti --cpu=8 --ram=64Gi --env=A=b=c -n team"
    raw = made(*flags.split(), *more.split(), *last.split(), "--", "python", "train.py")
    assert (raw["kind"], raw["metadata"]) == ("TrainingJob", {"name": "llm", "namespace": "team"})
    spec = raw["spec"]
    (container,) = spec.pop("template")["spec"]["containers"]
    assert container == {
        "name": "main",
        "image": "train:1",
        "command": ["python", "train.py"],
        "env": [{"name": "A", "value": "b=c"}],
        "resources": {"requests": {"cpu": "8", "memory": "64Gi"}},
    }
    assert spec == {
        "queueName": "team-a",
        "priorityClassName": "high",
        "gpus": {"count": 8, "models": ["H100", "H200"]},
        "parallelism": {"tensor": 8},
        "workers": 4,
        "topology": {"level": "rack", "mode": "Required"},
        "spot": "Allow",
        "deadline": "2026-03-02T06:00:00Z",
        "maxRuntime": "2d",
        "estimatedRuntime": "1d",
        "maxPricePerHour": 200.0,
        "checkpoint": {"claimTemplate": {"size": "1Ti"}},
    }


def test_a_service_is_made_as_well() -> None:
    raw = made("--kind=service", "--memory=18Gi", "--workers=3", "--port=8000")
    assert (raw["kind"], raw["spec"]["replicas"], raw["spec"]["port"]) == ("InferenceService", 3, 8000)
    assert to_request(raw["spec"], Kind.INFERENCE_SERVICE).workers == 3


def test_json_is_a_manifest_too() -> None:
    assert json.loads(dry("--gpus=1", "-ojson").stdout) == made("--gpus=1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "just one of --gpus (whole boards), --profile (a MIG instance) and --memory"),
        (["--gpus=1", "--profile=1g.10gb"], "just one of --gpus"),
        (["--gpus=100"], "--gpus (spec.gpus.count): must be less than or equal to 72"),
        (["--profile=big"], "--profile (spec.gpus.profile): must be the name of a MIG profile, such as 1g.10gb"),
        (["--memory=8Gx"], "--memory (spec.gpus.memory): must be a positive amount of memory"),
        (["--gpus=8", "--tensor=3"], "--tensor (spec.parallelism.tensor): 3 does not divide the 8 boards of a worker"),
        (["--gpus=1", "--deadline=tomorrow"], "--deadline (spec.deadline): must be a time with its zone, such as 2026"),
        (["--gpus=1", "--max-runtime=soon"], "--max-runtime (spec.maxRuntime): must be a duration"),
        (["--gpus=1", "--queue=Team A"], "--queue (spec.queueName): must be a lower-case name"),
        (["--gpus=1", "--env=A"], "--env: 'A' has no value: write A=VALUE"),
        (["--gpus=1", "--topology=rack:Strict"], "must be 'Required' or 'Preferred'"),
        (["--gpus=1", "--checkpoint-claim=c", "--checkpoint-size=1Ti"], "can't be set beside claim"),
        (["--gpus=1", "--port=80"], "--port: a TrainingJob has none: leave it out, or say --kind service"),
        (["--gpus=1", "--kind=service", "--spot=Only"], "--spot: an InferenceService has no such thing"),
    ],
)
def test_a_wrong_flag_is_named_with_what_to_do(flags: list[str], said: str) -> None:
    result = dry(*flags)
    assert result.exit_code == 2
    assert said in result.output
    assert not result.stdout


@pytest.mark.parametrize("name", ["Big", "1st", "a" * 60, "a_b"])
def test_a_name_that_can_t_be_one(name: str) -> None:
    result = CliRunner().invoke(app, ["submit", name, "--image=i", "--gpus=1", "--dry-run"])
    assert result.exit_code == 2
    assert "NAME: " in result.output


def test_every_flag_that_is_named_exists() -> None:
    (command,) = [one for one in app.registered_commands if one.callback and one.callback.__name__ == "submit"]
    known = {f"--{name.replace('_', '-')}" for name in command.callback.__annotations__}  # type: ignore[union-attr]
    assert set(FLAGS.values()) - {"NAME"} <= known


async def test_it_is_applied_and_followed_until_it_runs(live: Live) -> None:
    result = await live(*JOB, "--workers=2", "--gpus=4", "--wait", "--timeout=30s", "--", "python", "train.py")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["spec"]["workers"] == 2
    assert "TrainingJob team/llm: applied; see `berth explain tj/llm`" in result.stderr
    assert "Running: Placed: " in result.stderr
    raw = live.world.api.find(TRAINING_JOBS, "llm")
    assert raw is not None
    assert raw["status"]["state"] == "Running"


async def test_a_service_is_followed_too(live: Live) -> None:
    result = await live(*JOB, "--kind=service", "--gpus=1", "--workers=2")
    assert result.exit_code == 0, result.output
    assert live.world.api.find(INFERENCE_SERVICES, "llm") is not None


async def test_one_that_can_t_run_ends_with_its_verdict(live: Live) -> None:
    result = await live(*JOB, "--gpus=8", "--model=B700", "--wait", "--timeout=30s")
    assert result.exit_code == 1
    assert "spec.gpus.models[0]: unknown GPU model" in result.output


async def test_what_the_api_server_refuses_is_said_of_the_flag(live: Live) -> None:
    live.world.api.fail("apply trainingjobs", Refused("spec.workers: Invalid value: can't change"))
    result = await live(*JOB, "--gpus=1")
    assert result.exit_code == 1
    assert "berth: --workers (spec.workers): Invalid value: can't change" in result.output
