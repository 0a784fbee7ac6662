"""One real node: device plugin, mig-manager and GFD in one process beside the kubelet, and a node agent or its GPUs."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import aiohttp
import grpc

from e2e.fakegpu.driver import Driver, serving
from e2e.fakegpu.fleet import Fleet
from e2e.fakegpu.kube import ApiError, Kube
from e2e.fakegpu.migmanager import DelayedConfig, MigManager
from e2e.fakegpu.node import Holder, Node
from e2e.fakegpu.objects import NodeObject, follow_config
from e2e.fakegpu.plugin import Plugin
from e2e.fakegpu.proto import podresources_pb2 as api
from e2e.fakegpu.proto import podresources_pb2_grpc as rpc
from e2e.fakegpu.reporter import Gate, Reporter
from e2e.fakegpu.status import COLLECTION, restore

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
POD_RESOURCES_SECONDS = 5.0
GPUS_SOCKET = "gpus.sock"  # where the real node agent finds the boards


async def pod_holders(socket: Path) -> dict[str, Holder]:
    """Which pod holds which device, from the kubelet's PodResources API. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
        stub = rpc.PodResourcesListerStub(channel)  # type: ignore[no-untyped-call]
        listed = await stub.List(api.ListPodResourcesRequest(), timeout=POD_RESOURCES_SECONDS)
    return {
        device: Holder(pod.namespace, pod.name)
        for pod in listed.pod_resources
        for container in pod.containers
        for devices in container.devices
        for device in devices.device_ids
    }


class RealNode:
    """The boards of a node that a kubelet runs."""

    def __init__(self, kube: Kube, fleet: Fleet, name: str, kubelet: Path, shared: Path) -> None:
        """`kubelet` is the kubelet's root folder, /var/lib/kubelet; in `shared` an agent finds the boards.

        Raises FleetError for an unknown node.
        """
        self.kube = kube
        self.fleet = fleet
        self.node = Node.of(fleet, fleet.real_node(name))
        self.manager = MigManager(self.node, fleet.mig_manager.apply_seconds)
        self.config = DelayedConfig(fleet.mig_manager.config_delay_seconds)
        self.plugin = Plugin(self.node, kubelet / "device-plugins")
        self._name = name
        self._reporter = Reporter(self.node, self.manager, Gate())
        self._socket = shared / GPUS_SOCKET
        self._pod_resources = kubelet / "pod-resources" / "kubelet.sock"

    async def run(self) -> None:
        """Serve the node until cancelled."""
        await self._recall()
        try:
            async with serving(Driver(self.node), self._socket), asyncio.TaskGroup() as group:
                group.create_task(self._follow_node())
                group.create_task(follow_config(self.kube, self.fleet.mig_manager, self.config))
                group.create_task(self._tick())
        finally:
            await self.plugin.stop()

    async def _recall(self) -> None:
        """Boards keep their layout when the plugin's pod is replaced: take it from the GPUNode."""
        try:
            recorded = await self.kube.request("GET", f"{COLLECTION}/{self._name}")
        except ApiError as error:
            log.info("no GPUNode to start from: %s", error)
            return
        restore(self.node, recorded.get("status") or {})

    async def _follow_node(self) -> None:
        async for _, node in self.kube.watch("/api/v1/nodes", NodeObject, fieldSelector=f"metadata.name={self._name}"):
            if node is not None:
                self.observe_node(node)

    def observe_node(self, node: NodeObject) -> None:
        """Take one event of the Node object: its label and its annotations."""
        self.manager.label(node.mig_config)
        self.manager.held = node.held
        self._reporter.uid = node.metadata.uid
        self.node.set_unhealthy(node.unhealthy)
        self.node.load = node.load

    async def advance(self, now: float) -> None:
        """Learn who holds what, let mig-manager work until `now`, and bring the device plugin into step.

        Raises grpc.aio.AioRpcError where the kubelet does not answer.
        """
        await self.plugin.sync()
        self.node.holders = await pod_holders(self._pod_resources)
        if self.manager.step(now, self.config.read(now)):
            await self.plugin.sync()

    async def _tick(self) -> None:
        await self.config.mounted.wait()  # a pod starts with its files
        while True:
            now = time.monotonic()
            try:
                await self.advance(now)
                await self._reporter.write(self.kube, now)
            except grpc.aio.AioRpcError as error:
                log.warning("the kubelet does not answer: %s", error.details())
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("%s: %s", self._name, error)
            await asyncio.sleep(TICK_SECONDS)
