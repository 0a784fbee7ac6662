"""A model of the cluster that carries out plans: Jobs, pods, kube-scheduler and kubelet in a few lines.

It does what the real parts do as far as the planner can tell, in whole steps of a virtual clock. `apply` may be cut
short inside an action, after its intent is recorded, as a crash would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from berth.model.nodes import Node
from berth.model.resources import add
from berth.model.workloads import Attempt, Device, Kind, Pod, PodPhase, Queue, RunPhase, Workload
from berth.planning.actions import (
    Action,
    Admit,
    AskToSave,
    Expire,
    Finish,
    MakeAttempt,
    Move,
    Pin,
    Plan,
    Release,
    Replace,
    Serve,
    Shed,
    Stop,
)
from berth.planning.ledger import needs_of
from berth.planning.lifecycle import remembered
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot

ON_NODE = (PodPhase.PINNED, PodPhase.BOUND, PodPhase.READY)


@dataclass
class World:
    """The whole cluster; workloads by uid, the pods of others as what they use of each node."""

    nodes: dict[str, Node]
    workloads: dict[str, Workload]
    foreign: dict[str, dict[str, int]] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    now: float = 1_000_000.0
    made: int = 0  # pods made so far; names them
    moves: int = 0
    counted: set[tuple[str, int, int]] = field(default_factory=set)  # uid, attempt and index of pods that ended well
    disturbed: set[tuple[str, int, int]] = field(default_factory=set)  # those of them that were evicted

    def used(self) -> dict[str, dict[str, int]]:
        """What bound and pinned pods take from each node."""
        total = {name: dict(held) for name, held in self.foreign.items()}
        for w in self.workloads.values():
            for pod in w.pods:
                if pod.phase in ON_NODE:
                    total[pod.node] = add(total.get(pod.node, {}), self._needs(w, pod))
        return total

    def snapshot(self) -> Snapshot:
        """What the operator would observe now."""
        return Snapshot(self.nodes, self.used(), tuple(self.workloads.values()), self.queues)

    def plan(self) -> Plan:
        """The plan for this moment."""
        return plan(self.snapshot(), self.policy, self.now)

    def settle(self, rounds: int = 40, seconds: float = 1.0) -> None:
        """Plan, apply and let the cluster work, until nothing changes any more."""
        for _ in range(rounds):
            before = dict(self.workloads)
            made = self.plan()
            self.report()
            self.apply(made.actions)
            self.work()
            self.now += seconds
            if not made.actions and before == self.workloads:
                return
        raise AssertionError(f"no rest after {rounds} rounds: {made.actions}")

    def report(self) -> None:
        """The statuses are brought up to date."""
        for uid, w in self.workloads.items():
            self.workloads[uid] = replace(w, attempt=remembered(w, self.now))

    def evict(self, uid: str, index: int = 0) -> None:
        """A drain tells a running member to end; it will save, and exit with 0."""
        w = self.workloads[uid]
        evicted = (p.index == index and p.phase in (PodPhase.BOUND, PodPhase.READY) for p in w.pods)
        pods = tuple(replace(p, terminating=True) if hit else p for p, hit in zip(w.pods, evicted, strict=True))
        self.workloads[uid] = replace(w, pods=pods)

    def apply(self, actions: Iterable[Action], cut: bool = False) -> None:
        """Carry out actions in order; with `cut`, of the last one only what it records in the object's status."""
        todo = list(actions)
        for i, action in enumerate(todo):
            self._record(action)
            if not cut or i < len(todo) - 1:
                self._carry_out(action)

    def work(self) -> None:
        """One round of the Job and Deployment controllers, kube-scheduler and the kubelets."""
        for uid in list(self.workloads):
            self._bind(uid)
            self._control(uid)
            self._start(uid)

    def end(self, uid: str, phase: PodPhase, index: int = 0, refusal: str = "") -> None:
        """One member of a job ends, and its Job with it where it failed or was the last."""
        w = self.workloads[uid]
        pods = tuple(replace(p, phase=phase, refusal=refusal) if p.index == index else p for p in w.pods)
        attempt = w.attempt
        assert attempt is not None
        if phase is PodPhase.FAILED:
            attempt = replace(attempt, phase=RunPhase.FAILED)
            pods = tuple(p for p in pods if p.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED))
        else:
            self.counted.add((uid, attempt.number, index))
            attempt = self._completed(uid, attempt)
        self.workloads[uid] = replace(w, pods=pods, attempt=attempt)

    def _completed(self, uid: str, attempt: Attempt) -> Attempt:
        """The attempt, its Job complete where each index was counted as ended well."""
        whole = all((uid, attempt.number, i) in self.counted for i in range(len(attempt.placement.nodes)))
        return replace(attempt, phase=RunPhase.SUCCEEDED) if whole else attempt

    def _needs(self, w: Workload, pod: Pod) -> dict[str, int]:
        device = pod.device or (w.attempt.placement.device if w.attempt else w.served_device)
        assert device is not None
        assert w.request is not None
        return needs_of(w.request.shape, device)

    def _record(self, action: Action) -> None:
        """What an action writes into the object's status, first of all."""
        w = self.workloads[action.ref.uid]
        verdict = getattr(action, "verdict", None) or w.verdict
        match action:
            case Admit():
                attempt = Attempt(action.number, action.placement, self.now)
                w = replace(w, attempt=attempt, attempts_made=action.number, verdict=verdict, gave_way_to=None)
            case Move() if w.attempt:
                self.moves += 1
                attempt = replace(w.attempt, placement=action.placement)
                w = replace(w, attempt=attempt, avoid=action.avoid, verdict=verdict)
            case Stop() if w.attempt:
                attempt = replace(w.attempt, stopping=action.reason)
                w = replace(w, attempt=attempt, avoid=action.avoid, not_before=action.not_before)
                w = replace(w, moved=action.moved or w.moved, gave_way_to=action.gives_way_to or w.gave_way_to)
                w = replace(w, resized=action.resize or w.resized, failures=action.failures or w.failures)
            case AskToSave():
                w = replace(w, save_request=action.request)
            case Shed():
                w = replace(w, shed=tuple(uid for _, uid in action.pods), gave_way_to=action.gives_way_to)
            case Finish():
                w = replace(w, finished=action.outcome, finished_at=self.now, failures=action.failures or w.failures)
        self.workloads[action.ref.uid] = w

    def _carry_out(self, action: Action) -> None:
        w = self.workloads[action.ref.uid]
        attempt = w.attempt
        match action:
            case Admit() | MakeAttempt() if attempt and attempt.phase is RunPhase.ABSENT:
                w = replace(w, attempt=replace(attempt, phase=RunPhase.RUNNING))
            case Pin():
                w = self._with_pod(w, action.pod_uid, phase=PodPhase.PINNED, node=action.node, pinned_at=self.now)
            case Replace():
                w = replace(w, pods=tuple(p for p in w.pods if p.uid != action.pod_uid))
            case Shed():
                gone = {uid for _, uid in action.pods}
                w = replace(w, pods=tuple(p for p in w.pods if p.uid not in gone))
            case Stop() if attempt and attempt.phase is RunPhase.RUNNING:
                w = replace(w, attempt=replace(attempt, phase=RunPhase.SUSPENDED))
            case Release():
                w = replace(w, attempt=None, pods=(), started_at=0.0)
            case Serve():
                w = replace(w, served_device=action.device, served_generation=w.generation)
            case Expire():
                del self.workloads[action.ref.uid]
                return
        self.workloads[action.ref.uid] = w

    def _with_pod(self, w: Workload, uid: str, *, phase: PodPhase, node: str, pinned_at: float) -> Workload:
        pods = tuple(
            replace(p, phase=phase, node=node, pinned_at=pinned_at) if p.uid == uid and p.phase is PodPhase.GATED else p
            for p in w.pods
        )
        return replace(w, pods=pods)

    def _bind(self, uid: str) -> None:
        """kube-scheduler binds a pinned pod where its node has room in truth; else it stays pinned."""
        w = self.workloads[uid]
        pods = []
        for pod in w.pods:
            if pod.phase is PodPhase.PINNED and self._has_room(w, pod):
                pod = replace(pod, phase=PodPhase.READY, pinned_at=0.0)
            pods.append(pod)
            self.workloads[uid] = replace(w, pods=(*pods, *w.pods[len(pods) :]))

    def _start(self, uid: str) -> None:
        """A gang has started once all its members are ready."""
        w = self.workloads[uid]
        ready = sum(p.phase is PodPhase.READY for p in w.pods)
        if w.attempt is not None and not w.started_at and ready and ready == len(w.attempt.placement.nodes):
            self.workloads[uid] = replace(w, started_at=self.now)

    def _has_room(self, w: Workload, pod: Pod) -> bool:
        node = self.nodes.get(pod.node)
        if node is None or not node.ready or node.unschedulable:
            return False
        bound = {name: dict(held) for name, held in self.foreign.items()}
        for other in self.workloads.values():
            for p in other.pods:
                if p.phase in (PodPhase.BOUND, PodPhase.READY):
                    bound[p.node] = add(bound.get(p.node, {}), self._needs(other, p))
        total = add(bound.get(pod.node, {}), self._needs(w, pod))
        return all(n <= node.allocatable.get(name, 0) for name, n in total.items())

    def _control(self, uid: str) -> None:
        """The Job or Deployment makes the pods it lacks, or ends those of a suspended Job."""
        w = self.workloads[uid]
        attempt = w.attempt
        if w.ref.kind is Kind.INFERENCE_SERVICE:
            if w.served_device is not None and w.request is not None:
                pods = tuple(p for p in w.pods if p.device == w.served_device)
                missing = w.request.workers - len(pods)
                new = tuple(self._pod(w.served_device) for _ in range(missing))
                self.workloads[uid] = replace(w, pods=(*pods, *new))
        elif attempt is not None and attempt.phase is RunPhase.SUSPENDED:
            self.workloads[uid] = replace(w, pods=tuple(p for p in w.pods if p.phase is PodPhase.SUCCEEDED))
        elif attempt is not None and attempt.phase is RunPhase.RUNNING:
            leaving = {(uid, attempt.number, p.index) for p in w.pods if p.terminating}
            self.counted |= leaving
            self.disturbed |= leaving
            pods = tuple(p for p in w.pods if not p.terminating)
            there = {p.index for p in pods}
            ranks = range(len(attempt.placement.nodes))
            lacking = [i for i in ranks if i not in there and (uid, attempt.number, i) not in self.counted]
            new = tuple(self._pod(None, attempt.number, i) for i in lacking)
            self.workloads[uid] = replace(w, pods=(*pods, *new), attempt=self._completed(uid, attempt))

    def _pod(self, device: Device | None, attempt: int = 0, index: int = 0) -> Pod:
        self.made += 1
        name = f"pod-{self.made}"
        return Pod(name, f"uid-{name}", PodPhase.GATED, attempt, index, created=self.now, device=device)
