"""Clusters in which a job waits, recorded as `berth snapshot` does, and what can be changed of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from berth.cli.main import app
from berth.cli.saved import Saved
from berth.control.records import ATTEMPT_LABEL, KIND_LABEL, NAME_LABEL, UID_LABEL
from berth.control.status import to_rfc3339
from tests.control.builders import a_node, a_training_job

Json = dict[str, Any]
NOW = 1_772_452_800.0  # 2026-03-02T12:00:00Z
PRODUCTS = {
    "H100-80GB": "NVIDIA-H100-80GB-HBM3",
    "H200": "NVIDIA-H200",
    "B200": "NVIDIA-B200",
    "A100-80GB": "NVIDIA-A100-SXM4-80GB",
}


def at(hours: float) -> str:
    """A time that many hours from now."""
    return to_rfc3339(NOW + 3600 * hours)


def node(
    name: str, board: str = "H100-80GB", *, boards: int = 8, mig: Mapping[str, int] | None = None, **labels: str
) -> Json:
    """A node with boards, or with MIG instances by profile."""
    raw = a_node(name, boards=boards)
    raw["metadata"]["labels"] |= {"nvidia.com/gpu.product": PRODUCTS[board], **labels}
    raw["status"]["allocatable"] |= {f"nvidia.com/mig-{profile}": str(n) for profile, n in (mig or {}).items()}
    return raw


def rack(name: str, *nodes: Json) -> list[Json]:
    """Nodes in one rack."""
    for raw in nodes:
        raw["metadata"]["labels"] |= {"topology.kubernetes.io/zone": "z", "berth.dev/rack": name}
    return list(nodes)


def job(name: str = "llm", *, hours: float = -1.0, **spec: Any) -> Json:
    """A job that has waited for an hour, unless said otherwise."""
    raw = a_training_job(name, workers=spec.pop("workers", 1), boards=8, **spec)
    raw["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": at(hours), "generation": 1, "resourceVersion": "1"}
    return raw


def running(
    name: str, *nodes: str, hours: float = -2.0, count: int = 8, model: str = "H100-80GB", **spec: Any
) -> list[Json]:
    """A job that has run for two hours, and its pods and Job: each worker on a node."""
    raw = job(name, hours=hours, workers=len(nodes), gpus={"count": count, "models": [model]}, **spec)
    device = {"model": model, "resource": "nvidia.com/gpu", "count": count}
    placement = {"device": device, "assignments": [{"node": n, "ranks": str(i)} for i, n in enumerate(nodes)]}
    raw["status"] = {
        "observedGeneration": 1,
        "state": "Running",
        "attempt": 1,
        "placement": placement,
        "admittedAt": at(hours),
        "startedAt": at(hours),
        "verdict": {"reason": "Placed", "message": "placed"},
        "ready": f"{len(nodes)}/{len(nodes)}",
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"{name}-1", "uid": f"job-{name}", "controller": True}
    labels = {UID_LABEL: f"uid-{name}", KIND_LABEL: "TrainingJob", NAME_LABEL: name, ATTEMPT_LABEL: "1"}
    pods = [
        {
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-1-{i}-x",
                "namespace": "team",
                "uid": f"{name}-{i}",
                "resourceVersion": "1",
                "creationTimestamp": at(hours),
                "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(i)},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(i)},
                "ownerReferences": [owner],
            },
            "spec": {
                "nodeName": n,
                "containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(count)}}}],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for i, n in enumerate(nodes)
    ]
    made = {
        "kind": "Job",
        "metadata": {"name": f"{name}-1", "namespace": "team", "uid": f"job-{name}", "labels": labels},
        "spec": {"suspend": False},
        "status": {},
    }
    return [raw, made, *pods]


def queue(name: str, **spec: Any) -> Json:
    """A Queue; `quota` gives its nominal boards by model."""
    quota = spec.pop("quota", None)
    quotas = {"quotas": [{"model": model, "nominal": n} for model, n in quota.items()]} if quota else {}
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1}
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "Queue", "metadata": metadata, "spec": {**quotas, **spec}}


PLURALS = {
    "TrainingJob": "trainingjobs",
    "Queue": "queues",
    "Node": "nodes",
    "Pod": "pods",
    "Job": "jobs",
    "PriorityClass": "priorityclasses",
}


@dataclass
class Recorded:
    """Objects of a cluster at noon."""

    objects: list[Json]
    now: float = NOW

    def __post_init__(self) -> None:
        self.objects = copy.deepcopy(self.objects)
        for raw in self.objects:
            raw["metadata"].setdefault("uid", f"uid-{raw['metadata']['name']}")
            raw["metadata"].setdefault("resourceVersion", "1")

    def find(self, kind: str, name: str) -> Json:
        """One object, to be changed."""
        return next(o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))

    @property
    def spec(self) -> Json:
        """The spec of the job that waits."""
        found: Json = self.find("TrainingJob", "llm")["spec"]
        return found

    def remove(self, name: str) -> None:
        """A job has ended, and its pods are gone."""
        gone = f"uid-{name}"
        self.objects = [o for o in self.objects if gone not in (o["metadata"]["uid"], _owner(o))]

    def explained(self, folder: Path, name: str = "llm") -> Json:
        """What `berth explain` says of it."""
        lists: dict[str, Sequence[Json]] = {
            plural: [o for o in self.objects if o["kind"] == kind] for kind, plural in PLURALS.items()
        }
        file = folder / "recorded.json"
        file.write_text(Saved(self.now, "team", {}, "", (), lists).write())
        result = CliRunner().invoke(app, ["explain", f"tj/{name}", f"--snapshot={file}", "-o", "json"])
        assert result.exit_code == 0, result.output
        told: Json = json.loads(result.output)
        return told


def _owner(raw: Json) -> str:
    return str(raw["metadata"].get("labels", {}).get(UID_LABEL, ""))
