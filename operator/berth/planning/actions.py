"""What a plan asks for. Each action is idempotent: carried out twice, or after a crash, it ends in the same state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from berth.model.failures import Failures
from berth.model.idling import Idle
from berth.model.nodes import Relayout, Trouble
from berth.model.pools import Shortfall
from berth.model.reasons import Verdict
from berth.model.workloads import Claim, Device, Placement, Pod, Ref, Resize, SaveRequest
from berth.planning.fairness import Standing


@dataclass(frozen=True, slots=True)
class Admit:
    """Record attempt `number` with its placement in the TrainingJob's status, then make its Service and Job."""

    ref: Ref
    number: int
    placement: Placement
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class MakeAttempt:
    """The recorded attempt lacks its Job (a crash, or someone deleted it): make Service and Job."""

    ref: Ref
    number: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class Pin:
    """Tie a gated pod to its node, or to nodes with these labels, and lift the gate, in one write."""

    ref: Ref
    pod: str
    pod_uid: str
    node: str  # "": any with the labels
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Record another node for one member of an admitted gang whose pod has none yet; its pin follows."""

    ref: Ref
    number: int
    placement: Placement
    avoid: tuple[tuple[str, float], ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Replace:
    """Have a pod that stays unbound replaced, through the Eviction API, so that it is planned anew."""

    ref: Ref
    pod: str
    pod_uid: str
    why: str


@dataclass(frozen=True, slots=True)
class AskToSave:
    """Record the request in the TrainingJob's status; whoever polls for it is answered at once, and later ones too."""

    ref: Ref
    request: SaveRequest
    message: str


@dataclass(frozen=True, slots=True)
class NoteIdle:
    """Record since when a job's boards are idle, or (None) that they are no more; a message is told its user."""

    ref: Ref
    idle: Idle | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Set spec.suspend of a TrainingJob, as its own policy wants; that it stops follows from it."""

    ref: Ref
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the live attempt: record why, suspend its Job, and once its pods are gone, release its room.

    `reason`: "Suspended", "MaxRuntimeExceeded" or "Hung" (final: the job failed), "Requeued" (it waits for a new
    place), "Restarted" (it crashed, hung, or asked for it), "Consolidated" (it goes elsewhere, so that another fits),
    "Preempted" or "Reclaimed" (it gives way), "Resized" (it goes on with more members, or with no more than it would
    like), "NodeLost", "WorkerEvicted" (by someone else, as a drain does), "PausedForCarbon", "DeadlineAtRisk" (it
    leaves spot capacity), "CheaperCapacity" (it goes to spot capacity, or waits for it), "NodesNotProvided" (they did
    not come in time), or the reason of an interruption.
    """

    ref: Ref
    number: int
    reason: str
    message: str
    avoid: tuple[tuple[str, float], ...] = ()
    not_before: float = 0.0  # seconds since the epoch
    moved: tuple[float, float] | None = None  # in quiet hours: when that was decided, and what it costs in dollars
    gives_way_to: Claim | None = None  # whose room it makes, and keeps until that one has its place
    resize: Resize | None = None  # with how many members an elastic gang is to go on
    failures: Failures | None = None  # what the job is to remember of them; None: nothing new
    log_of: Pod | None = None  # the pod whose last words belong to the message
    shortfalls: tuple[Shortfall, ...] = ()  # what the job is to remember of pools that failed it; empty: nothing new


@dataclass(frozen=True, slots=True)
class Release:
    """The stopped attempt has no pod left: delete its Job and Service, then clear the attempt in the status."""

    ref: Ref
    number: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Record for good how the job ended: "Succeeded" or "Failed"."""

    ref: Ref
    number: int
    outcome: str
    reason: str
    message: str
    failures: Failures | None = None  # what the job is to remember of them; None: nothing new
    log_of: Pod | None = None  # the pod whose last words belong to the message


@dataclass(frozen=True, slots=True)
class Expire:
    """Delete a finished object whose ttlSecondsAfterFinished has passed."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Serve:
    """Make or update the Deployment, Service and PodDisruptionBudget of an InferenceService, requesting `device`."""

    ref: Ref
    device: Device
    replicas: int


@dataclass(frozen=True, slots=True)
class LetGo:
    """Tell the ReplicaSet whether it is to remove a pod of an InferenceService before others, once it gets smaller."""

    ref: Ref
    pod: str
    pod_uid: str
    first: bool  # False: no longer before others


@dataclass(frozen=True, slots=True)
class Shed:
    """Replicas of an InferenceService give way: record which, and for whom, then have their pods end.

    Their Deployment makes others, which wait at their gates. Without `gives_way_to`, the record goes: it has served.
    """

    ref: Ref
    pods: tuple[tuple[str, str], ...]  # name and uid of each
    gives_way_to: Claim | None
    reason: str = ""
    message: str = ""
    whole: bool = False  # the service as a whole: its pods are deleted, since its disruption budget would keep some


Action = (
    Admit
    | MakeAttempt
    | Pin
    | Move
    | Replace
    | AskToSave
    | NoteIdle
    | Suspend
    | Stop
    | Release
    | Finish
    | Expire
    | Serve
    | LetGo
    | Shed
)


@dataclass(frozen=True, slots=True)
class LayOut:
    """Have a node's boards laid out anew: record it on the node, in the same write that sets it going.

    With an attempt beyond the first, the one before failed or took too long: set it going once more.
    """

    node: str
    relayout: Relayout
    why: str


@dataclass(frozen=True, slots=True)
class EndLayout:
    """A node's re-layout is over, and its record goes; what is remembered stands in its place."""

    node: str
    relayout: Relayout
    laid: tuple[tuple[int, float], ...]  # when Berth last laid out a board, by its index
    trouble: Trouble | None  # None: it ended well
    message: str


NodeAction = LayOut | EndLayout


@dataclass(frozen=True, slots=True)
class QueueUsage:
    """What a queue has, for its status."""

    pending: int
    admitted: int
    used: Mapping[str, str]  # boards by quota name, as exact fractions such as "9/4"
    borrowed: Mapping[str, str] = field(default_factory=dict)  # of what is used, what is not its own
    lent: Mapping[str, str] = field(default_factory=dict)  # of its own, what others use
    standing: Standing | None = None
    names: tuple[str, ...] = ()  # of its quotas and of what it uses
    problem: str = ""  # what keeps its work from being admitted: the field and the remedy
    stopped: str = ""  # what stops it, and what would set it going again
    not_default: str = ""  # what is wrong with its claim to be some namespaces' default; "": nothing, or no claim


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order to take them, and a verdict for every workload that is not finished."""

    actions: tuple[Action, ...] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)  # by uid
    queues: Mapping[str, QueueUsage] = field(default_factory=dict)
    wake_at: float | None = None  # seconds since the epoch when time alone may change the plan
    faults: Mapping[str, Exception] = field(default_factory=dict)  # by uid of workloads whose planning broke
    layouts: tuple[NodeAction, ...] = ()  # one at most for each node
    suspects: frozenset[str] = frozenset()  # nodes that nobody is to go to, since different jobs crashed there
