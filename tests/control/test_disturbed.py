"""Gangs that others disturb, from the API server's state alone: each story goes on under a new operator."""

from __future__ import annotations

import pytest

from berth.control.ports import PODS, TRAINING_JOBS
from tests.control.builders import a_node, a_training_job
from tests.control.world import World


async def a_running_gang() -> World:
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(TRAINING_JOBS, a_training_job())
    await world.settle()
    return world


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_evicted_worker_makes_its_gang_run_again(restarted: bool) -> None:
    world = await a_running_gang()
    world.api.remove(PODS, "team", world.api.all(PODS)[0]["metadata"]["name"])
    await world.turn()
    assert world.status("llm")["stopping"] == "WorkerEvicted"
    if restarted:
        await world.restart()
    await world.settle()
    assert (world.status("llm")["attempt"], world.status("llm")["state"]) == (2, "Running")


async def test_a_template_changed_behind_a_brief_suspension_makes_another_attempt() -> None:
    world = await a_running_gang()
    before = world.status("llm")["specDigest"]
    template = a_training_job()["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "trainer:2"
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"template": template})
    await world.restart()
    await world.settle()
    assert (world.status("llm")["attempt"], world.status("llm")["state"]) == (2, "Running")
    assert world.status("llm")["specDigest"] != before
    assert {p["spec"]["containers"][0]["image"] for p in world.api.all(PODS)} == {"trainer:2"}
