"""Who has to give way so that a pending gang fits: the set that loses the least work, tried whole before it is chosen.

1. In its own queue, work of lower priority. 2. In other queues of its tree, work of those that hold more than they own,
as far as the gang's queue stays within what it owns itself. Of services, replicas above their minimum; whole services
only where nothing else is enough. Lost is the work since the last durable checkpoint, and the time to start again. See
docs/decisions/0017-preemption.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, partial

from berth.model.gpus import BoardModel
from berth.model.reasons import Reason
from berth.model.workloads import (
    Attempt,
    Kind,
    Pod,
    PodPhase,
    Preemption,
    Reclaim,
    Request,
    RunPhase,
    WithinQueue,
    Workload,
)
from berth.planning.admission import Fit, choices, fit_in_any_room
from berth.planning.covering import Answer, cheapest, cost_of
from berth.planning.field import Field
from berth.planning.freeing import Holder, Lack, as_if_ended, holder
from berth.planning.lifecycle import ON_NODES
from berth.planning.lost import lost_seconds
from berth.planning.options import boards_of
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Preempting
from berth.planning.whatif import device_of, held_by, on_nodes, room_for

LOOK_SECONDS = 30.0  # victims are looked for so often: the search may cost as much as a plan, and seldom finds more
MOST_VICTIMS = 1000  # workloads stopped for one that waits
RUNS = (PodPhase.BOUND, PodPhase.READY)
NO_RULES = Preemption()  # of work whose queue has no object


@dataclass(frozen=True, slots=True)
class Found:
    """Who gives way, and the place that the gang then has."""

    victims: Answer
    fit: Fit

    @property
    def lost(self) -> float:
        """Board-seconds of work, and of starting again."""
        return cost_of(self.victims)


def ending(s: Scratch, workloads: Iterable[Workload]) -> list[Holder]:
    """What ends already, whoever stopped it: its room and quota are as good as free to who may wait a little."""
    found: list[Holder] = []
    for w in workloads:
        device = device_of(w)
        if device is None or w.finished:
            continue
        each = boards_of(device, s.model(device.model))
        if w.ref.kind is Kind.INFERENCE_SERVICE:
            gone = [p for p in w.pods if p.phase in ON_NODES and (p.terminating or w.deleting or p.uid in w.shed)]
            found += [Holder(w, on_nodes(replace(w, pods=(p,))), device, each, 0.0, p.uid) for p in gone]
        elif w.attempt is not None and (w.attempt.stopping or w.deleting):
            found.append(Holder(w, held_by(w), device, each * len(w.attempt.placement.nodes), 0.0))
    return found


def next_look(at: float) -> float:
    """The next beginning of a half minute of the clock: when all that wait look again.

    >>> next_look(59.0), next_look(60.0)
    (60.0, 90.0)
    """
    return at - at % LOOK_SECONDS + LOOK_SECONDS


@dataclass
class Search:
    """Looks for victims among running workloads, on a working copy of what is free and charged."""

    s: Scratch
    rules: Preempting
    workloads: Sequence[Workload]
    made: int = 0  # searches among candidates that would be enough
    looked_at: int = 0  # candidates in all of them
    _known: dict[str, Sequence[Holder]] = field(default_factory=dict)  # by uid

    def found(self, w: Workload, request: Request) -> Found | None:
        """The victims that lose the least, for a gang that does not fit; None where no set would do."""
        best: Found | None = None
        for choice in choices(self.s, w, request):
            field = room_for(self.s, w, request, choice.option.device)
            if choice.reason not in (None, Reason.WAITING_FOR_QUOTA) or field is None:
                continue
            for found in self._on(field, w, request):
                if best is None or found.lost < best.lost:
                    best = found
        return best

    def may(self, w: Workload) -> bool:
        """Whether anybody could have to give way to a workload."""
        return bool(self._own(w) or any(self._borrowed(w, pool.model) for pool in self.s.fleet.pools.values()))

    def _on(self, field: Field, w: Workload, request: Request) -> Iterator[Found]:
        """With one device: the best of the own queue, and the best that also takes back what others borrow.

        Services as a whole are looked at only where nothing else is enough.
        """
        own, others = self._own(w), self._borrowed(w, field.pool.model)
        for whole in (False, True):
            ways = [
                self._cheapest(field, w, request, self._candidates(some, whole=whole), reclaims=reclaims)
                for some, reclaims in ((own, False), ([*own, *others] if others else [], True))
                if some
            ]
            if any(ways):
                yield from (each for each in ways if each is not None)
                return

    def _cheapest(
        self, field: Field, w: Workload, request: Request, candidates: Sequence[Holder], *, reclaims: bool
    ) -> Found | None:
        s, device = self.s, field.device
        lack = Lack(s, w, request, field, of_its_own=reclaims)

        def works(ended: Sequence[Holder]) -> Fit | None:
            if not lack.within_quota(ended):
                return None
            with as_if_ended(s, ended):
                return fit_in_any_room(s, w, request, device)

        if not lack.met_by(candidates):
            return None
        self.made += 1
        self.looked_at += len(candidates)
        allowed = partial(self._allowed, w, field.pool.model)
        found = cheapest([lack], candidates, works, MOST_VICTIMS, allowed)
        if found is None:
            return None
        kept, place = found
        for one in sorted(kept, key=lambda one: one.key, reverse=True):
            rest = tuple(other for other in kept if other is not one)
            if (still := works(rest)) is not None:
                kept, place = rest, still
        return Found(kept, place)

    # Who may be asked

    def _own(self, w: Workload) -> list[Workload]:
        """Work of lower priority in the same queue."""
        if self._rules_of(w).within_queue is WithinQueue.NEVER:
            return []
        return [v for v in self._running.get(w.queue, ()) if v.priority < w.priority]

    def _borrowed(self, w: Workload, model: BoardModel) -> list[Workload]:
        """Work of the queues that hold boards which the queue of this may have back."""
        reclaim = self._rules_of(w).reclaim
        queues = () if reclaim is Reclaim.NEVER else self.s.quota.borrowers(w.queue, model)
        there = (v for queue in queues for v in self._running.get(queue, ()))
        return [v for v in there if reclaim is Reclaim.ANY or v.priority < w.priority]

    def _rules_of(self, w: Workload) -> Preemption:
        queue = self.s.snapshot.queues.get(w.queue)
        return queue.preemption if queue else NO_RULES

    @cached_property
    def _running(self) -> Mapping[str, Sequence[Workload]]:
        """All that may be stopped at all, by queue."""
        found: dict[str, list[Workload]] = defaultdict(list)
        for v in self.workloads:
            if self._standing(v) if v.attempt is None else self._is_running(v, v.attempt):
                found[v.queue].append(v)
        return found

    def _is_running(self, v: Workload, attempt: Attempt) -> bool:
        ends = attempt.stopping or v.deleting or v.suspend or v.request is None
        began = v.started_at or attempt.admitted_at
        return attempt.phase is RunPhase.RUNNING and not ends and self._has_run(began)

    def _standing(self, v: Workload) -> list[Pod]:
        """The replicas of a service that serve, the youngest first."""
        if v.ref.kind is not Kind.INFERENCE_SERVICE or v.deleting or v.request is None or v.gave_way_to is not None:
            return []
        serving = (p for p in v.pods if p.phase in RUNS and not p.terminating and p.uid not in v.shed)
        return sorted(serving, key=lambda p: (-p.created, p.uid))

    def _has_run(self, began: float) -> bool:
        ends = began + self.rules.min_runtime_seconds
        if ends > self.s.now:
            self.s.wake(next_look(ends))
        return ends <= self.s.now

    # What it costs

    def _candidates(self, workloads: Iterable[Workload], *, whole: bool) -> list[Holder]:
        busy = {action.ref.uid for action in self.s.actions}
        found: list[Holder] = []
        for v in workloads:
            if v.ref.uid not in busy:
                found += self._holders(v)
                if whole and (service := self._service(v)) is not None:
                    found.append(service)
        return found

    def _holders(self, v: Workload) -> Sequence[Holder]:
        """A job; or the replicas of a service, if it has more than must stay."""
        known = self._known.get(v.ref.uid)
        if known is None:
            standing = self._standing(v)
            if v.attempt is not None:
                job = holder(self.s, v, self._cost)
                known = [job] if job else []
            elif len(standing) > v.least_replicas:
                known = [one for p in standing if self._has_run(p.created) and (one := self._replicas(v, [p], p.uid))]
            else:
                known = []
            self._known[v.ref.uid] = known
        return known

    def _service(self, v: Workload) -> Holder | None:
        standing = self._standing(v)
        if not standing or not all(self._has_run(p.created) for p in standing):
            return None
        return self._replicas(v, standing, "")

    def _replicas(self, v: Workload, pods: Sequence[Pod], uid: str) -> Holder | None:
        device = pods[0].device or v.served_device
        if device is None:
            return None
        boards = boards_of(device, self.s.model(device.model)) * len(pods)
        return Holder(v, on_nodes(replace(v, pods=tuple(pods))), device, boards, self._cost(v, boards), uid)

    def _cost(self, v: Workload, boards: Fraction) -> float:
        return float(boards) * (lost_seconds(v, self.s.now) + self.rules.restart_seconds)

    # Which of them together

    def _allowed(self, w: Workload, model: BoardModel, ended: Collection[Holder]) -> bool:
        """Whether these may be chosen together: services keep their minimum, and queues what they own."""
        shed = Counter(one.workload.ref.uid for one in ended if one.replica)
        services = {one.workload.ref.uid: one.workload for one in ended if one.workload.attempt is None}
        whole = {one.workload.ref.uid for one in ended if one.workload.attempt is None and not one.replica}
        if any(n > len(self._standing(services[uid])) - services[uid].least_replicas for uid, n in shed.items()):
            return False
        return not (whole & shed.keys()) and self._only_borrowed(w.queue, model, ended)

    def _only_borrowed(self, queue: str, model: BoardModel, ended: Iterable[Holder]) -> bool:
        """Whether each of other queues gives back something borrowed: ended one by one, the largest last."""
        others = sorted((one for one in ended if one.workload.queue != queue), key=lambda one: (one.boards, one.uid))
        quota, gone = self.s.quota, list[Holder]()
        for one in others:
            if one.workload.queue not in quota.borrowers(queue, model):
                break
            quota.charge(one.workload.queue, self.s.model(one.device.model), -one.boards)
            gone.append(one)
        for one in gone:
            quota.charge(one.workload.queue, self.s.model(one.device.model), one.boards)
        return len(gone) == len(others)
