"""From the picture to the planner's snapshot."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from berth.control.interruptions import interruption_of, lost_since, unreadable, wakes_at
from berth.control.layouts import noted
from berth.control.picture import Picture, Raw, version_of
from berth.control.records import (
    ATTEMPT_LABEL,
    DELETION_COST_ANNOTATION,
    DEVICE_ANNOTATION,
    GENERATION_ANNOTATION,
    GPU_RESOURCES,
    PINNED_ANNOTATION,
    REVISION_LABEL,
    UID_LABEL,
    Affinity,
    GPUNodeRecord,
    JobRecord,
    NodeRecord,
    PodRecord,
    whole_number,
)
from berth.model.boards import Board
from berth.model.gpus import WHOLE_BOARD, BoardModel, model_of_product
from berth.model.nodes import Node, Relayout
from berth.model.resources import Resources
from berth.model.workloads import Attempt, Device, Kind, Past, Placement, Pod, PodPhase, Queue, RunPhase, Workload
from berth.planning.carbon import Outlook
from berth.planning.cohorts import defaults
from berth.planning.fleet import Nodes
from berth.planning.snapshot import Snapshot
from berth.planning.spells import Sightings

log = logging.getLogger(__name__)

Volumes = Callable[[str, str], Affinity]
"""The affinity of the volume bound to a claim, by namespace and name; empty when it has none."""


@dataclass(frozen=True, slots=True)
class Convert:
    """How raw objects of our group become the planner's types (the `api` package knows)."""

    workload: Callable[[Raw, Mapping[str, int], Volumes], Workload]
    queue: Callable[[Raw], Queue]


INFRASTRUCTURE = ("UnexpectedAdmissionError", "NodeAffinity", "NodeShutdown", "Terminated", "Shutdown", "Preempting")


