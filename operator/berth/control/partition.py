"""Carries out what a plan says of nodes: asks once more who holds the boards, then has them laid out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, Protocol

from berth.control.layouts import Note, in_the_way, note_text
from berth.control.picture import Picture
from berth.control.ports import GPU_NODES, PODS, Api, Clock, Conflict, Json, NotFound, Refused, Resource
from berth.control.records import GPUNodeRecord, NodeRecord, PodRecord
from berth.model.nodes import Node, Relayout, Trouble, Way
from berth.planning.actions import EndLayout, LayOut, NodeAction
from berth.planning.pursuit import pause_seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as it was found just before it is written."""

    record: NodeRecord
    report: GPUNodeRecord
    raw_report: Json


class Partitioner(Protocol):
    """One way to have a node's boards laid out. Every call may be repeated, and may find its work half done."""

    async def lay_out(self, seen: Seen, relayout: Relayout, note: str) -> tuple[Resource, Json]:
        """Set a re-layout going, and leave the note, in one write; what was written, and its answer."""
        ...

    async def end(self, seen: Seen, given_up: Relayout | None, note: str) -> tuple[Resource, Json]:
        """Leave the note; of a re-layout that was given up, see to it that nobody goes on with it later."""
        ...


@dataclass
class Partitions:
    """Writes what actions on nodes ask for."""

    api: Api
    picture: Picture
    clock: Clock
    ways: Mapping[Way, Partitioner]
    read_pod: Callable[[Json], PodRecord]
    read_node: Callable[[Json], NodeRecord]
    read_gpu_node: Callable[[Json], GPUNodeRecord]

    def assume(self, action: NodeAction) -> None:
        """From now on the node takes no new pods."""
        if isinstance(action, LayOut):
            self.picture.assume_relayout(action.node, action.relayout)

    def settle(self, action: NodeAction) -> None:
        """The action was answered: from now on the picture alone counts."""
        self.picture.assume_relayout(action.node, None)

    async def carry_out(self, action: NodeAction, node: Node) -> None:
        """Carry out one action on the node as it was when the action was decided."""
        log.info("node %s: %s", action.node, action.why if isinstance(action, LayOut) else action.message)
        await self._carry_out(action, node)

    @singledispatchmethod
    async def _carry_out(self, action: Any, node: Node) -> None:
        raise TypeError(f"no way to carry out {action!r}")

    @_carry_out.register
    async def _(self, action: LayOut, node: Node) -> None:
        seen = await self._look(action.node)
        if not seen.report.boards:  # an entry for mig-manager is made from all of them
            raise NotFound(f"node {action.node}: nobody reports its boards any more")
        await self._check_nobody_is_on_the_way(seen)
        way = self.ways[action.relayout.way]
        held = in_the_way(action.relayout, seen.report.boards)
        if held and action.relayout.attempt == 1:
            raise Conflict(f"node {action.node}: {held}")
        try:
            if held:
                raise Refused(held)
            note = note_text(Note(action.relayout, node.laid, node.trouble))
            self._take(*await way.lay_out(seen, action.relayout, note))
        except Refused as error:
            log.warning("node %s is not laid out: %s", action.node, error)
            times = node.trouble.times + 1 if node.trouble else 1
            trouble = Trouble(times, self.clock() + pause_seconds(times), str(error))
            given_up = action.relayout if action.relayout.attempt > 1 else None
            self._take(*await way.end(seen, given_up, note_text(Note(None, node.laid, trouble))))

    @_carry_out.register
    async def _(self, action: EndLayout, node: Node) -> None:
        given_up = action.relayout if action.trouble else None
        note = note_text(Note(None, action.laid, action.trouble))
        seen = await self._look(action.node)
        self._take(*await self.ways[action.relayout.way].end(seen, given_up, note))

    def _take(self, resource: Resource, raw: Json) -> None:
        """The picture learns what was written, else the next plan would decide it again."""
        if resource is GPU_NODES:
            self.picture.gpu_nodes.update(self.read_gpu_node(raw))
        else:
            self.picture.nodes.update(self.read_node(raw))

    async def _look(self, name: str) -> Seen:
        """The node as the picture has it, and its boards as the API server has them now."""
        record = self.picture.nodes.get("", name)
        if record is None:
            raise NotFound(f"node {name} is gone")
        try:
            raw = await self.api.get(GPU_NODES, "", name)
            return Seen(record, self.read_gpu_node(raw), raw)
        except NotFound:
            return Seen(record, GPUNodeRecord(record.meta), {})

    async def _check_nobody_is_on_the_way(self, seen: Seen) -> None:
        """Conflict while a pod with GPUs is bound to the node that its agent does not name yet, or the reverse.

        One made since the report may hold other devices than its namesake did before.
        """
        name = seen.record.meta.name
        listed = await self.api.list(PODS, fields=f"spec.nodeName={name}")
        pods = [self.read_pod(raw) for raw in listed["items"]]
        there = {f"{p.meta.namespace}/{p.meta.name}": p.meta.created for p in pods if p.holds_gpus and not p.ended}
        later = {pod for pod, created in there.items() if created > seen.report.observed}
        if unknown := sorted((there.keys() ^ seen.report.holders) | later):
            raise Conflict(f"node {name}: its agent has not caught up with {unknown[0]}")
