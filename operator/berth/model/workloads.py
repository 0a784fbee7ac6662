"""Workloads: what they ask for, what they have, and the pods that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction

from berth.model.failures import Failures, Pace, Restart
from berth.model.idling import Idle, IdlePolicy
from berth.model.losses import NO_LOSSES, Losses
from berth.model.pools import Shortfall
from berth.model.reasons import Verdict
from berth.model.usage import NO_USAGE, Usage


class Kind(StrEnum):
    """The kinds of workload."""

    TRAINING_JOB = "TrainingJob"
    INFERENCE_SERVICE = "InferenceService"


@dataclass(frozen=True, slots=True)
class Ref:
    """A workload's identity. The uid alone is unique for all time."""

    kind: Kind
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Whom others make room for, and for which of its attempts: a place that it had once is not claimed again."""

    ref: Ref
    attempt: int  # number of the attempt that is to have the room


@dataclass(frozen=True, slots=True)
class Demand:
    """What one member asks of one node: exactly one of `count`, `profile` and `memory_bytes`."""

    count: int | None = None  # whole boards
    profile: str | None = None  # one MIG instance of this profile
    memory_bytes: int | None = None  # the smallest profile or board with this much usable memory
    models: tuple[str, ...] = ()  # names of models or families; empty: any


@dataclass(frozen=True, slots=True)
class Device:
    """A demand settled on one board model: what each member's container requests."""

    model: str  # BoardModel.name
    resource: str  # extended resource, such as "nvidia.com/gpu" or "nvidia.com/mig-1g.10gb"
    count: int


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of a node selector: In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration; empty key with Exists tolerates all; empty effect means every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Spot(StrEnum):
    """Whether work may run on spot capacity."""

    NEVER = "Never"
    ALLOW = "Allow"
    ONLY = "Only"


Market = tuple[bool, str]
"""Where nodes cost alike: whether they are spot capacity, and their region ("": it is not known)."""


@dataclass(frozen=True, slots=True)
class PodShape:
    """What a member's pod asks of a node besides GPUs. Equal shapes are feasible on the same nodes."""

    requests: tuple[tuple[str, int], ...] = ()  # sorted; without GPUs
    node_selector: tuple[tuple[str, str], ...] = ()
    affinity: tuple[tuple[Requirement, ...], ...] = ()  # any term must match; each term's expressions all
    volume_affinity: tuple[tuple[tuple[Requirement, ...], ...], ...] = ()  # one such affinity for each bound volume
    tolerations: tuple[Toleration, ...] = ()
    spot: Spot = Spot.ALLOW
    markets: tuple[Market, ...] = ()  # on nodes of these alone; none: of any


class TopologyMode(StrEnum):
    """Whether a level binds."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"


@dataclass(frozen=True, slots=True)
class Group:
    """Each `size` consecutive ranks in one domain of this level."""

    size: int
    level: str
    mode: TopologyMode


@dataclass(frozen=True, slots=True)
class Topology:
    """All members in one domain of this level, and groups of them closer together, outer groups first."""

    level: str
    mode: TopologyMode
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and a node for each member; `nodes[rank]` is the node of that rank.

    Members that wait for nodes of a pool have "" instead, all of them, until the last is bound.
    """

    device: Device
    nodes: tuple[str, ...]
    pool: str = ""  # whose nodes are to come; "": none are


@dataclass(frozen=True, slots=True)
class Elastic:
    """Between how many members a gang may run, so many at a time: groups of them stay whole."""

    least: int
    most: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a workload asks for, in the planner's terms."""

    workers: int  # members of the gang, or replicas of the service; of an elastic gang, as many as it would like
    demand: Demand
    shape: PodShape
    tensor: int = 1  # ranks (boards) that must share one NVLink domain
    topology: Topology | None = None
    pipeline: int = 1  # stages: equal runs of consecutive ranks, each as close together as can be
    elastic: Elastic | None = None  # None: it runs with just as many members

    @property
    def sizes(self) -> range:
        """How many members it may run with, ascending."""
        if self.elastic is None:
            return range(self.workers, self.workers + 1)
        return range(self.elastic.least, self.elastic.most + 1, self.elastic.step)

    def at(self, members: int) -> Request:
        """The same for just so many members."""
        return replace(self, workers=members, elastic=None)

    @property
    def smallest(self) -> Request:
        """The least that will do."""
        return self if self.elastic is None else self.at(self.elastic.least)


