"""Laws of giving way, in virtual time: random trees of queues, arrivals, ends and priorities."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from berth.model.workloads import PodPhase, Queue, Workload
from berth.planning.actions import Admit, Plan, Stop
from berth.planning.snapshot import Policy, Preempting
from berth.planning.victims import LOOK_SECONDS
from tests.planning.builders import a_job, a_node
from tests.planning.world import World

STEP = 60.0
MIN_RUNTIME = 300.0
GRACE = MIN_RUNTIME + LOOK_SECONDS + 3 * STEP  # guaranteed to others; until it looks; told, ended and admitted
NODES, BOARDS = 3, 4


@dataclass(frozen=True)
class Coming:
    """A job of single boards that arrives at a step, and runs for so many when it is let."""

    step: int
    lasts: int
    job: Workload


@dataclass
class History:
    """A cluster as time passes, with what must hold at each step."""

    queues: list[Queue]
    coming: list[Coming]
    evicted: Counter[str] = field(default_factory=Counter)
    lone: dict[str, float] = field(default_factory=dict)  # since when each has waited though its queue owns its boards

    def __post_init__(self) -> None:
        """Nobody is there yet."""
        nodes = {f"n{i}": a_node(f"n{i}", gpus=BOARDS) for i in range(NODES)}
        policy = Policy(preemption=Preempting(MIN_RUNTIME))
        self.world = World(nodes, {}, queues={q.name: q for q in self.queues}, policy=policy)

    def pass_by(self) -> None:
        """Let everybody come, run and end."""
        last = max(one.step for one in self.coming)
        bound = last + sum(one.lasts for one in self.coming) + 60 * len(self.coming)
        for step in range(bound):
            for one in self.coming:
                if one.step == step:
                    self.world.workloads[one.job.ref.uid] = replace(one.job, created=self.world.now)
            self._step()
            if step > last and all(w.finished for w in self.world.workloads.values()):
                return
        raise AssertionError(f"not all have ended after {bound} steps: {self.evicted}")

    def _step(self) -> None:
        world = self.world
        made = world.plan()
        assert made == world.plan()
        assert not made.faults
        for action in made.actions:
            if isinstance(action, Admit):
                w = world.workloads[action.ref.uid]
                assert w.request is not None
                assert len(action.placement.nodes) == w.request.workers
            if isinstance(action, Stop) and action.gives_way_to is not None:
                self._check_stop(action, made)
        world.report()
        world.apply(made.actions)
        world.work()
        self._run()
        self._check_quota()
        self._check_owners()
        world.now += STEP

    def _run(self) -> None:
        """Gangs that are whole have started; those that have run for as long as they last end well."""
        lasts = {one.job.ref.uid: one.lasts for one in self.coming}
        for uid, w in list(self.world.workloads.items()):
            if w.attempt is None or w.finished or w.attempt.stopping:
                continue
            if not w.started_at and w.pods and all(p.phase is PodPhase.READY for p in w.pods):
                self.world.workloads[uid] = replace(w, started_at=self.world.now)
            elif w.started_at and self.world.now - w.started_at >= lasts[uid] * STEP:
                for pod in w.pods:
                    self.world.end(uid, PodPhase.SUCCEEDED, pod.index)

    def _check_stop(self, action: Stop, made: Plan) -> None:
        """Nobody before its guaranteed runtime, and never for an equal or lower priority in the same queue."""
        v, to = self.world.workloads[action.ref.uid], action.gives_way_to
        assert v.attempt is not None
        assert to is not None
        if v.attempt.stopping:
            return
        better = self.world.workloads[to.ref.uid]
        self.evicted[v.ref.uid] += 1
        assert self.world.now - (v.started_at or v.attempt.admitted_at) >= MIN_RUNTIME
        if v.queue == better.queue:
            assert v.priority < better.priority
        else:
            new = [self.world.workloads[a.ref.uid] for a in made.actions if isinstance(a, Admit)]
            held = self._held(v.queue) + sum(_boards(w) for w in new if w.queue == v.queue)
            assert held > self._owns(v.queue), "only what is borrowed is taken back"

    def _check_quota(self) -> None:
        assert sum(self._held(q.name) for q in self.queues) <= NODES * BOARDS
        for q in self.queues:
            if q.nominal and "H100" in q.borrowing:
                assert self._held(q.name) <= q.nominal["H100"] + q.borrowing["H100"]

    def _check_owners(self) -> None:
        """Work that its queue owns the boards for is not kept waiting by borrowers beyond their grace."""
        first: dict[str, Workload] = {}
        for w in sorted(self.world.workloads.values(), key=lambda w: (-w.priority, w.created, -_boards(w), w.ref.uid)):
            if w.attempt is None and not w.finished:
                first.setdefault(w.queue, w)
        owned = {w.ref.uid for q, w in first.items() if self._held(q) + _boards(w) <= self._owns(q)}
        self.lone = {uid: self.lone.get(uid, self.world.now) for uid in sorted(owned)}
        late = [uid for uid, since in self.lone.items() if self.world.now - since > GRACE]
        assert not late, f"{late} wait for what is their queue's own"

    def _held(self, queue: str) -> int:
        return sum(
            _boards(w) for w in self.world.workloads.values() if w.queue == queue and w.attempt and not w.finished
        )

    def _owns(self, queue: str) -> int:
        return (self.world.queues[queue].nominal or {}).get("H100", 0)


def _boards(w: Workload) -> int:
    assert w.request is not None
    return w.request.workers


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Two or three queues that own all boards together, and up to ten jobs."""
    boards = NODES * BOARDS
    mine = draw(st.integers(0, boards))
    others = draw(st.integers(0, boards - mine))
    limit = draw(st.sampled_from((None, 0, 3)))
    borrowing = {} if limit is None else {"H100": limit}
    shares = {"a": mine, "b": others, "c": boards - mine - others}
    queues = [Queue(name, {"H100": n}, borrowing if name == "a" else {}, parent="root") for name, n in shares.items()]
    coming = [
        Coming(
            draw(st.integers(0, 20)),
            draw(st.integers(1, 30)),
            a_job(f"j{i}", workers=draw(st.integers(1, 6)), queue=name, priority=draw(st.integers(0, 2))),
        )
        for i in range(draw(st.integers(2, 10)))
        if shares[name := draw(st.sampled_from("abc"))] or name != "a"
    ]
    return History([Queue("root", {}), *queues], coming)


@given(histories())
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_owners_get_theirs_back_in_time_nobody_loses_what_is_owned_and_none_is_evicted_for_ever(
    history: History,
) -> None:
    """And at each step quotas hold, gangs are whole, and the same state gives the same plan."""
    live_through(history)


def live_through(history: History) -> None:
    """Let a history pass, and count who had to give way how often."""
    able = [one for one in history.coming if _boards(one.job) <= _most(history, one.job.queue)]
    history.coming = able
    if not able:
        return
    history.pass_by()
    most = len(able)
    assert all(times <= most for times in history.evicted.values()), history.evicted
    assert history.evicted.total() <= most * most


def _most(history: History, queue: str) -> int:
    known = next(q for q in history.queues if q.name == queue)
    owned = (known.nominal or {}).get("H100", 0)
    return min(NODES * BOARDS, owned + known.borrowing.get("H100", NODES * BOARDS))
