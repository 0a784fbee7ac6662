"""What is free on each node, on a copy: a plan takes from it as it decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import islice

import numpy as np

from berth.model.gpus import WHOLE_BOARD
from berth.model.resources import Resources
from berth.model.workloads import Device, PodShape
from berth.planning.fleet import MOST, Fleet, Ints, Pool, whole_numbers

PODS = "pods"


def needs_of(shape: PodShape, device: Device) -> dict[str, int]:
    """All that one member takes from its node: its requests, its device, and a pod's place."""
    return {device.resource: device.count, PODS: 1, **{name: n for name, n in shape.requests if n > 0}}


class Room:
    """Free room on the nodes of a pool: less than nothing where pods of others have gone beyond it."""

    def __init__(self, pool: Pool, used: Mapping[str, Resources]) -> None:
        """Start from what is observed."""
        self.pool = pool
        self._used = [(i, held) for i, node in enumerate(pool.nodes) if (held := used.get(node.name))] if used else []
        self._free: dict[str, Ints] = {}
        self._slack: dict[tuple[bool, int], Ints] = {}
        self._whole: dict[int, Ints] = {}
        self._taken: list[int] = []
        self.gangs: tuple[tuple[int, int], ...] = ()  # gangs of several nodes that wait or run: nodes, and how many

    def free(self, resource: str) -> Ints:
        """What each node has left of a resource."""
        left = self._free.get(resource)
        if left is None:
            left = self._free[resource] = self.pool.allocatable(resource).copy()
            holding = [i for i, held in self._used if resource in held]
            left[holding] -= whole_numbers([held[resource] for _, held in self._used if resource in held])
        return left

    def take(self, i: int, needs: Resources) -> None:
        """Reserve one member's room on a node."""
        for name, n in needs.items():
            self.free(name)[i] -= min(n, MOST)
        self._taken.append(i)
        self._slack.clear()
        self._whole.clear()

    def freed(self, nodes: Ints, amounts: Mapping[str, Ints]) -> Room:
        """A copy of this room with so much more of each resource on these nodes, though no more than they have."""
        other = copy(self)
        other._free, other._slack, other._whole, other._taken = {}, {}, {}, []
        for name in {**self._free, **amounts}:
            free = other._free[name] = self.free(name).copy()
            if name in amounts:
                np.add.at(free, nodes, amounts[name])
                np.minimum(free, self.pool.allocatable(name), out=free)
        return other

    @property
    def mark(self) -> int:
        """A moment of this room: how often some of it was taken so far."""
        return len(self._taken)

    def taken_since(self, mark: int) -> Sequence[int]:
        """The nodes that room was taken from since then; a node may come twice."""
        return self._taken[mark:]

    def slack(self, whole: bool, level: int) -> Ints:
        """Free whole boards, or free MIG instances of any profile, of each domain of a level, in memory slices."""
        known = self._slack.get((whole, level))
        if known is None:
            last = self.pool.nodewise
            if level == last:
                known = self._slack_of_nodes(whole)
            else:
                known = self.pool.domains[last].merged(self.slack(whole, last), self.pool.at(level))
            self._slack[whole, level] = known
        return known

    def whole(self, level: int) -> Ints:
        """How many nodes of each domain of a level have all their boards free."""
        known = self._whole.get(level)
        if known is None:
            last = self.pool.nodewise
            if level == last:
                boards = self.pool.allocatable(WHOLE_BOARD)
                known = ((self.free(WHOLE_BOARD) >= boards) & (boards > 0)).astype(np.int64)
            else:
                known = self.pool.domains[last].merged(self.whole(last), self.pool.at(level))
            self._whole[level] = known
        return known

    def _slack_of_nodes(self, whole: bool) -> Ints:
        total = np.zeros(len(self.pool.nodes), dtype=np.int64)
        for name in self.pool.stock:
            if (name == WHOLE_BOARD) is whole:
                total += np.maximum(self.free(name), 0) * self.pool.slices[name]
        return total


class Ledger:
    """Free room: allocatable, less what bound and pinned pods use, less what this plan has taken."""

    def __init__(self, fleet: Fleet, used: Mapping[str, Resources]) -> None:
        """Start from what is observed."""
        self.rooms = {name: Room(pool, used) for name, pool in fleet.pools.items()}
        self._fleet = fleet
        self._journal: list[str] = []

    def free(self, node: str) -> Mapping[str, int]:
        """What is free on a node with boards; less than nothing where pods of others have gone beyond it."""
        room, i = self._room(node)
        return {name: int(room.free(name)[i]) for name in self._fleet.nodes[node].allocatable}

    def fits(self, node: str, needs: Resources) -> int:
        """How many members with these needs the node has room for."""
        room, i = self._room(node)
        return max(0, min(int(room.free(name)[i]) // n for name, n in needs.items()))

    def take(self, node: str, needs: Resources) -> None:
        """Reserve one member's room on a node with boards."""
        room, i = self._room(node)
        room.take(i, needs)
        self._journal.append(node)

    @property
    def mark(self) -> int:
        """A moment of this ledger: how often room was taken so far."""
        return len(self._journal)

    def taken_since(self, mark: int) -> Iterator[str]:
        """The nodes that room was taken from since then."""
        return islice(self._journal, mark, None)

    def _room(self, node: str) -> tuple[Room, int]:
        board = self._fleet.nodes[node].board
        if board is None:
            raise KeyError(f"{node} has no boards")
        room = self.rooms[board.name]
        return room, room.pool.index[node]
