"""What statuses tell of work that was lost, over the life of a job."""

from __future__ import annotations

from berth.control.ports import TRAINING_JOBS, Json
from berth.control.status import from_rfc3339, to_rfc3339
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

BOARDS = 8


async def a_gang_that_ran(seconds: float = 100.0) -> World:
    """Two workers with four boards each, which have been running for so long."""
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(TRAINING_JOBS, a_training_job())
    await world.settle()
    world.clock.advance(seconds)
    return world


def suspend(world: World, suspended: bool = True) -> None:
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": suspended})


def save(world: World) -> None:
    """The live attempt reports a durable checkpoint."""
    saved = {"attempt": world.status("llm")["attempt"], "step": 7, "time": to_rfc3339(world.clock()), "bytes": 1}
    world.api.edit(TRAINING_JOBS, "team", "llm", status={"checkpoint": {**saved, "seconds": 1.0}})


async def until_told_to_stop(world: World) -> Json:
    """The status once the stop is decided, before any pod has ended."""
    while not world.status("llm").get("stopping"):
        await world.turn()
    return world.status("llm")


async def test_what_ran_since_its_start_is_lost_when_it_never_saved() -> None:
    world = await a_gang_that_ran()
    suspend(world)
    stopping = await until_told_to_stop(world)
    seconds = from_rfc3339(stopping["stoppingSince"]) - from_rfc3339(stopping["startedAt"])
    assert seconds >= 100
    world.clock.advance(60.0)  # of grace: whoever saves then has not gone on
    await world.settle()
    one = {"reason": "Suspended", "attempts": 1, "gpuSeconds": BOARDS * seconds}
    status = world.status("llm")
    assert status["losses"] == {"gpuSeconds": BOARDS * seconds, "byReason": [one]}
    assert "stoppingSince" not in status


async def test_who_saves_at_sigterm_loses_nothing() -> None:
    world = await a_gang_that_ran()
    suspend(world)
    await until_told_to_stop(world)
    world.clock.advance(5.0)
    save(world)
    await world.settle()
    assert world.status("llm")["losses"]["gpuSeconds"] == 0
    assert world.status("llm")["losses"]["byReason"][0]["attempts"] == 1


async def test_attempts_add_up_over_restarts_of_the_operator() -> None:
    world = await a_gang_that_ran()
    for _ in range(2):
        suspend(world)
        await world.settle()
        await world.restart()
        suspend(world, suspended=False)
        await world.settle()
        world.clock.advance(100.0)
        await world.restart()
    losses = world.status("llm")["losses"]
    assert [one["attempts"] for one in losses["byReason"]] == [2]
    assert losses["gpuSeconds"] >= 2 * 100 * BOARDS


async def test_what_a_crash_cost_is_told_of_a_job_that_failed() -> None:
    world = await a_gang_that_ran()
    world.end_pods(exit_code=1)
    await world.settle()
    (one,) = world.status("llm")["losses"]["byReason"]
    assert one["attempts"] >= 1
    assert one["gpuSeconds"] >= 100 * BOARDS


async def test_a_job_that_did_its_work_lost_none() -> None:
    world = await a_gang_that_ran()
    world.end_pods()
    await world.settle()
    assert world.status("llm")["state"] == "Succeeded"
    assert "losses" not in world.status("llm")
