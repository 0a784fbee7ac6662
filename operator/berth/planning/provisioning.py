"""Capacity that does not exist yet: gangs that fit nowhere are released to a node pool that an autoscaler can grow.

Their pods ask for the pool's labels instead of a node, which is what autoscalers look at. Where not all of them have a
node in time, they are taken back, and the next pool is asked. See docs/decisions/0028-capacity-to-come.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil, exp2

import numpy as np

from berth.model.gpus import MODELS, WHOLE_BOARD
from berth.model.nodes import Node
from berth.model.pools import NodePool, Shortfall
from berth.model.prices import CAPACITY_LABELS, REGION_LABELS, ZONE_LABELS, CapacityType
from berth.model.reasons import Reason, Verdict
from berth.model.topology import Level
from berth.model.workloads import Attempt, Device, Placement, PodShape, Request, Workload
from berth.planning.actions import Admit
from berth.planning.admission import choices
from berth.planning.field import Field
from berth.planning.fleet import Fleet
from berth.planning.ledger import PODS, Ledger
from berth.planning.markets import Cost, cost_in, cost_text
from berth.planning.options import Option, name_of, options_for
from berth.planning.packing import pack
from berth.planning.scratch import Scratch, gang_of, linked_boards

NOT_PROVIDED = "NodesNotProvided"  # the reason of gangs whose nodes did not come in time
HALF_LIFE_SECONDS = 1800.0  # after so long, a pool that failed is believed half as much less
FORGOTTEN_SECONDS = 12 * HALF_LIFE_SECONDS
MOST_SHORTFALLS = 20  # that a job remembers
MOST_DOUBLINGS = 3  # of the wait until a job asks a pool again that failed it
CAPACITY_LABEL = next(iter(CAPACITY_LABELS))


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool that could hold a whole gang."""

    pool: NodePool
    option: Option
    cost: Cost  # for an hour of a member
    nodes: tuple[str, ...]  # of the pool, as if they were there
    ledger: Ledger
    field: Field


