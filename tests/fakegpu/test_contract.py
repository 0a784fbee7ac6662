"""What holds for simulated boards however they are run: under a kubelet's device manager, and on KWOK nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from e2e.fakegpu.node import Refused
from tests.fakegpu.machines import Machine, change, machine, mig_configs

Maker = Callable[..., AbstractAsyncContextManager[Machine]]

MIXED = [{"boards": [1], "layout": [{"profile": "3g.40gb"}, {"profile": "1g.10gb"}, {"profile": "1g.10gb"}]}]


@pytest.fixture(params=["kubelet", "kwok"])
def a_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    def make(**pool: Any) -> AbstractAsyncContextManager[Machine]:
        return machine(request.param, tmp_path, **pool)

    return make


async def test_advertises_whole_boards_and_each_profile(a_machine: Maker) -> None:
    async with a_machine(mig=MIXED) as node:
        expected = {"nvidia.com/gpu": 1, "nvidia.com/mig-3g.40gb": 1, "nvidia.com/mig-1g.10gb": 2}
        assert expected == await node.allocatable()


async def test_gives_every_pod_devices_that_no_other_has(a_machine: Maker) -> None:
    async with a_machine(boardsPerNode=8, nvlink="nvswitch") as node:
        held = [await node.run(f"pod-{i}", gpu=2) for i in range(4)]
        assert len({device for devices in held for device in devices}) == 8


async def test_gives_a_pod_boards_and_instances_together(a_machine: Maker) -> None:
    async with a_machine(mig=MIXED) as node:
        devices = await node.run("pod", gpu=1, mig_1g_10gb=2)
        boards = [board.uuid for board in node.node.boards]
        assert [boards[0]] == [device for device in devices if device in boards]
        assert sum(device.startswith("MIG-") for device in devices) == 2


async def test_refuses_a_pod_that_finds_too_few_devices_and_gives_it_none(a_machine: Maker) -> None:
    async with a_machine() as node:
        await node.run("first", gpu=1)
        with pytest.raises(Refused, match=r"unavailable for nvidia\.com/gpu"):
            await node.run("second", gpu=2)
        assert await node.run("third", gpu=1)


async def test_refuses_a_profile_that_the_node_lacks(a_machine: Maker) -> None:
    async with a_machine() as node:
        with pytest.raises(Refused, match=r"nvidia.com/mig-2g\.20gb"):
            await node.run("pod", mig_2g_20gb=1)


async def test_gives_the_devices_of_an_ended_pod_to_the_next(a_machine: Maker) -> None:
    async with a_machine() as node:
        first = await node.run("first", gpu=2)
        await node.end("first")
        assert set(first) == set(await node.run("second", gpu=2))


async def test_prefers_boards_that_share_a_bridge(a_machine: Maker) -> None:
    async with a_machine(boardsPerNode=4, nvlink="pairs") as node:
        uuids = [board.uuid for board in node.node.boards]
        assert {uuids[0]} == set(await node.run("first", gpu=1))
        assert {uuids[2], uuids[3]} == set(await node.run("second", gpu=2))


async def test_never_hands_out_a_broken_board(a_machine: Maker) -> None:
    async with a_machine() as node:
        node.node.set_unhealthy([0])
        assert await node.allocatable() == {"nvidia.com/gpu": 1}
        assert (node.node.boards[1].uuid,) == await node.run("pod", gpu=1)
        node.node.set_unhealthy([])
        assert await node.allocatable() == {"nvidia.com/gpu": 2}


async def test_time_slices_a_board_among_pods(a_machine: Maker) -> None:
    async with a_machine(boardsPerNode=1, sharing={"strategy": "time-slicing", "replicas": 4}) as node:
        assert await node.allocatable() == {"nvidia.com/gpu": 4}
        assert await node.run("first", gpu=1) != await node.run("second", gpu=1)


async def test_shows_instances_as_whole_boards_under_the_single_strategy(a_machine: Maker) -> None:
    everywhere = [{"layout": "all-1g.10gb"}]
    async with a_machine(mig=everywhere, migStrategy="single") as node:
        assert await node.allocatable() == {"nvidia.com/gpu": 14}


async def test_a_node_whose_boards_a_dra_driver_manages_advertises_none(a_machine: Maker) -> None:
    async with a_machine(dra=True) as node:
        assert await node.allocatable() == {}


@pytest.fixture
async def repartitioned(a_machine: Maker) -> AsyncIterator[Machine]:
    """A node of two whole boards whose label asks to cut board 1 in halves, at second 10."""
    async with a_machine() as node:
        node.config.write(0, mig_configs(halves=[change([1], p_3g_40gb=2)]))
        await node.at(10)
        node.see("halves")
        yield node


async def test_repartitions_an_idle_board(repartitioned: Machine) -> None:
    node = repartitioned
    await node.at(11)
    assert node.manager.labels()["nvidia.com/mig.config.state"] == "pending"
    await node.at(13)
    assert node.manager.labels()["nvidia.com/mig.config.state"] == "success"
    assert await node.allocatable() == {"nvidia.com/gpu": 1, "nvidia.com/mig-3g.40gb": 2}
    assert await node.run("pod", mig_3g_40gb=2)


async def test_pauses_operands_and_offers_nothing_while_it_repartitions(repartitioned: Machine) -> None:
    node = repartitioned
    await node.at(11)
    assert node.manager.labels()["nvidia.com/gpu.deploy.device-plugin"] == "paused-for-mig-change"
    assert await node.allocatable() == {}
    with pytest.raises(Refused):
        await node.run("late", gpu=1)
    await node.at(13)
    assert node.manager.labels()["nvidia.com/gpu.deploy.device-plugin"] == "true"


async def test_a_pod_on_another_board_survives_a_repartition(repartitioned: Machine) -> None:
    node = repartitioned
    held = await node.run("pod", gpu=1)
    assert (node.node.boards[0].uuid,) == held
    await node.at(11)
    await node.at(13)
    assert node.manager.state == "success"
    with pytest.raises(Refused):
        await node.run("next", gpu=1)


async def test_refuses_to_repartition_a_busy_board(repartitioned: Machine) -> None:
    node = repartitioned
    await node.run("pod", gpu=2)
    await node.at(11)
    await node.at(13)
    assert node.manager.state == "failed"
    assert node.manager.reason == "board 1 is in use by another client"
    await node.end("pod")
    assert await node.allocatable() == {"nvidia.com/gpu": 2}


async def test_notices_a_label_that_was_taken_back_and_set_again_between_two_steps(repartitioned: Machine) -> None:
    node = repartitioned
    node.see("thirds")
    await node.at(11)
    assert node.manager.state == "failed"
    node.config.write(11, mig_configs(thirds=[change([1], p_2g_20gb=3)]))
    await node.at(16)
    node.see("")
    node.see("thirds")
    await node.at(17)
    assert node.manager.state == "pending"


async def test_a_repartition_lasts_as_long_as_it_is_held(repartitioned: Machine) -> None:
    node = repartitioned
    node.see("halves", hold="")
    await node.at(11)
    await node.at(1000)
    assert node.manager.state == "pending"
    assert await node.allocatable() == {}
    node.see("halves")
    await node.at(1001)
    assert node.manager.state == "success"
