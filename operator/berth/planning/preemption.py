"""Preemption and reclaim: who waits has victims stopped, and what they free is kept for it until it has its place.

The decision is written into each victim's status when it is stopped (`gave_way_to`), so all of this can be seen from
the objects: as long as a workload that gave way has no place again, a place for whom it gave way to is set aside in
every plan, out of what is free and what ends. See docs/decisions/0017-preemption.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf

from berth.model.gpus import BoardModel
from berth.model.reasons import Reason, Verdict
from berth.model.resources import Resources
from berth.model.workloads import Device, Kind, Ref, Request, Resize, Workload
from berth.planning.actions import Action, Shed, Stop
from berth.planning.admission import Fit, admit, fit_elastic, fit_in_any_room, held_back, problem_of, settle
from berth.planning.ahead import Ahead
from berth.planning.freeing import Holder, as_if_ended, holder
from berth.planning.lost import lost_seconds
from berth.planning.options import Option
from berth.planning.relayout import cheapest
from berth.planning.resizing import Left
from berth.planning.scratch import Scratch
from berth.planning.services import lacking
from berth.planning.snapshot import Preempting
from berth.planning.verdicts import boards_text
from berth.planning.victims import LOOK_SECONDS, RUNS, Found, Search, ending, next_look

PREEMPTED, RECLAIMED = "Preempted", "Reclaimed"  # reasons of those that gave way: to priority, or to an owner
AT_ONCE_SECONDS = 5.0  # victims are looked for in every plan for who has just come: its template is judged first
LOOKING = 15.0  # seconds of each look, so that a plan falls into it even where it is late or takes long
MOST_SEARCHES = 8  # made by one plan among enough candidates, each of some 0.3 s on 5,000 nodes
MOST_CANDIDATES = 30_000  # in all these searches: the more of them, the longer each takes
MOST_LOOKS = 64  # the same, where all candidates together may turn out not to be enough
MOST_NAMED = 4  # victims in a message


@dataclass
class Yielding:
    """Who gives way to whom in one plan."""

    s: Scratch
    workloads: Sequence[Workload]  # all that are not finished
    _kept: dict[str, Fit] = field(default_factory=dict)  # by uid: the places set aside
    _vain: set[tuple[object, ...]] = field(default_factory=set)  # what was looked for, and not found
    _owners: list[tuple[Workload, Request, Device]] = field(default_factory=list)  # that wait for what is their own
    _able: dict[str, bool] = field(default_factory=dict)  # by uid: which of them would fit if nobody borrowed
    _looks: int = 0

    def __post_init__(self) -> None:
        """See what ends, and for whom."""
        self._ending = ending(self.s, self.workloads)
        self._gave_way: dict[str, list[Workload]] = defaultdict(list)  # by uid of whom it is for, and who waits yet
        claims = {w.ref.uid: w.claim for w in self.workloads if w.attempt is None and asks(self.s, w) is not None}
        for v in self.workloads:
            if v.gave_way_to is not None and v.gave_way_to == claims.get(v.gave_way_to.ref.uid):
                self._gave_way[v.gave_way_to.ref.uid].append(v)
        self._left = Left(self.s, [v for v in self.workloads if v.resizing and not v.deleting])

    def shed(self) -> None:
        """Have replicas end that give way to somebody; forget it of those whose somebody waits no more."""
        for v in self.workloads:
            if v.gave_way_to is None or v.ref.kind is not Kind.INFERENCE_SERVICE or v.deleting:
                continue
            left = tuple((p.name, p.uid) for p in v.pods if p.uid in v.shed and p.phase in RUNS and not p.terminating)
            if v.gave_way_to.ref.uid not in self._gave_way:
                self.s.actions.append(Shed(v.ref, (), None))
            elif left:
                others = (p for p in v.pods if p.phase in RUNS and not p.terminating and p.uid not in v.shed)
                whole = len(list(others)) < v.least_replicas
                self.s.actions.append(Shed(v.ref, left, v.gave_way_to, whole=whole))

    def owe(self, idle: Iterable[Workload]) -> None:
        """Note who waits for boards that its queue owns, in the order of service."""
        for w in idle:
            if (request := asks(self.s, w)) is not None and self.s.quota.cohorts.is_bound(w.queue):
                self.s.guard(w, self._owe, w, request)

    def _owe(self, w: Workload, request: Request) -> None:
        if problem_of(self.s, w) or held_back(self.s, w) is not None:
            return
        for option in self.s.options(request.demand, request.tensor):
            model, boards = self.s.model(option.device.model), option.boards * request.workers
            if self.s.owed.wait(w, model, boards, partial(self._fits_without_borrowers, w, model)):
                self._owners.append((w, request, option.device))
                return

    def _fits_without_borrowers(self, w: Workload, model: BoardModel) -> bool:
        """Whether a job would fit if all that is borrowed in its tree came back: asked of all owners in one go."""
        if w.ref.uid not in self._able:
            s = self.s
            borrowers, ends = s.quota.borrowers(w.queue, model), {one.workload.ref.uid for one in self._ending}
            alike = [one for one in self._owners if s.quota.borrowers(one[0].queue, model) == borrowers]
            others = (v for v in self.workloads if v.queue in borrowers and v.ref.uid not in ends)
            borrowed = (holder(s, v, lambda *_: 0.0) for v in others)
            with as_if_ended(s, (*self._ending, *(one for one in borrowed if one is not None))):
                for owner, request, device in alike:
                    self._able[owner.ref.uid] = fit_in_any_room(s, owner, request, device) is not None
        return self._able[w.ref.uid]

    def keep_places(self, idle: Iterable[Workload]) -> None:
        """Set aside a place for everybody that others gave way to and that waits yet, in the order of service."""
        for w in idle:
            request = asks(self.s, w) if w.ref.uid in self._gave_way else None
            if request is not None and not problem_of(self.s, w) and held_back(self.s, w) is None:
                self.s.guard(w, self._keep_any, w, request)

    def keep_sizes(self, priority: int) -> None:
        """Set aside what is left to gangs that are being resized, once nobody is served who is more important."""
        for v in self._left.due(priority):
            if v.ref.uid not in self._kept:
                self.s.guard(v, self._set_aside, v, partial(self._left.place_of, v))

    def is_owed(self, w: Workload) -> bool:
        """Whether others gave way to a job that waits yet, or a place is set aside for it."""
        return w.ref.uid in self._gave_way or w.ref.uid in self._kept

    def serve(self, w: Workload, request: Request, better_later: Callable[[Option], bool]) -> bool:
        """Admit a job, or have it wait for who gives way to it; False where it finds no place."""
        promised = self.hand_over(w)
        if self._admit_to(w, request, promised) if promised else admit(self.s, w, request, better_later):
            return True
        request = request.smallest
        if w.ref.uid in self._gave_way and self._keep(w, request):
            self.s.decide(w.ref, self._waits_for(w, request))
            return True
        return self._may_search(w, request) and self._stop_for(w, request)

    def hand_over(self, w: Workload) -> Fit | None:
        """The place that was set aside for a workload, which is not set aside from now on."""
        promised = self._kept.pop(w.ref.uid, None)
        if promised is not None:
            promised.take(self.s, w.queue, -1)
            self.s.owed.settled.discard(w.ref.uid)
        return promised

    def make_room(self, w: Workload) -> bool:
        """Have replicas that found no place wait for who gives way to them: to all at once, or else to one."""
        before, request = self.s.verdicts[w.ref.uid], asks(self.s, w)
        lacks = (before.wanted or 0) - (before.fits or 0)
        if request is None or lacks <= 0:
            return False
        request = request.at(min(lacks, request.workers))
        if w.ref.uid in self._gave_way and self._keep_any(w, request):
            waits = self._waits_for(w, request).message
        elif any(self._may_search(w, part) and self._stop_for(w, part) for part in _parts(w, request)):
            waits = self.s.verdicts[w.ref.uid].message
        else:
            return False
        message = f"{before.message.partition('; ')[0]}; {waits}"
        self.s.decide(w.ref, replace(before, reason=Reason.WAITING_FOR_PREEMPTION, message=message))
        return True

    def _keep_any(self, w: Workload, request: Request) -> bool:
        return any(self._keep(w, part) for part in _parts(w, request))

    def _admit_to(self, w: Workload, request: Request, promised: Fit) -> bool:
        """Admit a job that was promised a place: to that place if it is free, or else to another.

        All places that are set aside fit together once what ends has ended. Until then what ends is counted too, and
        may seem to be in the way. An elastic gang may find room for more members.
        """
        more = range(len(promised.nodes) + 1, request.workers + 1)
        larger = fit_elastic(self.s, w, request, [n for n in request.sizes if n in more])
        if larger is not None:
            settle(self.s, w, larger, self.s.estimates.end_if_admitted(w, len(larger.nodes)))
            return True
        self._charge_kept(-1)
        if self._is_free(w, promised):
            place: Fit | None = promised
        else:
            place = fit_in_any_room(self.s, w, request.at(len(promised.nodes)))
        self._charge_kept(1)
        if place is not None:
            settle(self.s, w, place, -inf)
        return place is not None

    def _is_free(self, w: Workload, place: Fit) -> bool:
        """Whether a place that was set aside is free now, and its quota too."""
        left = self.s.quota.left(w.queue, place.field.pool.model)
        if left is not None and place.option.boards * len(place.nodes) > left:
            return False
        needs, kept = place.field.needs, self._kept.values()
        for node, members in Counter(place.nodes).items():
            others = [other for other in kept for name in other.nodes if name == node]
            for other in others:
                self.s.ledger.take(node, {name: -n for name, n in other.field.needs.items()})
            fits = self.s.ledger.fits(node, needs)
            for other in others:
                self.s.ledger.take(node, other.field.needs)
            if fits < members:
                return False
        return True

    def give_back_quota(self) -> None:
        """What is set aside is not held yet: usage tells what is."""
        self._charge_kept(-1)

    def _charge_kept(self, sign: int) -> None:
        for uid, place in self._kept.items():
            boards = place.option.boards * len(place.nodes)
            self.s.quota.charge(self._queues[uid], place.field.pool.model, sign * boards)

    @cached_property
    def _queues(self) -> dict[str, str]:
        return {w.ref.uid: w.queue for w in self.workloads}

    def _keep(self, w: Workload, request: Request) -> bool:
        """Set a place aside, out of what is free and what ends; say whether there is one."""
        return self._set_aside(w, partial(fit_in_any_room, self.s, w, request))

    def _set_aside(self, w: Workload, find: Callable[[], Fit | None]) -> bool:
        with as_if_ended(self.s, self._ending):
            place = find()
            if place is not None:
                place.take(self.s, w.queue)
                self._kept[w.ref.uid] = place
                self.s.owed.settled.add(w.ref.uid)
        return place is not None

    def _may_search(self, w: Workload, request: Request) -> bool:
        """Whether to look for victims now: where there might be some, not all the time, and the same not twice."""
        if self.s.policy.preemption is None or not self._search.may(w) or self._key(w, request) in self._vain:
            return False
        search = self._search
        many = search.made >= MOST_SEARCHES or search.looked_at >= MOST_CANDIDATES
        spent = many or self._looks >= MOST_LOOKS
        if spent or not self.is_time(w):
            self.s.wake(next_look(self.s.now))
            return False
        self._looks += 1
        ahead = Ahead(self.s)
        return not (ahead.under_way or ahead.able) or cheapest(ahead, w, request) is None

    def _key(self, w: Workload, request: Request) -> tuple[object, ...]:
        return request, w.queue, w.priority, self.s.avoided(w)

    def is_time(self, w: Workload) -> bool:
        """At once, and then in the first half of each half minute."""
        waited = self.s.now - max(w.created, w.not_before)
        return waited < AT_ONCE_SECONDS or self.s.now % LOOK_SECONDS < LOOKING

    @cached_property
    def _search(self) -> Search:
        return Search(self.s, self.s.policy.preemption or Preempting(), self.workloads)

    def _stop_for(self, w: Workload, request: Request) -> bool:
        """Look for victims and stop them; False where none will do, or where it fits once what ends has ended."""
        with self._others_started(), as_if_ended(self.s, self._ending):
            fits = fit_in_any_room(self.s, w, request) is not None
            found = None if fits else self._search.found(w, request)
        if found is None:
            self._vain.add(self._key(w, request))
            return False
        self._ending += found.victims
        self._vain.clear()
        if not self._keep(w, request):
            raise ValueError(f"a gang that was to fit does not: {w.ref.name}")
        with as_if_ended(self.s, self._ending):
            shrunk = self._left.shrunk(one.workload for one in found.victims)
        for verdict, action in stops(self.s, w, found, shrunk):
            self.s.decide(action.ref, verdict, action)
        self.s.decide(w.ref, Verdict(Reason.WAITING_FOR_PREEMPTION, told(w, found), 0, request.workers))
        return True

    @contextmanager
    def _others_started(self) -> Iterator[None]:
        """As if those that a start is kept for had taken what is free of their places already."""
        ledger, taken = self.s.ledger, list[tuple[str, Resources]]()
        for start in (one for booked in self.s.reserved.booked.values() for one in booked):
            for node in start.nodes:
                if ledger.fits(node, start.needs):
                    ledger.take(node, start.needs)
                    taken.append((node, start.needs))
        try:
            yield
        finally:
            for node, needs in taken:
                ledger.take(node, {name: -n for name, n in needs.items()})

    def _waits_for(self, w: Workload, request: Request) -> Verdict:
        """What a job is told as long as those that gave way to it end; at first, with what is lost."""
        is_job = w.ref.kind is Kind.TRAINING_JOB
        if is_job and w.verdict is not None and w.verdict.reason == Reason.WAITING_FOR_PREEMPTION:
            return w.verdict
        names = _names(v.ref for v in self._gave_way[w.ref.uid])
        return Verdict(Reason.WAITING_FOR_PREEMPTION, f"waits for {names} to stop", 0, request.workers)


def asks(s: Scratch, w: Workload) -> Request | None:
    """What a workload that waits needs at least: a job for its gang, a service for the replicas that it lacks."""
    if w.ref.kind is Kind.INFERENCE_SERVICE:
        return lacking(s, w)
    return w.request and w.request.smallest


def _parts(w: Workload, request: Request) -> Iterable[Request]:
    """All of what a workload asks for; then a single replica of a service, which may have its place by itself."""
    return (request,) if w.ref.kind is Kind.TRAINING_JOB else dict.fromkeys((request, request.at(1)))


def stops(s: Scratch, w: Workload, found: Found, shrunk: Mapping[str, Resize]) -> list[tuple[Verdict, Action]]:
    """The victims' ends, each with what it is told: who took its room, what is lost, and what would have kept it.

    `shrunk` says with how many members those of them go on that can.
    """
    by_workload: dict[str, list[Holder]] = defaultdict(list)
    for one in found.victims:
        by_workload[one.workload.ref.uid].append(one)
    made: list[tuple[Verdict, Action]] = []
    for parts in by_workload.values():
        v = parts[0].workload
        reason = PREEMPTED if v.queue == w.queue else RECLAIMED
        size = shrunk.get(v.ref.uid)
        message = f"{_what_goes(parts, size)} for {w.ref.namespace}/{w.ref.name}: {_why(s, w, v, found)}"
        end = _end_of(s, w, parts, reason, message)
        made.append((Verdict(reason, message), replace(end, resize=size) if isinstance(end, Stop) else end))
    return made


def told(w: Workload, found: Found) -> str:
    """What a job waits for, what that costs, and why it may have it."""
    refs = dict.fromkeys(one.workload.ref for one in found.victims)
    queues = sorted({one.workload.queue for one in found.victims} - {w.queue})
    why = f"queue {w.queue} takes back what {', '.join(queues)} borrowed" if queues else f"its priority is {w.priority}"
    hours = found.lost / 3600
    return f"waits for {_names(refs)} to stop, which loses {hours:.1f} board-hours of work and restarts: {why}"


def _end_of(s: Scratch, w: Workload, parts: Sequence[Holder], reason: str, message: str) -> Action:
    v = parts[0].workload
    if v.attempt is not None:
        return Stop(v.ref, v.attempt.number, reason, message, v.avoid, s.now, gives_way_to=w.claim)
    uids = {one.replica for one in parts}
    whole = "" in uids
    pods = tuple((p.name, p.uid) for p in v.pods if p.uid in uids or (whole and not p.terminating and p.node))
    return Shed(v.ref, pods, w.claim, reason, message, whole)


def _what_goes(parts: Sequence[Holder], size: Resize | None) -> str:
    if size is not None:
        kept = (
            f"shrunk from {size.before} to {size.after}" if size.after < size.before else f"moved with all {size.after}"
        )
        return f"{kept} workers"
    if parts[0].replica:
        return f"{len(parts)} replica{'s' if len(parts) > 1 else ''} stopped"
    return "stopped"


def _why(s: Scratch, w: Workload, v: Workload, found: Found) -> str:
    """Why it was this one, what it loses, and what would have kept it."""
    lost = f"loses {lost_seconds(v, s.now) / 60:.0f} min of work since its last checkpoint or start"
    if v.queue == w.queue:
        first = f"priority {w.priority} goes before {v.priority} in queue {v.queue}"
        return f"{first}; {lost}; a priority of {w.priority} would have kept it"
    model = s.model(found.fit.option.device.model)
    beyond = boards_text(s.quota.borrowed(v.queue, model))
    holds = f"queue {w.queue} takes back {model.name}, of which {v.queue} holds {beyond} beyond its own"
    return f"{holds}; {lost}; a nominal quota larger by that would have kept it"


def _names(refs: Iterable[Ref]) -> str:
    names = sorted(f"{ref.namespace}/{ref.name}" for ref in refs)
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
