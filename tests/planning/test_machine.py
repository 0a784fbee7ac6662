"""No sequence of arrivals, departures, re-layouts and failures makes the planner break what must hold.

A state machine drives the real `plan` against a cluster that is modelled without it (`tests.planning.brute`): users,
nodes, kubelets, agents and mig-manager do what they like between deciding and acting, and plans are carried out in
parts, in any order, or not at all. Hypothesis looks for small examples; histories of evenly drawn events reach further:
`python -m tests.planning.test_machine 600 1000` lives through more of them, for 600 s, from seed 1000 on.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from berth.model.gpus import MODELS
from berth.model.nodes import Way
from berth.model.reasons import Reason
from berth.model.workloads import Kind, Placement, PodPhase, Request, RunPhase, Workload
from berth.planning.actions import Action, Admit, LayOut, Move, NodeAction, Pin, Plan
from berth.planning.fleet import Nodes
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.whatif import order
from tests.planning.brute import (
    BOUND,
    GEOMETRY,
    GPU,
    ON_NODE,
    WHOLE,
    Cut,
    Machine,
    Member,
    Town,
    in_one_domain,
    is_legal,
    resource_of,
    surely_together,
    wanted,
)
from tests.planning.builders import a_job, a_service, shape

MOST_NODES = 5
MOST_WORK = 7
QUIET_ROUNDS = 150
POLICY = Policy()
KINDS = ("mig-manager", "agent", "whole", "small", "cut")
DEMANDS = (
    {"gpus": 1},
    {"gpus": 2},
    {"gpus": 1, "models": ("A100",)},
    {"profile": "1g.10gb"},
    {"profile": "3g.40gb"},
    {"profile": "2g.20gb"},
    {"profile": "2g.12gb"},
    {"memory_gib": 9},
    {"memory_gib": 18},
)
WISHES = ("", "", "", "required rack", "preferred rack", "required node", "groups", "tensor")

WORKERS = (1, 2, 1, 3, 4, 6)
CPUS = (0, 0, 2)
SERVED = ({"gpus": 1}, {"profile": "1g.10gb"}, {"memory_gib": 18})
NODE_CHANGES = ("leaves", "not ready", "cordon", "relabel", "well", "well", "sick", "healed")
EDITS = ("suspend", "resume", "resume", "delete", "scale")
MISHAPS = ("ends", "ends", "fails", "refused", "evicted", "deleted")
OUTCOMES = ("done", "done", "done", "fail", "stuck")
SECONDS = (1.0, 20.0, 70.0, 250.0, 700.0)
MOST_ACTIONS = (1, 3, 100, 100, 100)
HISTORIES = 80

seeds = st.integers(0, 2**16)


def a_cut(model: str, dice: Random) -> Cut:
    """A legal layout, full or not."""
    names = sorted(GEOMETRY[model])
    cut: Cut = ()
    for _ in range(dice.choice((2, 4, 9, 9))):
        name = dice.choice(names)
        able = [at for at in GEOMETRY[model][name][1] if is_legal(model, (*cut, (name, at)))]
        cut = (*cut, (name, dice.choice(able))) if able else cut
    return tuple(sorted(cut, key=lambda piece: piece[1]))


class Planning(RuleBasedStateMachine):
    """The planner, the cluster, and everybody who disturbs both."""

    def __init__(self) -> None:
        """An empty cluster."""
        super().__init__()
        self.town = Town()
        self.todo: list[tuple[Action, int]] = []  # decided and not carried out yet, with the edits seen
        self.layouts: list[NodeAction] = []
        self.names = 0

    # Nodes

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4), seed=seeds)
    def cluster_is_there(self, kinds: list[str], seed: int) -> None:
        for i, kind in enumerate(kinds):
            self.node_joins(kind, seed + i)

    @precondition(lambda self: len(self.town.machines) < MOST_NODES)
    @rule(kind=st.sampled_from(KINDS), seed=seeds)
    def node_joins(self, kind: str, seed: int) -> None:
        dice = Random(seed)
        self.names += 1
        labels = {"topology.kubernetes.io/zone": "z", "berth.dev/rack": dice.choice("rs")}
        if dice.random() < 0.2:
            del labels["berth.dev/rack"]
        model = {"small": "A30", "whole": "H100-80GB"}.get(kind, "A100-80GB")
        if kind == "whole" and dice.random() < 0.7:
            labels["nvidia.com/gpu.clique"] = dice.choice("cd")
        way = {"mig-manager": Way.MIG_MANAGER, "agent": Way.AGENT, "small": Way.MIG_MANAGER}.get(kind)
        count = dice.choice((2, 4)) if kind == "whole" else dice.choice((1, 2))
        boards = {i: None if kind == "whole" or dice.random() < 0.3 else a_cut(model, dice) for i in range(count)}
        name = f"n{self.names}"
        self.town.machines[name] = Machine(name, model, labels, dice.choice((64_000, 3_000)), way, boards)
        if way is not None:
            self.town.report(name)

    @precondition(lambda self: self.town.machines)
    @rule(what=st.sampled_from(NODE_CHANGES), seed=seeds)
    def node_changes(self, what: str, seed: int) -> None:
        dice = Random(seed)
        m = self._machine(dice)
        match what:
            case "leaves":
                del self.town.machines[m.name]
                for uid in [p.uid for p in self.town.pods.values() if p.node == m.name]:
                    del self.town.pods[uid]
            case "not ready":
                m.ready = False
            case "cordon":
                m.cordoned = True
            case "relabel":
                m.labels = {**m.labels, "berth.dev/rack": dice.choice("rs")}
            case "well":
                m.ready, m.cordoned = True, False
            case "sick":
                m.sick = {dice.choice(sorted(m.boards))}
            case "healed":
                m.sick = set()

    # Work

    @precondition(lambda self: len(self.town.work) < MOST_WORK)
    @rule(
        demand=st.sampled_from(DEMANDS),
        workers=st.sampled_from(WORKERS),
        topology=st.sampled_from(WISHES),
        priority=st.integers(0, 1),
        cpu=st.sampled_from(CPUS),
    )
    def job_arrives(self, demand: dict[str, int], workers: int, topology: str, priority: int, cpu: int) -> None:
        self.names += 1
        more: dict[str, object] = {**demand, "priority": priority, "pod": shape(cpu=cpu), "created": self.town.now}
        mode, _, level = topology.partition(" ")
        if level:
            more[mode] = level
        elif topology == "groups" and workers % 2 == 0:
            more |= {"required": "zone", "groups": {2: "rack"}}
        elif topology == "tensor" and demand.get("gpus") and workers % 2 == 0:
            more["tensor"] = 2 * demand["gpus"]
        self._submit(a_job(f"j{self.names}", workers=workers, **more))  # type: ignore[arg-type]

    @precondition(lambda self: len(self.town.work) < MOST_WORK)
    @rule(demand=st.sampled_from(SERVED), replicas=st.integers(1, 3))
    def service_arrives(self, demand: dict[str, int], replicas: int) -> None:
        self.names += 1
        more: dict[str, object] = {**demand, "created": self.town.now}
        self._submit(a_service(f"s{self.names}", replicas=replicas, **more))

    def _submit(self, w: Workload) -> None:
        self.town.work[w.ref.uid] = w

    @precondition(lambda self: self.town.work)
    @rule(what=st.sampled_from(EDITS), seed=seeds)
    def user_edits(self, what: str, seed: int) -> None:
        dice = Random(seed)
        w = self.town.work[dice.choice(list(self.town.work))]
        uid, job = w.ref.uid, w.ref.kind is Kind.TRAINING_JOB
        self.town.edits[uid] += 1
        if what == "delete":
            del self.town.work[uid]
            for pod in [p for p in self.town.pods.values() if p.owner == uid]:
                if pod.phase in BOUND:  # it ends in its own time
                    pod.owner, pod.terminating = "", True
                else:
                    del self.town.pods[pod.uid]
        elif what == "scale" and not job and w.request is not None:
            request = replace(w.request, workers=dice.randint(1, 4))
            self.town.work[uid] = replace(w, request=request, generation=w.generation + 1)
        elif what in ("suspend", "resume") and job:
            self.town.work[uid] = replace(w, suspend=what == "suspend")

    @precondition(lambda self: self.town.machines)
    @rule(seed=seeds, count=st.sampled_from((1, 1, 2)))
    def stranger_comes(self, seed: int, count: int) -> None:
        dice = Random(seed)
        m = self._machine(dice)
        kinds = sorted(name for name, n in m.offered().items() if n and name.startswith("nvidia.com/"))
        if kinds:
            self.names += 1
            kind = dice.choice(kinds)
            name = f"other/p{self.names}"
            self.town.intrude(name, m.name, kind, count if kind == GPU else 1, dice)

    @rule(seed=seeds, again=st.booleans())
    def stranger_leaves(self, seed: int, again: bool) -> None:
        """One ends; `again`: and another of the same name is there at once, as of a StatefulSet."""
        dice = Random(seed)
        there = [p for p in self.town.pods.values() if not p.owner]
        if there:
            pod = dice.choice(there)
            del self.town.pods[pod.uid]
            if again:
                self.town.now += 1.0  # stopping takes a moment
                self.town.intrude(pod.name, pod.node, pod.resource, pod.count, dice)

    # The operator

    @precondition(lambda self: not self.todo)
    @rule(seed=seeds)
    def decide(self, seed: int) -> None:
        """A plan is made: twice alike, whatever the order in which things are listed, and within what must hold."""
        town = self.town
        town.note_statuses()
        snapshot = town.snapshot()
        made = plan(snapshot, POLICY, town.now)
        dice = Random(seed)
        assert not made.faults, made.faults
        assert made == plan(shuffled(snapshot, dice), POLICY, town.now), "the same snapshot, another plan"
        judge(town, snapshot, made)
        self.todo = [(action, town.edits[action.ref.uid]) for action in made.actions]
        for each in made.layouts:
            if isinstance(each, LayOut):
                town.assumed[each.node] = each
            self.layouts.append(each)

    @precondition(lambda self: self.todo)
    @rule(seed=seeds, most=st.sampled_from(MOST_ACTIONS), cut=st.integers(0, 3))
    def carry_out(self, seed: int, most: int, cut: int) -> None:
        """Some actions are taken: those of one workload in their order, those of several in any."""
        dice = Random(seed)
        for i in range(min(most, len(self.todo))):
            firsts = [n for n, (a, _) in enumerate(self.todo) if a.ref.uid not in {b.ref.uid for b, _ in self.todo[:n]}]
            action, edits = self.todo.pop(dice.choice(firsts) if seed else 0)
            self.town.act(action, edits, only_record=cut == 0 and i == most - 1)

    @precondition(lambda self: self.layouts)
    @rule(seed=seeds)
    def lay_out(self, seed: int) -> None:
        """A re-layout is set going or ended, early or late: nobody in truth may hold what it would destroy."""
        action = self.layouts.pop(seed % len(self.layouts))
        before = self.town.held(action.node)
        if self.town.lay_out(action):
            assert isinstance(action, LayOut)
            assert_nobody_is_touched(self.town.machines[action.node], action, before)

    @rule()
    def operator_restarts(self) -> None:
        """What was decided and not carried out is forgotten."""
        self.todo, self.layouts = [], []
        self.town.assumed.clear()

    @precondition(lambda self: not self.todo)
    @rule(seed=seeds, rounds=st.integers(1, 4))
    def all_goes_well(self, seed: int, rounds: int) -> None:
        """Some cycles in which everybody does what they should."""
        for _ in range(rounds):
            if self.todo:
                self.carry_out(0, 100, 1)
            self.agent_reports(1)
            self.decide(seed)
            if self.todo:
                self.carry_out(0, 100, 1)
            while self.layouts:
                self.lay_out(0)
            self.boards_are_laid_out("done", seed)
            self.pods_are_made(0)
            self.pods_are_bound(seed, True)
            self.town.now += 5.0

    # Everybody else

    @rule(seed=seeds)
    def pods_are_made(self, seed: int) -> None:
        self.town.make_pods(Random(seed) if seed else None)

    @rule(seed=seeds, all_of_them=st.booleans())
    def pods_are_bound(self, seed: int, all_of_them: bool) -> None:
        dice = Random(seed)
        pinned = [p for p in self.town.pods.values() if p.phase is PodPhase.PINNED]
        dice.shuffle(pinned)
        for pod in pinned if all_of_them else pinned[:1]:
            self.town.bind(pod, dice)

    @rule(what=st.sampled_from(MISHAPS), seed=seeds)
    def member_changes(self, what: str, seed: int) -> None:
        dice = Random(seed)
        ours = [p for p in self.town.pods.values() if p.owner and p.phase in BOUND]
        if not ours:
            return
        pod = dice.choice(ours)
        if what in ("evicted", "deleted"):
            pod.terminating = True
        elif self.town.work[pod.owner].ref.kind is Kind.TRAINING_JOB and not pod.terminating:
            pod.phase = PodPhase.SUCCEEDED if what == "ends" else PodPhase.FAILED
            pod.refusal = "UnexpectedAdmissionError" if what == "refused" else ""

    @rule(seed=seeds)
    def agent_reports(self, seed: int) -> None:
        reporting = [m for m in self.town.machines.values() if m.way is not None]
        for m in reporting if seed % 2 else reporting[:1]:
            self.town.report(m.name)

    @rule(outcome=st.sampled_from(OUTCOMES), seed=seeds)
    def boards_are_laid_out(self, outcome: str, seed: int) -> None:
        dice = Random(seed)
        for m in self.town.machines.values():
            if m.state in ("asked", "working"):
                self.town.work_on(m.name, dice, outcome)

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.town.now += seconds

    # What must hold

    @invariant()
    def boards_are_whole(self) -> None:
        """Layouts are legal, and no piece has two holders."""
        for m in self.town.machines.values():
            assert all(cut is None or is_legal(m.model, cut) for cut in m.boards.values()), m
            pieces = [x for p in self.town.pods.values() if p.node == m.name and p.phase in BOUND for x in p.pieces]
            assert len(pieces) == len(set(pieces)), m.name

    @rule(seed=seeds)
    def all_is_quiet(self, seed: int) -> None:
        """Left alone, the cluster comes to rest: every admitted pod runs, and nothing more is planned."""
        self.operator_restarts()
        come_to_rest(self.town, Random(seed))

    def teardown(self) -> None:
        """It comes to rest in the end, too."""
        self.all_is_quiet(1)

    def may(self, name: str) -> bool:
        """Whether a rule may be used now, as its precondition says."""
        match name:
            case "node_joins":
                return len(self.town.machines) < MOST_NODES
            case "job_arrives" | "service_arrives":
                return len(self.town.work) < MOST_WORK
            case "node_changes" | "stranger_comes":
                return bool(self.town.machines)
            case "user_edits":
                return bool(self.town.work)
            case "decide" | "all_goes_well":
                return not self.todo
            case "carry_out":
                return bool(self.todo)
            case "lay_out":
                return bool(self.layouts)
        return True

    def _machine(self, dice: Random) -> Machine:
        return self.town.machines[dice.choice(list(self.town.machines))]


def shuffled(snapshot: Snapshot, dice: Random) -> Snapshot:
    """The same, in another order."""
    names, work = list(snapshot.nodes), list(snapshot.workloads)
    dice.shuffle(names)
    dice.shuffle(work)
    return replace(snapshot, nodes=Nodes({n: snapshot.nodes[n] for n in names}), workloads=tuple(work))


def judge(town: Town, snapshot: Snapshot, made: Plan) -> None:
    """Whether a plan keeps its promises, by what was shown to it."""
    placements = {uid: w.attempt.placement for uid, w in town.work.items() if w.attempt and not w.attempt.stopping}
    overrun = promises(town, placements, Plan())  # before: strangers may have taken what was promised
    new: dict[str, Counter[str]] = {}  # what this plan gives out, by node
    for action in made.actions:
        w = town.work[action.ref.uid]
        if isinstance(action, (Admit, Move)):
            before = placements.get(w.ref.uid)
            for name in fresh_nodes(before, action.placement):
                new.setdefault(name, Counter()).update(needs(w, action.placement))
            assert_gang_is_together(town, w, before, action.placement)
            placements[w.ref.uid] = action.placement
    for action in made.actions:
        if isinstance(action, Pin):
            w = town.work[action.ref.uid]
            new.setdefault(action.node, Counter()).update(town.pods[action.pod_uid].needs)
            if w.ref.kind is Kind.TRAINING_JOB:
                assert_gang_has_a_place_each(town, w, action, placements[w.ref.uid], made)
    promised = promises(town, placements, made)
    for name, given in new.items():
        node = snapshot.nodes[name]
        assert node.relayout is None, f"{name} is being laid out"
        assert node.ready and not node.unschedulable, name  # noqa: PT018
        for resource, n in given.items():
            most = node.allocatable.get(resource, 0)
            if overrun[name][resource] > most:  # some members are displaced: the others may yet have what is left
                assert town.used(name).get(resource, 0) + n <= most, (name, resource, n)
            else:
                assert promised[name][resource] <= most, (name, resource, n)
    for each in made.layouts:
        if isinstance(each, LayOut):
            assert_layout_is_sound(town, each)
            if each.relayout.attempt == 1:
                assert each.node not in new, f"{each.node} is laid out, and gets pods"
                if promised[each.node] <= Counter(snapshot.nodes[each.node].allocatable):
                    assert not waits_for_room(town, placements, each.node), f"{each.node} was promised"


def fresh_nodes(before: Placement | None, after: Placement) -> list[str]:
    """The nodes of members that go elsewhere than was recorded."""
    if before is None or len(before.nodes) != len(after.nodes):
        return list(after.nodes)
    return [new for old, new in zip(before.nodes, after.nodes, strict=True) if old != new]


def promises(town: Town, placements: dict[str, Placement], made: Plan) -> dict[str, Counter[str]]:
    """What is used and promised of each node once this plan is carried out; each member counts once."""
    total = {name: Counter(town.used(name)) for name in town.machines}
    replaced = {a.pod_uid for a in made.actions if hasattr(a, "pod_uid") and not isinstance(a, Pin)}
    for uid, placement in placements.items():
        w = town.work[uid]
        if w.finished or (w.attempt and w.attempt.phase in (RunPhase.SUCCEEDED, RunPhase.FAILED)):
            continue
        for index in unplaced(town, w, placement, replaced):
            node = placement.nodes[index]
            if node in total:
                total[node].update(needs(w, placement))
    for action in made.actions:
        if isinstance(action, Pin) and town.work[action.ref.uid].ref.kind is Kind.INFERENCE_SERVICE:
            total[action.node].update(town.pods[action.pod_uid].needs)
    return total


def unplaced(town: Town, w: Workload, placement: Placement, replaced: set[str]) -> list[int]:
    """The members whose room no pod holds, on the node that is recorded for them."""
    number = w.attempt.number if w.attempt else 0
    pods = [p for p in town.pods.values() if p.owner == w.ref.uid and p.attempt == number and number]
    holding = {
        p.index
        for p in pods
        if p.phase in (*BOUND, PodPhase.SUCCEEDED)
        or (p.phase is PodPhase.PINNED and p.node == placement.nodes[p.index] and p.uid not in replaced)
    }
    done = w.attempt.done if w.attempt else frozenset()
    return [i for i in range(len(placement.nodes)) if i not in holding and i not in done]


def waits_for_room(town: Town, placements: dict[str, Placement], node: str) -> bool:
    """Whether a member that is not there yet was promised room on a node."""
    return any(
        placement.nodes[i] == node
        for uid, placement in placements.items()
        if not town.work[uid].finished
        and (a := town.work[uid].attempt) is not None
        and a.phase not in (RunPhase.SUCCEEDED, RunPhase.FAILED)
        for i in unplaced(town, town.work[uid], placement, set())
    )


def needs(w: Workload, placement: Placement) -> dict[str, int]:
    """What one member takes."""
    cpu = dict(w.request.shape.requests).get("cpu", 0) if w.request else 0
    return {placement.device.resource: placement.device.count, "pods": 1, "cpu": cpu}


def assert_gang_has_a_place_each(town: Town, w: Workload, pin: Pin, placement: Placement, made: Plan) -> None:
    """A gang is pinned once all its pods are there, each to the node recorded for it."""
    assert w.attempt is not None
    pods = {p.index for p in town.pods.values() if p.owner == w.ref.uid and p.attempt == w.attempt.number}
    assert pods | w.attempt.done == set(range(len(placement.nodes))), f"{w.ref.name} is pinned in part"
    assert placement.nodes[town.pods[pin.pod_uid].index] == pin.node
    assert all(node in town.machines for i, node in enumerate(placement.nodes) if i in pods - bound(town, w))


def bound(town: Town, w: Workload) -> set[int]:
    """The members that are bound, or have ended."""
    over = (*BOUND, PodPhase.SUCCEEDED, PodPhase.FAILED)
    return {p.index for p in town.pods.values() if p.owner == w.ref.uid and p.phase in over}


def assert_gang_is_together(town: Town, w: Workload, before: Placement | None, after: Placement) -> None:
    """The gang is whole, of one model, and obeys its topology, as far as those of it that stay do."""
    request = w.request
    assert request is not None
    assert len(after.nodes) == request.workers
    machines = {i: town.machines[name] for i, name in enumerate(after.nodes) if name in town.machines}
    moved = set(range(len(after.nodes)))
    if before is not None and len(before.nodes) == len(after.nodes):
        moved = {i for i in moved if before.nodes[i] != after.nodes[i]}
    assert moved <= machines.keys()
    assert {machines[i].model for i in moved} <= {after.device.model}
    for ranks, level, holds in bonds_of(request, after):
        known = [i for i in ranks if i in machines]
        staying = [machines[i] for i in known if i not in moved]
        if moved & set(known) and len(known) == len(ranks) and (not staying or holds(staying, level)):
            assert holds([machines[i] for i in known], level), (w.ref.name, level, after.nodes)


Bond = tuple[range, str, Callable[[list[Machine], str], bool]]
"""Ranks that must share a domain of a level, and how that is told."""


def bonds_of(request: Request, placement: Placement) -> list[Bond]:
    """What a request wants to be together."""
    topology, count = request.topology, len(placement.nodes)
    groups = [(g.size, g.level) for g in (topology.groups if topology else ()) if g.mode == "Required"]
    if request.tensor > placement.device.count:
        groups.append((request.tensor // placement.device.count, "nvlink"))
    found: list[Bond] = [
        (range(at, at + size), level, surely_together) for size, level in groups for at in range(0, count, size)
    ]
    if topology and topology.mode == "Required":
        found.append((range(count), topology.level, in_one_domain))
    return found


def assert_layout_is_sound(town: Town, action: LayOut) -> None:
    """Only legal starts, and nothing destroyed that is shown as held."""
    m = town.machines[action.node]
    shown = {b.index: b for b in m.reported}
    holders = {b.holder for b in m.reported} | {i.holder for b in m.reported for i in b.instances}
    there = {p.name for p in town.on(m.name) if p.resource.startswith("nvidia.com/")}
    assert action.relayout.attempt > 1 or there == holders - {""}, f"{m.name}: {there ^ holders}"
    for layout in action.relayout.boards:
        cut, board = wanted(layout), shown[layout.index]
        assert cut is None or is_legal(m.model, cut), (action.node, cut)
        if action.relayout.attempt == 1:
            assert dict(m.laid).get(layout.index, 0.0) + POLICY.relayout_pause_seconds <= town.now, (
                "it was laid just now"
            )
            held = {(i.profile.name, i.start) for i in board.instances if i.holder}
            assert not board.holder, action
            assert not held if m.way is Way.MIG_MANAGER else held <= set(cut or ())


def assert_nobody_is_touched(m: Machine, action: LayOut, held: dict[tuple[int, int], Member]) -> None:
    """Nothing that is set going would destroy what somebody holds in truth."""
    for layout in action.relayout.boards:
        old, new = m.boards[layout.index] or (("", WHOLE),), wanted(layout) or (("", WHOLE),)
        stays = set(new) if m.way is Way.AGENT else set()
        touched = [
            held[layout.index, at].name for name, at in old if (layout.index, at) in held and (name, at) not in stays
        ]
        assert not touched, f"board {layout.index} of {m.name} is held by {touched}"


def come_to_rest(town: Town, dice: Random) -> None:
    """Everybody does what they should, and nobody disturbs them."""
    begun = Counter(town.begun)
    for m in town.machines.values():
        if m.relayout is None:
            m.plugin = True
    for pod in [p for p in town.pods.values() if not p.owner and p.terminating]:
        del town.pods[pod.uid]
    for _ in range(QUIET_ROUNDS):
        for m in town.machines.values():
            if m.way is not None:
                town.report(m.name)
        town.note_statuses()
        snapshot = town.snapshot()
        made = plan(snapshot, POLICY, town.now)
        assert not made.faults, made.faults
        judge(town, snapshot, made)
        before = (dict(town.work), {uid: p.phase for uid, p in town.pods.items()})
        for action in made.actions:
            town.act(action, town.edits[action.ref.uid])
        for each in made.layouts:
            held = town.held(each.node)
            if town.lay_out(each):
                assert isinstance(each, LayOut)
                assert_nobody_is_touched(town.machines[each.node], each, held)
        town.make_pods()
        for pod in [p for p in town.pods.values() if p.phase is PodPhase.PINNED]:
            town.bind(pod, dice)
        for m in town.machines.values():
            town.work_on(m.name, dice, "done")
        working = any(m.relayout for m in town.machines.values())
        changed = before != (town.work, {uid: p.phase for uid, p in town.pods.items()})
        if not made.actions and not made.layouts and not changed and not working:
            if made.wake_at is None:
                assert_all_is_done(town, made)
                return
            town.now = max(town.now + 1, made.wake_at)
        town.now += 10.0
        assert all(n - begun[name] <= 12 for name, n in town.begun.items()), f"no end of re-layouts: {town.begun}"
    raise AssertionError(f"no rest: {made.actions} {made.layouts} {made.wake_at} {town.now}")


def assert_all_is_done(town: Town, made: Plan) -> None:
    """Every admitted pod runs, and nobody waits for what is there."""
    for uid, w in town.work.items():
        pods = [p for p in town.pods.values() if p.owner == uid]
        if w.ref.kind is Kind.TRAINING_JOB and not w.finished:
            assert (w.attempt is not None) == bool([p for p in pods if p.phase in ON_NODE]) or not pods, w.ref.name
            assert all(p.phase in (PodPhase.READY, PodPhase.SUCCEEDED) for p in pods), (w.ref.name, pods)
        assert not [p for p in pods if p.phase is PodPhase.PINNED], w.ref.name
        if not w.finished and made.verdicts[uid].reason.startswith(("Waiting", "NoFeasible", "NoMatching")):
            kept = made.verdicts[uid].reason in KEPT_FOR_OTHERS and waits_behind_another(town, w)
            assert kept or not room_for_one(town, w), f"{w.ref.name} waits: {made.verdicts[uid]}"


KEPT_FOR_OTHERS = (Reason.WAITING_FOR_RESERVATION, Reason.WAITING_FOR_TURN)


def waits_behind_another(town: Town, w: Workload) -> bool:
    """Whether someone waits who is served before it, so that room may be kept."""
    waiting = [v for v in town.work.values() if v.attempt is None and not v.finished and not v.suspend]
    return any(order(v) < order(w) for v in waiting)


def room_for_one(town: Town, w: Workload) -> bool:
    """Whether a job of one member could run as things stand, or once an idle board is laid out."""
    request = w.request
    if request is None or w.ref.kind is not Kind.TRAINING_JOB or request.workers > 1 or request.topology or w.suspend:
        return False
    if request.demand.memory_bytes or request.demand.models:
        return False
    profile = request.demand.profile
    resource = resource_of(profile) if profile else GPU
    cpu = dict(request.shape.requests).get("cpu", 0)
    prices = {model.name: model.usd_per_hour for model in MODELS}
    cheapest = min((m.model for m in town.machines.values()), key=prices.__getitem__, default="")
    for m in town.machines.values():
        if not profile and m.model != cheapest:  # what is dearer stands in for it at up to twice the price
            continue
        offered, used = m.offered(), town.used(m.name)
        if not m.ready or m.cordoned or offered["cpu"] - used.get("cpu", 0) < cpu:
            continue
        if offered.get(resource, 0) - used.get(resource, 0) >= (request.demand.count or 1):
            return True
        busy = {board for board, _ in town.held(m.name)}
        if busy & m.sick:  # more is used than offered: the planner leaves such a node alone
            continue
        idle = [index for index in m.boards if index not in busy | m.sick]
        if m.way and idle and (profile in GEOMETRY[m.model] if profile else request.demand.count == 1):
            return True
    return False


SEEDS = range(2**16)
EVENTS: tuple[tuple[int, str, dict[str, Sequence[Any]]], ...] = (  # how often, a rule, and what its arguments may be
    (1, "node_joins", {"kind": KINDS, "seed": SEEDS}),
    (1, "node_changes", {"what": NODE_CHANGES, "seed": SEEDS}),
    (3, "job_arrives", {"demand": DEMANDS, "workers": WORKERS, "topology": WISHES, "priority": (0, 1), "cpu": CPUS}),
    (1, "service_arrives", {"demand": SERVED, "replicas": (1, 2, 3)}),
    (1, "user_edits", {"what": EDITS, "seed": SEEDS}),
    (1, "stranger_comes", {"seed": SEEDS, "count": (1, 1, 2)}),
    (1, "stranger_leaves", {"seed": SEEDS, "again": (True, False)}),
    (3, "decide", {"seed": SEEDS}),
    (3, "carry_out", {"seed": SEEDS, "most": MOST_ACTIONS, "cut": range(4)}),
    (2, "lay_out", {"seed": SEEDS}),
    (1, "operator_restarts", {}),
    (2, "all_goes_well", {"seed": SEEDS, "rounds": (1, 2, 3, 4)}),
    (2, "pods_are_made", {"seed": SEEDS}),
    (2, "pods_are_bound", {"seed": SEEDS, "all_of_them": (True, False)}),
    (1, "member_changes", {"what": MISHAPS, "seed": SEEDS}),
    (1, "agent_reports", {"seed": SEEDS}),
    (1, "boards_are_laid_out", {"outcome": OUTCOMES, "seed": SEEDS}),
    (1, "time_passes", {"seconds": SECONDS}),
)


def live_through(seed: int, steps: int = 60) -> list[tuple[str, dict[str, Any]]]:
    """One history, of events that are drawn evenly; what happened, for whoever looks for the cause of a failure."""
    dice, m = Random(seed), Planning()
    past = [("cluster_is_there", {"kinds": dice.choices(KINDS, k=dice.randint(2, 4)), "seed": dice.choice(SEEDS)})]
    m.cluster_is_there(**past[0][1])
    weights = [weight for weight, _, _ in EVENTS]
    try:
        for _, name, given in dice.choices(EVENTS, weights, k=steps):
            if m.may(name):
                past.append((name, {key: dice.choice(values) for key, values in given.items()}))
                getattr(m, name)(**past[-1][1])
                m.boards_are_whole()
        m.teardown()
    except BaseException as error:
        error.add_note(f"in history {seed}: {past}")
        raise
    return past


@pytest.mark.parametrize("first", range(0, HISTORIES, HISTORIES // 4))
def test_histories_that_chance_alone_makes_break_nothing_either(first: int) -> None:
    for seed in range(first, first + HISTORIES // 4):
        live_through(seed)


def main() -> None:
    """Live through histories from a seed on, for so many seconds: `python -m tests.planning.test_machine 600 1000`."""
    end, first = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
    seed = first
    while time.monotonic() < end:
        live_through(seed)
        seed += 1
    print(f"{seed - first} histories from seed {first} on, and nothing broke")


TestPlanning = Planning.TestCase
TestPlanning.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)

if __name__ == "__main__":
    main()
