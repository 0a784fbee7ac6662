"""Measures what the node's boards do, every few seconds, and tells Prometheus, with the pods that have them now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from berth.adapters.gpu_metrics import Page, Whose
from berth.adapters.records import ObjectMeta
from berth.control.board_use import Sample, Usage
from berth.control.gpus import GpuError, Holders, HoldersUnknown, Inventory, Meters, Pod
from berth.control.ports import Clock
from berth.control.records import NAME_LABEL, QUEUE_ANNOTATION, Meta

log = logging.getLogger(__name__)

MEASURE_SECONDS = 10.0
FIRST_SECONDS = 1.0  # until there is something to tell


@dataclass(frozen=True, slots=True)
class NamedPod:
    """A pod of the node, for the watch's store."""

    meta: Meta

    @property
    def pod(self) -> Pod:
        """Its name."""
        return Pod(self.meta.namespace, self.meta.name)

    @property
    def whose(self) -> Whose:
        """What it is part of."""
        return Whose(self.meta.labels.get(NAME_LABEL, ""), self.meta.annotations.get(QUEUE_ANNOTATION, ""))


class PodObject(msgspec.Struct):
    """A pod's metadata: that is all that an agent reads of pods."""

    metadata: ObjectMeta

    def read(self) -> NamedPod:
        """Its record."""
        return NamedPod(self.metadata.read())


@dataclass(slots=True)
class Measurer:
    """One node's measurements."""

    node: str
    meters: Meters
    holders: Holders
    inventory: Callable[[], Inventory | None]  # as the agent's last look found it; None: it has not looked
    usage: Usage
    clock: Clock
    pods: Iterable[NamedPod] = ()
    _complaint: str = ""

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_SECONDS if self.usage.last else FIRST_SECONDS)

    async def measure(self) -> None:
        """Measure once. Boards that don't answer leave the last measurement, which grows old."""
        inventory = self.inventory()
        if inventory is None:
            return
        try:
            readings = await self.meters.measure()
            if inventory.gpus and not {each.uuid for each in readings} & {gpu.uuid for gpu in inventory.gpus}:
                raise GpuError(
                    "whoever answers knows other boards than ours: give the Service of dcgm-exporter an "
                    "internalTrafficPolicy: Local"
                )
        except GpuError as error:
            if str(error) != self._complaint:
                log.warning("%s: can't measure the boards: %s", self.node, error)
            self._complaint = str(error)
            return
        self._complaint = ""
        holders = await self._held()
        self.usage.take(Sample(self.clock(), inventory, {each.uuid: each for each in readings}, holders or {}))

    async def page(self) -> bytes:
        """What Prometheus is told now: who holds what is asked anew, so that no pod is named that is gone."""
        whose = {found.pod: found.whose for found in self.pods}
        return Page(self.node, self.usage, await self._held(), whose, self.clock()).text()

    async def _held(self) -> dict[str, Pod] | None:
        try:
            return dict(await self.holders())
        except HoldersUnknown:  # the agent's look says so
            return None
