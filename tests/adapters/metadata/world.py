"""A machine in a fake cloud, and what each source says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.test_utils import TestServer

from berth.adapters import metadata
from berth.adapters.metadata import Cloud
from berth.control.interruptions import pressing
from berth.control.notices import Notices
from berth.control.ports import Clock
from berth.model.nodes import Interruption
from e2e.fakegpu.metadata import Fault, Machine, Metadata, Notice

NAME = "vm-1"
SPOT_PATH = {Cloud.AWS: "spot/instance-action", Cloud.GCE: "preempted", Cloud.AZURE: "scheduledevents"}


@dataclass
class World:
    """One machine, its services' address, and the sources that are tried."""

    machine: Machine
    address: str
    sources: list[Notices]

    @property
    def spot(self) -> Notices:
        """The source that speaks of spot interruptions: the first of each cloud."""
        return self.sources[0]

    async def hear(self) -> Interruption | None:
        """What all sources say, the most pressing of it. Raises NoAnswer."""
        said = [await source.ask() for source in self.sources]
        return min((each for each in said if each), key=pressing, default=None)

    async def tell(self, kind: str, seconds: float = 120.0, **more: object) -> None:
        """Have something happen to it soon."""
        await self.machine.tell(Notice(kind, seconds, **more))  # type: ignore[arg-type]

    def fails(self, **fields: object) -> None:
        """Have its requests go wrong, or well again."""
        self.machine.fault = Fault(**fields)  # type: ignore[arg-type]


@asynccontextmanager
async def a_machine(cloud: Cloud, clock: Clock) -> AsyncIterator[World]:
    """A machine to which nothing happens yet."""
    server = Metadata()
    running = TestServer(server.app)
    await running.start_server(shutdown_timeout=0.1)  # it waits for no long poll to end
    async with running, aiohttp.ClientSession() as session:
        address = str(running.make_url(f"/machines/{NAME}"))
        sources = list(metadata.notices(cloud, session, clock, address))
        yield World(server.machine(NAME), address, sources)
