"""An agent that dies at any moment leaves what the next one completes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from berth.adapters.nvml import Nvml
from berth.control.gpus import GpuError
from tests.agent.library import Killed, Library
from tests.agent.nodes import World, a_node, mig, places, wanted

BEFORE = ["1g.10gb@0", "1g.10gb@1", "2g.20gb@2", "3g.40gb@4"]
AFTER = ["2g.20gb@0", "1g.10gb@2", "1g.10gb@3", "3g.40gb@4"]
CHANGES = 7  # 3 removals, 3 new ones, and one past the end


class Dead(BaseException):
    """The process is gone."""


def dies_at(number: int) -> Callable[[str], None]:
    """What kills the agent at its n-th change of a board."""
    seen = 0

    def change(what: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Dead

    return change


async def a_world() -> World:
    """A busy neighbour beside three instances that should become three others."""
    world = World(a_node(mig=mig(*BEFORE)))
    world.hold("neighbour", at=4)
    await world.look()
    return world


async def is_completed(world: World) -> None:
    """A new agent brings everything to its end, and then rests."""
    world.gpus.before = world.gpus.after = lambda change: None
    world.api.dead = False
    world.agent = world.new_agent()
    for _ in range(3):
        await world.later(10)
    assert world.layout() == AFTER
    assert world.laid_out[0] == "True"
    assert world.driver.wrongs == []
    assert world.node.allocatable() == {
        "nvidia.com/gpu": 1,
        "nvidia.com/mig-1g.10gb": 2,
        "nvidia.com/mig-2g.20gb": 1,
        "nvidia.com/mig-3g.40gb": 1,
    }
    writes = world.writes()
    await world.later(3)
    assert world.writes() == writes


@pytest.mark.parametrize("number", range(1, CHANGES + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_dies_at_any_change_of_a_board(number: int, moment: str) -> None:
    world = await a_world()
    setattr(world.gpus, moment, dies_at(number))
    if number < CHANGES:
        with pytest.raises(Dead):
            await world.want(wanted(*AFTER))
    else:
        await world.want(wanted(*AFTER))
    await is_completed(world)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("applied", [False, True])
async def test_dies_at_any_write_to_the_api_server(number: int, applied: bool) -> None:
    world = await a_world()
    world.api.fail_change(world.api.changes + number, None, applied=applied)
    work = asyncio.ensure_future(world.want(wanted(*AFTER)))
    for _ in range(200):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await is_completed(world)


async def test_dies_between_the_last_step_and_telling_the_device_plugin() -> None:
    world = await a_world()
    world.no_plugin = "the agent dies here"
    await world.want(wanted(*AFTER))
    assert world.layout() == AFTER
    world.no_plugin = ""
    await is_completed(world)
    assert world.relisted == 1


async def test_a_new_agent_leaves_the_device_plugin_alone_where_nothing_was_begun() -> None:
    world = World(a_node(mig=mig(*BEFORE)))
    await world.want(wanted(*BEFORE))
    world.agent = world.new_agent()
    await world.later(3)
    assert world.relisted == 0


async def test_goes_on_where_the_driver_failed_in_the_middle() -> None:
    world = await a_world()

    def fails(change: str) -> None:
        if change == "create":
            raise GpuError("this once")

    world.gpus.before = fails
    await world.want(wanted(*AFTER))
    assert world.layout() == ["3g.40gb@4"]
    await is_completed(world)


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
        "nvmlComputeInstanceDestroy",
        "nvmlGpuInstanceDestroy",
        "nvmlDeviceSetMigMode",
    ],
)
async def test_dies_inside_the_driver(function: str) -> None:
    """NVML makes and removes an instance in two calls; between them it is half made."""
    world = World(a_node(mig=mig("3g.40gb@0")))
    library = Library(world.node, crash_in=function)
    world.agent.gpus = Nvml(library)
    wish = (wanted("2g.20gb@0"), wanted("7g.80gb@0", board=1))
    with pytest.raises(Killed):
        await world.want(*wish)
    library.crash_in = ""
    world.agent = world.new_agent()
    world.agent.gpus = Nvml(library)
    await world.later(3)
    assert (world.layout(0), world.layout(1)) == (["2g.20gb@0"], ["7g.80gb@0"])
    assert all(instance["uuid"] for board in world.status["boards"] for instance in board["instances"])
    assert world.laid_out[0] == "True"


def test_the_two_layouts_share_the_busy_instance() -> None:
    assert places(*BEFORE)[3] == places(*AFTER)[3]