class Provisioner:
    """The pools of one plan, and what is asked of them already."""

    def __init__(self, s: Scratch) -> None:
        """Nothing is counted or arranged before somebody asks."""
        self._s = s
        self._ledgers: dict[str, Ledger | None] = {}  # by pool; None: it may make no more nodes
        self._fields: dict[tuple[str, PodShape, Device, int], Field] = {}
        self._vain: dict[tuple[object, ...], int] = {}  # who asked in vain, and how many actions there were then
        self._shortfalls = tuple(fall for w in s.snapshot.workloads for fall in w.shortfalls)

    def could_ever(self, request: Request) -> bool:
        """Whether some pool has boards for a request."""
        return any(self._options(pool, request) for pool in self._s.policy.pools)

    def ask(self, w: Workload) -> bool:
        """Admit a job to the best pool that could hold its gang, for as many members as it would like, or the least."""
        s = self._s
        if w.request is None or not s.policy.pools:
            return False
        until = s.estimates.end_if_admitted(w)
        owed = s.reserved.of(w.ref)
        key = (w.request, w.queue, w.priority, w.max_usd_per_hour, w.shortfalls, until, owed and owed.reservation.ref)
        if self._vain.get(key) == len(s.actions):
            return False
        for request in dict.fromkeys((w.request.at(w.request.workers), w.request.smallest)):
            with s.reserved.without(w.ref):
                offers = [offer for pool in s.policy.pools if (offer := self._offer(w, request, pool))]
            if offers:
                self._admit(w, min(offers, key=lambda offer: self._rank(w, offer)))
                return True
        self._vain[key] = len(s.actions)
        return False

    def _offer(self, w: Workload, request: Request, pool: NodePool) -> Offer | None:
        """The cheapest way to run in a pool, if quota, price and the number of its nodes allow it."""
        s, ledger = self._s, self._ledger(pool)
        if ledger is None or self._is_too_soon(w, pool):
            return None
        options = self._options(pool, request)
        known = tuple(sorted({*s.options(request.demand, request.tensor), *options}, key=lambda o: o.usd_per_hour))
        for choice in choices(s, replace(w, max_usd_per_hour=None), request, options=known):
            option = choice.option
            if option not in options or choice.reason is not None or not self._has_quota(w, request, option):
                continue
            price = s.policy.prices.usd_per_hour(s.model(pool.model), pool.region, pool.capacity)
            cost = cost_in(s, w, request, option, (pool.capacity is CapacityType.SPOT, pool.region), price)
            if w.max_usd_per_hour is not None and cost.usd * request.workers > w.max_usd_per_hour:
                continue
            field = self._field(ledger, request, option.device, pool)
            nodes = pack(field, gang_of(request, option.device, s.fleet.levels, request.workers))
            if nodes is not None:
                return Offer(pool, option, cost, nodes, ledger, field)
        return None

    def _has_quota(self, w: Workload, request: Request, option: Option) -> bool:
        left = self._s.quota_left(w.queue, option.device, self._s.estimates.end_if_admitted(w, request.workers))
        return left is None or option.boards * request.workers <= left

    def _field(self, ledger: Ledger, request: Request, device: Device, pool: NodePool) -> Field:
        """Where members fit in the pool. What they ask for besides boards is left to the autoscaler."""
        bare = replace(request.shape, requests=(), markets=())  # its price is looked at by itself
        key = (pool.name, bare, device, linked_boards(request, device))
        if key not in self._fields:
            room = ledger.rooms[pool.model]
            self._fields[key] = Field(room, room.pool.outlook(bare), bare, device, (), key[3])
        return self._fields[key].refresh()

    def _admit(self, w: Workload, offer: Offer) -> None:
        s, pool, device, members = self._s, offer.pool, offer.option.device, len(offer.nodes)
        for node in offer.nodes:
            offer.ledger.take(node, offer.field.needs)
        s.charge(w.queue, device, members)
        s.owed.settled.add(w.ref.uid)
        placement = Placement(device, ("",) * members, pool.name)
        if w.request is not None:
            keep_for(s, w.request, placement, members)
        until = s.estimates.end_if_admitted(w, members)
        s.reserved.charge(w.queue, s.model(device.model), offer.option.boards * members, until)
        asks = f"{len({*offer.nodes})} nodes, {name_of(device)} a worker, {cost_text(offer.cost)}"
        told = f"{_waits(pool, s.now, 0, members)}; asks for {asks}{self._doubts(pool)}"
        verdict = Verdict(Reason.WAITING_FOR_NODES, told)
        s.wake(s.now + pool.provision_seconds)
        s.decide(w.ref, verdict, Admit(w.ref, w.attempts_made + 1, placement, verdict))

    def _rank(self, w: Workload, offer: Offer) -> tuple[int, float, int]:
        """1. Those that failed this job least often. 2. The cheapest; a pool that failed anybody counts as dearer."""
        doubted = offer.cost.total * (1 + self._doubt(offer.pool))
        return len(_recent(self._s, w, offer.pool)), round(doubted, 4), self._s.policy.pools.index(offer.pool)

    def _doubt(self, pool: NodePool) -> float:
        """How often a pool failed whomever, a failure counting half after each half-life.

        If that often it did not deliver, so many tries more are to be expected: each costs what it was asked for.
        """
        ages = (self._s.now - fall.at for fall in self._shortfalls if fall.pool == pool.name)
        return sum(exp2(-max(0.0, age) / HALF_LIFE_SECONDS) for age in ages if age < FORGOTTEN_SECONDS)

    def _doubts(self, pool: NodePool) -> str:
        times = sum(fall.pool == pool.name and self._s.now - fall.at < FORGOTTEN_SECONDS for fall in self._shortfalls)
        return f"; it failed {times} times lately" if times else ""

    def _is_too_soon(self, w: Workload, pool: NodePool) -> bool:
        """Whether it failed this job, and is not to be asked again yet."""
        fell = _recent(self._s, w, pool)
        if not fell:
            return False
        again = max(fell) + pool.provision_seconds * (1 << min(len(fell) - 1, MOST_DOUBLINGS))
        self._s.wake(again)
        return again > self._s.now

    def _options(self, pool: NodePool, request: Request) -> tuple[Option, ...]:
        found = options_for(request.demand, _as_if_there(pool, 1, self._s.policy.levels), request.tensor)
        return tuple(option for option in found if option.device.resource == WHOLE_BOARD)

    def _ledger(self, pool: NodePool) -> Ledger | None:
        """Room on the nodes that a pool may yet make, and on its idle ones; None where it may make none."""
        if pool.name not in self._ledgers:
            there = [node for node in self._s.snapshot.nodes.values() if is_of(node, pool)]
            left = pool.nodes_most - len(there) - self._asked(pool)
            idle = sum(self._is_idle(node, pool) for node in there)  # they serve as well as new ones
            fleet = _as_if_there(pool, left + idle, self._s.policy.levels) if left > 0 else None
            self._ledgers[pool.name] = Ledger(fleet, {}) if fleet is not None else None
        return self._ledgers[pool.name]

    def _is_idle(self, node: Node, pool: NodePool) -> bool:
        usable = node.ready and node.board is not None and not (node.unschedulable or node.interruption)
        return usable and self._s.ledger.free(node.name).get(WHOLE_BOARD, 0) >= pool.boards_per_node

    def _asked(self, pool: NodePool) -> int:
        """Nodes that gangs wait for, each gang by itself, whatever of them is there already."""
        waiting = (w.attempt for w in self._s.snapshot.workloads if w.attempt and w.attempt.placement.pool == pool.name)
        return sum(ceil(len(a.placement.nodes) * a.placement.device.count / pool.boards_per_node) for a in waiting)


