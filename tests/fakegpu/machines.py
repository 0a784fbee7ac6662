"""The two ways to run simulated boards, behind one interface: a real plugin under a kubelet, and the KWOK fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import yaml

from e2e.fakegpu.agent import RealNode
from e2e.fakegpu.fleet import Fleet, parse_fleet
from e2e.fakegpu.kube import Kube
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.migmanager import CONFIG_LABEL, DelayedConfig, MigManager
from e2e.fakegpu.node import Holder, Node, Refused
from e2e.fakegpu.objects import NodeObject, PodObject
from tests.fakegpu.kubelet import FakeKubelet

NO_API = Kube("http://unused.invalid")  # never opened


class Machine(Protocol):
    """One node named "n-0", at a time that the test sets."""

    node: Node
    manager: MigManager
    config: DelayedConfig

    def see(self, mig_config: str, **annotations: str) -> None:
        """See the Node object change: its label nvidia.com/mig.config, and annotations such as `hold=""`."""

    async def at(self, now: float) -> None:
        """Let time pass until `now`, in seconds."""

    async def allocatable(self) -> dict[str, int]:
        """What the node can give, without resources that are down to 0."""

    async def run(self, pod: str, **devices: int) -> tuple[str, ...]:
        """Start a pod that asks for `gpu=2` or `mig_1g_10gb=1`; the devices it got. Raises Refused."""

    async def end(self, pod: str) -> None:
        """The pod ended."""


class KwokMachine:
    """The KWOK side."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = KwokFleet(NO_API, fleet)
        self._played = self.fleet.nodes["n-0"]
        self.node, self.manager, self.config = self._played.node, self._played.manager, self.fleet.config

    def see(self, mig_config: str, **annotations: str) -> None:
        self.fleet.observe_node("MODIFIED", a_node(mig_config, annotations))

    async def at(self, now: float) -> None:
        self.fleet.advance(now)

    async def allocatable(self) -> dict[str, int]:
        return {name: count for name, count in self.node.allocatable().items() if count}

    async def run(self, pod: str, **devices: int) -> tuple[str, ...]:
        self.fleet.observe_pod("ADDED", a_pod(pod, requests(devices)))
        if refused := self.fleet.refused.pop(pod, None):
            raise Refused(refused[1])
        return tuple(i for i, holder in self.node.holders.items() if holder.name == pod)

    async def end(self, pod: str) -> None:
        self.fleet.observe_pod("DELETED", a_pod(pod, {}))


class KubeletMachine:
    """The device plugin under a kubelet."""

    def __init__(self, fleet: Fleet, kubelet: FakeKubelet) -> None:
        self.kubelet = kubelet
        self.real = RealNode(NO_API, fleet, "n-0", kubelet.root, kubelet.root)
        self.node, self.manager, self.config = self.real.node, self.real.manager, self.real.config

    def see(self, mig_config: str, **annotations: str) -> None:
        self.real.observe_node(a_node(mig_config, annotations))

    async def at(self, now: float) -> None:
        await self.real.advance(now)
        await self.allocatable()

    async def allocatable(self) -> dict[str, int]:
        await self.real.plugin.sync()
        wanted = {name: count for name, count in self.node.allocatable().items() if count}
        await self.kubelet.until(lambda: _present(self.kubelet.allocatable()) == wanted)
        return _present(self.kubelet.allocatable())

    async def run(self, pod: str, **devices: int) -> tuple[str, ...]:
        await self.allocatable()
        return await self.kubelet.admit(Holder("default", pod), requests(devices))

    async def end(self, pod: str) -> None:
        self.kubelet.release(Holder("default", pod))


def _present(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


@asynccontextmanager
async def machine(kind: str, root: Path, **pool: Any) -> AsyncIterator[Machine]:
    """A node "n-0" with the boards of the pool, run as `kubelet` or as `kwok`."""
    if kind == "kwok":
        yield KwokMachine(a_fleet(count=1, **pool))
        return
    kubelet = FakeKubelet(root)
    await kubelet.start()
    played = KubeletMachine(a_fleet(nodes=["n-0"], **pool), kubelet)
    await played.real.plugin.sync()
    yield played
    await played.real.plugin.stop()
    await kubelet.stop()


def a_fleet(**pool: Any) -> Fleet:
    """A fleet of one pool "n": H100 boards unless said otherwise; mig-manager reads after 5 s and takes 2."""
    defaults = {"name": "n", "board": "H100-80GB", "boardsPerNode": 2}
    return parse_fleet({"pools": [defaults | pool]})


def a_node(mig_config: str, annotations: dict[str, str]) -> NodeObject:
    """The Node "n-0", with no label where the entry is ""; annotations by what follows our prefix."""
    labels = {CONFIG_LABEL: mig_config} if mig_config else {}
    ours = {f"fakegpu.berth.dev/{name}": value for name, value in annotations.items()}
    return msgspec.convert({"metadata": {"name": "n-0", "labels": labels, "annotations": ours}}, NodeObject)


def a_pod(name: str, limits: dict[str, int], phase: str = "Running") -> PodObject:
    """A pod bound to the node, its uid the same as its name."""
    spec = {"nodeName": "n-0", "containers": [{"resources": {"limits": limits}}]}
    metadata = {"name": name, "namespace": "default", "uid": name}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": {"phase": phase}}, PodObject)


def requests(devices: dict[str, int]) -> dict[str, int]:
    """Resource names from keywords: gpu, mig_1g_10gb."""
    names = {key: key.replace("mig_", "mig-").replace("_", ".") for key in devices}
    return {f"nvidia.com/{names[key]}": count for key, count in devices.items()}


def mig_configs(**entries: list[dict[str, Any]]) -> str:
    """The text of a mig-parted configuration."""
    return yaml.safe_dump({"version": "v1", "mig-configs": entries})


def change(boards: list[int] | str, **profiles: int) -> dict[str, Any]:
    """One part of an entry: these boards in MIG mode with these profiles (`p_3g_40gb=2`), or not in MIG mode."""
    devices = {name.removeprefix("p_").replace("_", "."): count for name, count in profiles.items()}
    return {"devices": boards, "mig-enabled": bool(devices), "mig-devices": devices}
