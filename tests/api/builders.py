"""Objects as watches deliver them, in as many words as a test cares for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from berth.api.convert import to_request, to_workload
from berth.model.workloads import Kind, Request, Workload

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs" / "examples"


def a_template(*, container: dict[str, Any] | None = None, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    """A pod template with one container, `main`; the rest are fields of its spec."""
    main = {"name": "main", "image": "berth/samples:latest", **(container or {})}
    return {"metadata": metadata or {}, "spec": {"containers": [main], **spec}}


def a_spec(**fields: Any) -> dict[str, Any]:
    """A TrainingJob's spec: one worker with one board."""
    return {"workers": 1, "gpus": {"count": 1}, "template": a_template(), **fields}


def a_service_spec(**fields: Any) -> dict[str, Any]:
    """An InferenceService's spec: one replica with one board."""
    return {"gpus": {"count": 1}, "template": a_template(), **fields}


def a_training_job(*, status: Any = None, labels: Any = None, **spec: Any) -> dict[str, Any]:
    """A TrainingJob as the API server has it."""
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {
            "name": "llm",
            "namespace": "team-a",
            "uid": "u-1",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": labels or {},
        },
        "spec": a_spec(**spec),
        **({"status": status} if status else {}),
    }


def converted(raw: dict[str, Any], **priorities: int) -> Workload:
    """The workload of an object, in a cluster where no claim is bound."""
    return to_workload(raw, {"": 0, **priorities}, lambda namespace, claim: ())


def requested(**spec: Any) -> Request:
    """The request of a TrainingJob's spec."""
    return to_request(a_spec(**spec), Kind.TRAINING_JOB)


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]
