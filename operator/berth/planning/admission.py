"""Pending TrainingJobs: the cheapest option that quota allows and in which the whole gang fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf

from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Device, Kind, Placement, PodShape, Request, Workload
from berth.planning.actions import Admit
from berth.planning.cohorts import stopped
from berth.planning.deferring import deferred
from berth.planning.endings import Ending
from berth.planning.failures import RESTARTED
from berth.planning.field import Field
from berth.planning.markets import differ, least_usd, market_text, ranked
from berth.planning.options import MOST_TIMES_CHEAPEST, Option, boards_of, bounded, name_of
from berth.planning.packing import pack
from berth.planning.problems import problem_with, queue_problem
from berth.planning.quota import usd_per_hour
from berth.planning.scratch import Scratch, gang_of, linked_boards
from berth.planning.suspects import avoided_text
from berth.planning.verdicts import boards_text, placed, sized

AGAIN = ("Requeued", RESTARTED)  # why a job stopped that waits for its next attempt, and goes on telling so


@dataclass(frozen=True, slots=True)
class Choice:
    """An option, and why it is not to be tried now."""

    option: Option
    reason: Reason | None = None  # None: it may be tried
    message: str = ""


def problem_of(s: Scratch, w: Workload) -> str:
    """What makes a workload Misconfigured, naming the field; "" where nothing does."""
    if w.request is None:
        return w.problem or "spec: it can't be understood"
    return (
        w.problem
        or queue_problem(w.queue, w.ref.namespace, s.quota.cohorts, s.policy.default_queue)
        or problem_with(w.request, w.ref.kind, s.fleet)
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """A place for a whole gang: its device, a node for each rank, and the options that there were."""

    option: Option
    field: Field
    nodes: tuple[str, ...]
    options: tuple[Option, ...]

    def take(self, s: Scratch, queue: str, sign: int = 1) -> None:
        """Take its room and quota, for nobody who is admitted yet; with `sign` -1, give them back."""
        needs = {name: sign * n for name, n in self.field.needs.items()}
        for node in self.nodes:
            s.ledger.take(node, needs)
        s.quota.charge(queue, self.field.pool.model, sign * self.option.boards * len(self.nodes))


def largest(sizes: Sequence[int], works: Callable[[int], Fit | None]) -> Fit | None:
    """The place for the most members, of ascending sizes of which all that are smaller fit where one does."""
    best = works(sizes[0]) if sizes else None  # most gangs that wait have no place for the least either
    low, high = 1, len(sizes) - 1
    while best is not None and low <= high:
        middle = (low + high) // 2
        if (found := works(sizes[middle])) is None:
            high = middle - 1
        else:
            best, low = found, middle + 1
    return best


def fit_elastic(s: Scratch, w: Workload, request: Request, sizes: Iterable[int] | None = None) -> Fit | None:
    """The cheapest place for as many members as fit now, of those sizes; else of those up to what it would like."""
    if sizes is None:
        if (whole := fit(s, w, request, s.estimates.end_if_admitted(w, request.workers))) is not None:
            return whole
        sizes = (n for n in request.sizes if n < request.workers)

    def works(members: int) -> Fit | None:
        return fit(s, w, request.at(members), s.estimates.end_if_admitted(w, members))

    return largest(tuple(sizes), works)


def fit(s: Scratch, w: Workload, request: Request, until: float, only: Device | None = None) -> Fit | None:
    """The cheapest place that quota allows and in which the whole gang fits now, if it ends as expected.

    Of what is kept for others it may use what it gives back in time; but it goes elsewhere where it can, since those
    may start earlier than expected. It has no other device than `only`, if given.
    """
    tried = choices(s, w, request)
    every = tuple(c.option for c in tried)
    able = [c.option for c in tried if c.reason is None and only in (None, c.option.device)]
    ends = (inf, until) if until < inf and s.reserved else (until,)
    by_market = [(option, request.shape) for option in able]
    if differ(s, w, request, able):
        able = [o for o in able if _fit_of(s, w, request, o, request.shape, every, until) is not None]
        by_market = ranked(s, w, request, able)
    for option, shape in by_market:
        for end in ends:
            if (found := _fit_of(s, w, request, option, shape, every, end)) is not None:
                return found
    return None


def _fit_of(
    s: Scratch, w: Workload, request: Request, option: Option, shape: PodShape, every: tuple[Option, ...], end: float
) -> Fit | None:
    """The place with one option, for members that keep to this shape until then."""
    left = s.quota_left(w.queue, option.device, end)
    if left is not None and option.boards * request.workers > left:
        return None  # its queue has promised what it would need
    device = option.device
    field = s.open_field(shape, device, s.avoided(w), linked_boards(request, device), end)
    nodes = pack(field, gang_of(request, device, s.fleet.levels, request.workers)) if field is not None else None
    return Fit(option, field, nodes, every) if field is not None and nodes is not None else None


def fit_in_any_room(s: Scratch, w: Workload, request: Request, only: Device | None = None) -> Fit | None:
    """The same whatever is kept for others; with no other device than `only`, if given."""
    tried = choices(s, w, request)
    for choice, field in fields_of(s, w, request, tried):
        device = choice.option.device
        if only in (None, device):
            nodes = pack(field, gang_of(request, device, s.fleet.levels, request.workers))
            if nodes is not None:
                return Fit(choice.option, field, nodes, tuple(c.option for c in tried))
    return None


def admit(
    s: Scratch, w: Workload, request: Request, better_later: Callable[[Option], bool] = lambda option: False
) -> bool:
    """Admit a pending job if its gang fits somewhere now, and take its room and quota; say whether it was.

    An elastic gang gets as many members as it would like, else as many as fit. `better_later` says whether it should
    rather wait for a device cheaper than the one that is free.
    """
    found = fit_elastic(s, w, request)
    if found is None or better_later(found.option):
        return False
    settle(s, w, found, s.estimates.end_if_admitted(w, len(found.nodes)))
    return True


def settle(s: Scratch, w: Workload, found: Fit, until: float) -> None:
    """Admit a pending job to a place that was found for it, where it is to stay until then."""
    device, nodes = found.option.device, found.nodes
    s.place(w, device, nodes, found.field.needs, until)
    s.began.append(Ending(w, *s.estimates.end(w, len(nodes)), s.now, device, nodes, found.field.needs))
    verdict = placed(found.field.pool, nodes, found.option, found.options)
    if w.request is not None and w.request.elastic is not None:
        told = sized(len(nodes), w.request.workers, w.request.elastic.most, _lacks(s, w, found.option, len(nodes)))
        verdict = replace(verdict, message=f"{verdict.message}; {told}")
    if w.request is not None and (market := market_text(s, w, w.request.at(len(nodes)), found.option, nodes)):
        verdict = replace(verdict, message=f"{verdict.message}; {market}")
    if shunned := avoided_text(s.suspected, [found.field.pool]):
        verdict = replace(verdict, message=f"{verdict.message}; {shunned}")
    s.decide(w.ref, verdict, Admit(w.ref, w.attempts_made + 1, Placement(device, nodes), verdict))


def _lacks(s: Scratch, w: Workload, option: Option, members: int) -> str:
    """What more members than it has got would need; "" where it would like no more."""
    more = (w.request.workers if w.request else 0) - members
    return lacking(s, w, option.device, more) if more > 0 else ""


def lacking(s: Scratch, w: Workload, device: Device, members: int) -> str:
    """What so many members more need, in words, where they don't fit: quota, or else room."""
    model = s.model(device.model)
    boards, left = boards_of(device, model) * members, s.quota.left(w.queue, model)
    if left is not None and left < boards:
        return f"quota for {boards_text(boards)} in queue {w.queue}"
    return f"room for {boards_text(boards)}"


