"""The PersistentVolumeClaim that is made for a job's checkpoints."""

from __future__ import annotations

from berth.control.ports import TRAINING_JOBS, VOLUME_CLAIMS
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

CHECKPOINT = {"claimTemplate": {"size": "1Ti"}}
CLAIM = {"metadata": {"name": "llm-checkpoints", "namespace": "team", "labels": {}}, "spec": {}}


async def a_gang(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(checkpoint=CHECKPOINT))
    await world.settle()


async def test_it_is_made_once_for_all_attempts_and_deleted_with_the_job() -> None:
    world = World(a_node("n1"), a_node("n2"))
    await a_gang(world)
    made = world.api.find(VOLUME_CLAIMS, "llm-checkpoints")
    for suspended in (True, False):
        world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": suspended})
        await world.settle()
    assert world.status("llm")["attempt"] == 2
    assert world.api.find(VOLUME_CLAIMS, "llm-checkpoints") == made
    world.api.remove(TRAINING_JOBS, "team", "llm")
    assert world.api.find(VOLUME_CLAIMS, "llm-checkpoints") is None


async def test_a_claim_of_somebody_else_is_not_used_and_the_job_says_so() -> None:
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(VOLUME_CLAIMS, CLAIM)
    await a_gang(world)
    assert world.pins() == {}
    message = world.status("llm")["verdict"]["message"]
    assert "persistentvolumeclaims team/llm-checkpoints is not Berth's" in message


async def test_the_job_begins_once_that_claim_is_gone() -> None:
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(VOLUME_CLAIMS, CLAIM)
    await a_gang(world)
    world.api.remove(VOLUME_CLAIMS, "team", "llm-checkpoints")
    world.clock.advance(60.0)
    await world.settle()
    assert world.status("llm")["state"] == "Running"