class PodPhase(StrEnum):
    """What a workload's pod is doing, from the planner's point of view."""

    GATED = "Gated"  # waits for its pin
    PINNED = "Pinned"  # pin given, not yet bound by kube-scheduler
    BOUND = "Bound"  # on its node, not yet ready
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a workload."""

    name: str
    uid: str
    phase: PodPhase
    attempt: int = 0  # of the TrainingJob; 0 for a service's pod
    index: int = 0  # rank of the member; 0 for a service's pod
    node: str = ""  # bound, else pinned to; "": neither
    created: float = 0.0  # seconds since the epoch
    pinned_at: float = 0.0  # when the gate was lifted; 0: not yet
    terminating: bool = False
    refusal: str = ""  # why the kubelet refused it (infrastructure), such as "UnexpectedAdmissionError"; else ""
    exit_code: int | None = None
    message: str = ""  # why it failed, or why kube-scheduler can't bind it
    device: Device | None = None  # what a service's pod requests (its model by its node)
    container: str = ""  # the one that ended with that exit code
    ended_at: float = 0.0  # when it did, in seconds since the epoch; 0: not yet, or nobody knows
    ending_since: float = 0.0  # when it was told to end; 0: it was not, or nobody knows
    disrupted: bool = False  # evicted, or its node is lost: what it ended with says nothing of its program
    unhealthy: str = ""  # id of a device of it that the device plugin calls unhealthy; "": none
    revision: str = ""  # of a service's template, which its ReplicaSet carries out; "": of a job
    goes_first: bool = False  # whether a service that gets smaller loses it before others


class RunPhase(StrEnum):
    """What became of an attempt's Job (or a service's Deployment)."""

    ABSENT = "Absent"  # admitted, not made yet (or lost)
    RUNNING = "Running"
    SUSPENDED = "Suspended"  # asked to stop; its pods may still be going
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a TrainingJob. `placement` is the recorded intent; it holds its room from then on."""

    number: int
    placement: Placement
    admitted_at: float  # seconds since the epoch
    phase: RunPhase = RunPhase.ABSENT
    stopping: str = ""  # the reason, once it is decided to stop it; recorded before anything is stopped
    done: frozenset[int] = frozenset()  # ranks recorded as ended well and undisturbed: their pods may go
    missing_since: float = 0.0  # since when a gang that was whole lacks a member; 0: it lacks none
    spec_digest: str = ""  # of the spec that it was admitted with; "": not recorded
    stopping_since: float = 0.0  # when that was decided, in seconds since the epoch; 0: it was not


CHECKPOINT_REQUESTED = "CheckpointRequested"
"""The reason of a save request that a person made: the only one after which the gang goes on."""


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """All members of an attempt are to save now, and to go on; the attempt is to be stopped once they have, unless a
    person asked.
    """

    id: str  # what the checkpoint that answers it names
    attempt: int
    reason: str  # of the interruption, such as "SpotInterruption", or CHECKPOINT_REQUESTED
    node: str  # the first that goes away; "": none does
    at: float  # when they were asked, in seconds since the epoch
    deadline: float = 0.0  # when the node goes; 0: nobody says

    @property
    def goes_on(self) -> bool:
        """Whether the attempt is to go on once it has saved."""
        return self.reason == CHECKPOINT_REQUESTED


@dataclass(frozen=True, slots=True)
class Resize:
    """An elastic gang stops to go on with another number of members."""

    attempt: int  # number of the attempt that is to have them
    before: int
    after: int  # as many as there was room for when it was decided


@dataclass(frozen=True, slots=True)
class CarbonTerms:
    """What emitting less is worth: a price, or a share by which it may be dearer; one of them is there."""

    usd_per_tonne: float | None = None
    budget: float | None = None  # of the least cost
    max_delay_seconds: float | None = None  # None: as the deadline allows


@dataclass(frozen=True, slots=True)
class Availability:
    """How many replicas of a service spot capacity may take, where it may use both kinds."""

    on_demand: int = 0  # that run on demand at least
    per_spot_pool: int = 10_000  # that run on spot capacity of one zone at most


