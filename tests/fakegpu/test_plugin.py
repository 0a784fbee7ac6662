"""The device plugin's side of the gRPC contract that KWOK has no counterpart for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from e2e.fakegpu.agent import pod_holders
from e2e.fakegpu.node import Holder, Node
from e2e.fakegpu.plugin import Plugin
from e2e.fakegpu.proto import deviceplugin_pb2 as api
from tests.fakegpu.kubelet import FakeKubelet
from tests.fakegpu.machines import a_fleet

PROTO = Path(__file__).parents[2] / "e2e" / "fakegpu" / "proto"


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[FakeKubelet]:
    kubelet = FakeKubelet(tmp_path)
    await kubelet.start()
    yield kubelet
    await kubelet.stop()


@pytest.fixture
async def plugin(kubelet: FakeKubelet) -> AsyncIterator[Plugin]:
    mig = [{"boards": [2], "layout": [{"profile": "3g.40gb"}, {"profile": "1g.10gb"}]}]
    fleet = a_fleet(nodes=["n-0"], boardsPerNode=3, mig=mig)
    plugin = Plugin(Node.of(fleet, fleet.real_node("n-0")), kubelet.root / "device-plugins")
    await plugin.sync()
    yield plugin
    await plugin.stop()


async def _allocate(kubelet: FakeKubelet, resource: str, *ids: list[str]) -> list[dict[str, str]]:
    await kubelet.until(lambda: kubelet.resources[resource].stub is not None)
    requests = [api.ContainerAllocateRequest(devices_ids=each) for each in ids]
    answer = await kubelet.resources[resource].stub.Allocate(api.AllocateRequest(container_requests=requests))
    return [dict(each.envs) for each in answer.container_responses]


async def test_tells_each_container_exactly_its_devices(plugin: Plugin, kubelet: FakeKubelet) -> None:
    first, second = (board.uuid for board in plugin.node.boards[:2])
    told = await _allocate(kubelet, "nvidia.com/gpu", [first], [second])
    assert [each["NVIDIA_VISIBLE_DEVICES"] for each in told] == [first, second]
    assert [each["BERTH_FAKE_DEVICES"] for each in told] == [first, second]


async def test_refuses_to_allocate_a_device_that_does_not_exist(plugin: Plugin, kubelet: FakeKubelet) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _allocate(kubelet, "nvidia.com/gpu", ["GPU-of-another-node"])
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_offers_preferred_allocation_for_whole_boards_only(plugin: Plugin, kubelet: FakeKubelet) -> None:
    prefers = {name: resource.prefers for name, resource in kubelet.resources.items()}
    assert prefers == {
        "nvidia.com/gpu": True,
        "nvidia.com/mig-1g.10gb": False,
        "nvidia.com/mig-3g.40gb": False,
    }


async def test_registers_again_when_the_kubelet_restarts(plugin: Plugin, kubelet: FakeKubelet) -> None:
    assert kubelet.registrations == 3
    await kubelet.stop()
    await plugin.sync()
    await kubelet.start()
    await plugin.sync()
    assert kubelet.registrations == 6
    await kubelet.until(lambda: kubelet.allocatable().get("nvidia.com/gpu") == 2)


async def test_waits_for_a_kubelet_that_comes_later(tmp_path: Path) -> None:
    kubelet = FakeKubelet(tmp_path)
    fleet = a_fleet(nodes=["n-0"])
    plugin = Plugin(Node.of(fleet, fleet.real_node("n-0")), tmp_path / "device-plugins")
    await plugin.sync()
    await kubelet.start()
    await plugin.sync()
    assert kubelet.registrations == 1
    await plugin.stop()
    await kubelet.stop()


async def test_stops_at_once_though_the_kubelet_watches(plugin: Plugin, kubelet: FakeKubelet) -> None:
    await kubelet.until(lambda: kubelet.allocatable().get("nvidia.com/gpu") == 2)
    async with asyncio.timeout(5):
        await plugin.stop()
    await kubelet.until(lambda: not any(kubelet.allocatable().values()))


async def test_learns_holders_from_pod_resources(plugin: Plugin, kubelet: FakeKubelet) -> None:
    await kubelet.until(lambda: kubelet.allocatable().get("nvidia.com/gpu") == 2)
    pod = Holder("team-a", "train-0")
    devices = await kubelet.admit(pod, {"nvidia.com/gpu": 2})
    assert await pod_holders(kubelet.root / "pod-resources" / "kubelet.sock") == dict.fromkeys(devices, pod)


def test_generated_modules_match_their_proto_files(tmp_path: Path) -> None:
    names = [f"e2e/fakegpu/proto/{name}.proto" for name in ("deviceplugin", "podresources")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", *names]
    subprocess.run(command, cwd=PROTO.parents[2], check=True)
    for path in tmp_path.rglob("*_pb2.py"):
        assert (PROTO / path.name).read_text() == path.read_text()
