"""The one in-memory picture of the cluster, kept by watches and by the answers to our own writes.

Each store keeps the newest state of each object by resourceVersion, so a write's answer and the watch event that
follows it may come in either order. Decisions that are on their way to the API server are assumed to have happened
until their answer comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

from berth.control.interruptions import ANNOTATIONS as INTERRUPTIONS
from berth.control.interruptions import interruption_of
from berth.control.ports import INFERENCE_SERVICES, QUEUES, TRAINING_JOBS, Resource
from berth.control.records import (
    LAYOUT_ANNOTATION,
    UID_LABEL,
    ClaimRecord,
    DeploymentRecord,
    GPUNodeRecord,
    JobRecord,
    NodeRecord,
    PodRecord,
    PriorityClassRecord,
    Record,
    VolumeRecord,
)
from berth.model.failures import Pace
from berth.model.nodes import Relayout
from berth.model.resources import Resources
from berth.model.workloads import Attempt

Raw = Mapping[str, Any]
R = TypeVar("R", bound=Record)
TOLD = (
    "progress",
    "checkpoint",
    "checkpointProblem",
    "listens",
    "usage",
)  # fields of a status that the progress endpoint and the meter write
REMEMBERED = 10_000  # uids of objects that are gone: more than can go while one answer is on its way


def version_of(raw: Raw) -> int:
    """The resourceVersion of an object, as the number that it is."""
    return int(raw["metadata"].get("resourceVersion") or 0)


class Store(Generic[R]):
    """Records of one kind by namespace and name, the newest of each."""

    def __init__(self, changed: Callable[[R | None, R | None], None]) -> None:
        self._records: dict[tuple[str, str], R] = {}
        self._changed = changed

    def get(self, namespace: str, name: str) -> R | None:
        """The record of that name, or None."""
        return self._records.get((namespace, name))

    def __iter__(self) -> Iterator[R]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: R) -> None:
        """Take in a state that the API server sent, unless a newer one of the same object is known."""
        key = (record.meta.namespace, record.meta.name)
        old = self._records.get(key)
        if old is not None and old.meta.version >= record.meta.version:
            return
        self._records[key] = record
        self._changed(old, record)

    def update(self, record: R) -> None:
        """Take in the answer to a write: only if that very object is still there."""
        old = self.get(record.meta.namespace, record.meta.name)
        if old is not None and old.meta.uid == record.meta.uid:
            self.put(record)

    def drop(self, namespace: str, name: str, uid: str = "") -> None:
        """Forget an object (only the one with that uid, if given)."""
        old = self._records.get((namespace, name))
        if old is not None and uid in ("", old.meta.uid):
            del self._records[(namespace, name)]
            self._changed(old, None)

    def replace(self, records: list[R]) -> None:
        """Take in a whole list: what it lacks is gone."""
        keys = {(r.meta.namespace, r.meta.name) for r in records}
        for namespace, name in [key for key in self._records if key not in keys]:
            self.drop(namespace, name)
        for record in records:
            self.put(record)


@dataclass(slots=True)
class Validation:
    """The API server's word on the objects that a workload would become."""

    generation: int
    problem: str  # "": it would take them
    at: float


