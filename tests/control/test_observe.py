"""From records to what the planner sees."""

from __future__ import annotations

from typing import Any

import pytest

from berth.api.convert import to_queue, to_workload
from berth.control.observe import Convert, Observer, to_node
from berth.control.picture import Picture, Validation
from berth.control.ports import INFERENCE_SERVICES, JOBS, QUEUES, TRAINING_JOBS
from berth.control.records import ATTEMPT_LABEL, PINNED_ANNOTATION, JobRecord, PriorityClassRecord
from berth.model.workloads import Pod, PodPhase, Workload
from berth.planning.snapshot import Snapshot
from tests.control.builders import H100, a_node, a_node_record, a_pod_record, a_service, a_training_job, meta
from tests.control.world import World


def an_observer(*, generation: int = 1, problem: str = "", validated: bool = True, **spec: Any) -> Observer:
    """An observer of the job "llm", which the API server would take unless said otherwise."""
    picture = Picture()
    raw = a_training_job(**spec)
    raw["metadata"] |= {"uid": "u-1", "resourceVersion": "1", "generation": generation}
    picture.record(TRAINING_JOBS, raw)
    if validated:
        picture.validations["u-1"] = Validation(1, problem, 0.0)
    return Observer(picture, Convert(to_workload, to_queue))


def seen(observer: Observer) -> Workload:
    """The one workload."""
    (workload,) = observer.snapshot().workloads
    return workload


def a_member(**fields: Any) -> Pod:
    """A pod of the job, as the planner sees it."""
    observer = an_observer()
    observer.picture.nodes.put(a_node_record("n1"))
    observer.picture.pods.put(a_pod_record(owner="u-1", **fields))
    (pod,) = seen(observer).pods
    return pod


def test_a_workload_is_left_out_until_the_api_server_has_judged_its_template() -> None:
    assert an_observer(validated=False).snapshot().workloads == ()
    assert an_observer(generation=2).snapshot().workloads == ()
    assert seen(an_observer()).request is not None


def a_queue(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Queue", "metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": spec}


def test_work_that_names_no_queue_goes_where_its_namespace_does_as_soon_as_that_is_known() -> None:
    observer = an_observer()
    namespace = seen(observer).ref.namespace
    assert seen(observer).queue == "default"
    observer.picture.record(QUEUES, a_queue("red", defaultOf=[namespace]))
    assert seen(observer).queue == "red"
    observer.picture.forget(QUEUES, "red")
    assert seen(observer).queue == "default"


def test_work_that_names_a_queue_stays_there() -> None:
    observer = an_observer(queueName="blue")
    observer.picture.record(QUEUES, a_queue("red", defaultOf=[seen(observer).ref.namespace]))
    assert seen(observer).queue == "blue"


def test_what_the_api_server_refuses_is_misconfigured() -> None:
    workload = seen(an_observer(problem="spec.template.spec.containers[0].image: Required value"))
    assert workload.request is None
    assert workload.problem == "spec.template.spec.containers[0].image: Required value"


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"gated": True}, PodPhase.GATED),
        ({"hostname": "n1"}, PodPhase.PINNED),
        ({"node": "n1", "phase": "Pending"}, PodPhase.BOUND),
        ({"node": "n1", "phase": "Running", "ready": True}, PodPhase.READY),
        ({"node": "n1", "phase": "Succeeded"}, PodPhase.SUCCEEDED),
        ({"node": "n1", "phase": "Failed"}, PodPhase.FAILED),
    ],
)
def test_what_a_pod_is_doing(fields: dict[str, Any], phase: PodPhase) -> None:
    assert a_member(**fields).phase is phase


def test_a_pod_whose_pin_is_on_its_way_counts_as_pinned() -> None:
    observer = an_observer()
    observer.picture.pods.put(a_pod_record(owner="u-1", gated=True))
    observer.picture.assume_pin("u-1", "uid-pod", "n2")
    (pod,) = seen(observer).pods
    assert (pod.phase, pod.node, pod.pinned_at) == (PodPhase.PINNED, "n2", 0.0)


def test_a_pinned_pod_tells_since_when() -> None:
    pod = a_member(hostname="n1", annotations={PINNED_ANNOTATION: "900"}, created=100.0)
    assert pod.pinned_at == 900.0
    assert a_member(hostname="n1", created=100.0).pinned_at == 100.0


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfcpu", "NodeAffinity", "Shutdown"])
def test_a_refusal_of_the_kubelet_is_infrastructure(reason: str) -> None:
    assert a_member(node="n1", phase="Failed", reason=reason).refusal == reason


