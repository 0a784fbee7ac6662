"""What the operator reads of pods, nodes, volumes and Jobs, from the JSON that an API server sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from berth.adapters.records import Claim, Decoder, Deployment, GPUNode, Job, Node, Pod, PriorityClass, Volume, read_pod
from berth.control.records import PodRecord
from berth.model.nodes import Interruption, Taint
from berth.model.workloads import Requirement

METADATA = {
    "name": "a",
    "namespace": "team",
    "uid": "u-1",
    "resourceVersion": "42",
    "creationTimestamp": "2026-01-02T03:04:05Z",
    "managedFields": [{"manager": "someone"}],
}
CREATED = 1767323045.0


def decoded(struct: type[Any], **fields: Any) -> Any:
    """The record of an object with these fields."""
    return Decoder[Any](struct).one(json.dumps({"metadata": METADATA, **fields}).encode())


def a_pod(*, metadata: Any = None, status: Any = None, **spec: Any) -> PodRecord:
    """The record of a pod with one container unless its spec says otherwise."""
    spec.setdefault("containers", [a_container()])
    record: PodRecord = decoded(Pod, metadata=METADATA | (metadata or {}), spec=spec, status=status or {})
    return record


def a_container(*, policy: str = "", **requests: str) -> Any:
    """A container that requests these resources; "gpu" is nvidia.com/gpu, and a limit."""
    gpus = {"nvidia.com/gpu": requests.pop("gpu")} if "gpu" in requests else {}
    restart = {"restartPolicy": policy} if policy else {}
    return {"name": "c", "resources": {"requests": requests, "limits": gpus}, **restart}


def test_identity_and_age() -> None:
    meta = a_pod(metadata={"labels": {"a": "b"}, "deletionTimestamp": "2026-01-02T03:04:06Z"}).meta
    assert (meta.namespace, meta.name, meta.uid, meta.version) == ("team", "a", "u-1", 42)
    assert (meta.labels, meta.annotations, meta.created, meta.deleting) == ({"a": "b"}, {}, CREATED, True)


def test_a_pod_takes_the_sum_of_its_containers_in_units() -> None:
    pod = a_pod(containers=[a_container(cpu="500m", memory="1Gi", gpu="2"), a_container(cpu="1")])
    assert pod.requests == {"cpu": 1500, "memory": 2**30, "nvidia.com/gpu": 2}


def test_a_sidecar_counts_for_good_and_an_init_container_only_where_it_is_more() -> None:
    sidecar, start = a_container(policy="Always", cpu="1"), a_container(cpu="4", memory="1Gi")
    assert a_pod(initContainers=[sidecar, start], containers=[a_container(cpu="2")]).requests == {
        "cpu": 5000,
        "memory": 2**30,
    }
    assert a_pod(initContainers=[start], containers=[a_container(cpu="8")]).requests["cpu"] == 8000


def test_pod_level_resources_win_and_overhead_comes_on_top() -> None:
    pod = a_pod(resources={"requests": {"cpu": "3"}}, overhead={"cpu": "250m"}, containers=[a_container(cpu="1")])
    assert pod.requests == {"cpu": 3250}


def test_a_gated_pod() -> None:
    pod = a_pod(schedulingGates=[{"name": "berth.dev/placement"}], status={"phase": "Pending"})
    assert (pod.gated, pod.node, pod.hostname, pod.ended) == (True, "", "", False)


def test_a_pinned_pod_that_kube_scheduler_cannot_bind() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = a_pod(nodeSelector={"kubernetes.io/hostname": "h1", "a": "b"}, status={"conditions": [condition]})
    assert (pod.gated, pod.hostname, pod.unschedulable) == (False, "h1", "0/3 nodes")


def test_a_bound_pod_that_is_ready() -> None:
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
    pod = a_pod(nodeName="n1", status={"phase": "Running", "conditions": conditions})
    assert (pod.node, pod.ready, pod.unschedulable) == ("n1", True, "")


def test_an_ended_pod_tells_which_container_ended_and_when() -> None:
    ended = {"terminated": {"exitCode": 3, "finishedAt": "2026-01-02T03:04:05Z"}}
    pod = a_pod(status={"phase": "Failed", "containerStatuses": [{"name": "a"}, {"name": "b", "state": ended}]})
    assert (pod.container, pod.ended_at, pod.disrupted) == ("b", 1767323045.0, False)


@pytest.mark.parametrize(
    ("resource", "health", "unhealthy"),
    [
        ("nvidia.com/gpu", "Unhealthy", "GPU-2"),
        ("nvidia.com/mig-1g.10gb", "Unhealthy", "GPU-2"),
        ("nvidia.com/gpu", "Unknown", ""),
        ("example.com/nic", "Unhealthy", ""),
    ],
)
def test_a_pod_tells_of_a_device_that_its_plugin_calls_unhealthy(resource: str, health: str, unhealthy: str) -> None:
    devices = [{"resourceID": "GPU-1", "health": "Healthy"}, {"resourceID": "GPU-2", "health": health}]
    status = {"name": "main", "allocatedResourcesStatus": [{"name": resource, "resources": devices}, {"name": "x"}]}
    assert a_pod(status={"containerStatuses": [{"name": "a"}, status]}).unhealthy == unhealthy


def test_a_pod_that_is_told_to_end_says_since_when_and_whether_it_was_evicted() -> None:
    told = {"deletionTimestamp": "2026-01-02T03:04:35Z", "deletionGracePeriodSeconds": 30}
    pod = a_pod(metadata=told, status={"conditions": [{"type": "DisruptionTarget", "status": "True"}]})
    assert (pod.ending_since, pod.disrupted) == (1767323045.0, True)


def test_a_failed_pod_tells_the_exit_code_of_the_container_that_failed() -> None:
    ends = [
        {"state": {"terminated": {"exitCode": code, "reason": why}}} for code, why in ((0, "Completed"), (3, "Error"))
    ]
    pod = a_pod(status={"phase": "Failed", "containerStatuses": [*ends, {"state": {"running": {}}}]})
    assert (pod.ended, pod.exit_code, pod.message) == (True, 3, "Error")


def test_a_pod_that_the_kubelet_refused() -> None:
    pod = a_pod(status={"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no devices"})
    assert (pod.reason, pod.message, pod.exit_code) == ("UnexpectedAdmissionError", "no devices", None)


def test_the_index_of_a_member() -> None:
    assert a_pod(metadata={"annotations": {"batch.kubernetes.io/job-completion-index": "7"}}).index == 7
    assert a_pod().index == 0


def test_fields_that_are_null_or_missing() -> None:
    pod = a_pod(schedulingGates=None, nodeSelector=None, status={"conditions": None, "containerStatuses": None})
    assert (pod.gated, pod.hostname, pod.ready, pod.phase) == (False, "", False, "Pending")


def test_the_answer_to_a_write_reads_like_the_event() -> None:
    raw = {"metadata": METADATA, "spec": {"containers": [a_container(cpu="1")], "nodeName": "n1"}}
    assert read_pod(raw) == a_pod(containers=[a_container(cpu="1")], nodeName="n1")


def test_a_node() -> None:
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "timeAdded": "2026-01-02T03:04:05Z"}
    status = {"allocatable": {"cpu": "63500m", "pods": "110", "nvidia.com/gpu": "8"}}
    node = decoded(
        Node,
        spec={"taints": [taint], "unschedulable": True},
        status=status | {"conditions": [{"type": "Ready", "status": "True"}]},
    )
    assert node.allocatable == {"cpu": 63500, "pods": 110, "nvidia.com/gpu": 8}
    assert (node.taints, node.ready, node.unschedulable) == ((Taint("nvidia.com/gpu", "", "NoSchedule"),), True, True)


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready(status: str) -> None:
    assert not decoded(Node, status={"conditions": [{"type": "Ready", "status": status}]}).ready
    assert not decoded(Node).ready


def test_since_when_a_node_is_not_ready() -> None:
    condition = {"type": "Ready", "status": "Unknown", "lastTransitionTime": "1970-01-01T00:01:40Z"}
    assert decoded(Node, status={"conditions": [condition]}).unready_since == 100.0
    assert decoded(Node, status={"conditions": [condition | {"status": "True"}]}).unready_since == 0.0
    assert decoded(Node).unready_since == 0.0


def test_conditions_that_announce_an_event_are_read_while_they_hold() -> None:
    announced = {"type": "VMEventScheduled", "status": "True", "message": "Preempt Scheduled: soon"}
    ended = {"type": "PreemptScheduled", "status": "False"}
    other = {"type": "MemoryPressure", "status": "True", "message": "little is left"}
    node = decoded(Node, status={"conditions": [announced, ended, other]})
    assert node.announced == (("VMEventScheduled", "Preempt Scheduled: soon"),)


def test_what_an_agent_heard_of_its_nodes_end() -> None:
    heard = {"reason": "SpotInterruption", "source": "EC2 instance metadata", "noticedAt": "1970-01-01T00:00:01Z"}
    status = {"interruption": heard | {"deadline": "1970-01-01T00:02:00Z"}}
    assert decoded(GPUNode, status=status).interruption == Interruption(
        "SpotInterruption", "EC2 instance metadata", 120.0
    )
    assert decoded(GPUNode, status={"interruption": heard}).interruption == Interruption(
        "SpotInterruption", "EC2 instance metadata"
    )


@pytest.mark.parametrize("bad", [None, "soon", [], {}, {"reason": "Boredom", "source": "me"}, {"reason": ["Drain"]}])
def test_an_interruption_that_is_none_is_left_out(bad: object) -> None:
    assert decoded(GPUNode, status={"interruption": bad}).interruption is None


def test_a_volume_and_the_nodes_that_reach_it() -> None:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}]}
    volume = decoded(Volume, spec={"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}})
    assert volume.affinity == ((Requirement("zone", "In", ("z1",)),),)
    assert decoded(Volume, spec={}).affinity == ()


def test_a_claim() -> None:
    assert decoded(Claim, spec={"volumeName": "pv-1"}).volume == "pv-1"
    assert decoded(Claim, spec={}).volume == ""


def test_how_a_job_ended() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
    job = decoded(Job, spec={"suspend": True}, status={"conditions": [{"type": "Suspended", "status": "True"}, failed]})
    assert (job.suspended, job.outcome, job.message) == (True, "Failed", "BackoffLimitExceeded: too often")
    assert decoded(Job, status={"conditions": [{"type": "Complete", "status": "True"}]}).outcome == "Complete"
    assert decoded(Job, status={"conditions": [{"type": "FailureTarget", "status": "True"}]}).outcome == "Failed"
    assert decoded(Job, status={"conditions": [{"type": "FailureTarget", "status": "False"}]}).outcome == ""


def test_a_deployment_and_a_priority_class() -> None:
    deployment = decoded(Deployment, status={"replicas": 3, "readyReplicas": 2})
    assert (deployment.replicas, deployment.ready) == (3, 2)
    priority = decoded(PriorityClass, value=100, globalDefault=True)
    assert (priority.value, priority.default) == (100, True)


def test_a_page_of_a_list() -> None:
    answer = {"metadata": {"resourceVersion": "99", "continue": "next"}, "items": [{"metadata": METADATA, "spec": {}}]}
    decoder = Decoder[Any](Claim)
    items, version, token = decoder.page(json.dumps(answer).encode())
    assert ([decoder.one(item).meta.name for item in items], version, token) == (["a"], "99", "next")
