"""What would happen if one more workload were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from berth.model.workloads import Ref, Workload
from berth.planning.actions import Admit, Pin, Plan, Serve, Stop
from berth.planning.explain import Explanation, explain
from berth.planning.plan import worked_out
from berth.planning.snapshot import Policy, Snapshot


@dataclass(frozen=True, slots=True)
class Displaced:
    """A workload that the next plan would stop because of it."""

    ref: Ref
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a workload would run, and what it would do to others."""

    explanation: Explanation
    displaced: tuple[Displaced, ...] = ()
    delayed: tuple[Ref, ...] = ()  # that the next plan would have given a place without it


def what_if(snapshot: Snapshot, policy: Policy, now: float, asked: Workload) -> Answer:
    """What the next plan would do with a workload that is not there yet, and to others because of it."""
    before = worked_out(snapshot, policy, now)[1]
    seen = replace(snapshot, workloads=(*snapshot.workloads, asked))
    after = worked_out(seen, policy, now)[1]
    placed = {ref.uid for ref in _placed(after)}
    return Answer(
        explain(seen, policy, now, asked),
        tuple(_displaced(before, after, asked)),
        tuple(ref for ref in _placed(before) if ref.uid not in placed),
    )


def _displaced(before: Plan, after: Plan, asked: Workload) -> Iterable[Displaced]:
    stopped = {a.ref.uid for a in before.actions if isinstance(a, Stop)}
    for action in after.actions:
        if isinstance(action, Stop) and action.ref.uid not in stopped and action.ref != asked.ref:
            yield Displaced(action.ref, action.reason, action.message)


def _placed(made: Plan) -> tuple[Ref, ...]:
    """What a plan gives a place, in its order."""
    return tuple(dict.fromkeys(a.ref for a in made.actions if isinstance(a, (Admit, Pin, Serve))))
