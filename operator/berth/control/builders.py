"""The objects that the operator makes for a workload, as bodies ready to send.

Names: attempt 2 of TrainingJob "llm" is the Job "llm-2" with the headless Service "llm-2"; its member of rank 3 is
reachable at "llm-2-3.llm-2.<namespace>.svc". An InferenceService "chat" becomes a Deployment, a Service and a
PodDisruptionBudget of that name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from berth.control.checkpoints import NOTHING, Told, claim_of, tell
from berth.control.observe import device_text
from berth.control.ports import GROUP, VERSION, Json
from berth.control.records import (
    ATTEMPT_LABEL,
    DELETION_COST_ANNOTATION,
    DEVICE_ANNOTATION,
    GATE,
    GENERATION_ANNOTATION,
    KIND_LABEL,
    NAME_LABEL,
    PINNED_ANNOTATION,
    QUEUE_ANNOTATION,
    UID_LABEL,
)
from berth.model.workloads import Device, Placement, Ref

MASTER_PORT = 29500  # torchrun's default
PRIORITY_CLASS = "berth-workload"  # installed by the chart with preemptionPolicy Never: only Berth preempts
INDEX_FIELD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
KEEP_ANNOTATIONS = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}

Raw = Mapping[str, Any]


def attempt_name(ref: Ref, number: int) -> str:
    """The name of an attempt's Job and of its Service."""
    return f"{ref.name}-{number}"


def job(ref: Ref, spec: Raw, number: int, placement: Placement, told: Told = NOTHING) -> Json:
    """The Indexed Job of an attempt, with as many workers as were placed.

    It starts at once, since every pod is held by its gate: the Job of a gang exists only once the gang is admitted.
    """
    name = attempt_name(ref, number)
    labels = _labels(ref) | {ATTEMPT_LABEL: str(number)}
    workers, device = len(placement.nodes), placement.device
    template = _template(ref, spec, device, labels, _launch_environment(ref, name, workers, device))
    template["metadata"]["annotations"] |= KEEP_ANNOTATIONS
    template["spec"] |= {"restartPolicy": "Never", "subdomain": name}
    tell(template["spec"], ref, spec, number, told)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(ref, name, labels) | {"annotations": {DEVICE_ANNOTATION: device_text(device)}},
        "spec": {
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": template,
        },
    }


def job_service(ref: Ref, number: int) -> Json:
    """The headless Service that gives each member of an attempt a name before it is ready."""
    name = attempt_name(ref, number)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(ref, name, _labels(ref) | {ATTEMPT_LABEL: str(number)}),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
        },
    }


def volume_claim(ref: Ref, checkpoint: Raw) -> Json:
    """The PersistentVolumeClaim that is made for the checkpoints of all attempts."""
    asked = checkpoint["claimTemplate"]
    spec: Json = {
        "accessModes": list(asked.get("accessModes") or ["ReadWriteMany"]),
        "resources": {"requests": {"storage": str(asked["size"])}},
    }
    if asked.get("storageClassName"):
        spec["storageClassName"] = asked["storageClassName"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(ref, claim_of(ref.name, checkpoint), _labels(ref)),
        "spec": spec,
    }


def deployment(ref: Ref, spec: Raw, generation: int, device: Device, replicas: int | None = None) -> Json:
    """The Deployment of an InferenceService, with as many replicas as its spec says where no other number is given."""
    labels = _labels(ref)
    rollout = {key: value for key, value in (spec.get("rollout") or {}).items() if value is not None}
    template = _template(ref, spec, device, labels, [])
    annotations = {DEVICE_ANNOTATION: device_text(device), GENERATION_ANNOTATION: str(generation)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(ref, ref.name, labels) | {"annotations": annotations},
        "spec": {
            "replicas": int(spec.get("replicas", 1)) if replicas is None else replicas,
            "selector": {"matchLabels": selector(ref)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rollout} if rollout else {"type": "RollingUpdate"},
            "template": template,
        },
    }


def service(ref: Ref, spec: Raw) -> Json:
    """The Service in front of an InferenceService's pods."""
    port = int(spec["port"])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(ref, ref.name, _labels(ref)),
        "spec": {"selector": selector(ref), "ports": [{"name": "http", "port": port, "targetPort": port}]},
    }


