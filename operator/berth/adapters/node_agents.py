"""Layouts by the agents of the nodes: what GPUNode.spec wants of each board."""

from __future__ import annotations

from dataclasses import dataclass

from berth.control.partition import Seen
from berth.control.ports import GPU_NODES, Api, Json, NotFound, Resource
from berth.control.records import LAYOUT_ANNOTATION
from berth.model.nodes import BoardLayout, Relayout


@dataclass
class NodeAgents:
    """Implements `control.partition.Partitioner`."""

    api: Api

    async def lay_out(self, seen: Seen, relayout: Relayout, note: str) -> tuple[Resource, Json]:
        """Say what is wanted of these boards, beside what was wanted of others."""
        return await self._patch(seen, relayout, [wanted(layout) for layout in relayout.boards], note)

    async def end(self, seen: Seen, given_up: Relayout | None, note: str) -> tuple[Resource, Json]:
        """Leave the note; boards that were given up stay as they are from now on."""
        return await self._patch(seen, given_up, [], note)

    async def _patch(
        self, seen: Seen, relayout: Relayout | None, boards: list[Json], note: str
    ) -> tuple[Resource, Json]:
        raw = seen.raw_report
        if not raw:
            raise NotFound(f"GPUNode {seen.record.meta.name} is gone, and with it what was wanted of its boards")
        metadata = {
            "resourceVersion": raw["metadata"]["resourceVersion"],
            "annotations": {LAYOUT_ANNOTATION: note or None},
        }
        body: Json = {"metadata": metadata}
        if relayout is not None:
            named = {layout.index for layout in relayout.boards}
            others = [b for b in (raw.get("spec") or {}).get("boards") or () if b["index"] not in named]
            body["spec"] = {"boards": sorted([*others, *boards], key=lambda board: board["index"])}
        return GPU_NODES, await self.api.merge(GPU_NODES, "", raw["metadata"]["name"], body)


def wanted(layout: BoardLayout) -> Json:
    """A board as GPUNode.spec states it."""
    instances = [{"profile": i.profile.name, "start": i.start} for i in layout.instances]
    return {"index": layout.index, "migEnabled": layout.mig_enabled, "instances": instances}
