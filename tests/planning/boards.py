"""Nodes whose boards are known one by one, as their agent reports them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from berth.model.boards import Board, Instance
from berth.model.gpus import BoardModel
from berth.model.nodes import Node, Way
from berth.planning.layouts import layout_for
from berth.planning.supply import resources
from tests.planning.builders import NOW, a_node, model

Layout = str | None
"""Profiles of one board in words: "3g.40gb 4x1g.10gb" (a "!" behind one: held), "" for MIG without instances, None for
a whole board and "!" for one that is held."""


def board(index: int, layout: Layout, of: BoardModel, node: str = "n") -> Board:
    """A board in words."""
    if layout is None or layout == "!":
        return Board(index, of, holder=f"team/{node}-{index}" if layout else "")
    names = [name for part in layout.split() for name in _times(part)]
    placed = layout_for(of, Counter(name.removesuffix("!") for name in names), {})
    assert placed is not None, f"{layout} fits on no {of.name}"
    held = [name.removesuffix("!") for name in names if name.endswith("!")]
    instances = []
    for instance in placed:
        holder = ""
        if instance.profile.name in held:
            held.remove(instance.profile.name)
            holder = f"team/{node}-{index}-{instance.start}"
        instances.append(Instance(instance.profile, instance.start, holder))
    return Board(index, of, mig_enabled=True, instances=tuple(instances))


def _times(part: str) -> list[str]:
    number, _, name = part.rpartition("x")
    return [name] * int(number or 1)


def a_laid_node(
    name: str, *layouts: Layout, of: str = "A100-80GB", way: Way | None = Way.MIG_MANAGER, **more: Any
) -> Node:
    """A node with one board for each layout, and allocatable to match."""
    boards = tuple(board(i, layout, model(of), name) for i, layout in enumerate(layouts))
    node = a_node(name, gpus=0, board=of, **more)
    allocatable = resources(node.allocatable, model(of), boards)
    return replace(node, allocatable=allocatable, boards=boards, way=way)


def holding(*nodes: Node) -> dict[str, dict[str, float]]:
    """Who holds devices of these nodes, as pods say."""
    held: dict[str, dict[str, float]] = {}
    for node in nodes:
        names = [b.holder for b in node.boards] + [i.holder for b in node.boards for i in b.instances]
        held[node.name] = {name: NOW - 100 for name in names if name}
    return held


def used(*nodes: Node) -> dict[str, dict[str, int]]:
    """What those who hold devices take of each node."""
    taken: dict[str, dict[str, int]] = {}
    for node in nodes:
        each = taken.setdefault(node.name, {})
        for b in node.boards:
            names = ["nvidia.com/gpu"] if b.holder else [i.profile.resource for i in b.instances if i.holder]
            for resource in names:
                each[resource] = each.get(resource, 0) + 1
                each["pods"] = each.get("pods", 0) + 1
    return taken


def words(layouts: Sequence[Any]) -> Mapping[int, str]:
    """Layouts of an action, as boards in words."""
    return {
        each.index: " ".join(sorted(i.profile.name for i in each.instances)) if each.mig_enabled else "whole"
        for each in layouts
    }
