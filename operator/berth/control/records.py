"""Objects that others own, cut down to what the operator needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from berth.model.boards import Board
from berth.model.nodes import Interruption, Taint
from berth.model.resources import Resources
from berth.model.workloads import Requirement

Affinity = tuple[tuple[Requirement, ...], ...]

UID_LABEL = "berth.dev/uid"
KIND_LABEL = "berth.dev/kind"
NAME_LABEL = "berth.dev/name"
ATTEMPT_LABEL = "berth.dev/attempt"
DEVICE_ANNOTATION = "berth.dev/device"
GENERATION_ANNOTATION = "berth.dev/generation"
PINNED_ANNOTATION = "berth.dev/pinned-at"  # PodScheduled does not tell: its time stays that of the pod's creation
QUEUE_ANNOTATION = "berth.dev/queue"  # whose quota a pod was pinned on; no label, which holds only 63 characters
LAYOUT_ANNOTATION = "berth.dev/layout"  # on a Node or GPUNode: what is being laid out there, and what was before
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"  # of a ReplicaSet's pods the lowest goes first
REVISION_LABEL = "pod-template-hash"  # on a Deployment's pods
HOSTNAME_LABEL = "kubernetes.io/hostname"
GATE = "berth.dev/placement"
GPU_RESOURCES = ("nvidia.com/gpu", "nvidia.com/mig-")  # what the names of whole boards and MIG instances begin with


@dataclass(frozen=True, slots=True)
class Meta:
    """Identity and age of an object."""

    name: str
    namespace: str
    uid: str
    version: int  # resourceVersion, which orders the states of one object
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: float = 0.0  # seconds since the epoch
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node: labels, taints, readiness, allocatable."""

    meta: Meta
    allocatable: Resources
    taints: tuple[Taint, ...]
    ready: bool
    unschedulable: bool
    unready_since: float = (
        0.0  # when its condition Ready left True, in seconds since the epoch; 0: it holds, or never was
    )
    announced: tuple[tuple[str, str], ...] = ()  # conditions that announce an event of the cloud, with their messages


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod, anybody's."""

    meta: Meta
    requests: Resources
    phase: str
    controller: str = ""  # kind and name of the object that made it, such as "Job/llm-2"
    node: str = ""  # where it is bound
    hostname: str = ""  # the kubernetes.io/hostname that its nodeSelector asks for
    gated: bool = False
    ready: bool = False
    reason: str = ""  # of the pod's failure, as the kubelet states it
    message: str = ""
    unschedulable: str = ""  # kube-scheduler's message while it can't bind the pod
    exit_code: int | None = None
    index: int = 0  # completion index
    container: str = ""  # the one that ended with the exit code
    ended_at: float = 0.0  # when it did, in seconds since the epoch
    ending_since: float = 0.0  # when it was told to end, in seconds since the epoch
    disrupted: bool = False  # whether it was evicted, or its node was lost
    unhealthy: str = ""  # id of a GPU device of it that the device plugin calls unhealthy; "": none

    @property
    def ended(self) -> bool:
        """Whether all its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def holds_gpus(self) -> bool:
        """Whether it asks for boards or MIG instances."""
        return any(n and name.startswith(GPU_RESOURCES) for name, n in self.requests.items())


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A Job that the operator made."""

    meta: Meta
    suspended: bool = False
    outcome: str = ""  # "Complete" or "Failed"
    message: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A Deployment that the operator made."""

    meta: Meta
    replicas: int = 0  # that exist
    ready: int = 0
    wanted: int = 1  # that its spec asks for


@dataclass(frozen=True, slots=True)
class PriorityClassRecord:
    """A PriorityClass."""

    meta: Meta
    value: int = 0
    default: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A PersistentVolumeClaim and the volume it is bound to ("": not yet)."""

    meta: Meta
    volume: str = ""


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A PersistentVolume and the nodes that can reach it (empty: all)."""

    meta: Meta
    affinity: Affinity = ()


@dataclass(frozen=True, slots=True)
class GPUNodeRecord:
    """A GPUNode: the boards of a node, who holds them, and how far its agent is with the layouts wanted."""

    meta: Meta
    boards: tuple[Board, ...] = ()
    links: tuple[tuple[int, ...], ...] = ()
    observed: float = 0.0  # seconds since the epoch
    lays_out: bool = False  # whether its agent carries out spec.boards
    current: bool = False  # whether what follows speaks of the present spec
    laid_out: str = ""  # reason of the condition LaidOut; "": none yet
    message: str = ""  # of the same
    interruption: Interruption | None = None  # as the agent heard it from the cloud's metadata

    @property
    def holders(self) -> frozenset[str]:
        """The pods that hold a device, as "namespace/name"."""
        whole = {board.holder for board in self.boards}
        return frozenset((whole | {i.holder for board in self.boards for i in board.instances}) - {""})


def whole_number(text: str | None) -> int:
    """The number that a label or annotation states; 0 where it states none: anybody may write these."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


class Record(Protocol):
    """Any of these."""

    @property
    def meta(self) -> Meta:
        """Identity and age."""
        ...