@dataclass
class Picture:
    """All that has been observed. `wake` is called at every change that may change the plan."""

    wake: Callable[[], None] = lambda: None
    hurry: Callable[[], None] = lambda: None  # called where a node seems to go away
    workloads: dict[str, Raw] = field(default_factory=dict)  # TrainingJobs and InferenceServices by uid
    queues: dict[str, Raw] = field(default_factory=dict)  # by uid
    validations: dict[str, Validation] = field(default_factory=dict)  # by uid
    assumed_attempts: dict[str, Attempt] = field(default_factory=dict)  # by the job's uid: admissions under way
    assumed_pins: dict[str, str] = field(default_factory=dict)  # node by the pod's uid: pins under way
    assumed_relayouts: dict[str, Relayout] = field(default_factory=dict)  # by node: begun, not answered yet
    used: dict[str, dict[str, int]] = field(default_factory=dict)  # by node, of bound pods that have not ended
    pods_of: dict[str, dict[str, PodRecord]] = field(default_factory=dict)  # by workload uid, then pod uid
    changed: set[str] = field(default_factory=set)  # uids of workloads that changed since last asked
    paces: dict[str, Pace] = field(default_factory=dict)  # by uid: how attempts get on, as this process heard
    listening: float = inf  # since when it hears them, in seconds since the epoch; infinite: it does not
    generation: int = 0  # counts changes of what every workload's conversion depends on
    changed_nodes: set[str] = field(default_factory=set)  # names of nodes that changed since last asked
    storage_changed: bool = True  # claims or volumes, which only workloads that name claims depend on

    def __post_init__(self) -> None:
        self.nodes: Store[NodeRecord] = Store(self._node_changed)
        self.gpu_nodes: Store[GPUNodeRecord] = Store(self._report_changed)
        self.pods: Store[PodRecord] = Store(self._pod_changed)
        self.jobs: Store[JobRecord] = Store(self._job_changed)
        self.deployments: Store[DeploymentRecord] = Store(self._child_changed)
        self.priorities: Store[PriorityClassRecord] = Store(self._shared_changed)
        self.claims: Store[ClaimRecord] = Store(self._storage_changed)
        self.volumes: Store[VolumeRecord] = Store(self._storage_changed)
        self._jobs_of: dict[str, dict[str, JobRecord]] = {}  # by the uid of the TrainingJob, then name
        self._by_hostname: dict[str, str] = {}  # names of nodes by their hostname label
        self._holding: dict[str, dict[str, float]] = {}  # by node: pods with GPUs that are bound there, when made
        self._unbound: dict[str, PodRecord] = {}  # pinned by a nodeSelector, not bound yet, by uid
        self._gone: dict[str, None] = {}  # uids of our own objects that were deleted, oldest first

    @property
    def own(self) -> Mapping[Resource, dict[str, Raw]]:
        """Our own objects by resource, then uid (workloads of both kinds share one mapping)."""
        return {TRAINING_JOBS: self.workloads, INFERENCE_SERVICES: self.workloads, QUEUES: self.queues}

    def record(self, resource: Resource, raw: Raw) -> None:
        """Take in one of our own objects, unless a newer state of it is known, or that it is gone.

        A list or the answer to a write may arrive after the event of the deletion; a uid never comes back.
        """
        known = self.own[resource]
        uid = raw["metadata"]["uid"]
        old = known.get(uid)
        if uid not in self._gone and (old is None or version_of(old) < version_of(raw)):
            known[uid] = raw
            if old is None or _planned_for(old) != _planned_for(raw):
                self._touch(uid)
            else:
                self.changed.add(uid)

    def forget(self, resource: Resource, uid: str) -> None:
        """One of our own objects is gone."""
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        if self.own[resource].pop(uid, None) is not None:
            self.validations.pop(uid, None)
            self.assumed_attempts.pop(uid, None)
            self.paces.pop(uid, None)
            self._touch(uid)

    def resync(self, resource: Resource, listed: Sequence[Raw], version: int) -> None:
        """Compare with a list made at `version`: what it lacks and was known before is gone."""
        uids = {raw["metadata"]["uid"] for raw in listed}
        for uid, raw in list(self.own[resource].items()):
            if uid not in uids and raw.get("kind") == KIND_OF[resource] and version_of(raw) < version:
                self.forget(resource, uid)
        for raw in listed:
            self.record(resource, raw)

    def assume_attempt(self, uid: str, attempt: Attempt | None) -> None:
        """An admission is under way (or, with None, answered)."""
        if attempt is None:
            self.assumed_attempts.pop(uid, None)
        else:
            self.assumed_attempts[uid] = attempt
        self.changed.add(uid)

    def assume_pin(self, uid: str, pod_uid: str, node: str) -> None:
        """A pin is under way (or, with "", answered)."""
        if node:
            self.assumed_pins[pod_uid] = node
        else:
            self.assumed_pins.pop(pod_uid, None)
        self.changed.add(uid)

    def assume_relayout(self, node: str, relayout: Relayout | None) -> None:
        """A re-layout of a node's boards is being begun (or, with None, answered)."""
        if relayout is None:
            self.assumed_relayouts.pop(node, None)
        else:
            self.assumed_relayouts[node] = relayout
        self.changed_nodes.add(node)

    def node_of(self, pod: PodRecord) -> str:
        """The node that a pod is bound or pinned to, or on its way to; "" if none."""
        if pod.node:
            return pod.node
        if pod.gated:
            return self.assumed_pins.get(pod.meta.uid, "")
        return self.node_named(pod.hostname) if pod.hostname else ""

    def node_named(self, hostname: str) -> str:
        """The node whose hostname label has that value; nearly always its own name."""
        if self.nodes.get("", hostname) is not None:
            return hostname
        return self._by_hostname.get(hostname, "")

    def holding(self) -> dict[str, Mapping[str, float]]:
        """The pods with GPUs that are bound or pinned to each node, by "namespace/name", and when they were made."""
        total: dict[str, Mapping[str, float]] = dict(self._holding)
        for pod in [*self._unbound.values(), *self._assumed_pods()]:
            node = self.node_of(pod)
            if node and pod.holds_gpus:
                total[node] = {**total.get(node, {}), _name(pod): pod.meta.created}
        return total

    def usage(self) -> dict[str, Resources]:
        """What bound and pinned pods take from each node, "pods" counted."""
        total: dict[str, dict[str, int]] = {name: dict(taken) for name, taken in self.used.items()}
        pinned = [*self._unbound.values(), *self._assumed_pods()]
        for pod in pinned:
            node = self.node_of(pod)
            if node:
                _take(total.setdefault(node, {}), pod.requests, +1)
        return dict(total)

    def _assumed_pods(self) -> Iterator[PodRecord]:
        if self.assumed_pins:
            for pods in self.pods_of.values():
                yield from (p for uid, p in pods.items() if p.gated and uid in self.assumed_pins)

    def _touch(self, uid: str) -> None:
        self.changed.add(uid)
        self.wake()

    def _node_changed(self, old: NodeRecord | None, new: NodeRecord | None) -> None:
        for record, sign in ((old, -1), (new, +1)):
            if record is not None:
                hostname = record.meta.labels.get("kubernetes.io/hostname", "")
                if sign > 0:
                    self._by_hostname[hostname] = record.meta.name
                elif self._by_hostname.get(hostname) == record.meta.name:
                    del self._by_hostname[hostname]
        if old is None or new is None or _without_version(old) != _without_version(new):
            self._touch_node(old or new)

    def _report_changed(self, old: GPUNodeRecord | None, new: GPUNodeRecord | None) -> None:
        """A report that says the same as the one before only shows that the agent lives: no reason to plan anew."""
        if old is None or new is None or _without_time(old) != _without_time(new):
            self._touch_node(old or new)

    def _touch_node(self, record: Record | None) -> None:
        if record is not None:
            name = record.meta.name
            self.changed_nodes.add(name)
            node = self.nodes.get("", name)
            if node is not None and interruption_of(node, self.gpu_nodes.get("", name), inf) is not None:
                self.hurry()
            self.wake()

    def _pod_changed(self, old: PodRecord | None, new: PodRecord | None) -> None:
        for pod, sign in ((old, -1), (new, +1)):
            if pod is not None:
                self._count(pod, sign)
        self.wake()

    def _count(self, pod: PodRecord, sign: int) -> None:
        uid = pod.meta.uid
        if not pod.ended:
            if pod.node:
                _take(self.used.setdefault(pod.node, {}), pod.requests, sign)
                self._hold(pod, sign)
            elif pod.hostname and not pod.gated:
                _keep(self._unbound, uid, pod, sign)
        owner = pod.meta.labels.get(UID_LABEL)
        if owner:
            _keep(self.pods_of.setdefault(owner, {}), uid, pod, sign)
            self.changed.add(owner)
            if not self.pods_of[owner]:
                del self.pods_of[owner]

    def _hold(self, pod: PodRecord, sign: int) -> None:
        """Snapshots keep the mappings that they were given, so a node's is never changed, but replaced."""
        if pod.holds_gpus:
            held = {name: at for name, at in self._holding.pop(pod.node, {}).items() if name != _name(pod)}
            if sign > 0:
                held[_name(pod)] = pod.meta.created
            if held:
                self._holding[pod.node] = held

    def jobs_of(self, uid: str) -> tuple[JobRecord, ...]:
        """The Jobs that carry a TrainingJob's uid."""
        return tuple(self._jobs_of.get(uid, {}).values())

    def _job_changed(self, old: JobRecord | None, new: JobRecord | None) -> None:
        if old is not None:
            owned = self._jobs_of.get(old.meta.labels.get(UID_LABEL, ""), {})
            owned.pop(old.meta.name, None)
            if not owned:
                self._jobs_of.pop(old.meta.labels.get(UID_LABEL, ""), None)
        if new is not None:
            self._jobs_of.setdefault(new.meta.labels.get(UID_LABEL, ""), {})[new.meta.name] = new
        self._child_changed(old, new)

    def _child_changed(self, old: Record | None, new: Record | None) -> None:
        record = new or old
        if record is not None:
            self._touch(record.meta.labels.get(UID_LABEL, ""))

    def _shared_changed(self, old: Record | None, new: Record | None) -> None:
        self.generation += 1
        self.wake()

    def _storage_changed(self, old: Record | None, new: Record | None) -> None:
        if _reach(old) != _reach(new):
            self.storage_changed = True
            self.wake()


