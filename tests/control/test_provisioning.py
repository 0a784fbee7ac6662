"""Nodes that are to come, from the API server's state alone: the story goes on wherever the operator is lost."""

from __future__ import annotations

import pytest

from berth.control.ports import JOBS, NODES, PODS, TRAINING_JOBS, Json
from berth.control.status import from_rfc3339
from berth.model.pools import NodePool
from berth.planning.snapshot import Policy
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

KEY = "karpenter.sh/nodepool"


def a_pool(name: str) -> NodePool:
    return NodePool(name, ((KEY, name),), "H100-80GB", boards_per_node=8, nodes_most=2, provision_seconds=60.0)


class Growing(World):
    """A cluster of one small node, and two pools that have none yet."""

    policy = Policy(pools=(a_pool("first"), a_pool("second")))

    async def ask(self) -> None:
        """A gang of two whole nodes is applied, and asks the first pool."""
        self.api.put(TRAINING_JOBS, a_training_job(workers=2, gpus={"count": 8}))
        await self.settle()

    def grow(self, pool: str) -> None:
        """What an autoscaler does for pods that wait for a pool."""
        for i in range(2):
            self.api.put(NODES, _labelled(a_node(f"{pool}-{i}", boards=8), pool))

    @property
    def asked(self) -> list[Json]:
        """What each released pod asks of its node."""
        return [pod["spec"]["nodeSelector"] for pod in self.api.all(PODS) if not pod["spec"]["schedulingGates"]]


def _labelled(node: Json, pool: str) -> Json:
    node["metadata"]["labels"][KEY] = pool
    return node


async def test_a_gang_waits_for_nodes_and_runs_where_they_come() -> None:
    world = Growing(a_node("n1", boards=1))
    await world.ask()
    status = world.status("llm")
    assert (status["state"], status["verdict"]["reason"]) == ("Admitted", "WaitingForNodes")
    assert (status["placement"]["pool"], status["placement"]["summary"]) == ("first", "pool first (0-1)")
    assert world.asked == [{KEY: "first"}] * 2
    before = status["admittedAt"]
    world.clock.advance(30.0)
    world.grow("first")
    await world.settle()
    status = world.status("llm")
    assert from_rfc3339(status["admittedAt"]) >= from_rfc3339(before) + 30, "its run begins now"
    assert (status["state"], status["verdict"]["reason"], status["attempt"]) == ("Running", "Placed", 1)
    assert status["placement"].get("pool") is None
    assert {a["node"] for a in status["placement"]["assignments"]} == {"first-0", "first-1"}
    assert not world.broken


async def test_nodes_that_do_not_come_in_time_are_given_up_for_those_of_the_next_pool() -> None:
    world = Growing(a_node("n1", boards=1))
    await world.ask()
    world.clock.advance(60.0)
    await world.settle()
    status = world.status("llm")
    assert (status["attempt"], status["placement"]["pool"]) == (2, "second")
    assert [fall["pool"] for fall in status["shortfalls"]] == ["first"]
    assert world.api.find(JOBS, "llm-1") is None
    assert world.asked == [{KEY: "second"}] * 2
    world.grow("second")
    await world.settle()
    assert (world.status("llm")["state"], world.status("llm")["attempt"]) == ("Running", 2)
    assert not world.broken


@pytest.mark.parametrize("turns", range(1, 8))
async def test_another_operator_goes_on_with_it(turns: int) -> None:
    world = Growing(a_node("n1", boards=1))
    world.api.put(TRAINING_JOBS, a_training_job(workers=2, gpus={"count": 8}))
    for _ in range(turns):
        await world.turn()
        world.run_controllers()
    await world.restart()
    await world.settle()
    assert world.status("llm")["placement"]["pool"] == "first"
    world.clock.advance(60.0)
    for _ in range(turns):
        await world.turn()
        world.run_controllers()
    await world.restart()
    await world.settle()
    assert world.status("llm")["placement"]["pool"] == "second"
    await world.restart()
    world.grow("second")
    await world.settle()
    assert (world.status("llm")["state"], world.status("llm")["attempt"]) == ("Running", 2)
    assert not world.broken
