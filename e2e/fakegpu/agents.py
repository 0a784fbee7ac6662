"""The real node agents of nodes that KWOK plays, all in this process: their boards and kubelets are simulated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from berth.adapters import metadata
from berth.adapters.kube import KubeApi
from berth.adapters.records import Decoder
from berth.adapters.reflector import Reflector
from berth.agent.agent import Agent
from berth.agent.notices import Listener
from berth.agent.program import GPUNodeObject, SeenRecord, measurer_of
from berth.control.picture import Store
from berth.control.ports import GPU_NODES
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.kwok import KwokFleet, Played


class Agents:
    """One agent for each node of the pools that ask for it. One watch serves them all.

    With the address of a `Metadata` server they listen to its machines of their nodes' names, as in the given cloud.
    """

    def __init__(
        self, api: KubeApi, fleet: KwokFleet, address: str = "", cloud: metadata.Cloud = metadata.Cloud.AWS
    ) -> None:
        self.drivers = {name: driver_of(p) for name, p in fleet.nodes.items() if p.node.member.pool.agent}
        self.agents = {
            name: Agent(name, api, driver, driver.holders, driver, time.time) for name, driver in self.drivers.items()
        }
        self.listeners = {name: Listener(name, api, time.time) for name in self.agents}
        self._address, self._cloud = address, cloud
        store = Store[SeenRecord](self._changed)
        self._reflector = Reflector(api, GPU_NODES, Decoder(GPUNodeObject), store, time.time)
        self._store = store

    async def run(self) -> None:
        """Run them until cancelled. The fleet's nodes must exist."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(self._reflector.run())
            await self._reflector.listed.wait()
            for name, agent in self.agents.items():
                if self._store.get("", name) is None:
                    agent.observe(None)
                    self.listeners[name].observe(None)
                group.create_task(agent.run())
                group.create_task(measurer_of(agent, self.drivers[name]).run())
                if self._address:
                    address = f"{self._address}/machines/{name}"
                    sources = metadata.notices(self._cloud, session, time.time, address)
                    group.create_task(self.listeners[name].run(sources))

    def _changed(self, old: SeenRecord | None, new: SeenRecord | None) -> None:
        record = new or old
        agent = self.agents.get(record.meta.name) if record else None
        if agent is not None:
            agent.observe(new.seen if new else None)
            self.listeners[agent.node].observe(new.seen if new else None)


async def listen(api: KubeApi, node: str, address: str) -> None:
    """Do for a node without an agent what its agent would do: hear of its end, as in EC2, and write that down."""
    listener = Listener(node, api, time.time)

    def changed(_: SeenRecord | None, new: SeenRecord | None) -> None:
        listener.observe(new.seen if new else None)

    store = Store[SeenRecord](changed)
    own = f"metadata.name={node}"
    reflector = Reflector(api, GPU_NODES, Decoder(GPUNodeObject), store, time.time, fields=own)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        group.create_task(reflector.run())
        await reflector.listed.wait()
        if not len(store):
            listener.observe(None)
        sources = metadata.notices(metadata.Cloud.AWS, session, time.time, f"{address}/machines/{node}")
        group.create_task(listener.run(sources))


def driver_of(played: Played) -> Driver:
    """The driver of a played node, whose kubelet hears of what the device plugin sees."""
    return Driver(played.node, _dirtying(played))


def _dirtying(played: Played) -> Callable[[], None]:
    """What has the node's allocatable written anew."""

    def changed() -> None:
        played.dirty = True

    return changed
