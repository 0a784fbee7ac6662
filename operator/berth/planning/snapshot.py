"""The immutable picture that a plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from berth.model.boards import Board
from berth.model.failures import Pace
from berth.model.nodes import Node
from berth.model.pools import NodePool
from berth.model.prices import PriceBook
from berth.model.resources import Resources
from berth.model.topology import DEFAULT_LEVELS, Level
from berth.model.workloads import Device, Queue, Workload
from berth.planning.carbon import Outlook
from berth.planning.spells import Sightings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything observed at one moment.

    `used` is what pods that are bound or pinned take from each node, whosever they are, terminating ones included and
    ours too, by node name; "pods" counts them. Members that are admitted but have no bound or pinned pod yet are not
    in it: the planner adds them from the recorded placements.

    `holding` names the pods with GPUs that are bound or pinned to each node ("namespace/name"), and when each was made:
    what the node's agent reports of holders is the whole truth only where it names them all. `observed` is when the
    agent of each node last reported its boards, in seconds since the epoch; `reported` is these boards with what they
    do, which those of `nodes` may be behind with: they are renewed only when something else changes.

    Of copies that leave workloads out, `elsewhere` says what those of them that run hold, by queue: members by device;
    `crashed` has all that crashed, left out or not.
    `paces` says how attempts get on, by the uids of their jobs, where that is newer than what statuses tell;
    `listening` since when their reports are heard, in seconds since the epoch; infinite: they are not.
    `outlooks` are the hours to come of carbon intensity, by the region of nodes; empty: nobody asked.
    `spot_rates` says how often a spot node is taken back, per second, by region and board model, where that was seen.
    `spot` says how spot capacity came and went, by region and board model; empty: nobody has seen any.
    `until` is the uid of the workload in question: what is served after it is not planned for. "": all are.
    """

    nodes: Mapping[str, Node]
    used: Mapping[str, Resources]
    workloads: tuple[Workload, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    holding: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    observed: Mapping[str, float] = field(default_factory=dict)
    reported: Mapping[str, tuple[Board, ...]] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[Device, int]] = field(default_factory=dict)
    paces: Mapping[str, Pace] = field(default_factory=dict)
    listening: float = inf
    crashed: tuple[Workload, ...] = ()
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)
    spot_rates: Mapping[tuple[str, str], float] = field(default_factory=dict)
    spot: Mapping[tuple[str, str], Sightings] = field(default_factory=dict)
    until: str = ""


DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When gangs may be moved though nothing waits, and what the moves of each such time may cost."""

    begins: int  # seconds after midnight, UTC
    ends: int  # before `begins`: on the next day
    budget_usd: float

    def window(self, now: float) -> tuple[float, float]:
        """When the hours that hold this moment, or else the next ones, begin and end, in seconds since the epoch."""
        since, length = (int(now) - self.begins) % DAY_SECONDS, (self.ends - self.begins) % DAY_SECONDS
        began = int(now) - since + (0 if since < length else DAY_SECONDS)
        return began, began + length


@dataclass(frozen=True, slots=True)
class Consolidating:
    """What the operator may do to gather room for a job that waits."""

    enabled: bool = False
    most_moves: int = 4  # gangs moved for one that waits
    min_runtime_seconds: float = 600.0  # a gang is left alone for so long after its start, so that none moves for ever
    restart_seconds: float = 120.0  # that a moved gang's boards idle: images are there, but processes and data are not
    quiet: QuietHours | None = None


class Passing(StrEnum):
    """Who may be admitted before a workload that waits and is served first. The operator reserves; others compare."""

    NOBODY = "nobody"
    WITHOUT_DELAY = "without-delay"  # what does not delay its reserved start
    ANYBODY = "anybody"


@dataclass(frozen=True, slots=True)
class Backfilling:
    """How work that is served later may pass work that waits."""

    passing: Passing = Passing.WITHOUT_DELAY
    most_wait_seconds: float = DAY_SECONDS  # who has waited for longer is passed by nobody who wants its room


@dataclass(frozen=True, slots=True)
class Preempting:
    """How work gives way to what is more important, or to a queue that takes back what it lent.

    A gang that is evicted as often as it can be works for 300 of each 420 s: 71 % of its time. A shorter guarantee
    would have work that never gets on; a longer one would keep those waiting whom the boards belong to.
    """

    min_runtime_seconds: float = 300.0  # whoever has started is left alone for so long
    restart_seconds: float = 120.0  # that an evicted gang's boards idle when it starts again: counted as lost work


@dataclass(frozen=True, slots=True)
class Growing:
    """When an elastic gang that runs is stopped to go on with more members.

    Boards fall idle and are asked for again within minutes: who may grow no more often than each ten loses at most a
    fifth of its time to restarts, and to work since its last checkpoint what its own calculation allows.
    """

    min_runtime_seconds: float = 600.0  # a gang is left alone for so long after its start
    restart_seconds: float = 120.0  # that all its boards idle when it starts again


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator's configuration says about planning."""

    levels: tuple[Level, ...] = DEFAULT_LEVELS
    bind_timeout_seconds: float = 60.0  # a pinned pod unbound for longer is replaced and its node avoided
    avoid_seconds: float = 120.0  # how long a node that refused a member is avoided; doubles each time, to 8 times
    gate_timeout_seconds: float = 300.0  # an attempt whose pods are not all there by then is requeued
    stale_seconds: float = 180.0  # a node whose agent was not heard for longer is not laid out anew
    relayout_timeout_seconds: float = 300.0  # an attempt to lay out boards that takes longer is begun again
    relayout_pause_seconds: float = 600.0  # a board that Berth laid out is not laid out again before
    lost_seconds: float = 10.0  # a node that is not heard of, or can't run pods, for longer is given up
    default_queue: str = "default"  # unlimited, even where no such Queue object exists
    half_life_hours: float = 168.0  # a week: who worked at night or over a weekend has not had more than its share
    consolidation: Consolidating = field(default_factory=Consolidating)
    backfill: Backfilling = field(default_factory=Backfilling)
    preemption: Preempting | None = field(default_factory=Preempting)  # None: nobody is chosen to give way
    prices: PriceBook = field(default_factory=PriceBook)
    pools: tuple[NodePool, ...] = ()  # that an autoscaler can grow, by whatever order they are to be told apart
    growing: Growing | None = field(default_factory=Growing)  # None: elastic gangs get no more than they would like