def waits_for_room(s: Scratch, w: Workload, request: Request) -> None:
    """Note whose turn it is: a job that found no room, but could where nothing else ran, and has quota."""
    models = {o.device.model: s.model(o.device.model) for o in s.options(request.demand, request.tensor)}
    behind = {name for name, model in models.items() if s.lead.is_behind(w, model)}
    for choice in choices(s, w, request) if behind else ():
        name = choice.option.device.model
        if choice.reason is None and name in behind and could_hold(s, request, choice.option):
            s.lead.wait(w, models[name])


def choices(
    s: Scratch, w: Workload, request: Request, placed: int = 0, options: tuple[Option, ...] | None = None
) -> list[Choice]:
    """Every option for a workload in order of price, with what forbids it; `placed` members have theirs already."""
    options = s.options(request.demand, request.tensor) if options is None else options
    limit = _most_usd(s, w, request, options)
    return [_choice(s, w, request, placed, option, limit) for option in options]


def held_back(s: Scratch, w: Workload) -> Verdict | None:
    """Why a pending job may not be admitted yet, whatever room there is."""
    if w.suspend:
        return Verdict(Reason.SUSPENDED, "spec.suspend is true: set it to false to go on", 0, _workers(w))
    if stop := stopped(s.quota.cohorts, w.queue):
        return Verdict(Reason.QUEUE_STOPPED, stop, 0, _workers(w))
    if w.not_before > s.now:
        s.wake(w.not_before)
        if w.verdict and w.verdict.reason == Reason.PENDING_EVALUATION:
            return w.verdict
        before = f" after: {w.verdict.message}" if w.verdict and w.verdict.reason in AGAIN else ""
        return Verdict(Reason.PENDING_EVALUATION, f"waits for its next attempt{before}", None, _workers(w))
    return deferred(s, w)


def _workers(w: Workload) -> int | None:
    return w.request.workers if w.request else None


