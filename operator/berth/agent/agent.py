"""One node's agent: looks, writes down what it sees, and carries out one step after the other.

Nothing is remembered that matters: the boards say how far the work is, and the GPUNode what is wanted and whether the
device plugin may still have to look (LaidOut was left InProgress or Failed). So an agent that died goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from berth.agent.report import (
    INTERRUPTION,
    condition_of,
    recorded_condition,
    status_of,
    timestamp,
    told_uses,
    wanted_layouts,
)
from berth.api.crd import API_VERSION
from berth.api.problems import Misconfigured
from berth.control.board_use import Telling, Usage
from berth.control.gpus import (
    DevicePlugin,
    GpuError,
    GpuInUse,
    Gpus,
    Holders,
    HoldersUnknown,
    Inventory,
    PluginError,
    Pod,
)
from berth.control.laying import BUSY, FAILED, IN_PROGRESS, INVALID, Create, Layout, Outlook, SetMig, Step, outlook
from berth.control.ports import GPU_NODES, NODES, Api, ApiError, Clock, Conflict, Json, NotFound

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0  # between two looks at boards and holders; a changed spec is looked at once
HEARTBEAT_SECONDS = 60.0  # between two writes of an unchanged status: 5,000 nodes write about 100 times a second
RETRY_SECONDS = (5.0, 300.0)  # after a failure: at first, and at most
JITTER = 0.2  # of both, so that the agents of a fleet do not move in step


@dataclass(frozen=True, slots=True)
class Seen:
    """A GPUNode, as the API server has it."""

    generation: int = 0
    version: int = 0  # resourceVersion
    spec: Json = field(default_factory=dict)
    status: Json = field(default_factory=dict)


@dataclass(slots=True)
class Agent:
    """Reports one node's boards, and lays them out where it may."""

    node: str
    api: Api
    gpus: Gpus
    holders: Holders
    plugin: DevicePlugin
    clock: Clock
    may_lay_out: bool = True
    usage: Usage = field(default_factory=Usage)  # what the boards were measured to do
    inventory: Inventory | None = None  # as the last look found it
    last_look: float = 0.0  # or when a round last ended without one, for the health check
    _seen: Seen | None = None  # None: not looked for yet
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _dirty: bool = False  # the device plugin has not looked since the last step
    _beat: float = 0.0  # when the status is next written though nothing changed
    _failures: int = 0
    _retry: float = 0.0  # when the next step may be tried
    _complaint: str = ""
    _telling: Telling = field(default_factory=lambda: Telling(_about))

    def observe(self, seen: Seen | None) -> None:
        """Take in a state of the GPUNode; None: it is gone, and will be made anew."""
        known = seen or Seen()
        if self._seen is None:
            self._dirty = _left_open(known.status)
        elif seen is not None and seen.version < self._seen.version:
            return  # older than the answer to our last write
        if self._seen is None or known.generation != self._seen.generation:
            self._failures, self._retry = 0, 0.0
            self._woken.set()
        self._seen = known

    async def run(self) -> None:
        """Look for ever: every few seconds, and at once when the spec changes."""
        while True:
            self._woken.clear()
            await self.round()
            try:
                await asyncio.wait_for(self._woken.wait(), _about(LOOK_SECONDS))
            except TimeoutError:
                continue

    async def round(self) -> None:
        """Look once, write down what is new, and do what can be done."""
        try:
            await self._round()
            self._complain("")
        except GpuError as error:
            self._complain(f"can't read the boards: {error}")
        except (HoldersUnknown, ApiError) as error:
            self._complain(str(error))
        finally:
            self.last_look = self.clock()

    async def _round(self) -> None:
        if self._seen is None or not self._seen.version:
            await self._create()
        seen, waiting = self._seen or Seen(), self.clock() < self._retry
        inventory, holders = await self._look()
        layouts, found = self._wanted(seen, inventory, holders)
        if found is not None and found.step is not None:
            await self._write(seen.generation, inventory, holders, found)  # before the first step: it leaves a trace
            found = await self._lay(layouts, seen.generation)
            inventory, holders = await self._look()
        if self._dirty and not waiting:
            found = await self._relist(found)
        await self._write(seen.generation, inventory, holders, found)

    async def _look(self) -> tuple[Inventory, Mapping[str, Pod]]:
        """The boards, and then who holds them, so that the answer is the fresher the more it matters."""
        self.inventory = await self.gpus.read()
        seen = self.inventory, await self.holders()
        self.last_look = self.clock()
        return seen

    def _wanted(
        self, seen: Seen, inventory: Inventory, holders: Mapping[str, Pod]
    ) -> tuple[tuple[Layout, ...], Outlook | None]:
        """The wanted layouts, and how far they are; no outlook where nothing is wanted."""
        try:
            layouts = wanted_layouts(seen.spec)
        except Misconfigured as error:
            return (), Outlook(INVALID, str(error))
        if not layouts:
            return (), None
        if not self.may_lay_out:
            return layouts, Outlook(INVALID, "this agent only reports (layouts is None): leave spec.boards empty")
        if self.clock() < self._retry and (recorded := recorded_condition(seen.status)):
            return layouts, Outlook(recorded["reason"], recorded["message"])
        return layouts, outlook(inventory, holders, layouts)

    async def _lay(self, layouts: tuple[Layout, ...], generation: int) -> Outlook:
        """Take steps until none is left, one fails, or something else is wanted.

        Before each, ask anew what there is and who holds it.
        """
        done: Step | None = None
        while True:
            found = outlook(*await self._look(), layouts)
            if found.step is None or (self._seen is not None and self._seen.generation != generation):
                return found
            if found.step == done:
                return self._failed(Outlook(FAILED, f"{done}: the driver said yes, but the board did not change"))
            log.info("%s", found.step)
            done, self._dirty = found.step, True
            try:
                await self._act(found.step)
            except GpuError as error:
                return self._failed(Outlook(BUSY if isinstance(error, GpuInUse) else FAILED, f"{found.step}: {error}"))
            self._failures = 0

    async def _act(self, step: Step) -> None:
        if isinstance(step, SetMig):
            await self.gpus.set_mig(step.gpu.uuid, step.enabled)
        elif isinstance(step, Create):
            await self.gpus.create(step.gpu.uuid, step.profile.gi_profile_id, step.start)
        else:
            await self.gpus.destroy(step.gpu.uuid, step.instance.id)

    async def _relist(self, found: Outlook | None) -> Outlook | None:
        try:
            await self.plugin.relist()
        except PluginError as error:
            failed = self._failed(Outlook(FAILED, f"the boards changed, but the device plugin does not know: {error}"))
            return found if found is None or found.reason == INVALID else failed
        self._dirty = False
        return found

    def _failed(self, found: Outlook) -> Outlook:
        """Wait longer after each failure in a row."""
        first, longest = RETRY_SECONDS
        self._retry = self.clock() + _about(min(longest, first * 2.0 ** min(self._failures, 16)))
        self._failures += 1
        log.warning("%s", found.message)
        return found

    async def _write(
        self, generation: int, inventory: Inventory, holders: Mapping[str, Pod], found: Outlook | None
    ) -> None:
        """Bring the GPUNode's status up to date: all of it where something changed, else its time now and then.

        What the boards do changes all the time, so it waits for that: telling it takes no write of its own.
        """
        now, recorded = self.clock(), self._seen.status if self._seen else {}
        uses, means = told_uses(recorded), self.usage.means(now)
        retell = now >= self._beat and self._telling.due(uses, means, inventory, now)
        status = status_of(inventory, holders, self.may_lay_out, means if retell else uses)
        status["observedGeneration"] = generation
        old = recorded_condition(recorded)
        status["conditions"] = [condition_of(found, generation, old, now)] if found else []
        changed = {key: value for key, value in status.items() if recorded.get(key) != value}
        changed |= dict.fromkeys(recorded.keys() - status.keys() - {"observedTime", INTERRUPTION})
        if changed or now >= self._beat:
            await self._merge({"observedTime": timestamp(now), **changed})
            self._beat = now + _about(HEARTBEAT_SECONDS)
            if retell:
                self._telling.told(now)

    async def _merge(self, status: Json) -> None:
        try:
            written = await self.api.merge(GPU_NODES, "", self.node, {"status": status}, subresource="status")
        except NotFound:
            self._seen = Seen()  # someone deleted it: the next round makes it anew
            raise
        self.observe(seen_of(written))

    async def _create(self) -> None:
        """Make the GPUNode, owned by its Node so that it goes with it."""
        node = await self.api.get(NODES, "", self.node)
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node["metadata"]["uid"]}
        metadata = {"name": self.node, "ownerReferences": [owner]}
        body = {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata}
        try:
            made = await self.api.create(GPU_NODES, "", body)
        except Conflict:  # someone was faster
            made = await self.api.get(GPU_NODES, "", self.node)
        self.observe(seen_of(made))

    def _complain(self, complaint: str) -> None:
        """Say what is wrong once, and once that it is over."""
        if complaint and complaint != self._complaint:
            log.warning("%s: %s", self.node, complaint)
        elif self._complaint and not complaint:
            log.info("%s: well again", self.node)
        self._complaint = complaint


def seen_of(raw: Json) -> Seen:
    """What a GPUNode says."""
    metadata = raw["metadata"]
    version = int(metadata.get("resourceVersion") or 0)
    return Seen(metadata.get("generation", 0), version, raw.get("spec") or {}, raw.get("status") or {})


def _left_open(status: Json) -> bool:
    """Whether an agent was in the middle of it when it wrote this, so that the device plugin may not know all."""
    condition = recorded_condition(status)
    return condition is not None and condition["reason"] in (IN_PROGRESS, FAILED)


def _about(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
