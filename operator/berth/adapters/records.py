"""Decodes what other parts of Kubernetes own into records, reading only the fields that the operator needs."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from berth.control.interruptions import CONDITIONS, reported
from berth.control.ports import Json
from berth.control.records import (
    GPU_RESOURCES,
    ClaimRecord,
    DeploymentRecord,
    GPUNodeRecord,
    JobRecord,
    Meta,
    NodeRecord,
    PodRecord,
    PriorityClassRecord,
    Record,
    VolumeRecord,
    whole_number,
)
from berth.model import boards
from berth.model.gpus import MODELS, BoardModel
from berth.model.nodes import Taint
from berth.model.resources import Resources, pod_requests, to_units
from berth.model.workloads import Requirement

R = TypeVar("R", bound=Record)
Text = dict[str, str]
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


class _Struct(msgspec.Struct, rename="camel", omit_defaults=True):
    """Fields in camel case; what is not named is skipped."""


class _Owner(_Struct):
    kind: str
    name: str
    controller: bool = False


class ObjectMeta(_Struct):
    """metadata"""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    labels: Text | None = None
    annotations: Text | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int = 0
    owner_references: list[_Owner] | None = None

    def read(self) -> Meta:
        """The record's part of it."""
        return Meta(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            version=int(self.resource_version or 0),
            labels=self.labels or {},
            annotations=self.annotations or {},
            created=self.creation_timestamp.timestamp() if self.creation_timestamp else 0.0,
            deleting=self.deletion_timestamp is not None,
        )

    def ending_since(self) -> float:
        """When it was told to end: what is stated is when it is to have ended; 0: it was not told so."""
        end = self.deletion_timestamp
        return end.timestamp() - self.deletion_grace_period_seconds if end else 0.0

    def controller(self) -> str:
        """Kind and name of the object that manages it, "" for none."""
        return next((f"{owner.kind}/{owner.name}" for owner in self.owner_references or () if owner.controller), "")


class _Condition(_Struct):
    type: str
    status: str
    message: str = ""
    reason: str = ""


def _holds(conditions: list[_Condition], kind: str) -> _Condition | None:
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


class _Taint(_Struct):
    key: str
    effect: str
    value: str = ""


class _NodeSpec(_Struct):
    taints: list[_Taint] = []
    unschedulable: bool = False


class _NodeCondition(_Condition):
    last_transition_time: datetime | None = None


class _NodeStatus(_Struct):
    allocatable: Text = {}
    conditions: list[_NodeCondition] = []


class Node(_Struct):
    """v1 Node"""

    metadata: ObjectMeta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)

    def read(self) -> NodeRecord:
        """The record."""
        conditions = self.status.conditions
        ready = next((c for c in conditions if c.type == "Ready"), None)
        left = ready.last_transition_time if ready and ready.status != "True" else None
        return NodeRecord(
            meta=self.metadata.read(),
            allocatable=to_units(self.status.allocatable),
            taints=tuple(Taint(t.key, t.value, t.effect) for t in self.spec.taints),
            ready=ready is not None and ready.status == "True",
            unschedulable=self.spec.unschedulable,
            unready_since=left.timestamp() if left else 0.0,
            announced=tuple((c.type, c.message) for c in conditions if c.type in CONDITIONS and c.status == "True"),
        )


class _ResourceLists(_Struct):
    requests: Text | None = None
    limits: Text | None = None


class _Container(_Struct):
    resources: _ResourceLists = msgspec.field(default_factory=_ResourceLists)
    restart_policy: str = ""


class _Named(_Struct):
    name: str


class _PodSpec(_Struct):
    containers: list[_Container] = []
    init_containers: list[_Container] = []
    overhead: Text | None = None
    resources: _ResourceLists | None = None
    node_name: str = ""
    node_selector: Text | None = None
    scheduling_gates: list[_Named] | None = None


class _Terminated(_Struct):
    exit_code: int = 0
    finished_at: datetime | None = None
    reason: str = ""
    message: str = ""


class _State(_Struct):
    terminated: _Terminated | None = None


class _Health(msgspec.Struct):
    resource_id: str = msgspec.field(default="", name="resourceID")
    health: str = ""


class _ResourceStatus(_Struct):
    name: str = ""
    resources: list[_Health] | None = None


class _ContainerStatus(_Struct):
    name: str = ""
    state: _State = msgspec.field(default_factory=_State)
    allocated_resources_status: list[_ResourceStatus] | None = None


class _PodStatus(_Struct):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None