def _choice(s: Scratch, w: Workload, request: Request, placed: int, option: Option, limit: float | None) -> Choice:
    model, wanted = s.model(option.device.model), request.workers
    ever, left = s.quota.ever(w.queue, model), s.quota.left(w.queue, model)
    if not s.quota.covers(w.queue, model):
        return Choice(option, Reason.EXCEEDS_MAX_QUOTA, f"queue {w.queue} has no quota for {model.name}")
    if ever is not None and option.boards * (wanted + placed) > ever:
        in_all = f"{boards_text(ever)} in all"
        text = _limit_text(s, w, option, wanted + placed) or _quota_text(w, option, wanted + placed, ever, in_all)
        return Choice(option, Reason.EXCEEDS_MAX_QUOTA, text)
    if w.max_usd_per_hour is not None and (least := least_usd(s, request, option)) > w.max_usd_per_hour:
        most = f"spec.maxPricePerHour is ${w.max_usd_per_hour:.2f}: raise it or ask for less"
        each = f"{wanted} x {name_of(option.device)} cost ${least:.2f}/h at least"
        return Choice(option, Reason.EXCEEDS_MAX_PRICE, f"{each}; {most}")
    if limit is not None and option.usd_per_hour > limit:
        return Choice(option, Reason.WAITING_FOR_CAPACITY, f"{name_of(option.device)} costs too much to stand in")
    if ever is not None and left is not None and option.boards * wanted > left:
        of_all = f"{left} of {ever} left"
        return Choice(option, Reason.WAITING_FOR_QUOTA, _quota_text(w, option, wanted, left, of_all))
    if (bound := s.owed.to_borrow(w.queue, model, option.boards * wanted)) is not None:
        return Choice(option, Reason.WAITING_FOR_QUOTA, _owed_text(w, option, wanted, *bound))
    if (first := s.lead.too_far(w, model, option.boards * wanted)) is not None:
        before = f"{first.ref.namespace}/{first.ref.name} of queue {first.queue}, which has had less of its share"
        return Choice(option, Reason.WAITING_FOR_TURN, f"goes after {before} and waits for {model.name} too: wait")
    return Choice(option)


def _limit_text(s: Scratch, w: Workload, option: Option, wanted: int) -> str:
    """Which price limit of a queue so many members could never keep, in words; "" where none is at fault."""
    usd = usd_per_hour(s.model(option.device.model)) * option.boards * wanted
    for above, most in s.quota.cohorts.limits(w.queue):
        if usd > most:
            limit = f"spec.maxPricePerHour of queue {above} is ${float(most):.2f}: raise it or ask for less"
            return f"{wanted} x {name_of(option.device)} cost ${float(usd):.2f}/h; {limit}"
    return ""


def _quota_text(w: Workload, option: Option, wanted: int, room: Fraction, has: str) -> str:
    fewer = int(room / option.boards)
    members = "workers" if w.ref.kind is Kind.TRAINING_JOB else "replicas"
    lower = f"lower {members} to {fewer}" if fewer else "free some of it"
    last = "raise the quota" if has.endswith("in all") else "wait"
    asks = f"asks {boards_text(option.boards * wanted)} of {option.device.model}"
    return f"{asks}; queue {w.queue} has {has}: {lower} or {last}"


def _owed_text(w: Workload, option: Option, wanted: int, may: Fraction, owner: Workload) -> str:
    waits = f"{owner.ref.namespace}/{owner.ref.name} waits for what queue {owner.queue} owns"
    asks = f"asks {boards_text(option.boards * wanted)} of {option.device.model}"
    return f"{asks}; queue {w.queue} may take {boards_text(may)} while {waits}: wait or ask for less"


def _most_usd(s: Scratch, w: Workload, request: Request, options: tuple[Option, ...]) -> float | None:
    """The dearest price per member that may stand in for the cheapest option that could ever hold the gang."""
    if not bounded(request.demand) or len(options) < 2:
        return None
    affordable = [o for o in options if _within_quota(s, w, request.workers, o)]
    able = next((o for o in affordable if could_hold(s, request, o)), None)
    cheapest = able or next(iter(affordable), None)
    return cheapest.usd_per_hour * MOST_TIMES_CHEAPEST if cheapest else None


def _within_quota(s: Scratch, w: Workload, workers: int, option: Option) -> bool:
    ever = s.quota.ever(w.queue, s.model(option.device.model))
    return ever is None or option.boards * workers <= ever


def could_hold(s: Scratch, request: Request, option: Option) -> bool:
    field = s.field(request.shape, option.device, linked=linked_boards(request, option.device))
    return field is not None and field.potential >= request.workers


def fields_of(s: Scratch, w: Workload, request: Request, tried: list[Choice]) -> Iterator[tuple[Choice, Field]]:
    """The options that may be tried, each with where its members fit now."""
    for choice in tried:
        field = None if choice.reason else _field(s, w, request, choice.option.device)
        if field is not None:
            yield choice, field


def _field(s: Scratch, w: Workload, request: Request, device: Device) -> Field | None:
    return s.field(request.shape, device, s.avoided(w), linked_boards(request, device))
