"""On which capacity the replicas of a service run: some on demand, the others where they cost least, and apart.

1. As many as `availability.onDemandMinimum` says run on demand, or wait for room there.
2. Each of the others goes to the cheapest market with room, but to no pool of spot capacity (that of one zone) which
   holds as many as `availability.maxPerSpotPool` already: so many may be gone at once.
3. Where no other capacity has room, such a pool takes more: a replica that may go serves more than one that waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from berth.model.nodes import Node
from berth.model.workloads import Device, Pod, PodPhase, PodShape, Request, Spot, Workload
from berth.planning.interruptions import threat_to
from berth.planning.markets import costs, differ, prices_of, ranked
from berth.planning.options import Option, boards_of
from berth.planning.scratch import NOWHERE, Scratch

SpotPool = tuple[str, str]
"""Region and zone of spot capacity, which one reclaim may take as a whole."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a replica may go: nodes that this shape is not kept off, but for those to leave out."""

    shape: PodShape
    without: frozenset[str] = NOWHERE


class Mix:
    """What kinds of capacity the replicas of one service are on, while a plan adds to them."""

    def __init__(self, s: Scratch, w: Workload, request: Request, device: Device, pods: Sequence[Pod]) -> None:
        """Begin with those that are on nodes; one whose node is gone counts as on demand."""
        self._s, self._w, self._request, self._device = s, w, request, device
        self.on_demand = 0
        self.on_spot: Counter[SpotPool] = Counter()
        for pod in pods:
            self.add(pod.node)

    def add(self, name: str, count: int = 1) -> None:
        """One more on that node, or as many fewer."""
        pool = spot_pool(self._s.fleet.nodes.get(name))
        if pool is None:
            self.on_demand += count
        else:
            self.on_spot[pool] += count

    @cached_property
    def floor(self) -> int:
        """How many are to run on demand: no more than all such capacity could hold if it were empty."""
        least = min(self._w.availability.on_demand, self._request.workers)
        field = self._s.field(self._steady, self._device) if least and self._request.shape.spot is Spot.ALLOW else None
        return min(least, field.potential) if field is not None else 0

    @property
    def lacks_on_demand(self) -> int:
        """How many more are to run on demand."""
        return max(0, self.floor - self.on_demand)

    @property
    def only_on_demand(self) -> bool:
        """Whether spot capacity holds as many as it may."""
        return self.floor > 0 and self.on_spot.total() >= self._request.workers - self.floor

    @property
    def needs(self) -> Request:
        """What more of them ask for."""
        if self.only_on_demand or (self._request.topology is not None and self.floor):
            return replace(self._request, shape=self._steady)
        return self._request

    @property
    def matters(self) -> bool:
        """Whether it may matter on which capacity they run. Those that a topology keeps together are of one kind."""
        if self._request.topology is not None:
            return False
        on_spot = any(spot for spot, _ in prices_of(self._s, self._request.shape, self._device))
        return on_spot or differ(self._s, self._w, self._request, [self._option])

    def ways(self) -> Iterator[Way]:
        """Where the next one may go, the best first."""
        if self.lacks_on_demand:
            yield Way(self._steady)
        if self.only_on_demand:
            return
        full = self._full()
        for shape in self._markets:
            yield Way(shape, full)
        if full:
            yield Way(self._request.shape)

    def first_to_go(self, pods: Sequence[Pod], count: int) -> list[Pod]:
        """So many of them that a service which gets smaller loses, one after the other.

        1. Those on demand above the floor, and those on spot capacity. 2. Those whose nodes go away. 3. Those on a pool
        of spot capacity that holds too many. 4. The dearest. 5. Those that are not ready. 6. The newest.
        """
        usd = {cost.market: cost.total for cost in costs(self._s, self._w, self._request.at(1), self._option)}
        dearest = max(usd.values(), default=0.0)
        threatened = {pod.uid for pod in pods if threat_to(self._s, self._w, [pod]) is not None}

        def key(pod: Pod) -> tuple[bool, bool, bool, float, bool, float, str]:
            node = self._s.fleet.nodes.get(pod.node)
            pool = spot_pool(node)
            keeps = pool is None and self.on_demand <= self.floor
            crowded = pool is not None and self.on_spot[pool] > self._w.availability.per_spot_pool
            price = usd.get((node.spot, node.region), dearest) if node else dearest
            rest = (-price, pod.phase is PodPhase.READY, -pod.created, pod.uid)
            return (keeps, pod.uid not in threatened, not crowded, *rest)

        left, gone = list(pods), list[Pod]()
        while left and len(gone) < count:
            gone.append(min(left, key=key))
            left.remove(gone[-1])
            self.add(gone[-1].node, -1)
        return gone

    def _full(self) -> frozenset[str]:
        """The nodes of spot pools that hold as many as they may."""
        most = self._w.availability.per_spot_pool
        full = (nodes for pool, nodes in self._nodes.items() if self.on_spot[pool] >= most)
        return NOWHERE.union(*full)

    @cached_property
    def _nodes(self) -> Mapping[SpotPool, frozenset[str]]:
        """The nodes of each pool of spot capacity."""
        found: dict[SpotPool, set[str]] = {}
        for node in self._s.fleet.pools[self._device.model].nodes:
            if (pool := spot_pool(node)) is not None:
                found.setdefault(pool, set()).add(node.name)
        return {pool: frozenset(names) for pool, names in found.items()}

    @cached_property
    def _markets(self) -> tuple[PodShape, ...]:
        """The cheapest markets, and then these with the next ones."""
        return tuple(shape for _, shape in ranked(self._s, self._w, self._request.at(1), [self._option]))

    @cached_property
    def _steady(self) -> PodShape:
        return replace(self._request.shape, spot=Spot.NEVER)

    @property
    def _option(self) -> Option:
        model = self._s.model(self._device.model)
        boards = boards_of(self._device, model)
        return Option(self._device, boards, float(boards) * model.usd_per_hour, 0)


def spot_pool(node: Node | None) -> SpotPool | None:
    """The pool of spot capacity that a node is part of; None: of none."""
    return (node.region, node.zone) if node is not None and node.spot else None