KIND_OF = {TRAINING_JOBS: "TrainingJob", INFERENCE_SERVICES: "InferenceService", QUEUES: "Queue"}


def _keep(pods: dict[str, PodRecord], uid: str, pod: PodRecord, sign: int) -> None:
    if sign > 0:
        pods[uid] = pod
    else:
        pods.pop(uid, None)


def _planned_for(raw: Raw) -> Raw:
    """What of one of our own objects a plan may answer to: not how far a program says it is."""
    whole = raw.get("status") or {}
    status = {key: value for key, value in whole.items() if key not in TOLD}
    status["answered"] = (whole.get("checkpoint") or {}).get("answers")
    metadata = {key: value for key, value in raw["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**raw, "metadata": metadata, "status": status}


def _take(total: dict[str, int], requests: Resources, sign: int) -> None:
    for name, amount in requests.items():
        total[name] = total.get(name, 0) + sign * amount
    total["pods"] = total.get("pods", 0) + sign


def _reach(record: Record | None) -> Any:
    """What decides where a claim can be used: its volume, and the nodes that reach that."""
    if isinstance(record, ClaimRecord):
        return record.volume or ()
    return record.affinity if isinstance(record, VolumeRecord) else ()


def _without_version(node: NodeRecord) -> tuple[Any, ...]:
    notes = tuple(node.meta.annotations.get(name) for name in (LAYOUT_ANNOTATION, *INTERRUPTIONS))
    state = (node.ready, node.unready_since, node.unschedulable, node.announced, node.meta.deleting)
    return (node.meta.labels, notes, node.allocatable, node.taints, state)


def _without_time(report: GPUNodeRecord) -> tuple[Any, ...]:
    note = report.meta.annotations.get(LAYOUT_ANNOTATION)
    done = (report.lays_out, report.current, report.laid_out, report.message)
    return (report.boards, report.links, note, done, report.interruption, report.meta.deleting)


def _name(pod: PodRecord) -> str:
    return f"{pod.meta.namespace}/{pod.meta.name}"