class Pod(_Struct):
    """v1 Pod"""

    metadata: ObjectMeta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    def read(self) -> PodRecord:
        """The record."""
        meta, spec, status = self.metadata.read(), self.spec, self.status
        conditions = status.conditions or []
        scheduled = next((c for c in conditions if c.type == "PodScheduled"), None)
        container, ended = self._ended()
        return PodRecord(
            meta=meta,
            requests=_requests(spec),
            phase=status.phase,
            controller=self.metadata.controller(),
            node=spec.node_name,
            hostname=(spec.node_selector or {}).get("kubernetes.io/hostname", ""),
            gated=bool(spec.scheduling_gates),
            ready=_holds(conditions, "Ready") is not None,
            reason=status.reason,
            message=status.message or (f"{ended.reason} {ended.message}".strip() if ended else ""),
            unschedulable=scheduled.message if scheduled and scheduled.status == "False" else "",
            exit_code=ended.exit_code if ended else None,
            index=whole_number(meta.annotations.get(INDEX_ANNOTATION)),
            container=container,
            ended_at=ended.finished_at.timestamp() if ended and ended.finished_at else 0.0,
            ending_since=self.metadata.ending_since(),
            disrupted=_holds(conditions, "DisruptionTarget") is not None,
            unhealthy=self._unhealthy(),
        )

    def _unhealthy(self) -> str:
        """The first GPU device of it that its plugin calls unhealthy, as the kubelet tells from Kubernetes 1.36 on."""
        found = [s for c in self.status.container_statuses or [] for s in c.allocated_resources_status or []]
        devices = [d for s in found if s.name.startswith(GPU_RESOURCES) for d in s.resources or []]
        return min((d.resource_id for d in devices if d.health == "Unhealthy"), default="")

    def _ended(self) -> tuple[str, _Terminated | None]:
        """The container that ended worst: a failed one before one that ended well."""
        ends = [(c.name, c.state.terminated) for c in self.status.container_statuses or [] if c.state.terminated]
        return max(ends, key=lambda end: end[1].exit_code != 0, default=("", None))


@lru_cache(maxsize=4096)
def _requests_of(encoded: bytes) -> Resources:
    return pod_requests(msgspec.json.decode(encoded))


_encode = msgspec.json.Encoder(order="deterministic").encode


def _requests(spec: _PodSpec) -> Resources:
    """What the pod takes. Most pods of a cluster ask for one of few combinations, hence the cache."""
    sizes = {
        "containers": [{"resources": c.resources} for c in spec.containers],
        "initContainers": [{"resources": c.resources, "restartPolicy": c.restart_policy} for c in spec.init_containers],
        "overhead": spec.overhead,
        "resources": spec.resources,
    }
    return _requests_of(_encode(sizes))


class _JobSpec(_Struct):
    suspend: bool = False


class _JobStatus(_Struct):
    conditions: list[_Condition] | None = None


class Job(_Struct):
    """batch/v1 Job"""

    metadata: ObjectMeta
    spec: _JobSpec = msgspec.field(default_factory=_JobSpec)
    status: _JobStatus = msgspec.field(default_factory=_JobStatus)

    def read(self) -> JobRecord:
        """The record. One that is to fail has failed: its controller only waits until it has ended all pods."""
        conditions = self.status.conditions or []
        failed = _holds(conditions, "Failed") or _holds(conditions, "FailureTarget")
        complete = _holds(conditions, "Complete")
        ended = complete or failed
        return JobRecord(
            meta=self.metadata.read(),
            suspended=self.spec.suspend,
            outcome="Complete" if complete else "Failed" if failed else "",
            message=f"{ended.reason}: {ended.message}" if ended else "",
        )


class _DeploymentSpec(_Struct):
    replicas: int = 1


class _DeploymentStatus(_Struct):
    replicas: int = 0
    ready_replicas: int = 0


class Deployment(_Struct):
    """apps/v1 Deployment"""

    metadata: ObjectMeta
    spec: _DeploymentSpec = msgspec.field(default_factory=_DeploymentSpec)
    status: _DeploymentStatus = msgspec.field(default_factory=_DeploymentStatus)

    def read(self) -> DeploymentRecord:
        """The record."""
        return DeploymentRecord(
            self.metadata.read(), self.status.replicas, self.status.ready_replicas, self.spec.replicas
        )


class PriorityClass(_Struct):
    """scheduling.k8s.io/v1 PriorityClass"""

    metadata: ObjectMeta
    value: int = 0
    global_default: bool = False

    def read(self) -> PriorityClassRecord:
        """The record."""
        return PriorityClassRecord(self.metadata.read(), self.value, self.global_default)


class _ClaimSpec(_Struct):
    volume_name: str = ""


class Claim(_Struct):
    """v1 PersistentVolumeClaim"""

    metadata: ObjectMeta
    spec: _ClaimSpec = msgspec.field(default_factory=_ClaimSpec)

    def read(self) -> ClaimRecord:
        """The record."""
        return ClaimRecord(self.metadata.read(), self.spec.volume_name)


class _Holder(_Struct):
    namespace: str
    name: str


def _held_by(pod: _Holder | None) -> str:
    return f"{pod.namespace}/{pod.name}" if pod else ""


class _Instance(_Struct):
    profile: str
    start: int
    uuid: str = ""
    gi_profile_id: int = msgspec.field(name="giProfileID", default=-1)
    pod: _Holder | None = None

    def read(self, model: BoardModel) -> boards.Instance | None:
        """The instance; None where the table lacks its profile."""
        known = next((p for p in model.profiles if p.gi_profile_id == self.gi_profile_id), model.profile(self.profile))
        return boards.Instance(known, self.start, _held_by(self.pod)) if known else None


