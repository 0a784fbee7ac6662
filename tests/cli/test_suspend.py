"""`berth suspend`, `berth resume` and `berth checkpoint`: what they ask comes about, or they say why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from berth.cli import checkpoint, following
from berth.control.ports import TRAINING_JOBS
from tests.cli.live import Live, living
from tests.control.builders import a_node, a_training_job
from tests.control.world import World


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other closely."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A job that runs, saves and listens; another that does not listen; and one that waits."""
    world = World(a_node("n1", boards=8))
    world.listening.add("llm")
    world.api.put(TRAINING_JOBS, a_training_job("llm", checkpoint={}, workers=1))
    world.api.put(TRAINING_JOBS, a_training_job("deaf", workers=1))
    world.api.put(TRAINING_JOBS, a_training_job("big", workers=9))
    await world.settle()
    async with living(world, tmp_path) as cluster:
        yield cluster


async def test_a_job_is_suspended_and_resumed(live: Live) -> None:
    result = await live("suspend", "llm", "--wait", "--timeout=30s")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("TrainingJob team/llm: is to be suspended\n")
    assert "TrainingJob team/llm: is suspended; no checkpoint is known" in result.output
    assert live.world.status("llm")["state"] == "Suspended"
    assert "is to be suspended already" in (await live("suspend", "tj/llm")).output
    result = await live("resume", "llm", "--wait", "--timeout=30s")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "TrainingJob team/llm: runs"
    assert live.world.status("llm")["attempt"] == 2


async def test_one_that_finds_no_place_is_told_with_its_verdict(live: Live) -> None:
    result = await live("resume", "big", "--wait", "--timeout=1s")
    assert result.exit_code == 1
    assert "berth: not within 1 s; Pending: WaitingForCapacity: " in result.output


async def test_a_checkpoint_is_made_at_once_and_the_job_runs_on(live: Live) -> None:
    result = await live("checkpoint", "llm", "--timeout=30s")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("TrainingJob team/llm: saved step 7 at ")
    status = live.world.status("llm")
    assert (status["state"], status["attempt"]) == ("Running", 1)
    first = status["saveRequest"]["id"]
    told = json.loads((await live("checkpoint", "tj/llm", "-ojson", "--timeout=30s")).output)
    assert (told["attempt"], told["step"]) == (1, 7)
    assert live.world.status("llm")["saveRequest"]["id"] != first


async def test_two_wishes_in_one_second_are_two(live: Live) -> None:
    save = partial(checkpoint.save, live.world.api, "team", "llm", 2e9, 30.0)
    for _ in range(2):
        saving = asyncio.create_task(save())
        while not saving.done():
            await live.world.turn()
            live.world.run_controllers()
        await saving
    requests = [c.body["status"].get("saveRequest") for c in live.world.api.calls if c.subresource == "status"]
    assert len({one["id"] for one in requests if one}) == 2


async def test_a_checkpoint_after_a_suspension_is_of_the_next_attempt(live: Live) -> None:
    for line in (["suspend", "llm", "--wait"], ["resume", "llm", "--wait"]):
        assert (await live(*line, "--timeout=30s")).exit_code == 0
    told = json.loads((await live("checkpoint", "llm", "-ojson", "--timeout=30s")).output)
    assert told["attempt"] == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deaf", "ask for no save requests, so only SIGTERM reaches them: use berth.worker"),
        ("big", "does not run, so it has nothing to save: Pending: WaitingForCapacity"),
        ("none", "there is no none among the trainingjobs of team"),
    ],
)
async def test_a_job_that_can_t_be_asked_says_why(live: Live, name: str, said: str) -> None:
    result = await live("checkpoint", name)
    assert result.exit_code == 1
    assert said in result.output


async def test_a_save_that_fails_is_told_with_its_cause(live: Live) -> None:
    live.world.listening.clear()  # it polls, and can't save
    live.world.api.edit(TRAINING_JOBS, "team", "llm", status={"checkpointProblem": "of before"})
    turn = live.world.run_controllers

    def fails() -> None:
        turn()
        if live.world.status("llm").get("saveRequest"):
            live.world.api.edit(TRAINING_JOBS, "team", "llm", status={"checkpointProblem": "No space left on device"})

    live.world.run_controllers = fails  # type: ignore[method-assign]
    result = await live("checkpoint", "llm", "--timeout=30s")
    assert result.exit_code == 1
    assert "the save failed: No space left on device" in result.output


async def test_a_service_can_t_be_suspended(live: Live) -> None:
    result = await live("suspend", "infer/chat")
    assert result.exit_code == 2
    assert "scaling it to 0" in result.output.replace("\n", " ")
