"""Over any sequence of notices, failures and saves no work is lost that was durable, and every job ends.

Jobs train in a model of the cluster (`tests.planning.world`), step by step, and save as docs/checkpoints.md has it:
into a folder for each attempt, durable only some time after a save began. Nodes are taken back with and without notice,
go silent and come back, lose boards, are drained; the operator dies in the middle of what it does; processes may not
answer, and those that nobody reaches finish saving all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.control.checkpoints import earlier
from berth.model.boards import Board
from berth.model.nodes import Interruption, Node
from berth.model.workloads import Pod, PodPhase, RunPhase, Workload
from berth.planning.actions import Action, Admit, Release
from tests.planning.builders import a_job, a_node, model
from tests.planning.world import World

STEPS = 12  # of work that each job has
SAVE_ROUNDS = 2  # from the beginning of a save until it is durable
QUIET_ROUNDS = 400
NODES = ("n1", "n2", "n3", "n4")
ON_NODE = (PodPhase.BOUND, PodPhase.READY)
EVENTS = ("notice", "short notice", "drain", "sick", "silent", "gone", "well", "well", "well", "save", "save")


@dataclass
class Training:
    """One job as its program sees it, and what lies in its folders."""

    polls: bool  # whether its members ask for save requests
    answers: bool  # and answer them
    at: int = 0  # the last step that the live attempt has done
    began: int = 0  # number of the attempt that has resumed
    writing: tuple[int, int, int] | None = None  # attempt, step, and rounds until it is durable
    durable: dict[int, int] = field(default_factory=dict)  # the last durable step by attempt
    reported: int = 0  # the attempt that reported a durable checkpoint last
    computed: list[int] = field(default_factory=list)  # every step, as often as it was computed
    lost: int = 0  # steps to compute again, less those that an attempt out of reach saved later


class Site(World):
    """The cluster, with programs that train on it."""

    def __init__(self, dice: Random) -> None:
        """Four nodes and a few gangs."""
        super().__init__({name: a_node(name) for name in NODES}, {})
        self.dice = dice
        self.training: dict[str, Training] = {}
        self.admitted: set[tuple[str, int]] = set()
        self.left_behind: list[tuple[str, Pod]] = []  # pods that had not ended when their attempt was released
        for i in range(dice.randint(1, 4)):
            job = a_job(f"j{i}", workers=dice.choice((1, 2, 2)), gpus=dice.choice((2, 4, 8)), created=float(i))
            self.workloads[job.ref.uid] = job
            polls = dice.random() < 0.6
            self.training[job.ref.uid] = Training(polls, polls and dice.random() < 0.7)

    # What happens to nodes

    def disturb(self, what: str, name: str) -> None:
        """Something happens to a node."""
        node = self.nodes.get(name)
        match what:
            case "well":
                self._forget_pods_on(name)
                self.nodes[name] = a_node(name)
            case "gone":
                self._forget_pods_on(name, all_of_them=True)
                self.nodes.pop(name, None)
            case "save":
                for uid, t in self.training.items():
                    self._begin_saving(self.workloads[uid], t)
            case _ if node is not None:
                self.nodes[name] = self._disturbed(node, what)

    def _disturbed(self, node: Node, what: str) -> Node:
        match what:
            case "notice":
                return replace(node, interruption=Interruption("SpotInterruption", "", self.now + 120))
            case "short notice":
                return replace(node, interruption=Interruption("SpotInterruption", "", self.now + 5))
            case "drain":
                return replace(node, interruption=Interruption("Drain", ""))
            case "sick":
                holders = [f"{w.ref.namespace}/{p.name}" for w in self.workloads.values() for p in w.pods]
                held = [h for h in holders if any(h.endswith(p.name) for p in self._pods_on(node.name))]
                bad = Board(0, model("H100-80GB"), healthy=False, holder=self.dice.choice(held) if held else "")
                left = {**node.allocatable, "nvidia.com/gpu": node.allocatable["nvidia.com/gpu"] - 1}
                return replace(node, boards=(bad,), allocatable=left)
        return replace(node, ready=False, lost_since=self.now)

    def _pods_on(self, name: str) -> Iterable[Pod]:
        return [p for w in self.workloads.values() for p in w.pods if p.node == name]

    def _forget_pods_on(self, name: str, *, all_of_them: bool = False) -> None:
        """A node that comes back ends the pods that it was to end; those of one that is gone go with it."""
        self.left_behind = [(uid, p) for uid, p in self.left_behind if p.node != name]
        for uid, w in self.workloads.items():
            pods = tuple(p for p in w.pods if p.node != name or not (p.terminating or all_of_them))
            self.workloads[uid] = replace(w, pods=pods)

    def _reaches(self, name: str) -> bool:
        node = self.nodes.get(name)
        return node is not None and node.ready

    # What programs do

    def train(self) -> None:
        """A round of every program that all members of are there for."""
        for uid, t in self.training.items():
            w = self.workloads[uid]
            if w.attempt is None or w.attempt.phase is not RunPhase.RUNNING or w.finished:
                continue
            ready = [p for p in w.pods if p.attempt == w.attempt.number and p.phase is PodPhase.READY]
            if len(ready) < w.size or not all(self._reaches(p.node) and not p.terminating for p in ready):
                continue
            if t.began != w.attempt.number:
                self._resume(w, t)
            w = self.workloads[uid]
            if t.answers and w.save_request and w.save_request.attempt == t.began and w.saved_for != w.save_request.id:
                self._begin_saving(w, t)
            t.at += 1
            t.computed.append(t.at)
            self._write(w, t)
            if t.at >= STEPS:
                for i in range(w.size):
                    self.end(uid, PodPhase.SUCCEEDED, i)

    def _resume(self, w: Workload, t: Training) -> None:
        """Begin from the newest durable checkpoint that RESUME_FROM leads to."""
        assert w.attempt is not None
        number = w.attempt.number
        named = earlier(number, t.reported)
        there = [n for n in named if n in t.durable]
        assert number not in t.durable, "an attempt finds its own folder empty"
        assert not t.durable or there, f"{t.durable} saved, and only {named} looked at"
        assert t.writing is None or t.writing[0] != number, "nobody else writes to this folder"
        before, t.at, t.began = t.at, t.durable[there[0]] if there else 0, number
        t.lost += before - t.at
        listens = number if t.polls else 0
        self.workloads[w.ref.uid] = replace(w, listens=listens, saved_at=0.0)

    def _begin_saving(self, w: Workload, t: Training) -> None:
        if t.writing is None and w.attempt is not None and t.began == w.attempt.number and not w.attempt.stopping:
            t.writing = (t.began, t.at, SAVE_ROUNDS)

    def _write(self, w: Workload, t: Training) -> None:
        if t.writing is None:
            return
        attempt, step, left = t.writing
        t.writing = (attempt, step, left - 1) if left > 1 else None
        if t.writing is None:
            self._durable(w, t, attempt, step)

    def _durable(self, w: Workload, t: Training, attempt: int, step: int) -> None:
        t.durable[attempt], t.reported = step, attempt
        asked = w.save_request
        answers = asked.id if asked and t.answers and asked.attempt == attempt else w.saved_for
        self.workloads[w.ref.uid] = replace(w, saved_at=self.now, saved_for=answers)

    # What the cluster does beside what its model does

    def _record(self, action: Action) -> None:
        if isinstance(action, Admit):
            assert (action.ref.uid, action.number) not in self.admitted, "each attempt has a number of its own"
            self.admitted.add((action.ref.uid, action.number))
        super()._record(action)

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Release):
            pods = self.workloads[action.ref.uid].pods
            self.left_behind += [(action.ref.uid, p) for p in pods if p.phase in ON_NODE]
        super()._carry_out(action)

    def _control(self, uid: str) -> None:
        """The pods of a suspended Job save at SIGTERM, or don't, and end; those out of reach only should."""
        w = self.workloads[uid]
        if w.attempt is None or w.attempt.phase is not RunPhase.SUSPENDED:
            super()._control(uid)
            return
        t = self.training[uid]
        running = [p for p in w.pods if p.phase in ON_NODE]
        if running and not any(p.terminating for p in running):
            whole = all(self._reaches(p.node) for p in running)
            if whole and t.began == w.attempt.number and self.dice.random() < 0.7:
                self._durable(w, t, t.began, t.at)
                w = self.workloads[uid]
            t.writing = None if whole else t.writing
            running = [replace(p, terminating=True) for p in running]
        else:  # told to end, they take their time; out of reach, they don't
            stays = {p.uid for p in running if self.dice.random() < 0.5 or not self._reaches(p.node)}
            running = [p for p in running if p.uid in stays]
        ended = [p for p in w.pods if p.phase is PodPhase.SUCCEEDED]
        self.workloads[uid] = replace(w, pods=(*ended, *(p for p in running if p.node in self.nodes)))

    def check(self) -> None:
        """What must hold at any moment."""
        for uid, w in self.workloads.items():
            pods = [*w.pods, *(p for owner, p in self.left_behind if owner == uid)]
            live = {p.attempt for p in pods if p.phase in ON_NODE and self._reaches(p.node)}
            assert len(live) <= 1, f"{w.ref.name} runs twice at once: attempts {sorted(live)}"

    def round(self, *, cut: bool = False) -> None:
        """The operator plans and acts, perhaps not to the end, and everybody else goes on."""
        made = self.plan()
        self.report()
        self.apply(made.actions if not cut else made.actions[: self.dice.randint(0, len(made.actions))], cut=cut)
        self.check()
        self.work()
        self.train()
        self.check()
        self.now += self.dice.choice((1.0, 2.0, 5.0, 20.0))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_durable_is_lost_no_job_runs_twice_and_every_job_ends(seed: int) -> None:
    live_through(seed)


