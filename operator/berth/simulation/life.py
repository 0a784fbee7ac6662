"""One workload from its arrival to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from berth.model.workloads import Device, Kind, Pod, PodPhase, Ref, Workload
from berth.planning.lifecycle import ON_NODES
from berth.simulation.machines import EPOCH
from berth.simulation.work import NAMESPACE, Arrival


@dataclass(frozen=True, slots=True)
class Spell:
    """What was held for a while: by an attempt that ended, or by a replica of a service."""

    workload: Workload  # as it was just before
    until: float  # by the planner's clock
    reason: str = ""  # why the attempt was stopped; "": it was not


@dataclass
class Life:
    """What the planner sees of a workload, and what became of it. Times are seconds since the start."""

    arrival: Arrival
    workload: Workload
    placed_at: float | None = None  # when all its members had a place first
    started_at: float | None = None  # when all its members were ready first
    ended_at: float | None = None
    outcome: str = ""  # "Succeeded", "Failed", or "Deleted" for a service
    evictions: int = 0
    ready_since: float | None = None  # since when all members have been ready
    broken: bool = False  # a member's node is dead, so that the live attempt does not end by itself
    bound_at: dict[str, float] = field(default_factory=dict)  # by pod
    done: float = 0.0  # the part of its work that is saved
    spells: list[Spell] = field(default_factory=list)  # what it held, attempt by attempt or pod by pod

    @classmethod
    def of(cls, arrival: Arrival) -> Life:
        """A workload that arrives now."""
        ref = Ref(arrival.kind, NAMESPACE, arrival.name, arrival.name)
        queue, priority = arrival.queue, arrival.priority
        workload = Workload(
            ref,
            EPOCH + arrival.at,
            arrival.request,
            queue=queue,
            priority=priority,
            estimated_seconds=arrival.estimate,
            deadline=None if arrival.deadline is None else EPOCH + arrival.at + arrival.deadline,
            carbon=arrival.carbon,
            max_usd_per_hour=arrival.max_usd_per_hour,
            checkpoints=arrival.saves_every is not None,
            saves=arrival.saves_every is not None,
        )
        return cls(arrival, workload)

    @property
    def is_job(self) -> bool:
        """Whether it is a TrainingJob."""
        return self.arrival.kind is Kind.TRAINING_JOB

    @property
    def members(self) -> int:
        """Workers or replicas: of a job that has a place, as many as have theirs."""
        return self.workload.size

    @property
    def run_seconds(self) -> float | None:
        """How long its attempt runs with the workers that it has, from its last save on; None: to the end."""
        whole = self._whole_seconds
        return None if whole is None else whole * (1 - self.done)

    @property
    def _whole_seconds(self) -> float | None:
        duration = self.arrival.duration
        return None if duration is None else duration * self.arrival.request.workers / self.members

    def save(self, ran: float) -> None:
        """So many seconds of the attempt are saved, which has run since `ready_since`."""
        assert self.ready_since is not None
        if self._whole_seconds:
            self.done = min(1.0, self.done + ran / self._whole_seconds)
        self.workload = replace(self.workload, saved_at=EPOCH + self.ready_since + ran)

    def saved_seconds(self, now: float) -> float:
        """How much of what it runs at that moment its periodic saves hold."""
        every = self.arrival.saves_every
        return (now - self.ready_since) // every * every if every and self.ready_since is not None else 0.0

    @property
    def device(self) -> Device | None:
        """What its members have now."""
        w = self.workload
        return w.attempt.placement.device if w.attempt else w.served_device

    @property
    def on_nodes(self) -> list[Pod]:
        """Its pods that are pinned or bound, and are to stay."""
        return [p for p in self.workload.pods if p.phase in ON_NODES and not p.terminating]

    @property
    def is_ready(self) -> bool:
        """Whether every member is ready, or has ended well."""
        done = (PodPhase.READY, PodPhase.SUCCEEDED)
        return sum(p.phase in done and not p.terminating for p in self.workload.pods) >= self.members

    def change(self, which: Callable[[Pod], bool], **changes: object) -> None:
        """Change some of its pods."""
        pods = tuple(replace(p, **changes) if which(p) else p for p in self.workload.pods)  # type: ignore[arg-type]
        self.workload = replace(self.workload, pods=pods)

    def drop(self, which: Callable[[Pod], bool]) -> None:
        """Some of its pods are gone."""
        self.workload = replace(self.workload, pods=tuple(p for p in self.workload.pods if not which(p)))


def full_name(pod: Pod) -> str:
    """A pod's namespace and name, as agents report holders."""
    return f"{NAMESPACE}/{pod.name}"