def disruption_budget(ref: Ref, spec: Raw) -> Json:
    """What voluntary disruptions must leave of an InferenceService."""
    minimum = (spec.get("availability") or {}).get("minAvailable", 1)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(ref, ref.name, _labels(ref)),
        "spec": {"minAvailable": minimum, "selector": {"matchLabels": selector(ref)}},
    }


def pod(namespace: str, template: Raw) -> Json:
    """One pod of a template, for a dry run: a Job's own dry run misses what only a pod's admission refuses."""
    body = copy.deepcopy(dict(template))
    metadata = {key: body.get("metadata", {}).get(key, {}) for key in ("labels", "annotations")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | {"generateName": "berth-dry-run-", "namespace": namespace},
        "spec": body["spec"],
    }


def pin(pod_uid: str, labels: Mapping[str, str], queue: str, now: float) -> Json:
    """The strategic merge patch that ties a gated pod to nodes with these labels and lifts our gate.

    It notes when, and for which queue.
    """
    return {
        "metadata": {"uid": pod_uid, "annotations": {PINNED_ANNOTATION: str(int(now)), QUEUE_ANNOTATION: queue}},
        "spec": {
            "nodeSelector": dict(labels),
            "schedulingGates": [{"$patch": "delete", "name": GATE}],
        },
    }


def let_go(pod_uid: str, first: bool) -> Json:
    """The merge patch by which a ReplicaSet removes a pod before others, or not any more."""
    return {"metadata": {"uid": pod_uid, "annotations": {DELETION_COST_ANNOTATION: "-1" if first else None}}}


def selector(ref: Ref) -> dict[str, str]:
    """The labels that pick the pods of an InferenceService."""
    return {KIND_LABEL: ref.kind.value, NAME_LABEL: ref.name}


def _labels(ref: Ref) -> dict[str, str]:
    return selector(ref) | {UID_LABEL: ref.uid, "app.kubernetes.io/managed-by": "berth"}


def _metadata(ref: Ref, name: str, labels: dict[str, str]) -> Json:
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": ref.kind.value,
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
    }
    return {"name": name, "namespace": ref.namespace, "labels": labels, "ownerReferences": [owner]}


def _template(ref: Ref, spec: Raw, device: Device, labels: dict[str, str], environment: list[Json]) -> Json:
    """The user's template with our labels, gate, priority class, environment and device."""
    template: Json = copy.deepcopy(dict(spec["template"]))
    metadata = template.get("metadata") or {}
    annotations = dict(metadata.get("annotations") or {}) | {DEVICE_ANNOTATION: device_text(device)}
    template["metadata"] = {"labels": dict(metadata.get("labels") or {}) | labels, "annotations": annotations}
    pod_spec = template["spec"]
    pod_spec["priorityClassName"] = PRIORITY_CLASS
    pod_spec["schedulingGates"] = [{"name": GATE}]
    holder = spec["gpus"].get("container") or pod_spec["containers"][0]["name"]
    for container in pod_spec["containers"]:
        if environment:
            container["env"] = [*environment, *(container.get("env") or [])]
        if container["name"] == holder:
            _give(container, device)
    return template


def _give(container: Json, device: Device) -> None:
    resources = container["resources"] = dict(container.get("resources") or {})
    for kind in ("requests", "limits"):
        resources[kind] = dict(resources.get(kind) or {}) | {device.resource: str(device.count)}


def _launch_environment(ref: Ref, name: str, workers: int, device: Device) -> list[Json]:
    """What torchrun (PET_*) and other launchers read. RANK and WORLD_SIZE count pods, not boards."""
    rank = {"valueFrom": {"fieldRef": {"fieldPath": INDEX_FIELD}}}
    master = f"{name}-0.{name}.{ref.namespace}.svc"
    processes = device.count if device.resource == "nvidia.com/gpu" else 1
    fixed = {
        "PET_NNODES": workers,
        "PET_NPROC_PER_NODE": processes,
        "PET_MASTER_ADDR": master,
        "PET_MASTER_PORT": MASTER_PORT,
        "MASTER_ADDR": master,
        "MASTER_PORT": MASTER_PORT,
        "WORLD_SIZE": workers,
    }
    ranks: list[Json] = [{"name": key, **rank} for key in ("PET_NODE_RANK", "RANK")]
    return [*({"name": key, "value": str(value)} for key, value in fixed.items()), *ranks]