def live_through(seed: int) -> Site:
    """A random history, and peace after it."""
    dice = Random(seed)
    site = Site(dice)
    for _ in range(dice.randint(5, 60)):
        if dice.random() < 0.3:
            site.disturb(dice.choice(EVENTS), dice.choice(NODES))
        site.round(cut=dice.random() < 0.2)
    for name in NODES:
        site.disturb("well", name)
    for _ in range(QUIET_ROUNDS):
        if all(w.finished for w in site.workloads.values()):
            break
        site.round()
    assert {w.finished for w in site.workloads.values()} == {"Succeeded"}
    for t in site.training.values():
        assert sorted(set(t.computed)) == list(range(1, STEPS + 1))
        assert len(t.computed) == STEPS + t.lost
    return site


@pytest.mark.parametrize("what", ["notice", "drain", "sick"])
def test_who_answers_in_time_computes_no_step_twice(what: str) -> None:
    site = Site(Random(1))
    site.workloads = dict([next(iter(site.workloads.items()))])
    (uid,) = site.workloads
    site.training = {uid: Training(polls=True, answers=True)}
    for _ in range(6):
        site.round()
    assert site.training[uid].at >= 1
    moved = site.workloads[uid]
    site.disturb(what, moved.pods[0].node)
    for _ in range(60):
        site.round()
    assert site.workloads[uid].finished == "Succeeded"
    assert site.workloads[uid].attempts_made == 2
    assert site.training[uid].lost <= SAVE_ROUNDS, "the steps while the save became durable, at most"
