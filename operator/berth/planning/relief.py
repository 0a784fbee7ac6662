"""What others would have to do so that a pending job fits: end, move, or give way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from berth.model.reasons import Reason
from berth.model.workloads import Kind, Workload
from berth.planning.actions import Stop
from berth.planning.admission import Choice
from berth.planning.consolidation import Consolidation, consolidate
from berth.planning.covering import cheapest
from berth.planning.feasibility import why_not
from berth.planning.freeing import Holder, Lack, holder
from berth.planning.plan import worked_out
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Consolidating
from berth.planning.trials import MOST_NAMED, Remedy, Trial, Way, details_of, duration, nodes_text, place_text, settled
from berth.planning.verdicts import boards_text
from berth.planning.whatif import device_of, room_for, with_workload, without

MOST_FREED = 1000  # workloads in a set that would have to end
MOST_BOARDS = 8  # of which the holders' end is tried, so that they can be laid out anew: each try costs a plan
MOST_PRIORITIES = 4  # that are tried: each costs a plan
MANY = 10**6  # boards: more than any set of workloads holds, so that fewer workloads come before fewer boards


def freed(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    """The fewest workloads, then boards, whose end would let it fit; what is ending already counts least."""
    lacks = _lacks(t, s, tried)
    others = [w for w in t.snapshot.workloads if w.ref.uid != t.job.ref.uid and not w.finished]
    held = (holder(s, w, _effort) for w in others)
    found = cheapest(
        lacks,
        [one for one in held if one],
        lambda ended: t.places(snapshot=without(t.snapshot, [one.workload for one in ended])),
        MOST_FREED,
    )
    if found is None:
        return None
    ended, place = found
    return _ended(t, ended, place_text(s, place), details_of(place))


def cleared(t: Trial, s: Scratch) -> Remedy | None:
    """The workloads whose end lets boards be laid out for it: of single boards first, then of several together."""
    boards = _held_boards(t, s)[:MOST_BOARDS]
    together = [{uid: one for held in boards[:n] for uid, one in held.items()} for n in range(2, 1 + len(boards))]
    for ended in (*boards, *together):
        if not t.is_laid_out(one.workload for one in ended.values()):
            continue
        for uid in sorted(ended, key=lambda uid: ended[uid].key, reverse=True):
            rest = {other: one for other, one in ended.items() if other != uid}
            if rest and t.is_laid_out(one.workload for one in rest.values()):
                ended = rest
        holders = sorted(ended.values(), key=lambda one: one.key)
        return _ended(t, holders, "boards would then be laid out for it", {"laidOut": True})
    return None


def _held_boards(t: Trial, s: Scratch) -> list[dict[str, Holder]]:
    """For each board that would do, were it laid out anew, the workloads that hold it: the fewest boards first."""
    asked = t.request.demand.models
    of_pod = {f"{w.ref.namespace}/{pod.name}": w for w in t.snapshot.workloads for pod in w.pods}
    found: list[dict[str, Holder]] = []
    for node in t.snapshot.nodes.values():
        if node.way is None or node.board is None or why_not(node, t.request.shape):
            continue
        if asked and not any(map(node.board.answers_to, asked)):
            continue
        for board in node.boards:
            names = {board.holder, *(i.holder for i in board.instances)} - {""}
            if names and names <= of_pod.keys():
                held = (holder(s, of_pod[name], _effort) for name in sorted(names))
                found.append({one.workload.ref.uid: one for one in held if one})
    return sorted(found, key=lambda held: (sum(one.cost for one in held.values()), sorted(held)))


def moved(t: Trial) -> Remedy | None:
    found = consolidate(t.snapshot, t.job, lambda seen: settled(seen, t.policy, t.now), t.policy.consolidation)
    if found is None:
        return None
    moves = "; ".join(
        f"{m.ref.namespace}/{m.ref.name} from {nodes_text(m.before)} to {nodes_text(m.after)}" for m in found.moves
    )
    lost = f"costs ${found.usd:.2f} of work since their last start or checkpoint, and restarts"
    return Remedy(
        Way.MOVE_WORKLOADS, f"moving {moves} ({lost}): it fits on {nodes_text(found.placement)}", _moves(found)
    )


def gave_way(t: Trial) -> Remedy | None:
    """The least priority for which others in its queue would be stopped, and who."""
    if t.policy.preemption is None or t.kind is not Kind.TRAINING_JOB:
        return None
    running = (w for w in t.snapshot.workloads if w.queue == t.job.queue and w.attempt is not None)
    for priority in sorted({w.priority + 1 for w in running if w.priority >= t.job.priority})[:MOST_PRIORITIES]:
        job = replace(t.job, priority=priority, created=t.now)  # who has just come looks for victims at once
        seen = replace(with_workload(t.snapshot, job), until=job.ref.uid)
        _, made = worked_out(seen, replace(t.policy, consolidation=Consolidating()), t.now)
        verdict = made.verdicts.get(job.ref.uid)
        if verdict is not None and verdict.reason == Reason.WAITING_FOR_PREEMPTION:
            stops = [a.ref for a in made.actions if isinstance(a, Stop) and a.gives_way_to is not None]
            details = {"priority": priority, "workloads": [{"namespace": r.namespace, "name": r.name} for r in stops]}
            message = f"a priority of {priority} instead of {t.job.priority}: {verdict.message}"
            return Remedy(Way.HIGHER_PRIORITY, message, details)
    return None


def _moves(found: Consolidation) -> Mapping[str, Any]:
    moves = [
        {
            "namespace": m.ref.namespace,
            "name": m.ref.name,
            "from": list(m.before.nodes),
            "to": list(m.after.nodes),
            "usd": m.usd,
        }
        for m in found.moves
    ]
    return {"moves": moves, "usd": found.usd, "worthUsd": found.worth_usd, **details_of(found.placement)}


def _ended(t: Trial, ended: Sequence[Holder], then: str, details: Mapping[str, Any]) -> Remedy:
    named = ", ".join(_named(one, t.now) for one in ended[:MOST_NAMED])
    more = f" and {len(ended) - MOST_NAMED} more" if len(ended) > MOST_NAMED else ""
    workloads = [
        {"kind": str(r.kind), "namespace": r.namespace, "name": r.name, "boards": str(one.boards)}
        for one in ended
        for r in (one.workload.ref,)
    ]
    return Remedy(Way.FREE_WORKLOADS, f"the end of {named}{more}: {then}", {"workloads": workloads, **details})


def _lacks(t: Trial, s: Scratch, tried: Sequence[Choice]) -> list[Lack]:
    """What it lacks on each device that it may have now or once its queue has room again."""
    able = [c.option.device for c in tried if c.reason in (None, Reason.WAITING_FOR_QUOTA)]
    fields = (room_for(s, t.job, t.request, device) for device in able)
    return [Lack(s, t.job, t.request, field) for field in fields if field is not None]


def _effort(w: Workload, boards: Fraction) -> float:
    """Orders what could end: what is ending already, then the fewest workloads, then the fewest boards."""
    return float(not _ending(w)) + float(boards) / MANY


def _ending(w: Workload) -> bool:
    return w.deleting or bool(w.attempt and w.attempt.stopping)


def _named(one: Holder, now: float) -> str:
    w, device = one.workload, device_of(one.workload)
    what = f"{boards_text(one.boards)} of {device.model}" if device else boards_text(one.boards)
    since = w.started_at or (w.attempt.admitted_at if w.attempt else w.created)
    ending = ", ending already" if _ending(w) else ""
    return f"{w.ref.namespace}/{w.ref.name} ({what} for {duration(now - since)}{ending})"
