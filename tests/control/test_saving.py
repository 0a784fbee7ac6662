"""Somebody marks a job, which then saves once and runs on, whatever becomes of the operator meanwhile."""

from __future__ import annotations

import pytest

from berth.control.checkpoints import CHECKPOINT_ANNOTATION
from berth.control.ports import TRAINING_JOBS
from berth.control.status import to_rfc3339
from tests.control.builders import a_node, a_training_job
from tests.control.world import World


@pytest.mark.parametrize("restarts", [False, True], ids=["the operator stays", "the operator is replaced"])
async def test_a_marked_job_saves_once_and_runs_on(restarts: bool) -> None:
    world = World(a_node("n1", boards=8))
    world.listening.add("llm")
    world.api.put(TRAINING_JOBS, a_training_job("llm", checkpoint={}))
    await world.settle()
    mark = {CHECKPOINT_ANNOTATION: to_rfc3339(world.clock())}
    world.api.edit(TRAINING_JOBS, "team", "llm", metadata={"annotations": mark})
    await world.settle()
    saved = world.status("llm")
    if restarts:
        await world.restart()
    await world.settle()
    status = world.status("llm")
    assert status["checkpoint"]["answers"] == status["saveRequest"]["id"] == saved["saveRequest"]["id"]
    assert (status["state"], status["attempt"], status["verdict"]["reason"]) == ("Running", 1, "Placed")
    events = [reason for reason, _ in world.api.events() if reason == "CheckpointRequested"]
    assert len(events) <= 1  # none where the operator ended before it was posted
    assert not world.broken
