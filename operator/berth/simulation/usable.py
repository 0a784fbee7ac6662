"""Fragmentation: how much of what is free the scenario's own mix of work could not use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.topology import Level
from berth.model.workloads import Device, Request
from berth.planning.fleet import Fleet, Pool
from berth.planning.ledger import needs_of
from berth.planning.options import MIB
from berth.planning.scratch import gang_of
from berth.simulation.machines import Machine

MOST_CLASSES = 40  # kinds of request that are looked at, the most frequent first: in a trace each may be another

Numbers = npt.NDArray[np.int64]


@dataclass
class _Fit:
    """One kind of request on one device of a pool: for how many members each node has room."""

    members: int
    device: Device
    needs: Mapping[str, int]
    domains: Numbers  # the number of the domain that the gang has to share, by the pool's index; -1: none
    capacity: Numbers  # by the pool's index

    def usable(self) -> Numbers:
        """Pieces of the device's resource that it could hold on each node, where a whole gang fits."""
        inside = self.domains >= 0
        room = np.bincount(self.domains[inside], self.capacity[inside], minlength=1)
        holds = inside & (room[self.domains] >= self.members)
        return np.where(holds, self.capacity * self.device.count, 0)


class _Room:
    """What is free in one pool, by resource and the pool's index, and who could use it."""

    def __init__(self, pool: Pool, requests: Sequence[Request]) -> None:
        size, self.index = len(pool.nodes), pool.index
        self.boards = {name: slices / pool.slices[WHOLE_BOARD] for name, slices in pool.slices.items()}  # of a piece
        self.free = {name: np.zeros(size, np.int64) for name in pool.slices}
        self.fits: dict[int, list[_Fit]] = {
            number: [_fit(pool, request, device) for device in _devices(request, pool.model)]
            for number, request in enumerate(requests)
        }

    def measure(self, machine: Machine) -> None:
        """Look at a node again. One that takes no pods has nothing free."""
        i, node = self.index[machine.node.name], machine.node
        serves = node.ready and node.relayout is None
        for resource, free in self.free.items():
            free[i] = machine.free(resource) if serves else 0
        for fit in (fit for fits in self.fits.values() for fit in fits):
            fit.capacity[i] = min(machine.free(name) // n for name, n in fit.needs.items()) if serves else 0

    def all_free(self, resource: str) -> float:
        """Boards that are free of a resource; an instance counts as its share."""
        return float(self.free[resource].sum()) * self.boards[resource]

    def unusable(self) -> float:
        """Boards that are free, and of no use to anybody."""
        best = {resource: np.zeros_like(free) for resource, free in self.free.items()}
        for fit in (fit for fits in self.fits.values() for fit in fits):
            resource = fit.device.resource
            best[resource] = np.maximum(best[resource], fit.usable())
        return sum(float((free - best[name]).sum()) * self.boards[name] for name, free in self.free.items())

    def of_its_kind(self, number: int) -> tuple[float, float]:
        """Boards that one kind of request could use, and those that are free of the resources it asks for."""
        fits = self.fits[number]
        usable = sum(float(fit.usable().sum()) * self.boards[fit.device.resource] for fit in fits)
        return usable, sum(self.all_free(fit.device.resource) for fit in fits)


class Fragmentation:
    """What is free, and to whom it is of use, kept current node by node.

    A gang counts as fitting where its required domain has room for all its members. NVLink domains that span nodes are
    not looked at.
    """

    def __init__(self, machines: Mapping[str, Machine], levels: tuple[Level, ...], requests: Iterable[Request]) -> None:
        """Measure every node. `requests` is the mix: one for each workload."""
        frequent = Counter(requests).most_common(MOST_CLASSES)
        self._machines = machines
        self._weights = [n for _, n in frequent]
        fleet = Fleet({name: machine.node for name, machine in machines.items()}, levels)
        self._rooms = [_Room(pool, [request for request, _ in frequent]) for pool in fleet.pools.values()]
        self._of = {name: room for room in self._rooms for name in room.index}
        self.measure(machines)

    def measure(self, nodes: Iterable[str]) -> None:
        """Look at these nodes again."""
        for name in nodes:
            self._of[name].measure(self._machines[name])

    def free(self) -> float:
        """Boards that are free, instances as shares of theirs, on nodes that take pods."""
        return sum(room.all_free(resource) for room in self._rooms for resource in room.free)

    def useless(self) -> float:
        """Free boards that no workload of the mix could use."""
        return sum(room.unusable() for room in self._rooms)

    def useless_share(self) -> float:
        """The share of the free boards of its kind that a workload could not use, on average over the mix."""
        total = lost = 0.0
        for number, weight in enumerate(self._weights):
            found = [room.of_its_kind(number) for room in self._rooms]
            usable, free = sum(u for u, _ in found), sum(f for _, f in found)
            if free:
                total += weight
                lost += weight * (1 - usable / free)
        return lost / total if total else 0.0


def _fit(pool: Pool, request: Request, device: Device) -> _Fit:
    within = gang_of(request, device, pool.levels, request.workers).within
    paths = [path[: within + 1] if within is not None else () for path in pool.paths]
    numbers = {path: i for i, path in enumerate(dict.fromkeys(paths))}
    domains = [numbers[path] if not path or path[-1] else -1 for path in paths]
    members = request.workers
    return _Fit(members, device, needs_of(request.shape, device), np.array(domains), np.zeros(len(paths), np.int64))


def _devices(request: Request, model: BoardModel) -> Iterator[Device]:
    """What of a model's boards and instances would serve a request, offered at the moment or not."""
    demand = request.demand
    if demand.models and not any(model.answers_to(name) for name in demand.models):
        return
    wanted = (demand.memory_bytes or 0) / MIB
    if demand.count is not None or (demand.profile is None and model.memory_mib >= wanted):
        yield Device(model.name, WHOLE_BOARD, demand.count or 1)
    for profile in model.profiles if demand.count is None and request.tensor == 1 else ():
        named = demand.profile is not None and profile == model.profile(demand.profile)
        if named or (demand.profile is None and profile.usable_mib >= wanted):
            yield Device(model.name, profile.resource, 1)
