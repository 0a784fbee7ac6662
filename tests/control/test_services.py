"""Replicas that the disruption budget can't spare outlive their node, wherever the operator is lost."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control.ports import INFERENCE_SERVICES, NODES, PODS
from tests.control.builders import a_node, a_service
from tests.control.world import World


def run_on(world: World) -> list[str]:
    """The nodes of the replicas that serve."""
    pods = [p for p in world.api.all(PODS) if p["status"]["phase"] == "Running"]
    return sorted(p["spec"]["nodeName"] for p in pods if "deletionTimestamp" not in p["metadata"])


async def a_service_whose_node_goes_away() -> World:
    world = World(a_node("n1"))
    world.api.put(INFERENCE_SERVICES, a_service(replicas=1))
    await world.settle()
    assert run_on(world) == ["n1"]
    world.api.put(NODES, a_node("n2"))
    goes: dict[str, Any] = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
    world.api.edit(NODES, "", "n1", spec={"taints": [goes]})
    return world


async def test_another_replica_serves_before_the_only_one_goes() -> None:
    world = await a_service_whose_node_goes_away()
    seen = set()
    for _ in range(12):
        await world.turn()
        world.run_controllers()
        seen.add(tuple(run_on(world)))
    assert seen == {("n1",), ("n1", "n2"), ("n2",)}
    assert not world.broken


@pytest.mark.parametrize("turns", range(1, 8))
async def test_the_same_whenever_another_operator_takes_over(turns: int) -> None:
    world = await a_service_whose_node_goes_away()
    for _ in range(turns):
        await world.turn()
        world.run_controllers()
    await world.restart()
    for _ in range(12):
        assert run_on(world)
        await world.turn()
        world.run_controllers()
    assert run_on(world) == ["n2"]
    assert not world.broken
