"""A cluster in truth, as plain as can be: which pod holds which piece of which board, whatever anybody reports.

It carries plans out as the API server, mig-manager, agents, kube-scheduler and kubelets would, and knows nothing of the
planner: legal starts, room and topology are worked out here by a table and by trying. `tests.planning.test_machine`
disturbs it, and judges each plan by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from berth.model.boards import Board, Instance
from berth.model.gpus import MODELS
from berth.model.nodes import BoardLayout, Node, Progress, Relayout, Trouble, Way
from berth.model.workloads import Attempt, Kind, Pod, PodPhase, Queue, RunPhase, Workload
from berth.planning.actions import (
    Action,
    Admit,
    EndLayout,
    Expire,
    Finish,
    LayOut,
    MakeAttempt,
    Move,
    NodeAction,
    Pin,
    Release,
    Replace,
    Serve,
    Shed,
    Stop,
)
from berth.planning.lifecycle import remembered
from berth.planning.snapshot import Snapshot

GPU = "nvidia.com/gpu"
WHOLE = -1  # the start of the one piece of a board that is not partitioned
LADDER = (  # broadest first; as in the operator's defaults, with one label each
    ("zone", "topology.kubernetes.io/zone"),
    ("rack", "berth.dev/rack"),
    ("nvlink", "nvidia.com/gpu.clique"),
)
# Memory slices and legal starts by profile; NVIDIA MIG user guide, "Supported MIG profiles".
GEOMETRY: Mapping[str, Mapping[str, tuple[int, tuple[int, ...]]]] = {
    "A100-80GB": {
        "1g.10gb": (1, (0, 1, 2, 3, 4, 5, 6)),
        "1g.10gb+me": (1, (0, 1, 2, 3, 4, 5, 6)),
        "1g.20gb": (2, (0, 2, 4, 6)),
        "2g.20gb": (2, (0, 2, 4)),
        "3g.40gb": (4, (0, 4)),
        "4g.40gb": (4, (0,)),
        "7g.80gb": (8, (0,)),
    },
    "A30": {
        "1g.6gb": (1, (0, 1, 2, 3)),
        "1g.6gb+me": (1, (0, 1, 2, 3)),
        "2g.12gb": (2, (0, 2)),
        "2g.12gb+me": (2, (0, 2)),
        "4g.24gb": (4, (0,)),
    },
    "H100-80GB": {},
}
ON_NODE = (PodPhase.PINNED, PodPhase.BOUND, PodPhase.READY)
BOUND = (PodPhase.BOUND, PodPhase.READY)
ENDED = (PodPhase.SUCCEEDED, PodPhase.FAILED)

Cut = tuple[tuple[str, int], ...]
"""The instances of a board: profile and start."""


def is_legal(model: str, cut: Cut) -> bool:
    """Whether a board can be cut so."""
    known = GEOMETRY[model]
    slices = [i for name, start in cut for i in range(start, start + known[name][0])]
    return (
        all(start in known[name][1] for name, start in cut)
        and len(slices) == len(set(slices))
        and sum(name.endswith("+me") for name, _ in cut) <= 1
    )


def arrangements(model: str, names: tuple[str, ...], so_far: Cut = ()) -> Iterator[Cut]:
    """Every way to put these profiles on a board."""
    if not names:
        yield tuple(sorted(so_far, key=lambda piece: piece[1]))
        return
    for start in GEOMETRY[model][names[0]][1]:
        if is_legal(model, (*so_far, (names[0], start))):
            yield from arrangements(model, names[1:], (*so_far, (names[0], start)))


def resource_of(profile: str) -> str:
    """What the device plugin calls it."""
    return "nvidia.com/mig-" + profile.replace("+", ".")


@dataclass
class Member:
    """A pod: one of ours, or (`owner` "") of somebody else."""

    name: str
    uid: str
    owner: str
    resource: str
    count: int
    cpu: int = 0
    attempt: int = 0
    index: int = 0
    phase: PodPhase = PodPhase.GATED
    node: str = ""
    created: float = 0.0
    pinned_at: float = 0.0
    terminating: bool = False
    refusal: str = ""
    pieces: tuple[tuple[int, int], ...] = ()  # board and start
    model: str = ""

    @property
    def needs(self) -> dict[str, int]:
        """All that it takes of a node."""
        return {self.resource: self.count, "pods": 1, "cpu": self.cpu}


@dataclass
class Machine:
    """A node: what is there, what the kubelet offers, what was reported, and what Berth noted."""

    name: str
    model: str
    labels: dict[str, str]
    cpu: int
    way: Way | None
    boards: dict[int, Cut | None]  # None: whole
    ready: bool = True
    cordoned: bool = False
    sick: set[int] = field(default_factory=set)
    plugin: bool = True  # whether the kubelet offers GPUs at all
    relayout: Relayout | None = None
    state: str = ""  # of whoever lays out: "asked", "working", "failed", "done"
    laid: tuple[tuple[int, float], ...] = ()
    trouble: Trouble | None = None
    reported: tuple[Board, ...] = ()
    observed: float = 0.0

    def pieces(self, resource: str) -> list[tuple[int, int]]:
        """The pieces of a kind, held ones included."""
        found = []
        for index, cut in self.boards.items():
            if index not in self.sick:
                named = [(GPU, WHOLE)] if cut is None else [(resource_of(name), start) for name, start in cut]
                found += [(index, start) for name, start in named if name == resource]
        return found

    def offered(self) -> dict[str, int]:
        """Allocatable as the kubelet has it."""
        return self._allocatable(self.boards if self.plugin else {})

    def coming(self) -> dict[str, int]:
        """Allocatable as it will be, by what is reported and what is under way."""
        shown: dict[int, Cut | None] = {b.index: cut_of(b) for b in self.reported if b.healthy}
        for layout in self.relayout.boards if self.relayout else ():
            if layout.index in shown:
                shown[layout.index] = wanted(layout)
        return self._allocatable(shown)

    def _allocatable(self, boards: Mapping[int, Cut | None]) -> dict[str, int]:
        total = {"cpu": self.cpu, "pods": 20, GPU: 0} | {resource_of(p): 0 for p in GEOMETRY[self.model]}
        for index, cut in boards.items():
            if index not in self.sick:
                for name in [GPU] if cut is None else [resource_of(p) for p, _ in cut]:
                    total[name] += 1
        return total


def cut_of(board: Board) -> Cut | None:
    """A reported board, plainly."""
    return tuple((i.profile.name, i.start) for i in board.instances) if board.mig_enabled else None


def wanted(layout: BoardLayout) -> Cut | None:
    """A layout asked for, plainly."""
    return tuple((i.profile.name, i.start) for i in layout.instances) if layout.mig_enabled else None


@dataclass
class Town:
    """All there is."""

    now: float = 1_000_000.0
    machines: dict[str, Machine] = field(default_factory=dict)
    work: dict[str, Workload] = field(default_factory=dict)  # by uid; their pods are in `pods`
    pods: dict[str, Member] = field(default_factory=dict)  # by uid
    queues: Mapping[str, Queue] = field(default_factory=dict)
    edits: Counter[str] = field(default_factory=Counter)  # by uid: how often a user changed the object
    assumed: dict[str, LayOut] = field(default_factory=dict)  # by node: decided, not written yet
    begun: Counter[str] = field(default_factory=Counter)  # by node: re-layouts set going
    made: int = 0

    # What the operator sees

    def snapshot(self) -> Snapshot:
        """What it would observe now."""
        return Snapshot(
            nodes={name: self._node(m) for name, m in self.machines.items()},
            used={name: used for name in self.machines if (used := self.used(name))},
            workloads=tuple(self._workload(uid) for uid in self.work),
            queues=self.queues,
            holding={
                name: {p.name: p.created for p in self.on(name) if p.resource.startswith("nvidia.com/")}
                for name in self.machines
            },
            observed={name: m.observed for name, m in self.machines.items() if m.way is not None},
        )

    def on(self, node: str) -> list[Member]:
        """The pods bound or pinned to a node."""
        return [p for p in self.pods.values() if p.node == node and p.phase in ON_NODE]

    def used(self, node: str) -> dict[str, int]:
        """What they take."""
        total: Counter[str] = Counter()
        for pod in self.on(node):
            total.update(pod.needs)
        return dict(total)

    def held(self, node: str) -> dict[tuple[int, int], Member]:
        """Who holds which piece."""
        return {piece: p for p in self.pods.values() if p.node == node and p.phase in BOUND for piece in p.pieces}

    def _node(self, m: Machine) -> Node:
        ours = self.assumed.get(m.name)
        relayout = ours.relayout if ours else m.relayout
        if relayout is not None:
            relayout = replace(relayout, progress=Progress.WORKING if ours else self._progress(m))
        shown = replace(m, relayout=relayout)
        return Node(
            name=m.name,
            labels={"kubernetes.io/hostname": m.name, **m.labels},
            allocatable=shown.coming() if relayout and m.reported else m.offered(),
            ready=m.ready,
            unschedulable=m.cordoned,
            board=next(model for model in MODELS if model.name == m.model),
            boards=m.reported if m.way else (),
            way=m.way,
            relayout=relayout,
            laid=m.laid,
            trouble=m.trouble,
        )

    def _progress(self, m: Machine) -> Progress:
        assert m.relayout is not None
        if m.state == "failed":
            return Progress.FAILED
        shown = {b.index: cut_of(b) for b in m.reported}
        met = all(profiles(shown.get(each.index)) == profiles(wanted(each)) for each in m.relayout.boards)
        same = m.coming() == m.offered()
        return Progress.DONE if m.state == "done" and met and same else Progress.WORKING

    def _workload(self, uid: str) -> Workload:
        pods = [p for p in self.pods.values() if p.owner == uid]
        return replace(self.work[uid], pods=tuple(self._pod(self.work[uid], p) for p in pods))

    def _pod(self, w: Workload, p: Member) -> Pod:
        return Pod(
            p.name.partition("/")[2], p.uid, p.phase, p.attempt, p.index, p.node, p.created, p.pinned_at, p.terminating,
            p.refusal, None, "", w.served_device if w.ref.kind is Kind.INFERENCE_SERVICE else None,
        )  # fmt: skip

    def note_statuses(self) -> None:
        """The operator brings its records up to date before it plans."""
        for uid, w in self.work.items():
            self.work[uid] = replace(w, attempt=remembered(self._workload(uid), self.now))

    # What it has done

    def act(self, action: Action, edits: int, *, only_record: bool = False) -> None:
        """Carry an action out, unless the object was changed since it was decided; or only what it records."""
        uid = action.ref.uid
        if uid not in self.work:
            return
        current = self.edits[uid] == edits
        w = self.work[uid]
        match action:
            case Admit() if current:
                self.work[uid] = replace(
                    w,
                    attempt=Attempt(action.number, action.placement, self.now),
                    attempts_made=action.number,
                    started_at=0.0,
                    not_before=0.0,
                    gave_way_to=None,
                )
                if not only_record:
                    self._run_job(uid)
            case MakeAttempt():
                self._run_job(uid)
            case Pin():
                self._pin(action)
            case Move() if current and w.attempt:
                attempt = replace(w.attempt, placement=action.placement)
                self.work[uid] = replace(w, attempt=attempt, avoid=action.avoid)
            case Replace():
                self._evict(action.pod_uid)
            case Stop() if w.attempt and w.attempt.number == action.number:
                if not w.attempt.stopping and current:
                    w = replace(w, avoid=action.avoid or w.avoid, not_before=action.not_before)
                    w = replace(w, gave_way_to=action.gives_way_to or w.gave_way_to)
                    w = replace(w, failures=action.failures or w.failures)
                    self.work[uid] = replace(w, attempt=replace(w.attempt, stopping=action.reason))  # type: ignore[type-var]
                if not only_record and (current or w.attempt.stopping):  # type: ignore[union-attr]
                    self._suspend_job(uid)
            case Release() if current:
                for pod in [p for p in self.pods.values() if p.owner == uid]:
                    del self.pods[pod.uid]
                self.work[uid] = replace(w, attempt=None, started_at=0.0)
            case Finish() if current:
                failures = action.failures or w.failures
                self.work[uid] = replace(w, finished=action.outcome, finished_at=self.now, failures=failures)
            case Serve() if current:
                if action.device != w.served_device:
                    for pod in [p for p in self.pods.values() if p.owner == uid]:
                        del self.pods[pod.uid]
                self.work[uid] = replace(w, served_device=action.device, served_generation=w.generation)
            case Shed() if current:
                self.work[uid] = replace(w, shed=tuple(u for _, u in action.pods), gave_way_to=action.gives_way_to)
                for _, pod_uid in () if only_record else action.pods:
                    self.pods.pop(pod_uid, None)
            case Expire():
                del self.work[uid]

    def _evict(self, uid: str) -> None:
        """A pod is told to end, unless it was bound since that was decided: only those on bad boards are told then."""
        pod = self.pods.get(uid)
        machine = self.machines.get(pod.node) if pod else None
        if self._is(uid, PodPhase.PINNED) or (machine is not None and machine.sick):
            del self.pods[uid]

    def _is(self, uid: str, phase: PodPhase) -> bool:
        return uid in self.pods and self.pods[uid].phase is phase

    def _pin(self, action: Pin) -> None:
        if self._is(action.pod_uid, PodPhase.GATED):
            pod = self.pods[action.pod_uid]
            pod.phase, pod.node, pod.pinned_at = PodPhase.PINNED, action.node, self.now

    def _run_job(self, uid: str) -> None:
        attempt = self.work[uid].attempt
        if attempt and attempt.phase is RunPhase.ABSENT:
            self.work[uid] = replace(self.work[uid], attempt=replace(attempt, phase=RunPhase.RUNNING))

    def _suspend_job(self, uid: str) -> None:
        attempt = self.work[uid].attempt
        if attempt and attempt.phase is RunPhase.RUNNING:
            self.work[uid] = replace(self.work[uid], attempt=replace(attempt, phase=RunPhase.SUSPENDED))

    def look(self, action: LayOut) -> str:
        """What the last look before a re-layout finds against it, from the pods bound and from what is reported."""
        m = self.machines[action.node]
        shown = {b.holder for b in m.reported} | {i.holder for b in m.reported for i in b.instances}
        bound = {p.name: p for p in self.on(m.name) if p.phase in BOUND}
        if bound.keys() != shown - {""} or any(p.created > m.observed for p in bound.values()):
            return "unknown"
        for layout in action.relayout.boards:
            for board in m.reported:
                stays = set(wanted(layout) or ()) if action.relayout.way is Way.AGENT else set()
                held = [i for i in board.instances if i.holder and (i.profile.name, i.start) not in stays]
                if board.index == layout.index and (board.holder or held):
                    return "held"
        return ""

    def lay_out(self, action: NodeAction) -> bool:
        """Carry out an action on a node; whether boards are now being laid out by it."""
        self.assumed.pop(action.node, None)
        m = self.machines.get(action.node)
        if m is None:
            return False
        if isinstance(action, EndLayout):
            m.relayout, m.laid, m.trouble, m.state = None, action.laid, action.trouble, ""
            m.plugin = True
            return False
        found = self.look(action)
        if found == "held" and action.relayout.attempt > 1:
            m.relayout, m.state, m.plugin = None, "", True
            m.trouble = Trouble((m.trouble.times if m.trouble else 0) + 1, self.now + 60, found)
        if found:
            return False
        m.relayout, m.state = action.relayout, "asked"
        self.begun[m.name] += action.relayout.attempt == 1
        return True

    # What happens in it

    def report(self, name: str) -> None:
        """The agent of a node says what is there."""
        m = self.machines[name]
        model = next(each for each in MODELS if each.name == m.model)
        holders = {piece: p.name for piece, p in self.held(name).items()}
        found = []
        for index, cut in m.boards.items():
            instances = tuple(
                Instance(next(p for p in model.profiles if p.name == profile), start, holders.get((index, start), ""))
                for profile, start in cut or ()
            )
            whole = holders.get((index, WHOLE), "")
            found.append(Board(index, model, index not in m.sick, cut is not None, instances, whole))
        m.reported, m.observed = tuple(found), self.now

    def work_on(self, name: str, dice: Random, outcome: str) -> None:
        """mig-manager or the agent goes on: it finishes, fails or is stuck; what is held, nobody can destroy."""
        m = self.machines[name]
        if m.relayout is None or m.state not in ("asked", "working"):
            return
        if m.state == "asked":
            m.state, m.plugin = "working", m.way is Way.AGENT
            return
        held = self.held(name)
        for layout in m.relayout.boards:
            new = set(wanted(layout) or [("", WHOLE)])
            old = set(m.boards[layout.index] or [("", WHOLE)])
            keep = old & new if m.way is Way.AGENT else set()
            if any((layout.index, start) in held for _, start in old - keep):
                m.state, m.plugin = ("working", True) if m.way is Way.AGENT else ("failed", True)
                return
        if outcome == "done":
            for layout in m.relayout.boards:
                m.boards[layout.index] = self._started(m, wanted(layout), dice)
            m.state, m.plugin = "done", True
        elif outcome == "fail":
            m.state, m.plugin = "failed", dice.random() < 0.5

    def _started(self, m: Machine, cut: Cut | None, dice: Random) -> Cut | None:
        """The agent begins instances where it is told, mig-manager where it likes."""
        if cut is None or m.way is Way.AGENT:
            return cut
        ways = sorted(set(arrangements(m.model, tuple(sorted(name for name, _ in cut)))))
        return dice.choice(ways)

    def make_pods(self, dice: Random | None = None) -> None:
        """Jobs and Deployments make the pods that they lack (by `dice`: some of them), and end those they need not."""
        for uid, w in self.work.items():
            pods = [p for p in self.pods.values() if p.owner == uid]
            if w.ref.kind is Kind.INFERENCE_SERVICE:
                self._scale(w, pods)
            elif w.attempt and w.attempt.phase is RunPhase.SUSPENDED:
                for pod in pods:
                    if pod.phase not in ENDED:
                        del self.pods[pod.uid]
            elif w.attempt and w.attempt.phase is RunPhase.RUNNING:
                self._complete(w, w.attempt, pods, dice)

    def _scale(self, w: Workload, pods: list[Member]) -> None:
        for pod in pods:
            if pod.phase in ENDED or pod.terminating:
                del self.pods[pod.uid]
        there = [p for p in pods if p.uid in self.pods]
        if w.served_device is None or w.request is None or w.served_generation != w.generation:
            return
        for pod in there[w.request.workers :]:
            del self.pods[pod.uid]
        for _ in range(w.request.workers - len(there)):
            self._new(w, w.served_device.resource, w.served_device.count)

    def _complete(self, w: Workload, attempt: Attempt, pods: list[Member], dice: Random | None) -> None:
        if any(p.phase is PodPhase.FAILED for p in pods):
            self.work[w.ref.uid] = replace(w, attempt=replace(attempt, phase=RunPhase.FAILED))
            for pod in pods:
                if pod.phase not in ENDED:
                    del self.pods[pod.uid]
            return
        leaving = [p for p in pods if p.terminating and p.phase in BOUND]
        for pod in leaving:  # told to end, it saved and exits with 0
            pod.phase = PodPhase.SUCCEEDED
        for pod in [p for p in pods if p.terminating and p.phase not in ENDED]:
            del self.pods[pod.uid]
        there = {p.index for p in pods if p.uid in self.pods and p.attempt == attempt.number}
        device = attempt.placement.device
        for index in range(len(attempt.placement.nodes)):
            late = dice is not None and dice.random() < 0.4
            if index not in there and index not in attempt.done and not late:
                self._new(w, device.resource, device.count, attempt.number, index)
        ended = {p.index for p in pods if p.phase is PodPhase.SUCCEEDED and p.attempt == attempt.number}
        if ended | attempt.done >= set(range(len(attempt.placement.nodes))):
            self.work[w.ref.uid] = replace(w, attempt=replace(attempt, phase=RunPhase.SUCCEEDED))

    def _new(self, w: Workload, resource: str, count: int, attempt: int = 0, index: int = 0) -> None:
        self.made += 1
        name = f"team/{w.ref.name}-{self.made}"
        cpu = dict(w.request.shape.requests).get("cpu", 0) if w.request else 0
        self.pods[name] = Member(name, name, w.ref.uid, resource, count, cpu, attempt, index, created=self.now)

    def bind(self, pod: Member, dice: Random) -> bool:
        """kube-scheduler binds a pod to its node if that has room, and the kubelet picks any devices, or refuses it."""
        m = self.machines.get(pod.node)
        if m is None or not m.ready or m.cordoned or pod.terminating:
            return False
        taken: Counter[str] = Counter(pod.needs)
        for other in self.on(m.name):
            if other.phase in BOUND:
                taken.update(other.needs)
        offered = m.offered()
        if any(taken[name] > offered.get(name, 0) for name, n in pod.needs.items() if n):
            return False
        held = self.held(m.name)
        free = [piece for piece in m.pieces(pod.resource) if piece not in held]
        if len(free) < pod.count:
            pod.phase, pod.refusal = PodPhase.FAILED, "UnexpectedAdmissionError"
            return True
        pod.pieces = tuple(dice.sample(free, pod.count))
        pod.phase, pod.pinned_at = PodPhase.READY, 0.0
        return True

    def intrude(self, name: str, node: str, resource: str, count: int, dice: Random) -> None:
        """Somebody else's pod comes to a node, if it has room in truth."""
        pod = Member(name, f"{name}/{self.made}", "", resource, count, 0, node=node, created=self.now)
        self.made += 1
        if self.bind(pod, dice) and pod.phase is PodPhase.READY:
            self.pods[pod.uid] = pod


def profiles(cut: Cut | None) -> list[str] | None:
    """The profiles of a board, wherever they begin."""
    return None if cut is None else sorted(name for name, _ in cut)


def path_of(m: Machine, level: str) -> tuple[str, ...]:
    """The node's domains down to a level."""
    names = [name for name, _ in LADDER]
    return tuple(m.labels.get(label, "") for _, label in LADDER[: names.index(level) + 1])


def in_one_domain(machines: list[Machine], level: str) -> bool:
    """Whether labels say that the nodes share a domain of a level."""
    if level == "node":
        return len({m.name for m in machines}) == 1
    paths = {path_of(m, level) for m in machines}
    return len(paths) == 1 and bool(next(iter(paths))[-1])


def surely_together(machines: list[Machine], level: str) -> bool:
    """Whether nodes share a domain of a level: by its label, else by that of a closer level, else being one node."""
    names = [name for name, _ in LADDER]
    closer = names[names.index(level) :] if level in names else []
    for each in (*closer, "node"):
        if in_one_domain(machines, each):
            return True
        if each != "node" and any(path_of(m, each)[-1] for m in machines):
            return False
    return False