@pytest.mark.parametrize("reason", ["Evicted", "DeadlineExceeded", ""])
def test_an_end_of_the_program_s_own_is_none(reason: str) -> None:
    assert a_member(node="n1", phase="Failed", reason=reason).refusal == ""


def test_members_have_their_attempt_and_index() -> None:
    pod = a_member(labels={ATTEMPT_LABEL: "3"}, index=5, gated=True)
    assert (pod.attempt, pod.index) == (3, 5)


def test_only_what_changed_is_made_anew() -> None:
    observer = an_observer()
    first = seen(observer)
    observer.picture.nodes.put(a_node_record("n1"))
    assert seen(observer) is first
    observer.picture.pods.put(a_pod_record(owner="u-1"))
    assert len(seen(observer).pods) == 1


def test_priority_classes_that_come_later_count() -> None:
    observer = an_observer(priorityClassName="urgent")
    assert seen(observer).problem.startswith("spec.priorityClassName")
    observer.picture.priorities.put(PriorityClassRecord(meta("urgent", namespace=""), 1000))
    assert seen(observer).priority == 1000


def test_a_service_that_was_never_deployed_waits_until_its_template_is_judged() -> None:
    picture = Picture()
    raw = a_service()
    raw["metadata"] |= {"uid": "u-1", "resourceVersion": "1", "generation": 2}
    picture.record(INFERENCE_SERVICES, raw)
    picture.pods.put(a_pod_record(owner="u-1", node="n1"))
    assert Observer(picture, Convert(to_workload, to_queue)).snapshot().workloads == ()


def snapshot_with(**labels: str) -> Snapshot:
    """A snapshot of one node with these labels, "_" for "/" after the vendor and "." elsewhere as it is."""
    observer = an_observer()
    named = {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()}
    observer.picture.nodes.put(a_node_record("n1", labels=named))
    return observer.snapshot()


def test_a_node_without_gpus_and_one_with_boards() -> None:
    assert snapshot_with().nodes["n1"].board is None
    node = snapshot_with(nvidia_com__gpu_product=H100).nodes["n1"]
    assert node.board is not None
    assert (node.board.name, node.excluded) == ("H100-80GB", "")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"nvidia.com/gpu.product": f"{H100}-SHARED"}, "GPUs are time-sliced"),
        ({"nvidia.com/gpu.product": H100, "nvidia.com/gpu.replicas": "4"}, "GPUs are time-sliced"),
        ({"nvidia.com/gpu.product": H100, "nvidia.com/gpu.sharing-strategy": "mps"}, "GPUs are shared by MPS"),
        ({"nvidia.com/gpu.product": f"{H100}-MIG-1g.10gb"}, "MIG strategy is single"),
        ({"nvidia.com/gpu.product": H100, "nvidia.com/dra-kubelet-plugin": "true"}, "GPUs are managed by DRA"),
    ],
)
def test_gpus_that_cannot_be_counted_in_boards_are_left_out_with_the_reason(labels: dict[str, str], why: str) -> None:
    node = to_node(a_node_record("n1", labels=labels))
    assert node.board is not None
    assert (node.board.name, node.excluded) == ("H100-80GB", why)


def test_a_board_that_is_not_shared_is_not_left_out() -> None:
    assert (
        to_node(a_node_record("n1", labels={"nvidia.com/gpu.product": H100, "nvidia.com/gpu.replicas": "1"})).excluded
        == ""
    )


def test_a_copy_of_a_member_that_a_user_made_is_no_member() -> None:
    observer = an_observer()
    observer.picture.pods.put(a_pod_record(owner="u-1", controller=""))
    assert seen(observer).pods == ()


def test_an_attempt_that_a_wiped_status_does_not_know_must_end_before_another_begins() -> None:
    observer = an_observer()
    observer.picture.jobs.put(JobRecord(meta("llm-3", labels={"berth.dev/uid": "u-1", "berth.dev/attempt": "3"})))
    workload = seen(observer)
    assert workload.attempt is not None
    assert (workload.attempt.number, workload.attempt.stopping, workload.attempts_made) == (3, "Requeued", 3)


async def test_a_wiped_status_ends_the_attempt_that_ran_and_starts_the_next() -> None:
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(TRAINING_JOBS, a_training_job())
    await world.settle()
    world.api.edit(TRAINING_JOBS, "team", "llm", status=None)
    await world.restart()
    await world.settle()
    assert [job["metadata"]["name"] for job in world.api.all(JOBS)] == ["llm-2"]
    assert world.status("llm")["state"] == "Running"