@dataclass(frozen=True, slots=True)
class Workload:
    """A TrainingJob or InferenceService, with all the planner needs to decide what comes next."""

    ref: Ref
    created: float  # seconds since the epoch
    request: Request | None  # None: misconfigured
    generation: int = 1
    problem: str = ""  # the field and the remedy, when misconfigured
    spec_digest: str = ""  # of the fields that are fixed while a job is not suspended; "": unreadable
    queue: str = "default"
    queue_named: bool = True  # False: `queue` is only where work goes that names none
    priority: int = 0
    suspend: bool = False
    deleting: bool = False
    max_runtime_seconds: float | None = None
    estimated_seconds: float | None = None  # how long a run takes, as its user expects; None: they did not say
    max_usd_per_hour: float | None = None  # that all its boards may cost; None: no limit
    deadline: float | None = None  # seconds since the epoch
    carbon: CarbonTerms | None = None  # None: carbon plays no part
    checkpoints: bool = False  # whether it says where it saves
    worked_seconds: float = 0.0  # that earlier attempts worked towards its last durable checkpoint
    ttl_seconds: float | None = None
    attempts_made: int = 0  # number of the latest attempt, finished or not
    attempt: Attempt | None = None  # the live one
    finished: str = ""  # "Succeeded" or "Failed", for good
    finished_at: float = 0.0
    started_at: float = 0.0  # when the live attempt had all its pods ready first; 0: not yet
    avoid: tuple[tuple[str, float], ...] = ()  # nodes that refused a member, and until when (seconds since epoch)
    pods: tuple[Pod, ...] = ()
    moved: tuple[float, float] | None = None  # when it was last moved in quiet hours, and what that cost in dollars
    resized: Resize | None = None  # the last one, or the one under way
    not_before: float = 0.0  # a requeued job is not admitted before this moment (backoff)
    served_device: Device | None = None  # what an InferenceService's Deployment requests; None: no Deployment yet
    served_generation: int = 0  # generation of the InferenceService that its Deployment was made from
    served_replicas: int | None = None  # that its Deployment asks for; None: no Deployment yet, or nobody knows
    losses: Losses = NO_LOSSES  # what stopping its attempts cost so far
    usage: Usage = NO_USAGE  # what it used so far, as last written down
    saves: bool = False  # whether it says where it saves checkpoints
    saved_at: float = 0.0  # when its last durable checkpoint was written; 0: unknown
    saved_for: str = ""  # id of the save request that this checkpoint answers; "": of none
    save_request: SaveRequest | None = None  # the last one
    save_wanted_at: float = 0.0  # when a person last asked for a checkpoint, in seconds since the epoch; 0: nobody did
    listens: int = 0  # number of the attempt whose members ask for save requests; 0: none did
    grace_seconds: float = 30.0  # from SIGTERM to SIGKILL
    saved_step: int | None = None  # the last step that the newest holds, of whichever attempt; None: there is none
    saved_bytes: int = 0  # that it holds; 0: unknown
    save_seconds: float = 0.0  # that it took; 0: unknown
    restart: Restart = field(default_factory=Restart)
    failures: Failures = field(default_factory=Failures)
    pace: Pace = field(default_factory=Pace)  # of the latest attempt that told of it
    idle_policy: IdlePolicy = field(default_factory=IdlePolicy)
    idle: Idle | None = None  # what was seen of it last; None: it works
    expected_end: float = 0.0  # when the live attempt itself expects to be done; 0: it does not say
    gave_way_to: Claim | None = None  # for whom it was stopped, as long as it has no place again
    shed: tuple[str, ...] = ()  # uids of replicas that are told to end for that
    least_replicas: int = 1  # of a service: as many stay as long as others can make the room
    availability: Availability = Availability()  # of a service
    shortfalls: tuple[Shortfall, ...] = ()  # of pools whose nodes did not come in time, oldest first
    verdict: Verdict | None = None  # the one last written

    @property
    def size(self) -> int:
        """How many members it has; as long as it waits, or where its record was lost, how many it would like."""
        placed = len(self.attempt.placement.nodes) if self.attempt else 0
        return placed or (self.request.workers if self.request else 0)

    @property
    def claim(self) -> Claim:
        """What it may claim while it waits: room for its next attempt."""
        return Claim(self.ref, self.attempts_made + 1)

    @property
    def resizing(self) -> bool:
        """Whether it has stopped, or stops, to go on with another number of members."""
        waits = self.attempt is None or bool(self.attempt.stopping)
        return waits and self.resized is not None and self.resized.attempt == self.attempts_made + 1


class StopPolicy(StrEnum):
    """Whether a queue, and what is under it, is stopped."""

    NONE = "None"
    HOLD = "Hold"  # nothing new is admitted
    HOLD_AND_DRAIN = "HoldAndDrain"  # and what runs is stopped


class WithinQueue(StrEnum):
    """Whom a workload may have evicted in its own queue."""

    LOWER_PRIORITY = "LowerPriority"
    NEVER = "Never"


class Reclaim(StrEnum):
    """Whom a queue may have evicted in others of its tree, to get back what it owns and they borrow."""

    ANY = "Any"
    LOWER_PRIORITY = "LowerPriority"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Preemption:
    """Whom the work of a queue may displace."""

    within_queue: WithinQueue = WithinQueue.LOWER_PRIORITY
    reclaim: Reclaim = Reclaim.ANY


@dataclass(frozen=True, slots=True)
class Past:
    """What the work of one queue, without those under it, used lately, by board model."""

    at: float = 0.0  # when it was counted, in seconds since the epoch; 0: never
    board_hours: Mapping[str, float] = field(default_factory=dict)  # until then; half is forgotten each half-life
    boards: Mapping[str, float] = field(default_factory=dict)  # held from then on


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue's place in the tree and its quota, in boards by the name of a model or family.

    `nominal` None: it states no quota. Alone, or in a tree in which no queue states any, it is unlimited; else it owns
    nothing and may borrow without bound.
    """

    name: str
    nominal: Mapping[str, int] | None = None
    borrowing: Mapping[str, int] = field(default_factory=dict)  # most that is held beyond what is its own; by name
    lending: Mapping[str, int] = field(default_factory=dict)  # most of its own that others may hold; by name
    parent: str = ""  # "": it is a root
    weight: int = 1
    max_usd_per_hour: Fraction | None = None  # of all that it and the queues under it hold, at list prices
    namespaces: tuple[str, ...] | None = None  # whose work may use it; None: all
    default_of: tuple[str, ...] = ()  # namespaces whose work goes here when it names no queue
    stop_policy: StopPolicy = StopPolicy.NONE
    preemption: Preemption = Preemption()
    past: Past = Past()
    created: float = 0.0  # seconds since the epoch
