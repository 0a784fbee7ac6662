"""Raw objects and records, in as many words as a test cares for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.control.ports import Json
from berth.control.records import GATE, UID_LABEL, Meta, NodeRecord, PodRecord
from berth.model.workloads import Device, Kind, Placement, Ref

H100 = "NVIDIA-H100-80GB-HBM3"
BOARD = Device("H100-80GB", "nvidia.com/gpu", 1)
SLICE = Device("A100-80GB", "nvidia.com/mig-1g.10gb", 1)


def a_ref(name: str = "llm", *, kind: Kind = Kind.TRAINING_JOB, uid: str = "") -> Ref:
    """A workload's identity, in the namespace "team"."""
    return Ref(kind, "team", name, uid or f"uid-{name}")


def a_template(**spec: Any) -> Json:
    """A pod template with one small container."""
    container = {"name": "main", "image": "train:1", "resources": {"requests": {"cpu": "1"}}}
    return {"metadata": {}, "spec": {"containers": [container], **spec}}


def a_training_job(
    name: str = "llm", *, namespace: str = "team", workers: int = 2, boards: int = 4, **spec: Any
) -> Json:
    """A TrainingJob as its user wrote it: two workers with four boards each, unless said otherwise."""
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workers": workers, "gpus": {"count": boards}, "template": a_template(), **spec},
    }


def placed(device: Device = BOARD, workers: int = 2) -> Placement:
    """So many workers on one node."""
    return Placement(device, ("n1",) * workers)


def a_service(name: str = "chat", *, replicas: int = 2, boards: int = 1, **spec: Any) -> Json:
    """An InferenceService as its user wrote it."""
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"replicas": replicas, "port": 8080, "gpus": {"count": boards}, "template": a_template(), **spec},
    }


def a_queue(name: str, **boards: int) -> Json:
    """A Queue with this nominal quota; "_" in a model's name stands for "-"."""
    quotas = [{"model": model.replace("_", "-"), "nominal": count} for model, count in boards.items()]
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": name},
        "spec": {"quotas": quotas} if quotas else {},
    }


def a_node(name: str, *, boards: int = 4, hostname: str = "") -> Json:
    """A ready node with H100 boards."""
    labels = {
        "kubernetes.io/hostname": hostname or name,
        "nvidia.com/gpu.product": H100,
        "nvidia.com/gpu.memory": "81559",
    }
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(boards)}
    ready = {"type": "Ready", "status": "True"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable, "conditions": [ready]},
    }


def meta(name: str, *, namespace: str = "team", version: int = 1, uid: str = "", **more: Any) -> Meta:
    """An object's metadata, as records have it."""
    return Meta(
        name, namespace, uid or f"uid-{name}", version, more.pop("labels", {}), more.pop("annotations", {}), **more
    )


def a_pod_record(
    name: str = "pod",
    *,
    owner: str = "",
    version: int = 1,
    boards: int = 1,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    deleting: bool = False,
    namespace: str = "team",
    uid: str = "",
    created: float = 0.0,
    **more: Any,
) -> PodRecord:
    """A pod's record; `owner` is the uid of the workload, "llm", that it belongs to."""
    marks = {**(labels or {}), **({UID_LABEL: owner} if owner else {})}
    more.setdefault("phase", "Pending")
    more.setdefault("controller", "Job/llm-1" if owner else "")
    return PodRecord(
        meta(
            name,
            namespace=namespace,
            version=version,
            uid=uid,
            labels=marks,
            annotations=annotations or {},
            deleting=deleting,
            created=created,
        ),
        {"nvidia.com/gpu": boards},
        **more,
    )


def a_node_record(name: str, *, version: int = 1, labels: Mapping[str, str] | None = None, **more: Any) -> NodeRecord:
    """A node's record."""
    return NodeRecord(
        meta(
            name,
            namespace="",
            version=version,
            labels={"kubernetes.io/hostname": name, **(labels or {})},
            created=more.pop("created", 0.0),
            annotations=more.pop("annotations", {}),
        ),
        more.pop("allocatable", {"nvidia.com/gpu": 8}),
        more.pop("taints", ()),
        more.pop("ready", True),
        more.pop("unschedulable", False),
        **more,
    )


def is_gated(pod: Mapping[str, Any]) -> bool:
    """Whether a raw pod waits for its pin."""
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())
