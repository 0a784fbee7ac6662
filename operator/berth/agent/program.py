"""Runs one node's agent: its watches, its rounds and measurements, /healthz and /metrics."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from berth.adapters import metadata, nvml
from berth.adapters.dcgm import Dcgm
from berth.adapters.kube import KubeApi, connect
from berth.adapters.plugin import SignalledPlugin
from berth.adapters.podresources import PodResources
from berth.adapters.records import Decoder, ObjectMeta
from berth.adapters.reflector import Reflector
from berth.agent.agent import Agent, Seen
from berth.agent.measuring import Measurer, NamedPod, PodObject
from berth.agent.notices import Listener
from berth.control.gpus import DevicePlugin, Gpus, Meters
from berth.control.notices import Notices
from berth.control.picture import Store
from berth.control.ports import GPU_NODES, NODES, PODS, Api, ApiError, Clock, Json
from berth.control.records import Meta

log = logging.getLogger(__name__)

HUNG_SECONDS = 120.0  # the slowest step, a change of the MIG mode, takes about 30
RETRY_SECONDS = 5.0  # until the API server is asked again which cloud the node is in

Sources = Callable[[], Awaitable[Sequence[Notices]]]
"""What to listen to for the node's end."""


class Interruptions(StrEnum):
    """Whose metadata service is listened to."""

    AUTO = "auto"  # that of the cloud which the Node's providerID names
    AWS = "aws"
    GCE = "gce"
    AZURE = "azure"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an agent must be told."""

    node: str
    pod_resources: Path
    health_port: int
    may_lay_out: bool = True
    kubeconfig: str | None = None
    interruptions: Interruptions = Interruptions.AUTO
    metadata_address: str = metadata.ADDRESS
    dcgm_url: str = ""  # of dcgm-exporter's /metrics on this node; "": NVML measures


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """A GPUNode for the watch's store."""

    meta: Meta
    seen: Seen


class _Metadata(ObjectMeta):
    generation: int = 0


class GPUNodeObject(msgspec.Struct):
    """A GPUNode, cut down to what an agent reads."""

    metadata: _Metadata
    spec: Json = {}
    status: Json = {}

    def read(self) -> SeenRecord:
        """Its record."""
        meta = self.metadata.read()
        return SeenRecord(meta, Seen(self.metadata.generation, meta.version, self.spec, self.status))


class Boards(Gpus, Meters, Protocol):
    """The boards of a node, and what they do."""


async def run(settings: Settings, boards: Boards | None = None, plugin: DevicePlugin | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises GpuError where NVML is needed and not installed."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    boards = boards or nvml.connect(listen=settings.may_lay_out and not settings.dcgm_url)
    async with connect(settings.kubeconfig) as api, aiohttp.ClientSession() as session:
        agent = Agent(
            node=settings.node,
            api=api,
            gpus=boards,
            holders=PodResources(settings.pod_resources),
            plugin=plugin or SignalledPlugin(),
            clock=time.time,
            may_lay_out=settings.may_lay_out,
        )
        measurer = measurer_of(agent, Dcgm(settings.dcgm_url, session) if settings.dcgm_url else boards)
        async with _served(pages(agent, measurer, time.time), settings.health_port):
            sources = partial(sources_of, settings, api, session, time.time)
            work = asyncio.create_task(follow(agent, api, time.time, sources, measurer))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            try:
                await work
            except asyncio.CancelledError:
                return 0
            raise RuntimeError("the agent ended by itself")


async def sources_of(settings: Settings, api: Api, session: aiohttp.ClientSession, clock: Clock) -> Sequence[Notices]:
    """What the settings have the agent listen to. A node's cloud never changes, so it is looked up once."""
    asked = settings.interruptions
    if asked is Interruptions.AUTO:
        cloud = metadata.cloud_of(await _provider_id(settings.node, api))
    else:
        cloud = None if asked is Interruptions.NONE else metadata.Cloud(asked)
    log.info("node %s: %s", settings.node, f"listens to {cloud}" if cloud else "no metadata service to listen to")
    return metadata.notices(cloud, session, clock, settings.metadata_address) if cloud else ()


async def _provider_id(node: str, api: Api) -> str:
    while True:
        try:
            found = await api.get(NODES, "", node)
            return str((found.get("spec") or {}).get("providerID", ""))
        except ApiError as error:
            log.warning("node %s: can't tell its cloud yet: %s", node, error)
            await asyncio.sleep(RETRY_SECONDS)


async def nothing() -> Sequence[Notices]:
    """No sources."""
    return ()


def measurer_of(agent: Agent, meters: Meters) -> Measurer:
    """What measures the boards that the agent sees."""
    return Measurer(agent.node, meters, agent.holders, lambda: agent.inventory, agent.usage, agent.clock)


async def follow(
    agent: Agent, api: KubeApi, clock: Clock, sources: Sources = nothing, measurer: Measurer | None = None
) -> None:
    """Run the agent for ever, told of its GPUNode by a watch, and of its node's end by the sources; and measure."""
    listener = Listener(agent.node, api, clock)

    def changed(_: SeenRecord | None, new: SeenRecord | None) -> None:
        seen = new.seen if new else None
        agent.observe(seen)
        listener.observe(seen)

    async def listen() -> None:
        await listener.run(await sources())

    store = Store[SeenRecord](changed)
    own = f"metadata.name={agent.node}"
    reflector = Reflector(api, GPU_NODES, Decoder(GPUNodeObject), store, clock, fields=own)
    async with asyncio.TaskGroup() as group:
        group.create_task(reflector.run())
        await reflector.listed.wait()
        if not len(store):
            agent.observe(None)
            listener.observe(None)
        group.create_task(listen())
        log.info("node %s: its GPUNode is known; looking at the boards", agent.node)
        group.create_task(agent.run())
        if measurer is not None:
            group.create_task(_measure(measurer, api, clock))


async def _measure(measurer: Measurer, api: KubeApi, clock: Clock) -> None:
    """Measure for ever, told of the node's pods by a watch of their metadata."""
    store = Store[NamedPod](lambda old, new: None)
    own = f"spec.nodeName={measurer.node}"
    reflector = Reflector(api, PODS, Decoder(PodObject), store, clock, fields=own, metadata_only=True)
    measurer.pods = store
    async with asyncio.TaskGroup() as group:
        group.create_task(reflector.run())
        group.create_task(measurer.run())


def pages(agent: Agent, measurer: Measurer, clock: Clock) -> web.Application:
    """Answers /metrics, and /healthz: an agent that hangs, as NVML does on some broken boards, is not alive."""
    began = clock()

    async def healthz(request: web.Request) -> web.Response:
        silent = clock() - (agent.last_look or began)
        hung = silent > HUNG_SECONDS
        return web.Response(status=500 if hung else 200, text=f"last look {silent:.0f} s ago\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=await measurer.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    return app


@asynccontextmanager
async def _served(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
