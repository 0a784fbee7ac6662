"""The plan: what to do next for every workload, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from berth.model.reasons import LATER, Reason, Verdict
from berth.model.workloads import Kind, Request, Workload
from berth.planning import services
from berth.planning.actions import Admit, Expire, Plan
from berth.planning.admission import held_back, problem_of, waits_for_room
from berth.planning.ahead import Ahead
from berth.planning.capacity import aimed
from berth.planning.consolidation import gather, gathering
from berth.planning.deferring import wait_of
from berth.planning.defragmentation import open_up
from berth.planning.lifecycle import Live, advance, claim, live
from berth.planning.line import Line
from berth.planning.markets import within_price
from berth.planning.preemption import Yielding
from berth.planning.providing import LACKS_ROOM, provided
from berth.planning.provisioning import Provisioner, failed_text
from berth.planning.pursuit import pursue
from berth.planning.relayout import better_later, hindrance, possible
from berth.planning.reservation import reserve
from berth.planning.resizing import given_back, resize
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Consolidating, Policy, Snapshot
from berth.planning.suspects import avoided_text
from berth.planning.turns import Turns
from berth.planning.usage import usage
from berth.planning.vain import Vain
from berth.planning.waiting import no_match, waiting
from berth.planning.whatif import order

# Of jobs that wait for their users, for cleaner hours or spot capacity, and for nobody before them.
NOT_IN_LINE = (Reason.MISCONFIGURED, Reason.SUSPENDED, *LATER)


def plan(snapshot: Snapshot, policy: Policy, now: float) -> Plan:
    """Decide, from what is observed, what to do now (seconds since the epoch). Same input, same plan.

    Pending workloads are served by priority, then by the share of their queue, then by age: see `line`.

    1. Room and quota of what is admitted are set aside.
    2. Live attempts take their next step: pins, moves, replacements, stops, ends.
    3. Pending jobs are admitted where they fit as a whole, and services get their devices and pins, in that order.
    4. For what still waits, idle boards are laid out anew where that helps, or else nodes of pools are asked for that
       can grow; for the first of the rest, gangs are moved where that is allowed and pays. If nothing waits in quiet
       hours, gangs are moved to open room.
    5. Elastic gangs give back what they have beyond what they would like to who waits for it, or else take boards that
       nobody waits for: one of those that run at a time, if a restart pays.
    6. The rest is told why it waits, from what is left.
    """
    return worked_out(snapshot, policy, now)[1]


def worked_out(snapshot: Snapshot, policy: Policy, now: float) -> tuple[Scratch, Plan]:
    """The plan, and the working copy that it was made on."""
    s = Scratch(snapshot, policy, now)
    ahead = Ahead(s)
    ordered = sorted((within_price(s, w) for w in snapshot.workloads), key=order)
    going = [w for w in ordered if not w.finished]
    runs = [live(w, w.attempt) for w in going if w.attempt is not None]
    _set_aside(s, runs, going)
    for run in runs:
        if not run.workload.deleting:
            s.guard(run.workload, advance, s, run)
    going = [w if w.attempt is not None or w.deleting else s.guard(w, aimed, s, w) or w for w in going]
    pending = [w for w in going if w.attempt is None and not w.deleting]
    line = Line(s, pending)
    s.expect(going, lambda w: w.attempt is None and s.guard(w, wait_of, s, w) is not None)
    yielding = Yielding(s, going)
    yielding.shed()
    yielding.owe(pending)
    yielding.keep_places(pending)
    more = Provisioner(s)
    waits = _settled(ahead, yielding, more, line)
    idle = line.served
    pursued = pursue(s)
    told: dict[object, Verdict] = {}
    still = given_back(s, going, provided(ahead, idle, waits))
    still = [w for w in still if not s.guard(w, more.ask, w)]
    gathered = [w for w in still[:1] if s.guard(w, _gather, s, w)]
    turns = Turns(s)
    for w in still[len(gathered) :]:
        s.guard(w, _explain, ahead, w, told, turns)
    resize(s, going)
    open_up(s, partial(_calm, s))
    for w in ordered:
        _expire(s, w)
    yielding.give_back_quota()
    _number(s, idle)
    suspected, layouts = frozenset(s.suspected), (*pursued, *ahead.begun)
    made = Plan(tuple(s.actions), s.verdicts, usage(s, going), s.wake_at, s.faults, layouts, suspected)
    return s, made


def _set_aside(s: Scratch, runs: Sequence[Live], going: Sequence[Workload]) -> None:
    for run in runs:
        s.guard(run.workload, claim, s, run)
    for w in going:
        if w.ref.kind is Kind.INFERENCE_SERVICE:
            s.guard(w, services.charge, s, w)


def _settled(ahead: Ahead, yielding: Yielding, more: Provisioner, idle: Iterable[Workload]) -> list[Workload]:
    """Decide what each workload without an attempt gets; the jobs that find no place."""
    s, waits = ahead.s, list[Workload]()
    gathers = gathering(s.snapshot.workloads)
    vain = Vain(ahead, yielding)
    for w in idle:
        yielding.keep_sizes(w.priority)
        first = waits[0] if gathers and waits else None
        if s.guard(w, _settle, ahead, yielding, vain, more, w, first) is False:
            waits.append(w)
    return waits


def _gather(s: Scratch, w: Workload) -> bool:
    return gather(s, w, partial(_calm, s))


def _calm(s: Scratch, snapshot: Snapshot) -> Scratch:
    """The working copy after a plan for another snapshot, in which nobody is moved, and no nodes are asked for."""
    full = tuple(replace(pool, nodes_most=0) for pool in s.policy.pools)
    calm = replace(s.policy, consolidation=Consolidating(), preemption=None, growing=None, pools=full)
    return worked_out(snapshot, calm, s.now)[0]


def _settle(
    ahead: Ahead, yielding: Yielding, vain: Vain, more: Provisioner, w: Workload, first: Workload | None
) -> bool:
    """Decide what a workload without an attempt gets; False where it is a job that finds no place.

    `first` is the job that room is being made for: until it has its place, no job after it gets one.
    """
    s = ahead.s
    problem = problem_of(s, w)
    if problem or w.request is None:
        s.decide(w.ref, Verdict(Reason.MISCONFIGURED, problem))
    elif w.ref.kind is Kind.INFERENCE_SERVICE:
        services.serve(s, w, w.request, promised=yielding.hand_over(w) is not None)
        reason = s.verdicts[w.ref.uid].reason
        made = reason in (*LACKS_ROOM, Reason.WAITING_FOR_QUOTA) and yielding.make_room(w)
        if reason in LACKS_ROOM and not made:
            reserve(s, w, replace(w.request, workers=1), w.served_device)
    elif not (_there_are(ahead, w.request) or more.could_ever(w.request)):
        s.decide(w.ref, no_match(w.request, s.fleet))
    elif (held := held_back(s, w)) is not None:
        s.decide(w.ref, held)
    elif first is not None:
        message = f"waits while room is made for {first.ref.namespace}/{first.ref.name}, which is served before it"
        s.decide(w.ref, Verdict(Reason.PENDING_EVALUATION, message))
    else:
        return _placed(ahead, yielding, vain, w, w.request)
    return True


def _there_are(ahead: Ahead, request: Request) -> bool:
    """Whether there are boards for a request, or could be by laying some out."""
    return bool(ahead.s.options(request.demand, request.tensor)) or possible(ahead, request)


def _placed(ahead: Ahead, yielding: Yielding, vain: Vain, w: Workload, request: Request) -> bool:
    """Admit a job, or have others give way to it; False where neither is possible: then a start may be kept for it."""
    s, key, before = ahead.s, vain.key(w, request), vain.state()
    if vain.is_known(key):
        return False
    if yielding.serve(w, request, partial(better_later, ahead, w, request)):
        return True
    least = request.smallest
    reserve(s, w, least)
    waits_for_room(s, w, least)
    vain.note(key, before)
    return False


def _explain(ahead: Ahead, w: Workload, told: dict[object, Verdict], turns: Turns) -> None:
    """Say why a job waits; those that ask for the same in one queue are told the same, but for their turn."""
    s = ahead.s
    if w.request is None:
        return
    least = w.request.smallest
    until = s.estimates.end_if_admitted(w, least.workers)
    key = (w.request, w.queue, s.avoided(w), s.reserved.binding(until))
    if key not in told:
        verdict, hindered = waiting(s, w, least), hindrance(ahead, least)
        models = {option.device.model for option in s.options(least.demand, least.tensor)}
        also = [text for text in (hindered, avoided_text(s.suspected, map(s.fleet.pools.__getitem__, models))) if text]
        told[key] = replace(verdict, message="; ".join([verdict.message, *also]))
    verdict = turns.told(w, least, told[key])
    failed = failed_text(s, w)
    s.decide(w.ref, replace(verdict, message=f"{verdict.message}; {failed}") if failed else verdict)


def _number(s: Scratch, served: Sequence[Workload]) -> None:
    """Tell each job that waits its position in its queue, from 1."""
    placed = {a.ref.uid for a in s.actions if isinstance(a, Admit)}
    behind: Counter[str] = Counter()
    for w in served:
        verdict = s.verdicts.get(w.ref.uid)
        waits = w.ref.kind is Kind.TRAINING_JOB and w.ref.uid not in placed
        if verdict is not None and waits and verdict.reason not in NOT_IN_LINE:
            behind[w.queue] += 1
            s.verdicts[w.ref.uid] = replace(verdict, position=behind[w.queue])


def _expire(s: Scratch, w: Workload) -> None:
    if not w.finished or w.deleting or w.ttl_seconds is None:
        return
    end = w.finished_at + w.ttl_seconds
    s.wake(end)
    if end <= s.now:
        s.actions.append(Expire(w.ref))
