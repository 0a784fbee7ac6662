"""Elastic gangs: what is left to those that give way, and growth into boards that nobody waits for, where that pays.

A gang is resized by a restart: it stops, saves, and its next attempt has another number of members. Until then the room
of the fewer members is kept for it; that it is under way is in its status. See docs/decisions/0021-elastic-gangs.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from berth.model.gpus import BoardModel
from berth.model.reasons import LATER, Reason, Verdict
from berth.model.workloads import Device, Kind, Placement, Resize, RunPhase, Workload
from berth.planning.actions import Admit, Stop
from berth.planning.admission import (
    Fit,
    choices,
    could_hold,
    fit,
    fit_in_any_room,
    held_back,
    lacking,
    largest,
    problem_of,
    settle,
)
from berth.planning.deferring import PAUSED
from berth.planning.freeing import Holder, as_if_restarting
from berth.planning.ledger import needs_of
from berth.planning.lost import lost_seconds
from berth.planning.options import boards_of
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Growing
from berth.planning.verdicts import PLACED, boards_text
from berth.planning.whatif import order, unplaced

RESIZED = "Resized"  # the reason of a gang that grows, or gives back what it has beyond what it would like
LOOK_SECONDS = 60.0  # growth that does not pay yet is looked at again: after a checkpoint it costs less
NOT_ASKING = (Reason.MISCONFIGURED, Reason.SUSPENDED, Reason.QUEUE_STOPPED, *LATER)
FINAL = ("MaxRuntimeExceeded", "Suspended", PAUSED)  # reasons of attempts after which no other is made, for now


@dataclass
class Left:
    """What is left to gangs that are being resized. They keep it from all but those that are more important."""

    s: Scratch
    gangs: list[Workload]

    def due(self, priority: int) -> list[Workload]:
        """Those whose place is to be set aside before anybody of this priority is served; each once."""
        found = sorted((v for v in self.gangs if v.priority >= priority), key=order)
        self.gangs = [v for v in self.gangs if v.priority < priority]
        return found

    def place_of(self, v: Workload) -> Fit | None:
        """The place for the fewer members of a gang, or as many of them as fit."""
        if v.resized is None or problem_of(self.s, v) or held_back(self.s, v) is not None:
            return None
        return _left(self.s, v, min(v.resized.before, v.resized.after))

    def shrunk(self, victims: Iterable[Workload]) -> dict[str, Resize]:
        """With how many members elastic gangs can go on that give way, by uid, on the copy as if all had ended."""
        found: dict[str, Resize] = {}
        places: list[tuple[Workload, Fit]] = []
        for v in sorted(victims, key=order):
            place = _left(self.s, v, v.size) if v.attempt is not None and v.request and v.request.elastic else None
            if place is not None:
                place.take(self.s, v.queue)
                places.append((v, place))
                found[v.ref.uid] = Resize(v.attempts_made + 1, v.size, len(place.nodes))
                self.gangs.append(replace(v, resized=found[v.ref.uid]))
        for v, place in places:
            place.take(self.s, v.queue, -1)
        return found


def _left(s: Scratch, v: Workload, most: int) -> Fit | None:
    request = v.request
    if request is None:
        return None
    sizes = [n for n in request.sizes if n <= most]
    return largest(sizes, lambda members: fit_in_any_room(s, v, request.at(members)))


@dataclass(frozen=True, slots=True)
class Growth:
    """More members for a gang that runs, and what that brings and costs in seconds of one member's boards."""

    before: int
    after: int
    remaining_seconds: float  # that it is expected to run as it is
    lost_seconds: float  # of the work of all its members since the last durable checkpoint
    restart_seconds: float

    @property
    def gain(self) -> float:
        """The work that the new members do for as long as it would have run."""
        return (self.after - self.before) * self.remaining_seconds

    @property
    def cost(self) -> float:
        """All of its boards idle while it starts again, and what is lost is done anew."""
        return self.after * self.restart_seconds + self.before * self.lost_seconds

    @property
    def pays(self) -> bool:
        """Whether it ends sooner. Work is assumed to scale with the number of members."""
        return self.gain > self.cost


