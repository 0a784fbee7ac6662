"""A pending job tried in snapshots that are not, but might be; and what is to be said of a try that places it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from berth.model.reasons import Reason
from berth.model.workloads import Kind, Placement, Request, Workload
from berth.planning.actions import Admit
from berth.planning.plan import worked_out
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Consolidating, Policy, Snapshot
from berth.planning.verdicts import where
from berth.planning.whatif import concerning, with_workload, without

MOST_NAMED = 6  # workloads or nodes named in a sentence


class Way(StrEnum):
    """What kind of change it is."""

    FEWER_MEMBERS = "FewerMembers"
    ANOTHER_DEVICE = "AnotherDevice"
    LOOSER_TOPOLOGY = "LooserTopology"
    FREE_WORKLOADS = "FreeWorkloads"
    MOVE_WORKLOADS = "MoveWorkloads"
    HIGHER_PRIORITY = "HigherPriority"
    MORE_QUOTA = "MoreQuota"
    MORE_NODES = "MoreNodes"
    SPOT = "Spot"
    HIGHER_PRICE = "HigherPrice"
    QUEUE_GOES_ON = "QueueGoesOn"
    TOLERATION = "Toleration"
    SHORTER = "Shorter"
    TIME = "Time"
    RESUME = "Resume"
    WITHOUT_CARBON = "WithoutCarbon"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change by which a pending workload would be placed at once."""

    way: Way
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)  # the same for programs


@dataclass(frozen=True, slots=True)
class Trial:
    """A pending job, and the snapshot it is planned in. `held` replicas of a service are placed already."""

    snapshot: Snapshot
    policy: Policy
    now: float
    job: Workload
    request: Request
    kind: Kind
    held: int = 0

    def places(self, request: Request | None = None, snapshot: Snapshot | None = None) -> Placement | None:
        """Where the job is admitted if it asked for this, in this snapshot; None where it is not."""
        job = replace(self.job, request=request or self.request)
        asked = concerning(with_workload(snapshot or self.snapshot, job), job)
        return placed_in(asked, self.policy, self.now, job)

    def is_laid_out(self, ended: Iterable[Workload]) -> bool:
        """Whether boards are laid out for the job once these have ended."""
        after = without(self.snapshot, tuple(ended))
        verdict = settled(concerning(after, self.job), self.policy, self.now).verdicts.get(self.job.ref.uid)
        return verdict is not None and verdict.reason == Reason.WAITING_FOR_REPARTITION

    def members(self, count: int) -> str:
        """So many workers or replicas, in words."""
        return f"{count} {'worker' if self.kind is Kind.TRAINING_JOB else 'replica'}{'s' if count != 1 else ''}"


def settled(snapshot: Snapshot, policy: Policy, now: float) -> Scratch:
    """The working copy after a plan: what is still free, what is charged, and what was decided."""
    return worked_out(snapshot, replace(policy, consolidation=Consolidating(), preemption=None, growing=None), now)[0]


def placed_in(snapshot: Snapshot, policy: Policy, now: float, w: Workload) -> Placement | None:
    """Where a plan for this snapshot admits a pending job; None where it does not."""
    actions = settled(snapshot, policy, now).actions
    return next((a.placement for a in actions if isinstance(a, Admit) and a.ref == w.ref), None)


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(45), duration(5400), duration(200000)
    ('45 s', '1.5 h', '2.3 d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{max(0, seconds):.0f} s"


def place_text(s: Scratch, place: Placement) -> str:
    pool = s.fleet.pools.get(place.device.model)
    return where(pool, place.nodes) if pool else nodes_text(place)


def nodes_text(place: Placement) -> str:
    distinct = list(dict.fromkeys(place.nodes))
    return ", ".join(distinct[:MOST_NAMED]) + (
        f" and {len(distinct) - MOST_NAMED} more" if len(distinct) > MOST_NAMED else ""
    )


def details_of(place: Placement) -> dict[str, Any]:
    device = {"model": place.device.model, "resource": place.device.resource, "count": place.device.count}
    return {"device": device, "nodes": list(place.nodes)}