def is_of(node: Node, pool: NodePool) -> bool:
    """Whether a node is one of a pool's."""
    return all(node.labels.get(key) == value for key, value in pool.labels)


def pool_named(s: Scratch, name: str) -> NodePool | None:
    """The pool of that name; None where the configuration has it no more."""
    return next((pool for pool in s.policy.pools if pool.name == name), None)


def keep_for(s: Scratch, request: Request, placement: Placement, waiting: int) -> None:
    """Set aside what nodes of its pool have free, for as many members as wait: kube-scheduler binds them there."""
    pool = pool_named(s, placement.pool)
    if pool is None or not waiting:
        return
    selector = {**dict(request.shape.node_selector), **dict(pool.labels)}
    field = s.field(replace(request.shape, node_selector=tuple(sorted(selector.items()))), placement.device)
    if field is None:
        return
    for _ in range(waiting):
        able = np.flatnonzero(field.refresh().capacity)
        if not len(able):
            return
        s.ledger.take(field.pool.nodes[int(able[0])].name, field.needs)


def overdue(s: Scratch, attempt: Attempt) -> str:
    """Why a gang waits no longer for nodes, in words; "" where it does."""
    pool = pool_named(s, attempt.placement.pool)
    if pool is None:
        return f"pool {attempt.placement.pool} is not in the configuration any more"
    end = attempt.admitted_at + pool.provision_seconds
    s.wake(end)
    if end > s.now:
        return ""
    return f"pool {pool.name} did not bring nodes for all workers in {pool.provision_seconds:g} s"


def waits(s: Scratch, attempt: Attempt, bound: int, before: Verdict | None) -> Verdict:
    """What a gang is told while its nodes are to come."""
    pool = pool_named(s, attempt.placement.pool)
    assert pool is not None
    told = _waits(pool, attempt.admitted_at, bound, len(attempt.placement.nodes))
    asked = before.message.partition("; ")[2] if before and before.reason == Reason.WAITING_FOR_NODES else ""
    return Verdict(Reason.WAITING_FOR_NODES, f"{told}; {asked}" if asked else told)


def fell_short(s: Scratch, w: Workload, pool: str) -> tuple[Shortfall, ...]:
    """What a job remembers of pools that failed it, this one included."""
    kept = (fall for fall in w.shortfalls if s.now - fall.at < FORGOTTEN_SECONDS)
    return (*kept, Shortfall(pool, s.now))[-MOST_SHORTFALLS:]


def failed_text(s: Scratch, w: Workload) -> str:
    """Which pools failed a job that waits, and when, in words; "" for none."""
    last = {fall.pool: fall.at for fall in w.shortfalls if s.now - fall.at < FORGOTTEN_SECONDS}
    return ", ".join(f"pool {name} brought no nodes by {_clock(at)}" for name, at in last.items())


def _recent(s: Scratch, w: Workload, pool: NodePool) -> list[float]:
    return [fall.at for fall in w.shortfalls if fall.pool == pool.name and s.now - fall.at < FORGOTTEN_SECONDS]


def _waits(pool: NodePool, since: float, bound: int, members: int) -> str:
    until = _clock(since + pool.provision_seconds)
    have = f"{bound} of {members} workers have one"
    return f"waits for nodes of pool {pool.name} since {_clock(since)}, taken back at {until}: {have}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


@lru_cache(maxsize=256)
def _as_if_there(pool: NodePool, count: int, levels: tuple[Level, ...]) -> Fleet:
    """So many empty nodes of a pool."""
    model = next(m for m in MODELS if m.name == pool.model)
    told = {ZONE_LABELS[0]: pool.zone, REGION_LABELS[0]: pool.region, CAPACITY_LABEL: str(pool.capacity)}
    labels = {**{key: value for key, value in told.items() if value}, **dict(pool.labels)}
    offers = {WHOLE_BOARD: pool.boards_per_node, PODS: pool.boards_per_node}
    names = [f"{pool.name}/{i}" for i in range(count)]
    nodes = [Node(n, {"kubernetes.io/hostname": n, **labels}, offers, board=model) for n in names]
    return Fleet({node.name: node for node in nodes}, levels)
