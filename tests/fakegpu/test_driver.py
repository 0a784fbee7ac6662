"""Simulated boards under the real agent: the device plugin is as blind as NVIDIA's, and wrong removals are noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from berth.control.gpus import GpuError, PluginError
from e2e.fakegpu.driver import Driver, RemoteDriver, serving
from e2e.fakegpu.node import Holder, Node
from tests.agent.nodes import a_node, mig
from tests.fakegpu.machines import a_fleet


async def test_the_device_plugin_shows_a_new_instance_only_when_it_looks_again() -> None:
    node = a_node(mig=mig())
    driver = Driver(node)
    await driver.create(node.boards[0].uuid, 9, 4)
    assert "nvidia.com/mig-3g.40gb" not in node.allocatable()
    await driver.relist()
    assert node.allocatable()["nvidia.com/mig-3g.40gb"] == 1


async def test_the_device_plugin_offers_an_instance_that_is_gone_until_it_looks_again() -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    driver = Driver(node)
    await driver.destroy(node.boards[0].uuid, node.boards[0].instances[0].id)
    (device,) = node.admit(Holder("team", "late"), {"nvidia.com/mig-1g.10gb": 1})
    assert device.startswith("MIG-")
    await driver.relist()
    assert node.allocatable()["nvidia.com/mig-1g.10gb"] == 0


async def test_a_broken_board_leaves_allocatable_without_a_new_look() -> None:
    node = a_node()
    node.set_unhealthy([0])
    assert node.allocatable() == {"nvidia.com/gpu": 1}


async def test_mig_manager_restarts_the_device_plugin_so_that_no_look_is_needed_without_an_agent() -> None:
    fleet = a_fleet(count=1)
    node = Node.of(fleet, next(iter(fleet.fake_nodes())))
    node.boards[0].lay(True)
    assert node.allocatable() == {"nvidia.com/gpu": 1}


async def test_notes_a_removal_under_a_pod_which_nvml_would_not_refuse() -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    driver = Driver(node)
    instance = node.boards[0].instances[0]
    node.holders[instance.uuid] = Holder("team", "llm-0")
    await driver.destroy(node.boards[0].uuid, instance.id)
    assert driver.wrongs == [f"board 0: {instance.uuid} went while team/llm-0 held it"]


async def test_boards_that_do_not_answer_are_an_error_with_their_address(tmp_path: Path) -> None:
    remote = RemoteDriver(tmp_path / "gpus.sock")
    with pytest.raises(GpuError, match=r"do not answer on .*gpus\.sock"):
        await remote.read()
    with pytest.raises(PluginError):
        await remote.relist()


async def test_a_socket_left_by_a_plugin_that_died_is_taken_over(tmp_path: Path) -> None:
    node = a_node()
    for _ in range(2):
        async with serving(Driver(node), tmp_path / "gpus.sock"):
            assert len((await RemoteDriver(tmp_path / "gpus.sock").read()).gpus) == 2
