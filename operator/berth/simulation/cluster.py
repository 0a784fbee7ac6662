"""The cluster that carries plans out: Jobs, Deployments, kube-scheduler and kubelets, as far as a planner can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from berth.model.gpus import BoardModel
from berth.model.prices import region_of
from berth.model.workloads import Attempt, Pod, PodPhase, Queue, RunPhase
from berth.planning.actions import (
    Action,
    Admit,
    EndLayout,
    Finish,
    LayOut,
    LetGo,
    Move,
    NodeAction,
    Pin,
    Plan,
    Release,
    Replace,
    Serve,
    Shed,
    Stop,
)
from berth.planning.fleet import Nodes
from berth.planning.ledger import needs_of
from berth.planning.lifecycle import remembered
from berth.planning.options import boards_of
from berth.planning.snapshot import Snapshot
from berth.planning.spells import Sightings, looked
from berth.simulation.clock import Clock
from berth.simulation.conditions import Sky
from berth.simulation.life import Life, Spell, full_name
from berth.simulation.machines import EPOCH, Machine
from berth.simulation.places import Place, Places
from berth.simulation.scenario import Delays, Failure
from berth.simulation.work import Arrival

BOUND = (PodPhase.BOUND, PodPhase.READY)
A_MOMENT = 1e-6  # seconds; sums of times are not exact
TOLERATED_SECONDS = 300.0  # of a node that is not heard of, by pods that say nothing else


@dataclass
class Cluster:
    """All there is at one moment. `wake` is called whenever something changed that a plan may answer to."""

    clock: Clock
    machines: Mapping[str, Machine]
    delays: Delays = field(default_factory=Delays)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    sky: Sky | None = None  # carbon intensity, where it is known
    wake: Callable[[], None] = lambda: None
    lives: dict[str, Life] = field(default_factory=dict)  # by uid: all that is not over
    over: list[Life] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)  # uids of those of which a member has no place
    evictions: Counter[str] = field(default_factory=Counter)  # of gangs, by reason
    repartitions: int = 0
    useful_board_seconds: float = 0.0  # of members that ran, and whose work was not lost
    touched: set[str] = field(default_factory=set)  # nodes that changed since someone last looked
    charged: Mapping[str, float] = field(default_factory=dict)  # boards by queue, of its own work
    due: Mapping[str, float] = field(default_factory=dict)  # the part that its weight gives a queue
    _nodes: Nodes = field(default_factory=lambda: Nodes({}))
    _changed_nodes: set[str] = field(default_factory=set)  # since the last snapshot
    _changed: set[str] = field(default_factory=set)  # uids of workloads that changed since then
    _places: Places = field(default_factory=Places)
    _models: dict[str, BoardModel] = field(default_factory=dict)
    _unbound: dict[str, set[str]] = field(default_factory=dict)  # by node: uids of workloads whose pod it did not take
    _reporting: tuple[str, ...] = ()  # nodes whose boards are reported by an agent
    _spot: tuple[Machine, ...] = ()
    _sightings: Mapping[tuple[str, str], Sightings] = field(default_factory=dict)  # of spot nodes, by region and model
    _looked: float = EPOCH  # when they were looked at last
    _pods_made: int = 0

    def __post_init__(self) -> None:
        """Every node is new to the planner."""
        self._reporting = tuple(name for name, machine in self.machines.items() if machine.node.way is not None)
        self._spot = tuple(machine for machine in self.machines.values() if machine.node.spot)
        self._models = {machine.board.name: machine.board for machine in self.machines.values()}
        self._changed_nodes = set(self.machines)
        self.touched = set(self.machines)

    # What the operator sees, and asks for

    def snapshot(self) -> Snapshot:
        """What the operator would observe now."""
        names = sorted(name for name in self._changed_nodes if self.machines[name].node is not self._nodes.get(name))
        if names:
            self._nodes = Nodes(dict(self._nodes) | {name: self.machines[name].node for name in names})
        self._changed_nodes = set()
        now = EPOCH + self.clock.now
        for uid in self._changed & self.lives.keys():
            life = self.lives[uid]
            life.workload = replace(life.workload, attempt=remembered(life.workload, now))
        self._changed = set()
        return Snapshot(
            nodes=self._nodes,
            used=dict(self._places.used),
            workloads=tuple(life.workload for life in self.lives.values()),
            queues=self.queues,
            holding=dict(self._places.holding),
            observed=dict.fromkeys(self._reporting, now),  # agents report every change at once
            outlooks=self.sky.outlooks(now) if self.sky else {},
            spot=self._look_at_spot(now),
        )

    def _look_at_spot(self, now: float) -> Mapping[tuple[str, str], Sightings]:
        """How spot capacity came and went, as an operator sees it that looks whenever it plans."""
        there: dict[tuple[str, str], bool] = {}
        for machine in self._spot:
            key = region_of(machine.node.labels), machine.board.name
            there[key] = there.get(key, False) or (machine.node.ready and machine.node.interruption is None)
        self._sightings = looked(self._sightings, there, now - self._looked)
        self._looked = now
        return self._sightings

    def carry_out(self, plan: Plan) -> None:
        """Do what a plan asks for."""
        pins: dict[str, list[Pin]] = {}
        for action in plan.actions:
            self._changed.add(action.ref.uid)
            if isinstance(action, Pin):
                pins.setdefault(action.ref.uid, []).append(action)
            else:
                self._act(self.lives[action.ref.uid], action)
        for uid, given in pins.items():
            self._pin(self.lives[uid], given)
        for each in plan.layouts:
            self._lay_out(each)

    def remember(self, plan: Plan) -> None:
        """Keep what each queue used so far, as the operator does."""
        pasts = {name: has.standing.past for name, has in plan.queues.items() if has.standing}
        self.queues = {name: replace(queue, past=pasts[name]) for name, queue in self.queues.items()}
        self.charged = {name: sum(past.boards.values()) for name, past in pasts.items() if past.boards}
        self.due = {name: has.standing.due for name, has in plan.queues.items() if has.standing}

    def _act(self, life: Life, action: Action) -> None:
        match action:
            case Admit():
                self._admit(life, action)
            case Move():
                attempt = replace(life.workload.attempt, placement=action.placement) if life.workload.attempt else None
                life.workload = replace(life.workload, attempt=attempt, avoid=action.avoid, verdict=action.verdict)
            case Replace():
                self._remove(life, lambda pod: pod.uid == action.pod_uid)
                self.clock.after(self.delays.pods, partial(self._make_pods, action.ref.uid))
            case Stop():
                self._stop(life, action)
            case Release():
                self._note_spell(life, action.reason)
                w = life.workload
                worked = w.worked_seconds + (max(0.0, w.saved_at - w.started_at) if w.started_at else 0.0)
                life.workload = replace(w, attempt=None, pods=(), started_at=0.0, worked_seconds=worked)
                self.waiting.add(action.ref.uid)
                self.wake()
            case Finish():
                self._leave(life, action.outcome)
            case Serve():
                self._serve(life, action)
            case LetGo():
                pass  # no service gets smaller here
            case Shed():
                self._shed(life, action)
            case _:
                raise NotImplementedError(f"no simulated cluster knows how to {action}")

    def _admit(self, life: Life, action: Admit) -> None:
        attempt = Attempt(action.number, action.placement, EPOCH + self.clock.now, RunPhase.RUNNING)
        life.workload = replace(
            life.workload,
            attempt=attempt,
            attempts_made=action.number,
            verdict=action.verdict,
            pods=(),
            gave_way_to=None,
        )
        life.broken = False
        self._place(life)
        self.clock.after(self.delays.pods, partial(self._make_pods, action.ref.uid))

    def _place(self, life: Life) -> None:
        """All members have a place."""
        self.waiting.discard(life.workload.ref.uid)
        life.placed_at = self.clock.now if life.placed_at is None else life.placed_at

    def _pin(self, life: Life, pins: Sequence[Pin]) -> None:
        device = life.device
        if device is None:
            return
        needs, pinned_at = needs_of(life.arrival.request.shape, device), EPOCH + self.clock.now
        nodes = {pin.pod_uid: pin.node for pin in pins}
        pods = [
            replace(p, phase=PodPhase.PINNED, node=nodes[p.uid], pinned_at=pinned_at) if p.uid in nodes else p
            for p in life.workload.pods
        ]
        for pod in pods:
            if pod.uid in nodes:
                self._places.take(full_name(pod), pod.created, Place(pod.node, needs, device.resource))
        life.workload = replace(life.workload, pods=tuple(pods))
        if len(life.on_nodes) >= life.members:
            self._place(life)
        self.clock.after(self.delays.binding, partial(self._bind, life.workload.ref.uid))

    def _stop(self, life: Life, action: Stop) -> None:
        w = life.workload
        if w.attempt is None or w.attempt.stopping:
            return
        attempt = replace(w.attempt, stopping=action.reason, phase=RunPhase.SUSPENDED)
        moved = action.moved or w.moved
        life.workload = replace(w, attempt=attempt, avoid=action.avoid, moved=moved, not_before=action.not_before)
        claim, resized = action.gives_way_to or w.gave_way_to, action.resize or w.resized
        life.workload = replace(life.workload, gave_way_to=claim, resized=resized)
        life.evictions += 1
        if life.arrival.saves_every is not None and life.ready_since is not None:  # it saves when it is told to stop
            life.save(self.clock.now - life.ready_since)
            self._rest(life)
        life.ready_since = None
        self.evictions[action.reason] += 1
        self.clock.after(self.delays.termination, partial(self._clear, action.ref.uid, action.number))

    def _shed(self, life: Life, action: Shed) -> None:
        """Replicas are told to end; others are made at once, and wait."""
        uids = frozenset(uid for _, uid in action.pods)
        life.workload = replace(life.workload, shed=tuple(sorted(uids)), gave_way_to=action.gives_way_to)
        if uids:
            life.change(lambda pod: pod.uid in uids, terminating=True)
            self.waiting.add(action.ref.uid)
            self.evictions[action.reason] += len(uids)
            self.clock.after(self.delays.termination, partial(self._end_pods, action.ref.uid, uids))
            self.clock.after(self.delays.pods, partial(self._make_pods, action.ref.uid))

    def _serve(self, life: Life, action: Serve) -> None:
        w = life.workload
        others = [p.uid for p in w.pods if p.device != action.device]
        self._remove(life, lambda pod: pod.uid in others)
        life.workload = replace(life.workload, served_device=action.device, served_generation=w.generation)
        self.clock.after(self.delays.pods, partial(self._make_pods, action.ref.uid))

    def _lay_out(self, action: NodeAction) -> None:
        machine = self.machines[action.node]
        match action:
            case LayOut():
                machine.begin(action.relayout)
                self.repartitions += action.relayout.attempt == 1
                self.clock.after(self.delays.relayout, partial(self._laid_out, action))
            case EndLayout():
                machine.end(action.laid, action.trouble)
                self._retry(action.node)
                self.wake()
        self._touch(action.node)

    def _laid_out(self, action: LayOut) -> None:
        machine = self.machines[action.node]
        if machine.node.relayout == action.relayout:
            machine.finish()
            self._touch(action.node)
            self.wake()

    # What happens in it

    def arrive(self, arrival: Arrival) -> None:
        """A workload is applied."""
        life = Life.of(arrival)
        uid = life.workload.ref.uid
        self.lives[uid] = life
        self.waiting.add(uid)
        if not life.is_job and arrival.duration is not None:
            self.clock.after(arrival.duration, partial(self._delete, uid))
        self.wake()

    def fail(self, failure: Failure) -> None:
        """A node goes down. What it ran is lost unless it is back before its cluster notices."""
        self._turn(failure.node, ready=False)
        self.clock.after(failure.lasting, partial(self._turn, failure.node, ready=True))
        if failure.lasting < self.delays.node_loss:
            return
        self._break(failure.node)
        self.clock.after(self.delays.node_loss + TOLERATED_SECONDS, partial(self._lose, failure.node))

    def warn(self, node: str, deadline: float) -> None:
        """A spot node says that it is taken back then."""
        self.machines[node].warn(deadline)
        self._touch(node)
        self.wake()

    def withdraw(self, node: str, seconds: float) -> None:
        """It is taken back, with all that still runs there; another takes its place after so long."""
        self._turn(node, ready=False)
        self._break(node)
        self._lose(node)
        self.clock.after(seconds, partial(self._turn, node, ready=True))

    def _break(self, node: str) -> None:
        """The jobs that run on a node stop there, and go on from their last periodic save."""
        for life in self._lives_on(node):
            if life.is_job and life.ready_since is not None and (saved := life.saved_seconds(self.clock.now)):
                self._count_useful(life, saved)
                life.save(saved)
            if life.is_job:
                life.broken, life.ready_since = True, None

    def _turn(self, node: str, *, ready: bool) -> None:
        self.machines[node].turn(ready=ready, noticed=EPOCH + self.clock.now + self.delays.node_loss)
        self._touch(node)
        if ready:
            self._retry(node)
        self.wake()

    def _lose(self, node: str) -> None:
        """The pods of a dead node are told to end; those of a job go with their gang."""
        for life in self._lives_on(node):
            uid = life.workload.ref.uid
            lost = {p.uid for p in life.workload.pods if p.node == node and p.phase in BOUND}
            life.change(lambda pod, lost=lost: pod.uid in lost, terminating=True)  # type: ignore[misc]
            self._changed.add(uid)
            if not life.is_job:
                self._rest(life)
                self.waiting.add(uid)
                self.clock.after(self.delays.termination, partial(self._end_pods, uid, frozenset(lost)))
                self.clock.after(self.delays.pods, partial(self._make_pods, uid))
        self.wake()

    def _lives_on(self, node: str) -> list[Life]:
        return [
            life
            for life in self.lives.values()
            if any(p.node == node and p.phase in BOUND and not p.terminating for p in life.workload.pods)
        ]

    def _end_pods(self, uid: str, pods: frozenset[str]) -> None:
        life = self.lives.get(uid)
        if life is not None:
            self._remove(life, lambda pod: pod.uid in pods)
            self._changed.add(uid)
            self.wake()

    def _make_pods(self, uid: str) -> None:
        """The Job or Deployment makes the pods that it lacks, gated."""
        life = self.lives.get(uid)
        if life is None:
            return
        w, attempt = life.workload, life.workload.attempt
        new: list[Pod] = []
        if life.is_job and attempt is not None and attempt.phase is RunPhase.RUNNING:
            there = {p.index for p in w.pods} | attempt.done
            new = [self._pod(life, attempt.number, i) for i in range(life.members) if i not in there]
        elif not life.is_job and w.served_device is not None:
            lacking = life.members - sum(not p.terminating for p in w.pods)
            new = [replace(self._pod(life), device=w.served_device) for _ in range(lacking)]
        if new:
            life.workload = replace(w, pods=(*w.pods, *new))
            self._changed.add(uid)
            self.wake()

    def _pod(self, life: Life, attempt: int = 0, index: int = 0) -> Pod:
        self._pods_made += 1
        name = f"{life.arrival.name}-{attempt}-{index}-{self._pods_made}"
        return Pod(name, name, PodPhase.GATED, attempt, index, created=EPOCH + self.clock.now)

    def _bind(self, uid: str) -> None:
        """kube-scheduler binds pinned pods where there is room; the others it tries again when there may be."""
        life = self.lives.get(uid)
        if life is None:
            return
        due = EPOCH + self.clock.now - self.delays.binding + A_MOMENT
        bound: set[str] = set()
        for pod in life.workload.pods:
            if pod.phase is not PodPhase.PINNED or pod.pinned_at > due:
                continue
            place = self._places.of(full_name(pod))
            if self.machines[place.node].bind(full_name(pod), place.needs, place.resource):
                bound.add(pod.uid)
                life.bound_at[pod.name] = self.clock.now
                self._touch(place.node)
            else:
                self._unbound.setdefault(place.node, set()).add(uid)
        if bound:
            life.change(lambda pod: pod.uid in bound, phase=PodPhase.BOUND, pinned_at=0.0)
            self.clock.after(self.delays.readiness, partial(self._ready, uid))
            if self.waiting and self._reporting:
                self.wake()  # who holds which board is known now, so that the others may be laid out anew

    def _retry(self, node: str) -> None:
        for uid in sorted(self._unbound.pop(node, ())):
            self.clock.after(0.0, partial(self._bind, uid))

    def _ready(self, uid: str) -> None:
        """Bound pods become ready; the run begins once all members are."""
        life = self.lives.get(uid)
        if life is None:
            return
        due = self.clock.now - self.delays.readiness + A_MOMENT
        at = life.bound_at
        life.change(lambda p: p.phase is PodPhase.BOUND and at.get(p.name, due + 1) <= due, phase=PodPhase.READY)
        if life.is_ready and life.ready_since is None and not life.broken:
            self._begin(life)

    def _begin(self, life: Life) -> None:
        w, now = life.workload, self.clock.now
        life.ready_since = now
        life.started_at = now if life.started_at is None else life.started_at
        if w.attempt is not None:
            life.workload = replace(w, started_at=EPOCH + now)
            self._save_later(life, w.attempt.number)
            if life.run_seconds is not None:
                self.clock.after(life.run_seconds, partial(self._succeed, w.ref.uid, w.attempt.number))

    def _save_later(self, life: Life, number: int) -> None:
        if life.arrival.saves_every is not None:
            self.clock.after(life.arrival.saves_every, partial(self._note_save, life.workload.ref.uid, number))

    def _note_save(self, uid: str, number: int) -> None:
        """A periodic save is durable: the planner hears of it."""
        life = self.lives.get(uid)
        if life is not None and life.ready_since is not None and life.workload.attempts_made == number:
            life.workload = replace(life.workload, saved_at=EPOCH + self.clock.now)
            self._save_later(life, number)

    def _succeed(self, uid: str, number: int) -> None:
        """All workers of an attempt end well, unless it was stopped meanwhile."""
        life = self.lives.get(uid)
        attempt = life.workload.attempt if life else None
        if life is None or attempt is None or attempt.number != number or attempt.stopping or life.broken:
            return
        self._rest(life)
        for pod in life.workload.pods:
            self._free(pod)
        life.change(lambda pod: True, phase=PodPhase.SUCCEEDED)
        life.workload = replace(life.workload, attempt=replace(attempt, phase=RunPhase.SUCCEEDED))
        life.ended_at = self.clock.now
        self._changed.add(uid)
        self.wake()

    def _clear(self, uid: str, number: int) -> None:
        """The pods of a stopped attempt are gone."""
        life = self.lives.get(uid)
        if life is not None and life.workload.attempt is not None and life.workload.attempt.number == number:
            self._remove(life, lambda pod: True)
            self._changed.add(uid)
            self.wake()

    def _delete(self, uid: str) -> None:
        """A service is deleted, with all its pods."""
        life = self.lives.get(uid)
        if life is not None:
            self._rest(life)
            self._remove(life, lambda pod: True)
            self._leave(life, "Deleted")

    def _leave(self, life: Life, outcome: str) -> None:
        uid = life.workload.ref.uid
        if life.is_job:
            self._note_spell(life, "")
        del self.lives[uid]
        self.waiting.discard(uid)
        life.outcome = outcome
        life.ended_at = self.clock.now if life.ended_at is None else life.ended_at
        life.workload = replace(life.workload, pods=())
        self.over.append(life)
        if self.waiting:
            self.wake()

    # What it is counted by

    def settle(self) -> None:
        """Count what runs at the end as useful so far, and what is held."""
        for life in self.lives.values():
            self._rest(life)
            if life.is_job and life.workload.attempt is not None:
                self._note_spell(life, "")
            for pod in () if life.is_job else life.workload.pods:
                self._note_replica(life, pod)

    def _note_spell(self, life: Life, reason: str) -> None:
        life.spells.append(Spell(life.workload, EPOCH + self.clock.now, reason))

    def _note_replica(self, life: Life, pod: Pod) -> None:
        if pod.name in life.bound_at:
            held = replace(pod, created=EPOCH + life.bound_at[pod.name])
            life.spells.append(Spell(replace(life.workload, pods=(held,)), EPOCH + self.clock.now))

    def _rest(self, life: Life) -> None:
        """A run that lost nothing ends, or pauses."""
        if life.ready_since is not None:
            self._count_useful(life, self.clock.now - life.ready_since)
        life.ready_since = None

    def _count_useful(self, life: Life, seconds: float) -> None:
        device = life.device
        if device is not None:
            boards = float(boards_of(device, self._models[device.model])) * life.members
            self.useful_board_seconds += boards * seconds

    def _remove(self, life: Life, which: Callable[[Pod], bool]) -> None:
        for pod in life.workload.pods:
            if which(pod):
                if not life.is_job:
                    self._note_replica(life, pod)
                self._free(pod)
        life.drop(which)

    def _free(self, pod: Pod) -> None:
        """A pod gives back what it holds."""
        place = self._places.leave(full_name(pod))
        if place is not None:
            self.machines[place.node].release(full_name(pod))
            self._touch(place.node)
            self._retry(place.node)

    def _touch(self, node: str) -> None:
        self.touched.add(node)
        self._changed_nodes.add(node)
