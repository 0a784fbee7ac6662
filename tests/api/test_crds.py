"""The CustomResourceDefinitions on a real API server: established, changed by the rules, scaled by others."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control.ports import INFERENCE_SERVICES, QUEUES, TRAINING_JOBS
from tests.api.builders import a_service_spec, a_spec, a_template
from tests.api.cluster import Api, Refusal, collection

pytestmark = pytest.mark.cluster


def created(api: Api, name: str, kind: str = "TrainingJob", **spec: Any) -> dict[str, Any]:
    """An object of that name on the server."""
    body = a_spec(**spec) if kind == "TrainingJob" else a_service_spec(**spec)
    manifest = {"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": body}
    return api.create(manifest)


def test_all_are_established_and_structural(api: Api) -> None:
    definitions = api.call("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    found = {d["metadata"]["name"]: {c["type"]: c["status"] for c in d["status"]["conditions"]} for d in definitions}
    good = {"NamesAccepted": "True", "Established": "True"}
    plurals = ("gpunodes", "inferenceservices", "queues", "trainingjobs")
    assert found == {f"{plural}.berth.dev": good for plural in plurals}


def test_paths_of_the_ports_are_served(api: Api) -> None:
    for resource in (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES):
        assert api.call("GET", resource.path("default"))["kind"].endswith("List")


def test_defaults_are_filled_in(api: Api) -> None:
    job = created(api, "defaults")["spec"]
    assert (job["suspend"], job["parallelism"]) == (False, {"tensor": 1, "pipeline": 1})
    service = created(api, "defaults", "InferenceService")["spec"]
    assert (service["replicas"], service["port"]) == (1, 8080)
    assert service["availability"] == {"minAvailable": 1, "onDemandMinimum": "50%", "maxPerSpotPool": "25%"}
    assert service["spot"] == "Allow"
    assert service["rollout"] == {"maxSurge": "25%", "maxUnavailable": "25%"}


@pytest.mark.parametrize("memory", ["18Gi", "40G", "1.5e10", 19327352832])
def test_memory_is_a_quantity_or_bytes(api: Api, memory: str | int) -> None:
    job = created(api, f"memory-{str(memory).lower().replace('.', '-')}", gpus={"memory": memory})
    assert job["spec"]["gpus"]["memory"] == memory


@pytest.mark.parametrize("name", ["a", "a-0", "j" * 52])
def test_names_up_to_the_limit_are_taken(api: Api, name: str) -> None:
    assert created(api, name)["metadata"]["name"] == name


CHANGES: dict[str, dict[str, Any]] = {
    "workers": {"workers": 2},
    "elastic": {"elastic": {"minWorkers": 1, "maxWorkers": 2}},
    "gpus": {"gpus": {"count": 2}},
    "parallelism": {"gpus": {"count": 1}, "parallelism": {"tensor": 2}, "workers": 2},
    "topology": {"topology": {"level": "rack"}},
    "queueName": {"queueName": "research"},
    "template": {"template": a_template(container={"args": ["--epochs", "3"]})},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_running_job_keeps_what_placement_depends_on(api: Api, field: str) -> None:
    name = f"fixed-{field.lower()}"
    created(api, name)
    with pytest.raises(Refusal) as refusal:
        api.patch("TrainingJob", name, {"spec": CHANGES[field]})
    assert f"spec.{field}: Invalid value: can't change while the job is not suspended" in str(refusal.value)
    assert "set spec.suspend to true" in str(refusal.value)


@pytest.mark.parametrize("field", CHANGES)
def test_a_suspended_job_may_change(api: Api, field: str) -> None:
    name = f"free-{field.lower()}"
    created(api, name, suspend=True)
    changed = api.patch("TrainingJob", name, {"spec": {**CHANGES[field], "suspend": False}})
    assert field in changed["spec"]


def test_a_job_may_be_suspended_and_changed_at_once(api: Api) -> None:
    created(api, "at-once", topology={"level": "rack"})
    changed = api.patch("TrainingJob", "at-once", {"spec": {"suspend": True, "topology": None}})
    assert "topology" not in changed["spec"]


def test_limits_of_time_may_change_while_a_job_runs(api: Api) -> None:
    created(api, "limits")
    changed = api.patch("TrainingJob", "limits", {"spec": {"maxRuntime": "2d", "ttlSecondsAfterFinished": 0}})
    assert changed["spec"]["maxRuntime"] == "2d"


def test_a_service_scales_through_its_subresource(api: Api) -> None:
    created(api, "scaled", "InferenceService")
    status = {"replicas": 1, "readyReplicas": 1, "selector": "berth.dev/name=scaled"}
    api.patch("InferenceService", "scaled", {"status": status}, "status")
    api.patch("InferenceService", "scaled", {"spec": {"replicas": 3}}, "scale")
    scale = api.get("InferenceService", "scaled", "scale")
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "berth.dev/name=scaled"}


def test_writing_the_spec_leaves_the_status_alone_and_the_other_way_round(api: Api) -> None:
    created(api, "apart")
    api.patch("TrainingJob", "apart", {"status": {"attempt": 4}})
    assert "status" not in api.get("TrainingJob", "apart")
    api.patch("TrainingJob", "apart", {"status": {"attempt": 4}, "spec": {"suspend": True}}, "status")
    job = api.get("TrainingJob", "apart")
    assert (job["status"], job["spec"]["suspend"]) == ({"attempt": 4}, False)


def test_short_names_and_columns(api: Api) -> None:
    resources = api.call("GET", "/apis/berth.dev/v1alpha1")["resources"]
    short = {r["kind"]: (r["shortNames"], r["categories"]) for r in resources if "/" not in r["name"]}
    assert short == {
        "TrainingJob": (["tj"], ["berth"]),
        "InferenceService": (["infer"], ["berth"]),
        "Queue": (["bq"], ["berth"]),
        "GPUNode": (["gn"], ["berth"]),
    }
    columns = "Name,Queue,Workers,State,Progress,Restarts,Reason,Age,Placement,Device,Attempt,Saved,ETA"
    assert _columns(api, "TrainingJob") == columns
    assert _columns(api, "InferenceService") == "Name,URL,Ready,Reason,Replicas,GPU,Age,Model,Queue"


def _columns(api: Api, kind: str) -> str:
    table = api.call("GET", collection(kind), accept="application/json;as=Table;g=meta.k8s.io;v=v1")
    return ",".join(column["name"] for column in table["columnDefinitions"])