@dataclass
class Observer:
    """Makes snapshots, converting again only what changed since the last one."""

    picture: Picture
    convert: Convert
    spot_rates: Callable[[], Mapping[tuple[str, str], float]] = dict  # as snapshots have them
    spot: Callable[[], Mapping[tuple[str, str], Sightings]] = dict  # the same
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)  # of carbon intensity, by region
    pasts: Mapping[str, Past] = field(default_factory=dict)  # of the queues, by name, as the last plan left them
    _base: dict[str, tuple[int, int, Workload | None]] = field(default_factory=dict)  # version, generation, converted
    _whole: dict[str, Workload] = field(default_factory=dict)
    _nodes: Nodes = field(default_factory=lambda: Nodes({}))
    _claiming: set[str] = field(default_factory=set)  # uids of workloads that name claims
    _seen: int = -1  # the picture's generation at the last snapshot
    _defaults: Mapping[str, str] = field(default_factory=dict)  # the queue of work that names none, by namespace
    _coming: dict[str, float] = field(default_factory=dict)  # by node: when what is planned for it begins to count
    _unreadable: dict[str, str] = field(default_factory=dict)  # by node: what its annotations say that is no time

    @property
    def wake_at(self) -> float | None:
        """When time alone changes a node, in seconds since the epoch."""
        return min(self._coming.values(), default=None)

    def snapshot(self, now: float = 0.0) -> Snapshot:
        """The planner's view of this moment; maintenance that begins long after `now` is left out."""
        picture = self.picture
        self._refresh_nodes(now)
        queues = {q.name: self._with_past(q) for q in map(self.convert.queue, picture.queues.values())}
        self._refresh(defaults(queues))
        return Snapshot(
            nodes=self._nodes,
            used=picture.usage(),
            workloads=tuple(self._whole.values()),
            queues=queues,
            holding=picture.holding(),
            observed={report.meta.name: report.observed for report in picture.gpu_nodes},
            reported={report.meta.name: report.boards for report in picture.gpu_nodes},
            paces=dict(picture.paces),
            listening=picture.listening,
            outlooks=self.outlooks,
            spot_rates=self.spot_rates(),
            spot=self.spot(),
        )

    def _with_past(self, queue: Queue) -> Queue:
        """The queue with what the last plan knows of its use, which its status will say later."""
        past = self.pasts.get(queue.name)
        return queue if past is None or past.at < queue.past.at else replace(queue, past=past)

    def base(self, uid: str) -> Workload | None:
        """The workload as its own object states it, without pods and children; None where nothing can be made of it."""
        raw = self.picture.workloads[uid]
        version, generation, base = self._base.get(uid, (-1, -1, None))
        if version != version_of(raw) or generation != self.picture.generation:
            base = self._convert(raw)
            self._base[uid] = (version_of(raw), self.picture.generation, base)
        return base

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """All that the last snapshot had."""
        return tuple(self._whole.values())

    def current(self, uid: str) -> Workload | None:
        """The workload as the picture has it at this moment; None where nothing can be made of it, or it is gone."""
        return self._complete(uid) if uid in self.picture.workloads else None

    def converted(self, raw: Raw) -> Workload | None:
        """A workload's object, watched or not, as the planner's type; None where nothing can be made of it."""
        found = self._convert(raw)
        return found and self._in_its_queue(found)

    def _in_its_queue(self, base: Workload) -> Workload:
        """Work that names no queue goes where that of its namespace does."""
        queue = base.queue if base.queue_named else self._defaults.get(base.ref.namespace, base.queue)
        return base if queue == base.queue else replace(base, queue=queue)

    def _convert(self, raw: Raw) -> Workload | None:
        def volumes(namespace: str, claim: str) -> Affinity:
            self._claiming.add(raw["metadata"]["uid"])
            return self._volume_affinity(namespace, claim)

        try:
            return self.convert.workload(raw, self._priorities(), volumes)
        except Exception:  # conversion says what is wrong with a spec; this is beyond it, and must not stop the others
            log.exception(
                "left out, it can't be read: %s/%s", raw["metadata"].get("namespace"), raw["metadata"]["name"]
            )
            return None

    def _refresh_nodes(self, now: float) -> None:
        """Bring the nodes up to date; while none differs they stay the same object, which keeps its arrangement."""
        picture = self.picture
        changed, picture.changed_nodes = picture.changed_nodes, set()
        changed |= {name for name, at in self._coming.items() if at <= now}
        if not changed:
            return
        fresh = dict(self._nodes)
        for name in changed:
            record = picture.nodes.get("", name)
            self._coming.pop(name, None)
            if record is None or record.meta.deleting:
                fresh.pop(name, None)
                self._unreadable.pop(name, None)
            else:
                report = picture.gpu_nodes.get("", name)
                fresh[name] = to_node(record, report, picture.assumed_relayouts.get(name), now)
                self._watch(record, report, now)
        if fresh != dict(self._nodes):
            self._nodes = Nodes(fresh)

    def _watch(self, record: NodeRecord, report: GPUNodeRecord | None, now: float) -> None:
        """Remember when a node changes by itself, and say once what can't be read there."""
        name, bad = record.meta.name, unreadable(record)
        at = wakes_at(record, report, now)
        if at is not None:
            self._coming[name] = at
        if bad and bad != self._unreadable.get(name):
            log.warning("node %s: left out, %s", name, bad)
        self._unreadable[name] = bad

    def _refresh(self, defaults: Mapping[str, str]) -> None:
        picture = self.picture
        changed, picture.changed = picture.changed, set()
        if picture.storage_changed:
            picture.storage_changed = False
            changed |= self._claiming
            for uid in self._claiming & self._base.keys():
                del self._base[uid]
        for uid in [uid for uid in self._base if uid not in picture.workloads]:
            del self._base[uid]
            self._whole.pop(uid, None)
            self._claiming.discard(uid)
        fresh = self._seen == picture.generation and self._defaults == defaults
        self._seen, self._defaults = picture.generation, defaults
        for uid in [uid for uid in picture.workloads if not fresh or uid in changed or uid not in self._base]:
            workload = self._complete(uid)
            if workload is None:
                self._whole.pop(uid, None)
            else:
                self._whole[uid] = workload

    def _priorities(self) -> Mapping[str, int]:
        """Values of PriorityClasses by name; the default one's under ""."""
        values = {p.meta.name: p.value for p in self.picture.priorities}
        values[""] = next((p.value for p in self.picture.priorities if p.default), 0)
        return values

    def _complete(self, uid: str) -> Workload | None:
        """The workload with its pods; None while its template waits for the API server's word, or is unreadable."""
        base = self.base(uid)
        if base is None:
            return None
        base = self._in_its_queue(base)
        validation = self.picture.validations.get(uid)
        current = validation is not None and validation.generation == base.generation
        if not current and not (base.problem or base.attempt or base.finished or base.deleting):
            return self._as_deployed(base)
        if validation is not None and current and validation.problem and not base.problem:
            base = replace(base, request=None, problem=validation.problem)
        if base.ref.kind is Kind.TRAINING_JOB:
            return self._with_attempt(base)
        return self._with_deployment(base)

    def _with_attempt(self, base: Workload) -> Workload:
        pods = self._members(base)
        attempt = base.attempt or self.picture.assumed_attempts.get(base.ref.uid) or self._leftover(base)
        if attempt is None:
            return replace(base, pods=pods)
        job = self.picture.jobs.get(base.ref.namespace, f"{base.ref.name}-{attempt.number}")
        if job is not None and job.meta.labels.get(UID_LABEL) != base.ref.uid:
            job = None  # of an earlier object of this name, on its way out: what became of it says nothing of ours
        return replace(
            base,
            attempt=replace(attempt, phase=_phase(job)),
            attempts_made=max(base.attempts_made, attempt.number),
            pods=pods,
        )

    def _leftover(self, base: Workload) -> Attempt | None:
        """An attempt that runs though status, wiped or restored without it, says nothing of it: it has to end first."""
        if base.finished:
            return None
        jobs = [j for j in self.picture.jobs_of(base.ref.uid) if not j.meta.deleting]
        numbered = {whole_number(job.meta.labels.get(ATTEMPT_LABEL)): job for job in jobs}
        if not numbered:
            return None
        number = max(numbered)
        device = device_from(numbered[number].meta.annotations.get(DEVICE_ANNOTATION, ""))
        placement = Placement(device or Device("", WHOLE_BOARD, 0), nodes=())
        return Attempt(number, placement, numbered[number].meta.created, stopping="Requeued")

    def _members(self, base: Workload) -> tuple[Pod, ...]:
        """The pods that our Jobs or ReplicaSets made; a copy of one that a user made is none of them."""
        made_by = (f"Job/{base.ref.name}-", f"ReplicaSet/{base.ref.name}-")
        pods = self.picture.pods_of.get(base.ref.uid, {}).values()
        return tuple(self._pod(pod) for pod in pods if pod.controller.startswith(made_by))

    def _with_deployment(self, base: Workload) -> Workload:
        pods = self._members(base)
        deployment = self.picture.deployments.get(base.ref.namespace, base.ref.name)
        if deployment is None or deployment.meta.labels.get(UID_LABEL) != base.ref.uid:
            return replace(base, pods=pods)
        return replace(
            base,
            pods=pods,
            served_device=device_from(deployment.meta.annotations.get(DEVICE_ANNOTATION, "")),
            served_generation=whole_number(deployment.meta.annotations.get(GENERATION_ANNOTATION)),
            served_replicas=deployment.wanted,
        )

    def _as_deployed(self, base: Workload) -> Workload | None:
        """A service whose changed template waits for the API server's word: it holds what it has, as it was made."""
        whole = self._with_deployment(base) if base.ref.kind is Kind.INFERENCE_SERVICE else None
        if whole is None or whole.served_device is None:
            return None
        return replace(whole, generation=whole.served_generation)

    def _pod(self, pod: PodRecord) -> Pod:
        node = self.picture.node_of(pod)
        return Pod(
            name=pod.meta.name,
            uid=pod.meta.uid,
            phase=_pod_phase(pod, node),
            attempt=whole_number(pod.meta.labels.get(ATTEMPT_LABEL)),
            index=pod.index,
            node=node,
            created=pod.meta.created,
            pinned_at=0.0 if pod.gated or pod.node else _pinned_at(pod),
            terminating=pod.meta.deleting,
            refusal=pod.reason if pod.phase == "Failed" and _is_infrastructure(pod.reason) else "",
            exit_code=pod.exit_code,
            message=pod.message or pod.unschedulable,
            device=device_from(pod.meta.annotations.get(DEVICE_ANNOTATION, "")),
            container=pod.container,
            ended_at=pod.ended_at,
            ending_since=pod.ending_since,
            disrupted=pod.disrupted,
            unhealthy=pod.unhealthy,
            revision=pod.meta.labels.get(REVISION_LABEL, ""),
            goes_first=pod.meta.annotations.get(DELETION_COST_ANNOTATION, "0").startswith("-"),
        )

    def _volume_affinity(self, namespace: str, claim_name: str) -> Affinity:
        claim = self.picture.claims.get(namespace, claim_name)
        volume = self.picture.volumes.get("", claim.volume) if claim and claim.volume else None
        return volume.affinity if volume else ()


