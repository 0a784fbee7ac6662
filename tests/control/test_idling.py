"""A job whose boards do nothing, from the agent's report to its suspension, over restarts of the operator."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control.ports import EVENTS, GPU_NODES, PODS, TRAINING_JOBS, Json
from berth.control.status import to_rfc3339
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

MINUTE = 60.0


async def a_job_that_runs(**policy: Any) -> World:
    world = World(a_node("n1"))
    world.listening.add("llm")
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, idlePolicy=policy, checkpoint={}))
    world.api.put(GPU_NODES, {"metadata": {"name": "n1"}, "status": {}})
    await world.settle()
    return world


async def pass_by(world: World, minutes: float, percent: int | None) -> None:
    """For so long the agent reports, each minute, that all boards do that."""
    for _ in range(int(minutes)):
        holder = next((p["metadata"] for p in world.api.all(PODS) if p["spec"].get("nodeName")), None)
        pod = {"pod": {"namespace": holder["namespace"], "name": holder["name"]}} if holder else {}
        board = {"model": "H100-80GB", "healthy": True, "migEnabled": False, "utilization": percent, **pod}
        boards = [{"index": i, "uuid": f"GPU-{i}", **board} for i in range(4)]
        world.api.edit(GPU_NODES, "", "n1", status={"observedTime": to_rfc3339(world.clock()), "boards": boards})
        await world.settle()
        world.clock.advance(MINUTE)


def idle_of(world: World) -> tuple[str, bool]:
    """The verdict's reason, and whether the condition Idle holds."""
    status = world.status("llm")
    holds = any(c["type"] == "Idle" and c["status"] == "True" for c in status["conditions"])
    return status["verdict"]["reason"], holds


def events(world: World) -> list[Json]:
    return [event for event in world.api.all(EVENTS) if event["reason"] == "Idle"]


@pytest.mark.parametrize(("action", "kind"), [("Report", "Normal"), ("Warn", "Warning")])
async def test_its_user_is_told_once_by_an_event_and_as_long_as_it_lasts_by_its_status(action: str, kind: str) -> None:
    world = await a_job_that_runs(action=action, afterMinutes=10)
    await pass_by(world, 5, percent=0)
    assert idle_of(world) == ("Placed", False)
    await pass_by(world, 15, percent=0)
    assert idle_of(world) == ("Idle", True)
    assert [event["type"] for event in events(world)] == [kind]
    await pass_by(world, 2, percent=80)
    assert idle_of(world) == ("Placed", False)
    assert world.status("llm")["state"] == "Running"


async def test_an_idle_job_saves_and_is_suspended_until_its_user_resumes_it() -> None:
    world = await a_job_that_runs(action="Suspend", afterMinutes=10)
    await pass_by(world, 6, percent=0)
    await world.restart()
    await pass_by(world, 10, percent=0)
    job = world.api.find(TRAINING_JOBS, "llm")
    assert job is not None
    assert job["spec"]["suspend"]
    status = world.status("llm")
    assert (status["state"], status["saveRequest"]["reason"]) == ("Suspended", "Idle")
    assert status["checkpoint"]["answers"] == status["saveRequest"]["id"]
    assert status.get("idle") is None
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": False})
    await pass_by(world, 3, percent=0)
    assert (world.status("llm")["attempt"], world.status("llm")["state"]) == (2, "Running")


async def test_a_job_whose_boards_nobody_measures_is_left_alone() -> None:
    world = await a_job_that_runs(action="Suspend", afterMinutes=10)
    await pass_by(world, 30, percent=None)
    assert (world.status("llm")["state"], idle_of(world)) == ("Running", ("Placed", False))
