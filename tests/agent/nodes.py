"""A simulated node with its agent, at a time that the test sets, before an API server in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.agent.agent import Agent, seen_of
from berth.control.gpus import HoldersUnknown, Inventory, PluginError, Pod
from berth.control.ports import GPU_NODES, NODES, Json
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.node import Holder, Node
from tests.control.fakes import FakeApi, HandClock
from tests.fakegpu.machines import a_fleet

NAME = "n-0"


def a_node(**pool: Any) -> Node:
    """A node whose agent is the real one: two H100-80GB boards unless said otherwise."""
    fleet = a_fleet(count=1, agent=True, **pool)
    return Node.of(fleet, next(iter(fleet.fake_nodes())))


def mig(*layout: str, board: int = 0) -> list[Json]:
    """The pool's `mig` for one board: instances such as "1g.10gb@0"."""
    return [{"boards": [board], "layout": places(*layout)}]


def places(*layout: str) -> list[Json]:
    """Instances such as "1g.10gb@0", as both pools and specs write them."""
    parts = [each.split("@") for each in layout]
    return [{"profile": profile, "start": int(start)} for profile, start in parts]


def wanted(*layout: str, board: int = 0, **more: Any) -> Json:
    """One entry of spec.boards."""
    return {"index": board, "instances": places(*layout), **more}


@dataclass
class Meddled:
    """A driver with a test's hands in it: what happens before and after each change, and it may raise."""

    driver: Driver
    before: Callable[[str], None] = lambda change: None
    after: Callable[[str], None] = lambda change: None
    idle: bool = False  # says that it switched MIG mode, and did not

    async def read(self) -> Inventory:
        return await self.driver.read()

    async def set_mig(self, gpu: str, enabled: bool) -> None:
        self.before("set_mig")
        if not self.idle:
            await self.driver.set_mig(gpu, enabled)
        self.after("set_mig")

    async def create(self, gpu: str, profile_id: int, start: int) -> None:
        self.before("create")
        await self.driver.create(gpu, profile_id, start)
        self.after("create")

    async def destroy(self, gpu: str, instance_id: int) -> None:
        self.before("destroy")
        await self.driver.destroy(gpu, instance_id)
        self.after("destroy")


@dataclass
class World:
    """A node with its agent, its kubelet and its device plugin, which fail where a test says so."""

    node: Node
    api: FakeApi = field(default_factory=lambda: FakeApi(HandClock()))
    relisted: int = 0
    no_kubelet: str = ""  # why it does not answer
    no_plugin: str = ""  # why it can't be told

    def __post_init__(self) -> None:
        self.driver = Driver(self.node)
        self.gpus = Meddled(self.driver)
        self.api.put(NODES, {"metadata": {"name": NAME}})
        self.agent = self.new_agent()

    def new_agent(self, **settings: Any) -> Agent:
        """The agent, as it starts: it knows only what the API server has."""
        agent = Agent(NAME, self.api, self.gpus, self.holders, self, self.api.clock, **settings)
        found = self.api.find(GPU_NODES, NAME)
        agent.observe(seen_of(found) if found else None)
        return agent

    async def holders(self) -> Mapping[str, Pod]:
        """Who holds what, as the kubelet says."""
        if self.no_kubelet:
            raise HoldersUnknown(self.no_kubelet)
        return await self.driver.holders()

    async def relist(self) -> None:
        """The device plugin looks again."""
        if self.no_plugin:
            raise PluginError(self.no_plugin)
        self.relisted += 1
        await self.driver.relist()

    async def want(self, *boards: Json) -> None:
        """The operator writes spec.boards; the agent hears of it, and acts."""
        if self.api.find(GPU_NODES, NAME) is None:
            self.api.put(GPU_NODES, {"metadata": {"name": NAME}})
        self.api.edit(GPU_NODES, "", NAME, spec={"boards": list(boards)})
        await self.look()

    async def look(self) -> None:
        """The agent's next round, after the watch told it what there is."""
        found = self.api.find(GPU_NODES, NAME)
        self.agent.observe(seen_of(found) if found else None)
        await self.agent.round()

    async def later(self, seconds: float) -> None:
        """Time passes, then the agent looks."""
        self.api.clock.advance(seconds)
        await self.look()

    def hold(self, pod: str, board: int = 0, at: int | None = None) -> None:
        """A pod gets a board, or the instance that begins at this slice; or a device that is gone, at -1."""
        if at == -1:
            self.node.holders["MIG-gone"] = Holder("team", pod)
            return
        found = self.node.boards[board]
        device = found.uuid if at is None else next(i.uuid for i in found.instances if i.placed.start == at)
        self.node.holders[device] = Holder("team", pod)

    def layout(self, board: int = 0) -> list[str]:
        """What the board has now."""
        found = sorted(self.node.boards[board].instances, key=lambda each: each.placed.start)
        return [f"{each.placed.profile.name}@{each.placed.start}" for each in found]

    @property
    def status(self) -> Json:
        """The GPUNode's status."""
        found = self.api.find(GPU_NODES, NAME)
        status: Json = (found or {}).get("status", {})
        return status

    @property
    def laid_out(self) -> tuple[str, str, str]:
        """Status, reason and message of the condition."""
        (condition,) = self.status["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def writes(self) -> int:
        """Changes asked of the API server so far."""
        return self.api.changes
