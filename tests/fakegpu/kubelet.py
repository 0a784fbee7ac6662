"""A stand-in for the kubelet's device manager: real gRPC on sockets in a folder, as the kubelet's root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from e2e.fakegpu.node import Holder, Refused
from e2e.fakegpu.proto import deviceplugin_pb2 as api
from e2e.fakegpu.proto import deviceplugin_pb2_grpc as rpc
from e2e.fakegpu.proto import podresources_pb2 as pods_api
from e2e.fakegpu.proto import podresources_pb2_grpc as pods_rpc


@dataclass
class Resource:
    """What a registered plugin said last."""

    stub: Any
    prefers: bool
    devices: dict[str, str] = field(default_factory=dict)  # id -> health

    @property
    def healthy(self) -> list[str]:
        return [i for i, health in self.devices.items() if health == "Healthy"]


class FakeKubelet(rpc.RegistrationServicer, pods_rpc.PodResourcesListerServicer):
    """Keeps devices by resource, and allocates them to pods as the kubelet does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.resources: dict[str, Resource] = {}
        self.held: dict[Holder, dict[str, list[str]]] = {}
        self.registrations = 0
        self._changed = asyncio.Condition()
        self._servers: list[grpc.aio.Server] = []
        self._streams: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for folder in ("device-plugins", "pod-resources"):
            (self.root / folder).mkdir(exist_ok=True)
            for stale in (self.root / folder).glob("*.sock"):  # as a kubelet does when it starts
                stale.unlink()
        plugins, pods = grpc.aio.server(), grpc.aio.server()
        rpc.add_RegistrationServicer_to_server(self, plugins)
        pods_rpc.add_PodResourcesListerServicer_to_server(self, pods)
        for server, folder in ((plugins, "device-plugins"), (pods, "pod-resources")):
            server.add_insecure_port(f"unix://{self.root / folder / 'kubelet.sock'}")
            await server.start()
        self._servers = [plugins, pods]

    async def stop(self) -> None:
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for server in self._servers:
            await server.stop(0)

    async def Register(self, request: api.RegisterRequest, context: object) -> api.Empty:
        assert request.version == "v1beta1"
        self.registrations += 1
        socket = self.root / "device-plugins" / request.endpoint
        resource = Resource(None, request.options.get_preferred_allocation_available)
        self.resources[request.resource_name] = resource
        task = asyncio.create_task(self._follow(socket, resource))
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        return api.Empty()

    async def _follow(self, socket: Path, resource: Resource) -> None:
        async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
            resource.stub = rpc.DevicePluginStub(channel)
            try:
                async for answer in resource.stub.ListAndWatch(api.Empty()):
                    await self._take(resource, {device.ID: device.health for device in answer.devices})
            except grpc.aio.AioRpcError:
                pass
            await self._take(resource, dict.fromkeys(resource.devices, "Unhealthy"))

    async def _take(self, resource: Resource, devices: dict[str, str]) -> None:
        resource.devices = devices
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it to hold, for at most 10 s."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)

    def allocatable(self) -> dict[str, int]:
        return {name: len(resource.healthy) for name, resource in self.resources.items()}

    async def admit(self, pod: Holder, requests: Mapping[str, int]) -> tuple[str, ...]:
        """Allocate for one pod with one container; Refused as the kubelet words it."""
        chosen: dict[str, list[str]] = {}
        for name, count in requests.items():
            resource = self.resources.get(name) or Resource(None, False)
            taken = {i for held in self.held.values() for i in held.get(name, [])}
            free = [i for i in resource.healthy if i not in taken]
            if len(free) < count:
                raise Refused(f"requested number of devices unavailable for {name}")
            chosen[name] = await self._choose(resource, free, count)
        self.held[pod] = chosen
        return tuple(i for ids in chosen.values() for i in ids)

    async def _choose(self, resource: Resource, free: list[str], count: int) -> list[str]:
        chosen = free[:count]
        if resource.prefers:
            wish = api.ContainerPreferredAllocationRequest(available_deviceIDs=free, allocation_size=count)
            answer = await resource.stub.GetPreferredAllocation(
                api.PreferredAllocationRequest(container_requests=[wish])
            )
            chosen = list(answer.container_responses[0].deviceIDs)
        request = api.ContainerAllocateRequest(devices_ids=chosen)
        await resource.stub.Allocate(api.AllocateRequest(container_requests=[request]))
        return chosen

    def release(self, pod: Holder) -> None:
        self.held.pop(pod, None)

    async def List(self, request: object, context: object) -> pods_api.ListPodResourcesResponse:
        return pods_api.ListPodResourcesResponse(
            pod_resources=[
                pods_api.PodResources(
                    name=pod.name,
                    namespace=pod.namespace,
                    containers=[
                        pods_api.ContainerResources(
                            devices=[
                                pods_api.ContainerDevices(resource_name=name, device_ids=ids)
                                for name, ids in held.items()
                            ]
                        )
                    ],
                )
                for pod, held in self.held.items()
            ]
        )
