"""The least work that must be lost for a gang to fit, by a solver (HiGHS)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import highspy

from berth.model.workloads import Kind, Queue, Workload
from berth.planning.freeing import Holder
from berth.planning.ledger import needs_of
from tests.planning.victim_cases import Case, candidates, device_of

SLICES = {"1g.10gb": Fraction(1, 8), "2g.20gb": Fraction(2, 8), "3g.40gb": Fraction(4, 8)}
HAIR = 1 / 16  # less than any two numbers of boards differ by


class Tree:
    """Who is above whom, what each owns with those under it, and what each holds: only leaves have work here."""

    def __init__(self, queues: Sequence[Queue], others: Iterable[Workload]) -> None:
        """Count what runs."""
        self.queues = {queue.name: queue for queue in queues}
        self.owns: dict[str, Fraction] = defaultdict(Fraction)
        self.holds: dict[str, Fraction] = defaultdict(Fraction)
        for queue in queues:
            for above in self.path(queue.name):
                self.owns[above] += (queue.nominal or {}).get("A100", 0)
        for w in others:
            for above in self.path(w.queue):
                self.holds[above] += boards_of(w)

    def path(self, queue: str) -> list[str]:
        """The queue and all above it."""
        parent = self.queues[queue].parent
        return [queue, *(self.path(parent) if parent else ())]

    def most(self, queue: str) -> Fraction | None:
        """What a queue may hold at most: all that a root owns, and else what it owns and may borrow."""
        if not self.queues[queue].parent:
            return self.owns[queue]
        borrowing = self.queues[queue].borrowing.get("A100")
        return None if borrowing is None else self.owns[queue] + borrowing


def boards_of(w: Workload) -> Fraction:
    """What a workload is charged."""
    assert w.request is not None
    each = SLICES.get(w.request.demand.profile or "", Fraction(w.request.demand.count or 0))
    return each * w.request.workers


def least_lost(case: Case) -> float | None:
    """The least over the two ways there are: within the queue, or taking back what others borrow; None: neither."""
    ways = [_least(case, *candidates(case, reclaims=reclaims), reclaims=reclaims) for reclaims in (False, True)]
    return min((lost for lost in ways if lost is not None), default=None)


def _least(
    case: Case, holders: Sequence[Holder], free: Mapping[str, Mapping[str, int]], *, reclaims: bool
) -> float | None:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", 0.0)
    ends = {one.uid: solver.addBinary() for one in holders}
    _room(solver, case, holders, free, ends)
    tree = Tree(case.queues, case.others)
    _quota(solver, case, tree, holders, ends, reclaims=reclaims)
    _only_borrowed(solver, case, tree, [one for one in holders if one.workload.queue != case.waits.queue], ends)
    _replicas(solver, holders, ends)
    solver.minimize(sum((ends[one.uid] * one.cost for one in holders), start=solver.expr()))
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return float(solver.getInfo().objective_function_value)


def _room(
    solver: Any, case: Case, holders: Sequence[Holder], free: Mapping[str, Mapping[str, int]], ends: Mapping[str, Any]
) -> None:
    """All members fit on what is free and what is freed, in one rack where they must."""
    request = case.waits.request
    assert request is not None
    needs = needs_of(request.shape, device_of(case.waits))
    members = {node.name: solver.addIntegral(0, request.workers) for node in case.nodes}
    solver.addConstr(sum(members.values()) == request.workers)
    freed: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for one in holders:
        for node, held in one.held:
            for name, n in held.items():
                freed[node, name].append(ends[one.uid] * n)
    for node in case.nodes:
        for name, n in needs.items():
            room = sum(freed[node.name, name], start=solver.expr()) + free[node.name].get(name, 0)
            solver.addConstr(members[node.name] * n <= room)
    if request.topology is not None:
        racks = {node.labels["berth.dev/rack"] for node in case.nodes}
        chosen = {rack: solver.addBinary() for rack in sorted(racks)}
        solver.addConstr(sum(chosen.values()) == 1)
        for node in case.nodes:
            solver.addConstr(members[node.name] <= chosen[node.labels["berth.dev/rack"]] * request.workers)


def _quota(
    solver: Any, case: Case, tree: Tree, holders: Sequence[Holder], ends: Mapping[str, Any], *, reclaims: bool
) -> None:
    """No queue above the gang holds more than it may; who takes back holds no more than it owns."""
    for above in tree.path(case.waits.queue):
        bounds = [tree.most(above)] + ([tree.owns[above]] if reclaims and above == case.waits.queue else [])
        given = [ends[one.uid] * float(one.boards) for one in holders if above in tree.path(one.workload.queue)]
        for most in bounds:
            if most is not None:
                short = float(tree.holds[above] + boards_of(case.waits) - most)
                solver.addConstr(sum(given, start=solver.expr()) >= short)


def _only_borrowed(solver: Any, case: Case, tree: Tree, others: Sequence[Holder], ends: Mapping[str, Any]) -> None:
    """Whoever ends in another queue gives back something borrowed: all but the largest are less than was borrowed."""
    mine = set(tree.path(case.waits.queue))
    for queue in sorted({above for one in others for above in tree.path(one.workload.queue)} - mine):
        there = [one for one in others if queue in tree.path(one.workload.queue)]
        last = {one.uid: solver.addBinary() for one in there}
        solver.addConstr(sum(last.values()) <= 1)
        for one in there:
            solver.addConstr(last[one.uid] <= ends[one.uid])
        beyond = float(max(Fraction(0), tree.holds[queue] - tree.owns[queue]))
        total = sum(((ends[one.uid] - last[one.uid]) * float(one.boards) for one in there), start=solver.expr())
        if beyond <= 0:
            solver.addConstr(sum(ends[one.uid] for one in there) == 0)
        else:
            solver.addConstr(total <= beyond - HAIR)


def _replicas(solver: Any, holders: Sequence[Holder], ends: Mapping[str, Any]) -> None:
    """Services keep their minimum."""
    of: dict[str, list[Holder]] = defaultdict(list)
    for one in holders:
        if one.workload.ref.kind is Kind.INFERENCE_SERVICE:
            of[one.workload.ref.uid].append(one)
    for replicas in of.values():
        w = replicas[0].workload
        solver.addConstr(sum(ends[one.uid] for one in replicas) <= len(w.pods) - w.least_replicas)
