"""The Jobs, Deployments and Services that workloads become."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from berth.control import builders
from berth.control.observe import device_from
from berth.control.ports import Json
from berth.model.workloads import Device, Kind
from tests.control.builders import BOARD, SLICE, a_ref, a_service, a_template, a_training_job, placed

EIGHT = Device("H100-80GB", "nvidia.com/gpu", 8)
JOB, SERVICE = a_ref("llm"), a_ref("chat", kind=Kind.INFERENCE_SERVICE)


def job(device: Device = EIGHT, number: int = 2, **spec: Any) -> Json:
    """The Job of an attempt."""
    return builders.job(JOB, a_training_job(**spec)["spec"], number, placed(device, spec.get("workers", 2)))


def pod_of(made: Json) -> Json:
    """The spec of its pods."""
    spec: Json = made["spec"]["template"]["spec"]
    return spec


def environment(made: Json) -> dict[str, str]:
    """The values that its first container is given."""
    return {e["name"]: e.get("value", "") for e in pod_of(made)["containers"][0]["env"]}


def two_containers(**more: Any) -> Json:
    """A template with a sidecar before the program."""
    containers = [{"name": "logs", "image": "logs:1"}, {"name": "main", "image": "train:1", **more}]
    return a_template(containers=containers)


def test_an_attempt_is_an_indexed_job_that_its_own_pods_cannot_fail_by_being_disrupted() -> None:
    made = job(workers=4)
    assert made["metadata"]["name"] == "llm-2"
    assert "suspend" not in made["spec"]
    assert (made["spec"]["completions"], made["spec"]["parallelism"], made["spec"]["backoffLimit"]) == (4, 4, 0)
    assert made["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    assert made["spec"]["podReplacementPolicy"] == "Failed"


def test_a_gang_has_as_many_workers_as_were_placed_whatever_it_would_like() -> None:
    made = builders.job(JOB, a_training_job(workers=4)["spec"], 2, placed(EIGHT, workers=3))
    assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (3, 3)
    told = environment(made)
    assert (told["WORLD_SIZE"], told["PET_NNODES"]) == ("3", "3")


@pytest.mark.parametrize(
    "made", [job(), builders.deployment(SERVICE, a_service()["spec"], 1, BOARD)], ids=["Job", "Deployment"]
)
def test_pods_wait_at_the_gate_and_preempt_nobody(made: Json) -> None:
    assert pod_of(made)["schedulingGates"] == [{"name": "berth.dev/placement"}]
    assert pod_of(made)["priorityClassName"] == "berth-workload"


def test_everything_made_belongs_to_its_workload() -> None:
    spec = a_service()["spec"]
    for made in (
        job(),
        builders.job_service(JOB, 2),
        builders.deployment(SERVICE, spec, 1, BOARD),
        builders.service(SERVICE, spec),
        builders.disruption_budget(SERVICE, spec),
    ):
        (owner,) = made["metadata"]["ownerReferences"]
        labels = made["metadata"]["labels"]
        assert (owner["uid"], owner["controller"]) == (labels["berth.dev/uid"], True)
        assert (owner["kind"], owner["name"]) == (labels["berth.dev/kind"], labels["berth.dev/name"])
        assert made["metadata"]["namespace"] == "team"


def test_the_pods_of_an_attempt_carry_its_number_and_are_not_moved_by_autoscalers() -> None:
    metadata = job(number=3)["spec"]["template"]["metadata"]
    assert metadata["labels"]["berth.dev/attempt"] == "3"
    assert metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_launchers_find_each_other() -> None:
    values = environment(job(workers=4))
    assert values["PET_NNODES"] == values["WORLD_SIZE"] == "4"
    assert values["PET_NPROC_PER_NODE"] == "8"
    assert values["PET_MASTER_ADDR"] == values["MASTER_ADDR"] == "llm-2-0.llm-2.team.svc"
    assert values["PET_MASTER_PORT"] == values["MASTER_PORT"] == "29500"
    assert pod_of(job())["subdomain"] == builders.job_service(JOB, 2)["metadata"]["name"] == "llm-2"


def test_ranks_come_from_the_completion_index() -> None:
    env = {e["name"]: e for e in pod_of(job())["containers"][0]["env"]}
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert env["RANK"]["valueFrom"] == env["PET_NODE_RANK"]["valueFrom"] == {"fieldRef": {"fieldPath": path}}


def test_a_slice_runs_one_process() -> None:
    assert environment(job(SLICE))["PET_NPROC_PER_NODE"] == "1"


def test_what_the_user_sets_comes_last_and_wins() -> None:
    template = two_containers(env=[{"name": "MASTER_PORT", "value": "1234"}, {"name": "A", "value": "$(RANK)"}])
    names = [e["name"] for e in pod_of(job(template=template))["containers"][1]["env"]]
    assert names.index("MASTER_PORT") < len(names) - 2
    assert names[-2:] == ["MASTER_PORT", "A"]


def test_the_first_container_gets_the_devices() -> None:
    first, second = pod_of(job(template=two_containers()))["containers"]
    assert first["resources"] == {"requests": {"nvidia.com/gpu": "8"}, "limits": {"nvidia.com/gpu": "8"}}
    assert "resources" not in second


def test_the_container_that_is_named_gets_the_devices_beside_what_it_asked_for() -> None:
    template = two_containers(resources={"requests": {"cpu": "4"}})
    spec: Json = {"template": template, "gpus": {"count": 8, "container": "main"}}
    first, second = pod_of(job(SLICE, 1, **spec))["containers"]
    assert "resources" not in first
    assert second["resources"]["requests"] == {"cpu": "4", "nvidia.com/mig-1g.10gb": "1"}
    assert second["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": "1"}


def test_the_restart_of_a_worker_is_berths_affair_and_that_of_a_replica_the_kubelets() -> None:
    assert pod_of(job())["restartPolicy"] == "Never"
    assert "restartPolicy" not in pod_of(builders.deployment(SERVICE, a_service()["spec"], 1, BOARD))


def test_the_users_template_is_not_touched() -> None:
    template = two_containers(env=[], resources={"limits": {"cpu": "1"}})
    template["metadata"] = {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    raw = a_training_job(template=template)
    before = copy.deepcopy(raw)
    made = builders.job(JOB, raw["spec"], 1, placed(EIGHT))
    assert raw == before
    metadata = made["spec"]["template"]["metadata"]
    assert (metadata["labels"]["a"], metadata["annotations"]["c"]) == ("b", "d")


@pytest.mark.parametrize("metadata", [None, {}, {"labels": None, "annotations": None}])
def test_a_template_needs_no_metadata(metadata: Any) -> None:
    template = {**a_template(), "metadata": metadata}
    assert job(template=template)["spec"]["template"]["metadata"]["labels"]["berth.dev/name"] == "llm"


def test_the_device_that_pods_ask_for_can_be_read_back() -> None:
    made = builders.deployment(SERVICE, a_service()["spec"], 7, SLICE)
    assert device_from(made["metadata"]["annotations"]["berth.dev/device"]) == SLICE
    assert device_from(made["spec"]["template"]["metadata"]["annotations"]["berth.dev/device"]) == SLICE
    assert made["metadata"]["annotations"]["berth.dev/generation"] == "7"


def test_a_service_reaches_its_pods_on_their_port() -> None:
    spec = a_service(replicas=3, availability={"minAvailable": 2}, rollout={"maxSurge": 0, "maxUnavailable": None})[
        "spec"
    ]
    deployment = builders.deployment(SERVICE, spec, 1, BOARD)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service, budget = builders.service(SERVICE, spec), builders.disruption_budget(SERVICE, spec)
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": 8080}]
    for picked in (
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"],
    ):
        assert picked.items() <= labels.items()
    assert budget["spec"]["minAvailable"] == 2
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0}


def test_a_headless_service_names_workers_before_they_are_ready() -> None:
    spec = builders.job_service(JOB, 2)["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert spec["selector"] == {"batch.kubernetes.io/job-name": "llm-2"}


def test_a_pod_for_a_dry_run_is_one_of_the_template() -> None:
    made = builders.pod("team", job()["spec"]["template"])
    assert made["metadata"]["generateName"] == "berth-dry-run-"
    assert made["spec"] == pod_of(job())


def test_a_pin_names_the_pod_the_node_the_queue_and_the_time_and_lifts_our_gate_alone() -> None:
    pin = builders.pin("uid-7", {"kubernetes.io/hostname": "n1"}, "research", 1000.9)
    assert pin["metadata"]["uid"] == "uid-7"
    assert pin["metadata"]["annotations"] == {"berth.dev/pinned-at": "1000", "berth.dev/queue": "research"}
    assert pin["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "n1"}
    assert pin["spec"]["schedulingGates"] == [{"$patch": "delete", "name": "berth.dev/placement"}]


def test_a_replica_that_is_to_go_first_costs_less_than_others_and_no_more_once_it_is_not() -> None:
    key = "controller.kubernetes.io/pod-deletion-cost"
    assert builders.let_go("uid-7", True) == {"metadata": {"uid": "uid-7", "annotations": {key: "-1"}}}
    assert builders.let_go("uid-7", False) == {"metadata": {"uid": "uid-7", "annotations": {key: None}}}
