"""What is free on every node while a trace is replayed, as arrays, so that all nodes are looked at in one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from berth.bench.trace import Node
from berth.planning.scarcity import WHOLE, Demand

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Fleet:
    """Free CPU, memory and shares of boards, changed in place by `take`. A node's place in the order is its name.

    `free` has a column for each board of the largest node; boards that a smaller node lacks have no room.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.models = tuple(sorted({node.model for node in nodes}))
        self.model: Ints = np.array([self.models.index(node.model) for node in nodes])
        self.boards: Ints = np.array([node.boards for node in nodes])
        self.cpu: Ints = np.array([node.cpu_milli for node in nodes])
        self.memory: Ints = np.array([node.memory_mib for node in nodes])
        columns = np.arange(max(1, *(node.boards for node in nodes)))
        self.free: Ints = np.where(columns < self.boards[:, None], WHOLE, 0)

    def __len__(self) -> int:
        return len(self.cpu)

    def accepts(self, demand: Demand) -> Flags:
        """Which models will do for a demand, by their number."""
        return np.array([demand.accepts(model) for model in self.models])

    def fits(self, demand: Demand, rows: Ints) -> Flags:
        """Which of the nodes `rows` could take a demand now."""
        room = np.count_nonzero(self.free[rows] >= demand.share, axis=1) >= demand.boards
        beside = (self.cpu[rows] >= demand.cpu_milli) & (self.memory[rows] >= demand.memory_mib)
        fits: Flags = beside & room & self.accepts(demand)[self.model[rows]]
        return fits

    def take(self, node: int, demand: Demand, board: int) -> None:
        """Give a demand its room on a node: on `board`, or on the first boards with room where it asks for several."""
        free = self.free[node]
        taken = [board] if demand.boards == 1 else np.flatnonzero(free >= demand.share)[: demand.boards]
        self.cpu[node] -= demand.cpu_milli
        self.memory[node] -= demand.memory_mib
        free[taken] -= demand.share