@dataclass
class Rivals:
    """Who waits for boards, or will as soon as it has stopped: nobody grows at their expense."""

    s: Scratch
    going: Sequence[Workload]
    _asks: dict[object, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """See who has no place after everything was served."""
        placed = {a.ref.uid for a in self.s.actions if isinstance(a, Admit)}
        stops = {a.ref.uid for a in self.s.actions if isinstance(a, Stop) and a.reason not in FINAL}
        self._waiting = [v for v in self.going if v.ref.uid in stops or self._waits(v, v.ref.uid in placed)]

    def of(self, w: Workload, model: BoardModel) -> Workload | None:
        """The first that boards of the model, or quota for them, could be of use to; None where there is none."""
        return next((v for v in self._waiting if v.ref.uid != w.ref.uid and self._could_use(v, w, model)), None)

    def _waits(self, v: Workload, placed: bool) -> bool:
        if v.deleting or v.suspend or placed or v.request is None:
            return False
        if v.attempt is not None:
            return bool(v.attempt.stopping) and v.attempt.stopping not in FINAL
        verdict = self.s.verdicts.get(v.ref.uid)
        return verdict is not None and verdict.reason not in (PLACED, *NOT_ASKING)

    def _could_use(self, v: Workload, w: Workload, model: BoardModel) -> bool:
        cohorts = self.s.quota.cohorts
        related = cohorts.root(v.queue) == cohorts.root(w.queue)
        key = (v.request, v.queue, v.ref.kind, model.name, related)
        if key not in self._asks:
            self._asks[key] = self._has_use(v, model, related)
        return self._asks[key]

    def _has_use(self, v: Workload, model: BoardModel, related: bool) -> bool:
        if v.request is None:
            return False
        request = v.request.smallest if v.ref.kind is Kind.TRAINING_JOB else replace(v.request, workers=1)
        for choice in choices(self.s, v, request):
            if choice.option.device.model == model.name and could_hold(self.s, request, choice.option):
                lacks_quota = choice.reason is Reason.WAITING_FOR_QUOTA
                if choice.reason in (None, Reason.WAITING_FOR_TURN) or (lacks_quota and related):
                    return True
        return False


def resize(s: Scratch, going: Sequence[Workload]) -> None:
    """Let elastic gangs have boards that nobody waits for: those that begin now, and one of those that run, if it pays.

    Of those that run, one at a time, in the order in which they would be served. Nothing is done in plans that leave
    out who else may wait.
    """
    elastic = [w for w in going if w.request is not None and w.request.elastic is not None and not w.deleting]
    if s.policy.growing is None or s.snapshot.until or not elastic:
        return
    rivals = Rivals(s, going)
    for w in elastic:
        s.guard(w, _enlarge, s, rivals, w)
    if is_resizing(s, going):
        return
    for w in sorted(elastic, key=lambda w: (-w.priority, s.fairness.rank(w.queue), order(w))):
        found = s.guard(w, growth, s, rivals, w) if w.attempt is not None else None
        if isinstance(found, Growth) and found.pays and w.attempt is not None:
            message = _grows(s, w, found, w.attempt.placement.device)
            change = Resize(w.attempts_made + 1, found.before, found.after)
            stop = Stop(w.ref, w.attempt.number, RESIZED, message, w.avoid, s.now, resize=change)
            s.decide(w.ref, Verdict(RESIZED, message), stop)
            return


def given_back(s: Scratch, going: Sequence[Workload], waits: Sequence[Workload]) -> list[Workload]:
    """Have gangs give back what they hold beyond what they would like, to the first that waits and fits, if it pays.

    The answer is who waits still. Nobody gives back to who is less important, nor before waiting has cost as much as
    that loses: then no more than twice as much is lost as by the best choice in hindsight.
    """
    if s.policy.growing is None or s.snapshot.until or not waits:
        return list(waits)
    elastic = (v for v in going if v.request is not None and v.request.elastic is not None)
    beyond = [one for one in (s.guard(v, _beyond, s, v) for v in elastic) if one is not None]
    for w in waits if beyond else ():
        found = s.guard(w, _enough, s, w, [one for one in beyond if one.workload.priority <= w.priority])
        for one in found or ():
            v, attempt, wished = one.workload, one.workload.attempt, one.workload.size - len(one.held)
            if attempt is not None:
                message = f"shrinks from {v.size} to {wished} workers, as many as it would like, for {_name(w)}"
                change = Resize(v.attempts_made + 1, v.size, wished)
                stop = Stop(v.ref, attempt.number, RESIZED, message, v.avoid, s.now, None, w.claim, change)
                s.decide(v.ref, Verdict(RESIZED, message), stop)
        if found and w.request is not None:
            names = ", ".join(_name(one.workload) for one in found)
            told = f"waits for {names} to give back what is beyond what it would like"
            s.decide(w.ref, Verdict(Reason.WAITING_FOR_PREEMPTION, told, 0, w.request.smallest.workers))
            return [v for v in waits if v is not w]
    return list(waits)


def _beyond(s: Scratch, v: Workload) -> Holder | None:
    """The members that a gang has beyond those that it would like; None where it has none, or has just started."""
    attempt, request, rules = v.attempt, v.request, s.policy.growing
    if attempt is None or request is None or rules is None or v.size <= request.workers or not _is_settled(s, v):
        return None
    if v.started_at + rules.min_runtime_seconds > s.now:
        s.wake(v.started_at + rules.min_runtime_seconds)
        return None
    device = attempt.placement.device
    each, held = boards_of(device, s.model(device.model)), tuple(_held(v, attempt.placement))[request.workers :]
    cost = v.size * lost_seconds(v, s.now) + request.workers * rules.restart_seconds
    return Holder(v, held, device, each * len(held), float(each) * cost)


def _enough(s: Scratch, w: Workload, beyond: Sequence[Holder]) -> list[Holder]:
    """As many of these as it takes for a job to fit, the cheapest; none where that is not enough, or not worth it."""
    if w.request is None or not beyond:
        return []
    least = w.request.smallest
    until = s.estimates.end_if_admitted(w, least.workers)

    def fits(some: Sequence[Holder]) -> bool:
        with as_if_restarting(s, some), s.reserved.without(w.ref):
            return fit(s, w, least, until) is not None

    chosen = sorted(beyond, key=lambda one: one.key)
    if not fits(chosen):
        return []
    for one in reversed(chosen):
        rest = [other for other in chosen if other is not one]
        chosen = rest if fits(rest) else chosen
    s.wake(s.now + LOOK_SECONDS)
    return chosen if sum(one.cost for one in chosen) <= _waited(s, w, chosen[0].device) else []


def _waited(s: Scratch, w: Workload, device: Device) -> float:
    """What the waiting of a job has cost so far, in seconds of one board: of as many as it will have there at least."""
    request = w.request
    options = s.options(request.demand, request.tensor) if request is not None else ()
    boards = next((float(o.boards) for o in options if o.device.model == device.model), 0.0)
    members = request.smallest.workers if request is not None else 0
    return boards * members * max(0.0, s.now - max(w.created, w.not_before))


def is_resizing(s: Scratch, going: Iterable[Workload]) -> bool:
    """Whether a gang is on its way to another number of members."""
    begun = {a.ref.uid for a in s.actions if isinstance(a, Admit) or (isinstance(a, Stop) and a.resize)}
    return any(_is_under_way(s, w, w.ref.uid in begun) for w in going)


def _is_under_way(s: Scratch, w: Workload, begun: bool) -> bool:
    """One that has a place is given time to start; one that finds none waits like any other, and holds up nobody."""
    if w.attempt is None:
        return begun and w.resizing
    if w.attempt.stopping or begun:
        return begun or w.resizing
    longest = s.policy.growing.min_runtime_seconds if s.policy.growing else 0.0
    starts = not w.started_at and s.now - w.attempt.admitted_at < longest
    return starts and w.resized is not None and w.resized.attempt == w.attempt.number


def growth(s: Scratch, rivals: Rivals, w: Workload) -> Growth | str:
    """By how many members a gang that runs could grow, whether or not that pays; else why it can't."""
    attempt, request, rules = w.attempt, w.request, s.policy.growing or Growing()
    if attempt is None or request is None or not _is_settled(s, w):
        return "its workers are not all ready"
    before, device = len(attempt.placement.nodes), attempt.placement.device
    if before >= request.sizes[-1]:
        return "it takes no more"
    if w.started_at + rules.min_runtime_seconds > s.now:
        s.wake(w.started_at + rules.min_runtime_seconds)
        return f"it is left alone for {rules.min_runtime_seconds:g} s after its start"
    model = s.model(device.model)
    if (rival := rivals.of(w, model)) is not None:
        return f"{_name(rival)} waits for {model.name}"
    found = _larger(s, w, attempt.placement)
    if found is None:
        return f"{request.sizes.step} more would need {lacking(s, w, device, request.sizes.step)}"
    remaining = max(0.0, (w.expected_end if w.expected_end > s.now else s.estimates.end(w)[0]) - s.now)
    grown = Growth(before, len(found.nodes), remaining, lost_seconds(w, s.now), rules.restart_seconds)
    if not grown.pays:
        s.wake(s.now + LOOK_SECONDS)
    return grown


def why_not_larger(s: Scratch, going: Sequence[Workload], w: Workload) -> str:
    """Why an elastic gang that runs has not more members, in words; "" of other work."""
    if w.request is None or w.request.elastic is None or w.attempt is None or w.attempt.stopping:
        return ""
    found = growth(s, Rivals(s, going), w)
    if isinstance(found, str):
        why = found
    elif found.pays:
        why = f"{found.after} would pay, and come once no other gang is being resized"
    else:
        why = f"{found.after} would not pay: {_weighed(s, w, found, w.attempt.placement.device)}"
    return f"{w.size} of at most {w.request.elastic.most} workers: {why}"


def _enlarge(s: Scratch, rivals: Rivals, w: Workload) -> None:
    """Give a gang that this plan admits more members than it would like, where nobody else waits for the boards."""
    action = next((a for a in s.actions if isinstance(a, Admit) and a.ref == w.ref), None)
    if action is None or w.request is None or len(action.placement.nodes) < w.request.workers:
        return
    device, nodes = action.placement.device, action.placement.nodes
    if rivals.of(w, s.model(device.model)) is not None:
        return
    found = _larger(s, w, action.placement)
    if found is None:
        return
    for node, needs in _held(w, action.placement):
        s.ledger.take(node, {name: -n for name, n in needs.items()})
    s.charge(w.queue, device, -len(nodes))
    s.began = [end for end in s.began if end.workload.ref != w.ref]
    s.actions.remove(action)
    settle(s, w, found, s.estimates.end_if_admitted(w, len(found.nodes)))


def _larger(s: Scratch, w: Workload, placement: Placement) -> Fit | None:
    """The place for the most members beyond those that it has, with the same device, as if it had ended."""
    request, device = w.request, placement.device
    if request is None:
        return None
    fresh, sizes = unplaced(w), [n for n in request.sizes if n > len(placement.nodes)]
    boards = boards_of(device, s.model(device.model)) * len(placement.nodes)

    def works(members: int) -> Fit | None:
        return fit(s, fresh, request.at(members), s.estimates.end_if_admitted(w, members), device)

    with as_if_restarting(s, [Holder(w, tuple(_held(w, placement)), device, boards, 0.0)]):
        return largest(sizes, works)


def _held(w: Workload, placement: Placement) -> Iterator[tuple[str, dict[str, int]]]:
    """What each member takes."""
    if w.request is not None:
        needs = needs_of(w.request.shape, placement.device)
        yield from ((node, needs) for node in placement.nodes)


def _is_settled(s: Scratch, w: Workload) -> bool:
    """Whether a gang runs undisturbed, and this plan leaves it as it is."""
    attempt = w.attempt
    if attempt is None or attempt.phase is not RunPhase.RUNNING or attempt.stopping or attempt.done:
        return False
    return bool(w.started_at) and not w.suspend and all(a.ref.uid != w.ref.uid for a in s.actions)


def _name(w: Workload) -> str:
    return f"{w.ref.namespace}/{w.ref.name}"


def _grows(s: Scratch, w: Workload, found: Growth, device: Device) -> str:
    return f"grows from {found.before} to {found.after} workers: {_weighed(s, w, found, device)}"


def _weighed(s: Scratch, w: Workload, found: Growth, device: Device) -> str:
    """What growth brings and costs, in words."""
    each = boards_of(device, s.model(device.model))
    more, hours = boards_text(each * (found.after - found.before)), float(each) / 3600
    brings = f"{more} that nobody waits for bring {found.gain * hours:.1f} board-hours until it ends"
    lost = f"{found.lost_seconds / 60:.0f} min of work since its last checkpoint or start"
    return f"{brings}; the restart and {lost} cost {found.cost * hours:.1f}"
