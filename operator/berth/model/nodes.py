"""Nodes, as the planner needs to know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from berth.model.boards import Board, Instance
from berth.model.gpus import BoardModel
from berth.model.prices import CapacityType, capacity_of, region_of, zone_of
from berth.model.resources import Resources


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


class Way(StrEnum):
    """Who lays out a node's boards."""

    MIG_MANAGER = "mig-manager"  # whole idle boards; pauses the device plugin meanwhile
    AGENT = "agent"  # single instances, beside busy ones


class Progress(StrEnum):
    """How far a re-layout is, by what its node shows."""

    WORKING = "working"
    DONE = "done"  # the boards are laid out, and the kubelet offers their instances
    FAILED = "failed"  # whoever lays them out says so


@dataclass(frozen=True, slots=True)
class BoardLayout:
    """What one board is to be."""

    index: int
    mig_enabled: bool
    instances: tuple[Instance, ...] = ()  # all of them, held ones that stay included, without their holders


@dataclass(frozen=True, slots=True)
class Relayout:
    """A re-layout that is under way. Its node takes no new pods, and counts as what it will be."""

    way: Way
    boards: tuple[BoardLayout, ...]  # by index; boards that are not named stay as they are
    workload: str  # "namespace/name" of the one that it was decided for
    since: float  # when it was decided, in seconds since the epoch
    usd: float = 0.0  # list price of what it idles and destroys
    attempt: int = 1
    tried: float = 0.0  # when this attempt began
    progress: Progress = Progress.WORKING
    message: str = ""  # what whoever lays out says of it


@dataclass(frozen=True, slots=True)
class Trouble:
    """Re-layouts of a node that were given up, one after the other."""

    times: int
    until: float  # it is not tried again before, in seconds since the epoch
    why: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """A node is about to go away, or is to be emptied: what runs there moves, and nothing new goes there."""

    reason: str  # "SpotInterruption", "Maintenance", "Drain" or "NodeTermination"
    source: str  # what says so, such as "taint karpenter.sh/disrupted" or "EC2 instance metadata"
    deadline: float = 0.0  # when it goes, in seconds since the epoch; 0: nobody says


@dataclass(frozen=True, slots=True)
class Node:
    """A node with all that decides whether a pod may run there."""

    name: str
    labels: Mapping[str, str]
    allocatable: Resources  # CPU in millicores, all else in base units; "pods" included
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unschedulable: bool = False
    board: BoardModel | None = None  # None: no GPUs
    excluded: str = ""  # why its GPUs can't serve demands, such as "GPUs are time-sliced"; "": they can
    boards: tuple[Board, ...] = ()  # as its agent reported last; empty: it did not
    links: tuple[tuple[int, ...], ...] = ()  # NVLinks between each two of `boards`; empty: all or none
    way: Way | None = None  # who can lay out its boards; None: nobody
    relayout: Relayout | None = None  # under way
    laid: tuple[tuple[int, float], ...] = ()  # when Berth last laid out a board, by its index
    trouble: Trouble | None = None
    interruption: Interruption | None = None
    lost_since: float = 0.0  # since when nobody heard of it, or its kubelet says that it can't run pods; 0: it is well

    @property
    def spot(self) -> bool:
        """Whether it is spot capacity, which may be taken away at any time."""
        return capacity_of(self.labels) is CapacityType.SPOT

    @property
    def region(self) -> str:
        """Its region; "": nobody says."""
        return region_of(self.labels)

    @property
    def zone(self) -> str:
        """Its zone; "": nobody says."""
        return zone_of(self.labels)
