"""A queue before a small fleet, in steps of virtual time: what is admitted runs at once, and ends when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from berth.model.nodes import Node
from berth.model.workloads import PodPhase, Workload
from berth.planning.actions import Admit
from berth.planning.ledger import needs_of
from berth.planning.plan import worked_out
from berth.planning.reserved import Reservation
from berth.planning.snapshot import Policy
from tests.planning.builders import a_snapshot, running


@dataclass
class Line:
    """Jobs that wait and run; how long each takes in truth is known here alone."""

    nodes: list[Node]
    policy: Policy
    now: float = 1_000_000.0
    takes: dict[str, float] = field(default_factory=dict)  # seconds, by uid
    waiting: dict[str, Workload] = field(default_factory=dict)
    runs: dict[str, Workload] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)  # when, by uid
    kept: Mapping[str, Reservation] = field(default_factory=dict)  # by uid, of the last plan

    def join(self, job: Workload, takes: float) -> None:
        """One more job, made now."""
        self.waiting[job.ref.uid] = replace(job, created=self.now)
        self.takes[job.ref.uid] = takes

    def step(self, seconds: float) -> None:
        """End what is over, plan, start what is admitted; then time goes on."""
        over = [uid for uid, w in self.runs.items() if w.started_at + self.takes[uid] <= self.now]
        for uid in over:
            del self.runs[uid]
        work = (*self.runs.values(), *self.waiting.values())
        s, made = worked_out(a_snapshot(self.nodes, *work, used=self._used()), self.policy, self.now)
        self.kept = {held.reservation.ref.uid: held.reservation for held in s.reserved}
        for action in made.actions:
            if isinstance(action, Admit):
                self._start(action)
        self.now += seconds

    def _start(self, action: Admit) -> None:
        job = self.waiting.pop(action.ref.uid)
        placement = action.placement
        self.runs[action.ref.uid] = running(
            job,
            *placement.nodes,
            pods=PodPhase.READY,
            device=placement.device,
            admitted_at=self.now,
            started_at=self.now,
        )
        self.started[action.ref.uid] = self.now

    def _used(self) -> dict[str, dict[str, int]]:
        used: dict[str, dict[str, int]] = {}
        for w in self.runs.values():
            assert w.attempt is not None
            assert w.request is not None
            for node in w.attempt.placement.nodes:
                held = used.setdefault(node, {})
                for name, n in needs_of(w.request.shape, w.attempt.placement.device).items():
                    held[name] = held.get(name, 0) + n
        return used
