"""The device plugin of one node: a gRPC server per resource in the kubelet's folder (device plugin API v1beta1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from e2e.fakegpu.node import WHOLE, Node
from e2e.fakegpu.proto import deviceplugin_pb2 as api
from e2e.fakegpu.proto import deviceplugin_pb2_grpc as rpc

log = logging.getLogger(__name__)

VERSION = "v1beta1"
KUBELET = "kubelet.sock"
REGISTER_SECONDS = 5.0
STOP_SECONDS = 1.0  # for calls in flight; streams are told to end before

Context = grpc.aio.ServicerContext[Any, Any]


class Endpoint(rpc.DevicePluginServicer):
    """The server of one resource."""

    def __init__(self, node: Node, resource: str, folder: Path) -> None:
        self.node = node
        self.resource = resource
        self.path = folder / f"fakegpu-{resource.rpartition('/')[2]}.sock"
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Condition()
        self._stopped = False

    async def start(self) -> None:
        """Listen, and register with the kubelet. Raises grpc.aio.AioRpcError where the kubelet does not answer."""
        self.path.unlink(missing_ok=True)
        self._server = grpc.aio.server()
        rpc.add_DevicePluginServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"unix://{self.path}")
        await self._server.start()
        request = api.RegisterRequest(
            version=VERSION, endpoint=self.path.name, resource_name=self.resource, options=self._options()
        )
        async with grpc.aio.insecure_channel(f"unix://{self.path.parent / KUBELET}") as channel:
            stub = rpc.RegistrationStub(channel)  # type: ignore[no-untyped-call]
            await stub.Register(request, timeout=REGISTER_SECONDS)

    async def stop(self) -> None:
        """End the streams, then the server."""
        self._stopped = True
        await self.notify()
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)
        self.path.unlink(missing_ok=True)

    async def notify(self) -> None:
        """Wake the streams, as devices or their health changed."""
        async with self._changed:
            self._changed.notify_all()

    def _options(self) -> api.DevicePluginOptions:
        whole = any(not board.mig_enabled for board in self.node.boards)
        return api.DevicePluginOptions(get_preferred_allocation_available=self.resource == WHOLE and whole)

    async def GetDevicePluginOptions(self, request: api.Empty, context: Context) -> api.DevicePluginOptions:
        """What the kubelet may call."""
        return self._options()

    async def ListAndWatch(self, request: api.Empty, context: Context) -> AsyncIterator[api.ListAndWatchResponse]:
        """The devices with their health: now, and after every change until the server stops."""
        told: dict[str, bool] | None = None
        while not self._stopped:
            devices = dict(self.node.devices()[self.resource])
            if devices != told:
                told = devices
                yield api.ListAndWatchResponse(
                    devices=[api.Device(ID=i, health=_health(well)) for i, well in devices.items()]
                )
                continue  # the devices may have changed while the answer went out
            async with self._changed:
                if not self._stopped and self.node.devices()[self.resource] == told:
                    await self._changed.wait()

    async def GetPreferredAllocation(
        self, request: api.PreferredAllocationRequest, context: Context
    ) -> api.PreferredAllocationResponse:
        """The best linked boards of those that the kubelet has free."""
        return api.PreferredAllocationResponse(
            container_responses=[
                api.ContainerPreferredAllocationResponse(
                    deviceIDs=self.node.preferred(
                        self.resource,
                        each.available_deviceIDs,
                        each.must_include_deviceIDs,
                        each.allocation_size,
                    )
                )
                for each in request.container_requests
            ]
        )

    async def Allocate(self, request: api.AllocateRequest, context: Context) -> api.AllocateResponse:
        """The environment that shows a container its devices."""
        known = self.node.devices()[self.resource]
        asked = [list(each.devices_ids) for each in request.container_requests]
        if unknown := [i for ids in asked for i in ids if i not in known]:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"invalid allocation request: unknown device {unknown[0]}"
            )
        return api.AllocateResponse(
            container_responses=[api.ContainerAllocateResponse(envs=environment(ids)) for ids in asked]
        )

    async def PreStartContainer(
        self, request: api.PreStartContainerRequest, context: Context
    ) -> api.PreStartContainerResponse:
        """Nothing to do; the options say so too."""
        return api.PreStartContainerResponse()


def environment(ids: Iterable[str]) -> dict[str, str]:
    """What a container sees of its devices: the real plugin's variable, and one that no runtime interprets."""
    visible = ",".join(dict.fromkeys(i.split("::")[0] for i in ids))
    return {"NVIDIA_VISIBLE_DEVICES": visible, "BERTH_FAKE_DEVICES": visible}


def _health(well: bool) -> str:
    return "Healthy" if well else "Unhealthy"


@dataclass(slots=True)
class Plugin:
    """The endpoints of all resources of a node, kept in step with the node and with the kubelet."""

    node: Node
    folder: Path
    _endpoints: dict[str, Endpoint] = field(default_factory=dict)
    _kubelet: tuple[int, int] | None = None  # identity of the kubelet's socket that we registered with

    async def sync(self) -> None:
        """Serve exactly the resources that have devices, registered with the kubelet that runs now.

        Where no kubelet answers, nothing is served; the next call tries again.
        """
        kubelet = _identity(self.folder / KUBELET)
        if kubelet != self._kubelet:
            await self.stop()
            self._kubelet = kubelet
        wanted = {resource for resource, ids in self.node.devices().items() if ids}
        if self.node.hidden or kubelet is None:
            wanted = set()
        for resource in self._endpoints.keys() - wanted:
            await self._endpoints.pop(resource).stop()
        for resource in sorted(wanted):
            if resource in self._endpoints:
                await self._endpoints[resource].notify()
            else:
                await self._serve(resource)

    async def _serve(self, resource: str) -> None:
        endpoint = Endpoint(self.node, resource, self.folder)
        try:
            await endpoint.start()
        except grpc.aio.AioRpcError as error:
            log.warning("the kubelet refused %s: %s", resource, error.details())
            await endpoint.stop()
            return
        self._endpoints[resource] = endpoint
        log.info("registered %s", resource)

    async def stop(self) -> None:
        """Stop every endpoint."""
        while self._endpoints:
            await self._endpoints.popitem()[1].stop()


def _identity(socket: Path) -> tuple[int, int] | None:
    """Changes whenever the kubelet makes its socket anew; None without one."""
    try:
        stat = socket.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_ctime_ns
