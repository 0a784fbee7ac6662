"""Why a workload got what it got."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a workload waits, most telling first: of several that hold, the verdict names the earliest."""

    MISCONFIGURED = "Misconfigured"
    NO_MATCHING_GPU = "NoMatchingGPU"
    SUSPENDED = "Suspended"
    QUEUE_STOPPED = "QueueStopped"
    DEFERRED_FOR_CARBON = "DeferredForCarbon"
    WAITING_FOR_SPOT = "WaitingForSpot"
    EXCEEDS_MAX_QUOTA = "ExceedsMaxQuota"
    EXCEEDS_MAX_PRICE = "ExceedsMaxPrice"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    WAITING_FOR_TURN = "WaitingForTurn"
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"
    NO_FEASIBLE_MIG_LAYOUT = "NoFeasibleMigLayout"
    WAITING_FOR_REPARTITION = "WaitingForRepartition"
    WAITING_FOR_PREEMPTION = "WaitingForPreemption"
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    WAITING_FOR_RESERVATION = "WaitingForReservation"
    WAITING_FOR_NODES = "WaitingForNodes"
    PENDING_EVALUATION = "PendingEvaluation"


LATER = (Reason.DEFERRED_FOR_CARBON, Reason.WAITING_FOR_SPOT)  # reasons of jobs that want nothing yet


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a workload is where it is, in a sentence with numbers and the nearest thing that would change it."""

    reason: str  # a Reason while it waits, else a condition reason such as "Placed"
    message: str
    fits: int | None = None  # members that would fit now, while it waits
    wanted: int | None = None  # members asked for
    nodes: tuple[tuple[str, int], ...] = ()  # how many nodes fail for which cause, most first
    until: float | None = None  # when it begins at the earliest, in seconds since the epoch, where it waits for that
    position: int | None = None  # among the jobs that wait in its queue, from 1