def to_node(
    record: NodeRecord, report: GPUNodeRecord | None = None, assumed: Relayout | None = None, now: float = 0.0
) -> Node:
    """The planner's view of a node: which boards it has, why they can't serve demands, what is under way or coming.

    `assumed` is a re-layout that is being begun, and that the node does not show yet.
    """
    labels = record.meta.labels
    board = board_of(labels)
    node = Node(
        name=record.meta.name,
        labels=labels,
        allocatable=_usable(record, report),
        taints=record.taints,
        ready=record.ready,
        unschedulable=record.unschedulable,
        board=board,
        excluded=_excluded(record) if board else "",
        interruption=interruption_of(record, report, now),
        lost_since=lost_since(record),
    )
    return noted(node, record, report, assumed)


def _usable(record: NodeRecord, report: GPUNodeRecord | None) -> Resources:
    """What the kubelet offers, without boards that the agent calls unhealthy though the device plugin does not."""
    boards = report.boards if report else ()
    if all(board.healthy for board in boards):
        return record.allocatable
    sound = [board for board in boards if board.healthy]
    offered = Counter(name for board in sound for name in _resources(board))
    return {n: min(v, offered[n]) if n.startswith(GPU_RESOURCES) else v for n, v in record.allocatable.items()}


def _resources(board: Board) -> list[str]:
    return [n for i in board.instances for n in i.profile.resources] if board.mig_enabled else [WHOLE_BOARD]


