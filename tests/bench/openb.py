"""Small fleets and demands as the openb traces have them, and where the public traces lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from berth.bench.fleet import Fleet
from berth.bench.trace import Node
from berth.planning.scarcity import Demand

DATA = Path(os.environ.get("BERTH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "openb"


def a_node(name: str = "n", *, boards: int = 8, cpu: int = 96, memory: int = 384, model: str = "G2") -> Node:
    """A node with so many boards, CPUs and GiB."""
    return Node(name, cpu * 1000, memory * 1024, boards, model)


def a_demand(boards: int = 1, share: int = 1000, *, cpu: int = 1, memory: int = 1, models: str = "") -> Demand:
    """What asks for so many boards, or a share of each, with so many CPUs and GiB, of `models` (such as "G2 T4")."""
    return Demand(cpu * 1000, memory * 1024, boards, share if boards else 0, frozenset(models.split()))


def a_fleet(*nodes: Node, free: Sequence[Sequence[int]] = (), cpu: Sequence[int] = ()) -> Fleet:
    """A fleet of these nodes, of whose boards (and CPUs) only so much is free."""
    fleet = Fleet(nodes)
    for row, shares in enumerate(free):
        fleet.free[row, : len(shares)] = shares
    for row, cpus in enumerate(cpu):
        fleet.cpu[row] = cpus * 1000
    return fleet
