"""The working copy that one plan is made on: what is free and charged so far, and what has been decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import inf
from typing import Any, TypeVar

from berth.model.gpus import MODELS, WHOLE_BOARD, BoardModel, model_of_product
from berth.model.reasons import Reason, Verdict
from berth.model.resources import Resources
from berth.model.topology import NVLINK_LEVEL, Level
from berth.model.workloads import Demand, Device, Kind, Market, PodShape, Ref, Request, Workload
from berth.planning.actions import Action
from berth.planning.cutting import Guide, guided
from berth.planning.endings import Ending, running
from berth.planning.estimates import Estimates
from berth.planning.fairness import Fairness
from berth.planning.field import Field, Tier
from berth.planning.fleet import fleet_of
from berth.planning.lead import Lead
from berth.planning.ledger import Ledger
from berth.planning.options import Option, boards_of, options_for
from berth.planning.owed import Owed
from berth.planning.packing import Gang, nested
from berth.planning.quota import Quota
from berth.planning.reserved import Reserved
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.spot import Pool
from berth.planning.suspects import Suspicion, suspects

T = TypeVar("T")

NOWHERE: frozenset[str] = frozenset()
MOST_GANGS = 8  # sizes of gangs that room is kept for, the most frequent; each costs a look at all domains


@dataclass(frozen=True, slots=True)
class Wait:
    """A job that starts, or goes on, later."""

    start: float  # seconds since the epoch
    message: str
    reason: Reason = Reason.DEFERRED_FOR_CARBON


@dataclass(frozen=True, slots=True)
class Aim:
    """What a job with a deadline is to run on now, and what the choice rests on."""

    spot: tuple[str, ...]  # the regions whose spot capacity is better than any other choice
    waits: bool  # where there is none: whether it runs on nothing yet, or else on demand
    device: Device
    spot_usd: float  # dollars an hour of all its boards where spot capacity is cheapest, carbon included
    on_demand_usd: float
    odds: float  # the share of time in which that spot capacity is there
    last: float  # until when it can wait for it, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Offer:
    """The spot capacity that a kind of job can have, region by region, beside capacity on demand."""

    regions: tuple[str, ...]
    pools: tuple[Pool, ...]  # of each; prices are shares of that on demand
    spot_usd: float  # dollars an hour of all its boards where spot capacity is cheapest, carbon included
    on_demand_usd: float
    odds: float  # the share of time in which the cheapest is there


class Scratch:
    """What a plan has to work with. It lives for one call of `plan` and is never shared."""

    def __init__(self, snapshot: Snapshot, policy: Policy, now: float) -> None:
        """Arrange the fleet; nothing is reserved or charged yet."""
        self.snapshot = snapshot
        self.policy = policy
        self.now = now
        self.fleet = fleet_of(snapshot.nodes, policy.levels)
        self.ledger = Ledger(self.fleet, snapshot.used)
        self.quota = Quota(snapshot.queues)
        self.fairness = Fairness(self.quota.cohorts, self._there_are, policy.half_life_hours, now)
        self.estimates = Estimates(snapshot.workloads, now)
        self.reserved = Reserved()
        self.began: list[Ending] = []  # the ends to come of what this plan admits
        self.lead = Lead(self.fairness, self.quota)
        self.owed = Owed(self.quota)
        self.actions: list[Action] = []
        self.verdicts: dict[str, Verdict] = {}
        self.faults: dict[str, Exception] = {}
        self.wake_at: float | None = None
        self.tallies: dict[tuple[tuple[Field, ...], int | None, int], tuple[tuple[str, int], ...]] = {}
        self.waits: dict[str, Wait | None] = {}  # by uid: which pending jobs wait for cleaner hours, once asked
        self.prices: dict[tuple[PodShape, str], Mapping[Market, float]] = {}  # by shape and model, once asked
        self.aims: dict[str, Aim | None] = {}  # by uid: what jobs with deadlines are to run on, once asked
        self.offers: dict[Hashable, Offer | None] = {}  # of capacity, by kind of job, once asked
        self.movers: set[str] = set()  # uids of gangs that leave for spot capacity in this plan
        self.spoken_for: dict[str, tuple[str, ...]] | None = None  # by uid: spot capacity to go to, once asked
        self.searches = 0  # for schedules with pauses
        self._fields: dict[tuple[PodShape, Device, frozenset[str], int], Field] = {}
        self._charged: dict[Device, tuple[BoardModel, Fraction]] = {}  # the model of each device, and its boards
        self._guides: dict[str, Guide] = {}  # by model
        self._options: dict[tuple[Demand, int], tuple[Option, ...]] = {}
        self._counts: dict[tuple[str, str], float] = {}  # boards of a tree, by its root and model
        for queue, devices in snapshot.elsewhere.items():
            for device, members in devices.items():
                self.fairness.charge(queue, device.model, float(self._worth(device)[1] * members))

    def decide(self, ref: Ref, verdict: Verdict, *actions: Action) -> None:
        """Note what a workload gets, and why."""
        self.verdicts[ref.uid] = verdict
        self.actions.extend(actions)

    def guard(self, w: Workload, step: Callable[..., T], *arguments: Any) -> T | None:
        """Take one workload's step; one that breaks (a bug, or a status that others wrote) stops no other workload."""
        if w.ref.uid in self.faults:
            return None
        try:
            return step(*arguments)
        except Exception as error:
            self.faults[w.ref.uid] = error
            self.decide(w.ref, Verdict(Reason.PENDING_EVALUATION, f"internal error, see the operator's log: {error!r}"))
            return None

    def wake(self, at: float) -> None:
        """Ask for another plan at that moment, when time alone may change this one."""
        if at > self.now and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at

    def field(self, shape: PodShape, device: Device, avoid: Collection[str] = NOWHERE, linked: int = 1) -> Field | None:
        """Where members of this shape and device fit now; None where no node has such boards.

        Each `linked` boards of the members must share NVLink.
        """
        room = self.ledger.rooms.get(device.model)
        if room is None:
            return None
        key = (shape, device, frozenset(avoid), linked)
        field = self._fields.get(key)
        if field is not None:
            return field.refresh()
        bare = replace(shape, requests=())
        guide = self._guides.get(device.model)
        field = self._fields[key] = Field(room, room.pool.outlook(bare), shape, device, key[2], linked, guide)
        return field

    @cached_property
    def endings(self) -> list[Ending]:
        """When the jobs that run are expected to end, and what that frees."""
        return running(self.snapshot.workloads, self.estimates)

    def open_field(
        self, shape: PodShape, device: Device, avoid: Collection[str] = NOWHERE, linked: int = 1, until: float = inf
    ) -> Field | None:
        """Where members fit now that are to stay until then, what is reserved for others left alone."""
        field = self.field(shape, device, avoid, linked)
        return field and self.reserved.limited(field, (shape, device, frozenset(avoid), linked), until)

    def quota_left(self, queue: str, device: Device, until: float = inf) -> Fraction | None:
        """Boards that a queue may take for work that is to stay until then, what is reserved for others left alone."""
        model = self.model(device.model)
        bounds = (self.quota.left(queue, model), self.reserved.left(queue, model, until))
        return min((n for n in bounds if n is not None), default=None)

    def place(self, w: Workload, device: Device, nodes: Sequence[str], needs: Resources, until: float = inf) -> None:
        """Take the room and the quota of members that are to stay until then."""
        for node in nodes:
            self.ledger.take(node, needs)
        self.charge(w.queue, device, len(nodes))
        self.owed.settled.add(w.ref.uid)
        self.reserved.take(device, nodes, needs, until)
        model, boards = self._charged[device]
        self.reserved.charge(w.queue, model, boards * len(nodes), until)

    def expect(self, going: Iterable[Workload], later: Callable[[Workload], bool] = lambda w: False) -> None:
        """Learn what is asked for, told in the order it is served: gangs to keep room for, and what shares nodes.

        `later` says which pending jobs want nothing yet.
        """
        waiting: dict[str, list[int]] = {}
        gangs: dict[str, Counter[int]] = {}
        for w in going:
            model = self.guard(w, self._model_wanted, w)
            if model is None or later(w):
                continue
            boards = boards_asked(w)
            nodes = -(-boards // self.fleet.pools[model].stock.get(WHOLE_BOARD, boards))
            if nodes > 1:
                gangs.setdefault(model, Counter())[nodes] += 1
            if w.attempt is None and not w.suspend:
                waiting.setdefault(model, []).append(boards)
        for model, room in self.ledger.rooms.items():
            room.gangs = tuple(sorted(gangs.get(model, Counter()).most_common(MOST_GANGS)))
            if guided(waiting.get(model, ())):
                self._guides[model] = Guide(room, waiting[model])
        for (_, device, _, _), field in self._fields.items():
            field.guide = self._guides.get(device.model)

    def _model_wanted(self, w: Workload) -> str | None:
        """The board model whose whole boards a job runs on, or would first be placed on; None for other work."""
        if w.request is None or w.ref.kind is not Kind.TRAINING_JOB or not boards_asked(w):
            return None
        if w.attempt is not None:
            model = w.attempt.placement.device.model
            return model if model in self.fleet.pools else None
        options = self.options(w.request.demand, w.request.tensor)
        return options[0].device.model if options else None

    def options(self, demand: Demand, tensor: int) -> tuple[Option, ...]:
        """The devices of this fleet that satisfy a demand, cheapest first."""
        key = (demand, tensor)
        if key not in self._options:
            self._options[key] = options_for(demand, self.fleet, tensor)
        return self._options[key]

    def model(self, name: str) -> BoardModel:
        """The board model of that name, even where its nodes are gone."""
        pool = self.fleet.pools.get(name)
        return pool.model if pool else next((m for m in MODELS if m.name == name), model_of_product(name))

    def charge(self, queue: str, device: Device, members: int) -> None:
        """Count members with this device against a queue."""
        model, boards = self._worth(device)
        self.quota.charge(queue, model, boards * members)
        self.fairness.charge(queue, model.name, float(boards * members))

    def _worth(self, device: Device) -> tuple[BoardModel, Fraction]:
        if device not in self._charged:
            model = self.model(device.model)
            self._charged[device] = model, boards_of(device, model)
        return self._charged[device]

    def _there_are(self, tree: str, model: str) -> float:
        """How many boards of a model a tree owns; the fleet's where it owns none, or there is no tree in question."""
        if (tree, model) not in self._counts:
            owned = self.quota.owned(tree, self.model(model)) if tree else None
            pool = self.fleet.pools.get(model)
            self._counts[tree, model] = float(owned or 0) or (pool.boards if pool else 0.0) or 1.0
        return self._counts[tree, model]

    @cached_property
    def suspected(self) -> Mapping[str, Suspicion]:
        """The nodes that nobody is to go to, since different jobs crashed there lately."""
        found = suspects((*self.snapshot.crashed, *self.snapshot.workloads), self.fleet, self.now)
        for suspicion in found.values():
            self.wake(suspicion.until)
        return found

    def avoided(self, workload: Workload) -> frozenset[str]:
        """The nodes that a workload is not to go to: it was refused there or crashed lately, or others did."""
        for _, until in workload.avoid:
            self.wake(until)
        return frozenset(node for node, until in workload.avoid if until > self.now).union(self.suspected)


def boards_asked(w: Workload) -> int:
    """Whole boards that all members of a workload ask for; 0 where they ask for something else."""
    return w.request.workers * (w.request.demand.count or 0) if w.request else 0


def gang_of(request: Request, device: Device, levels: tuple[Level, ...], members: int) -> Gang:
    """What is to be packed for `members` of a request with this device."""
    numbers = {level.name: i for i, level in enumerate(levels)}
    topology = request.topology
    within = numbers.get(topology.level) if topology and topology.mode == "Required" else None
    groups = [g for g in (topology.groups if topology else ()) if g.level in numbers and members % g.size == 0]
    must = [Tier(g.size, numbers[g.level]) for g in groups if g.mode == "Required"]
    if request.tensor > device.count and members % (request.tensor // device.count) == 0:
        must.append(Tier(request.tensor // device.count, numbers.get(NVLINK_LEVEL, len(levels))))
    wanted = [Tier(g.size, numbers[g.level]) for g in groups if g.mode == "Preferred"]
    wishes = tuple(nested([*must, *wanted[i:]]) for i in range(len(wanted)))
    stage = members // request.pipeline if members % request.pipeline == 0 else members
    return Gang(members, nested(must), within, wishes, stage)


def linked_boards(request: Request, device: Device) -> int:
    """How many boards at a time must share NVLink: those of a tensor-parallel group, or of a group on its level."""
    groups = request.topology.groups if request.topology else ()
    sizes = [g.size * device.count for g in groups if g.level == NVLINK_LEVEL and g.mode == "Required"]
    return max((request.tensor, *sizes))