def board_of(labels: Mapping[str, str]) -> BoardModel | None:
    """The board model of a node with these labels; None: it has no boards."""
    product = labels.get("nvidia.com/gpu.product", "")
    if not product:
        return None
    bare = product.partition("-MIG-")[0].removesuffix("-SHARED")
    memory = labels.get("nvidia.com/gpu.memory", "0")
    return model_of_product(bare, int(memory) if memory.isdigit() and "-MIG-" not in product else 0)


def _excluded(record: NodeRecord) -> str:
    """Why a node's GPUs are left out; what is shared or managed otherwise can't be counted in boards."""
    labels = record.meta.labels
    product = labels["nvidia.com/gpu.product"]
    replicas = [value for key, value in labels.items() if key.startswith("nvidia.com/") and key.endswith("replicas")]
    if labels.get("nvidia.com/gpu.sharing-strategy") == "mps":
        return "GPUs are shared by MPS"
    if any(value.isdigit() and int(value) > 1 for value in replicas) or product.endswith("-SHARED"):
        return "GPUs are time-sliced"
    if "-MIG-" in product:
        return "MIG strategy is single"
    if labels.get("nvidia.com/dra-kubelet-plugin") == "true":
        return "GPUs are managed by DRA"
    return ""


def _phase(job: JobRecord | None) -> RunPhase:
    if job is None:
        return RunPhase.ABSENT
    if job.outcome == "Complete":
        return RunPhase.SUCCEEDED
    if job.outcome == "Failed":
        return RunPhase.FAILED
    return RunPhase.SUSPENDED if job.suspended else RunPhase.RUNNING


def _pod_phase(pod: PodRecord, node: str) -> PodPhase:
    if pod.ended:
        return PodPhase.SUCCEEDED if pod.phase == "Succeeded" else PodPhase.FAILED
    if not pod.node:
        return PodPhase.PINNED if node or not pod.gated else PodPhase.GATED
    return PodPhase.READY if pod.ready else PodPhase.BOUND


def _pinned_at(pod: PodRecord) -> float:
    """When the gate was lifted; of a pod that someone else released, when it was made."""
    return float(whole_number(pod.meta.annotations.get(PINNED_ANNOTATION))) or pod.meta.created


def _is_infrastructure(reason: str) -> bool:
    return reason in INFRASTRUCTURE or reason.startswith("OutOf")


def device_from(text: str) -> Device | None:
    """The device that an annotation of ours states; None where it states none, or where others wrote over it."""
    try:
        value: dict[str, Any] = json.loads(text or "{}")
        return Device(model=str(value["model"]), resource=str(value["resource"]), count=int(value["count"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def device_text(device: Device) -> str:
    """The annotation that states a device."""
    return json.dumps({"model": device.model, "resource": device.resource, "count": device.count})