class _Board(_Struct):
    index: int
    model: str
    healthy: bool = False
    mig_enabled: bool = False
    watts: float | None = None
    utilization: float | None = None  # percent
    pod: _Holder | None = None
    instances: list[_Instance] | None = None

    def read(self) -> boards.Board | None:
        """The board; None where the table lacks its model or a profile on it. What no pod can have is no instance."""
        model = next((m for m in MODELS if m.name == self.model), None)
        if model is None:
            return None
        found = [instance.read(model) for instance in self.instances or () if instance.uuid]
        if not all(found):
            return None
        instances = tuple(sorted((i for i in found if i), key=lambda i: i.start))
        holder, busy = _held_by(self.pod), None if self.utilization is None else self.utilization / 100
        return boards.Board(
            self.index, model, self.healthy, self.mig_enabled, instances, holder, watts=self.watts, utilization=busy
        )


class _GPUNodeMeta(ObjectMeta):
    generation: int = 0


class _GPUNodeStatus(_Struct):
    interruption: Any = None
    boards: list[_Board] | None = None
    links: list[list[int]] | None = None
    observed_time: datetime | None = None
    observed_generation: int | None = None
    layouts: str = "None"
    conditions: list[_Condition] | None = None


class GPUNode(_Struct):
    """berth.dev/v1alpha1 GPUNode"""

    metadata: _GPUNodeMeta
    status: _GPUNodeStatus = msgspec.field(default_factory=_GPUNodeStatus)

    def read(self) -> GPUNodeRecord:
        """The record."""
        status = self.status
        found = [board.read() for board in status.boards or ()]
        condition = next((c for c in status.conditions or () if c.type == "LaidOut"), None)
        return GPUNodeRecord(
            meta=self.metadata.read(),
            boards=tuple(sorted((b for b in found if b), key=lambda b: b.index)) if all(found) else (),
            links=tuple(tuple(row) for row in status.links or ()),
            observed=status.observed_time.timestamp() if status.observed_time else 0.0,
            lays_out=status.layouts == "Agent",
            current=status.observed_generation == self.metadata.generation,
            laid_out=condition.reason if condition else "",
            message=condition.message if condition else "",
            interruption=reported(status.interruption),
        )


class _Expression(_Struct):
    key: str
    operator: str
    values: list[str] | None = None


class _Term(_Struct):
    match_expressions: list[_Expression] | None = None


class _Terms(_Struct):
    node_selector_terms: list[_Term] = []


class _VolumeAffinity(_Struct):
    required: _Terms | None = None


class _VolumeSpec(_Struct):
    node_affinity: _VolumeAffinity | None = None


class Volume(_Struct):
    """v1 PersistentVolume"""

    metadata: ObjectMeta
    spec: _VolumeSpec = msgspec.field(default_factory=_VolumeSpec)

    def read(self) -> VolumeRecord:
        """The record."""
        affinity = self.spec.node_affinity
        terms = affinity.required.node_selector_terms if affinity and affinity.required else []
        return VolumeRecord(self.metadata.read(), tuple(_requirements(term) for term in terms))


def _requirements(term: _Term) -> tuple[Requirement, ...]:
    return tuple(Requirement(e.key, e.operator, tuple(e.values or ())) for e in term.match_expressions or ())


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None  # null: an empty list of metadata, as API servers write it


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_list = msgspec.json.Decoder(_List)
_event = msgspec.json.Decoder(_Event)


class Decoder(Generic[R]):
    """Decodes lists, watch events and single objects of one kind."""

    def __init__(self, struct: type[Any]) -> None:
        self._one = msgspec.json.Decoder(struct)

    @staticmethod
    def page(content: bytes) -> tuple[list[msgspec.Raw], str, str]:
        """The objects of a list undecoded, its resourceVersion and the token of its next page ("": the last)."""
        answer = _list.decode(content)
        return answer.items or [], answer.metadata.resource_version, answer.metadata.continue_

    @staticmethod
    def event(line: bytes) -> tuple[str, msgspec.Raw]:
        """The type of a watch event, and its object undecoded."""
        answer = _event.decode(line)
        return answer.type, answer.object

    def one(self, content: bytes | msgspec.Raw) -> R:
        """One object's record."""
        record: R = self.fields(content).read()
        return record

    def fields(self, content: bytes | msgspec.Raw) -> Any:
        """What is read of one object."""
        return self._one.decode(content)


def read_pod(raw: Json) -> PodRecord:
    """The record of a pod that came as the answer to a write."""
    return msgspec.convert(raw, Pod, strict=False).read()


def read_job(raw: Json) -> JobRecord:
    """The record of a Job that came as the answer to a write."""
    return msgspec.convert(raw, Job, strict=False).read()


def read_node(raw: Json) -> NodeRecord:
    """The record of a Node that came as the answer to a write."""
    return msgspec.convert(raw, Node, strict=False).read()


def read_gpu_node(raw: Json) -> GPUNodeRecord:
    """The record of a GPUNode that was read, or came as the answer to a write."""
    return msgspec.convert(raw, GPUNode, strict=False).read()
