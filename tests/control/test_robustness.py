"""What must not bring the operator down, nor harm what is not Berth's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.adapters.records import read_job, read_pod
from berth.api.convert import to_queue, to_workload
from berth.control import builders
from berth.control.apply import Applier, Target
from berth.control.events import Recorder
from berth.control.observe import Convert, Observer, device_text
from berth.control.picture import Picture, Validation
from berth.control.ports import JOBS, PODS, SERVICES, TRAINING_JOBS, Json, Refused, Resource
from berth.control.records import ClaimRecord, DeploymentRecord, JobRecord, Meta, VolumeRecord
from berth.model.resources import parse_quantity
from berth.model.workloads import Attempt, Device, Kind, Placement, Ref, Requirement, RunPhase, Workload
from berth.planning.actions import Pin, Serve, Stop
from tests.control.fakes import FakeApi, HandClock

NOW = 1_000_000.0
GPU = Device("H100-80GB", "nvidia.com/gpu", 1)
REF = Ref(Kind.TRAINING_JOB, "team", "llm", "uid-llm")


def a_training_job(*, status: Json | None = None, kind: str = "TrainingJob", **spec: Any) -> Json:
    container = {"name": "main", "image": "busybox"}
    size = {"workers": 1} if kind == "TrainingJob" else {"replicas": 1, "port": 80}
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "llm", "namespace": "team", "uid": "uid-llm", "resourceVersion": "5", "generation": 1},
        "spec": {**size, "gpus": {"count": 1}, "template": {"spec": {"containers": [container]}}, **spec},
        "status": status or {},
    }


OWNER = {"kind": "Job", "name": "llm-1", "uid": "uid-job", "controller": True}


def a_pod(name: str = "p", *, labels: Json | None = None, annotations: Json | None = None) -> Json:
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": "7"}
    return {
        "metadata": metadata | {"labels": labels or {}, "annotations": annotations or {}, "ownerReferences": [OWNER]},
        "spec": {"containers": []},
    }


def an_observer(raw: Json) -> Observer:
    """An observer of one workload that the API server would take."""
    picture = Picture()
    picture.record(TRAINING_JOBS, raw)
    picture.validations["uid-llm"] = Validation(1, "", NOW)
    return Observer(picture, Convert(workload=to_workload, queue=to_queue))


def a_job_record(*, owner: str, outcome: str = "") -> JobRecord:
    meta = Meta("llm-1", "team", "uid-job", 9, {"berth.dev/uid": owner}, {})
    return JobRecord(meta, outcome=outcome)


# What kube-scheduler leaves as it is while it can't bind the pod: only another status moves the time.
SINCE_CREATION = {"type": "PodScheduled", "status": "False", "lastTransitionTime": "1970-01-01T00:00:00Z"}
ADMITTED = {
    "attempt": 1,
    "placement": {
        "device": {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 1},
        "assignments": [{"node": "n1", "ranks": "0"}],
    },
}


def an_api(resource: Resource, *there: Json) -> FakeApi:
    """An API server that has these objects."""
    api = FakeApi(HandClock())
    for raw in there:
        api.put(resource, raw)
    return api


def an_applier(api: FakeApi, picture: Picture | None = None) -> Applier:
    return Applier(api, picture or Picture(), api.clock, Recorder(api, api.clock), read_pod, read_job)


def stopped() -> Target:
    """A job whose attempt is to stop, and that says so already."""
    attempt = Attempt(1, Placement(GPU, ("n1",)), NOW, RunPhase.ABSENT, stopping="Requeued")
    return Target(Workload(REF, NOW, None, attempt=attempt), a_training_job())


def test_an_old_job_of_the_same_name_says_nothing_of_a_new_training_job() -> None:
    observer = an_observer(a_training_job(status=ADMITTED))
    observer.picture.jobs.put(a_job_record(owner="uid-of-the-deleted-one", outcome="Complete"))
    (workload,) = observer.snapshot().workloads
    assert workload.attempt is not None
    assert workload.attempt.phase is RunPhase.ABSENT


def test_its_own_job_tells_how_an_attempt_ended() -> None:
    observer = an_observer(a_training_job(status=ADMITTED))
    observer.picture.jobs.put(a_job_record(owner="uid-llm", outcome="Complete"))
    (workload,) = observer.snapshot().workloads
    assert workload.attempt is not None
    assert workload.attempt.phase is RunPhase.SUCCEEDED


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "²", "9" * 5000])
def test_a_pod_with_a_wild_index_or_attempt_harms_nobody(text: str) -> None:
    observer = an_observer(a_training_job())
    labels = {"berth.dev/uid": "uid-llm", "berth.dev/attempt": text}
    raw = a_pod(labels=labels, annotations={"batch.kubernetes.io/job-completion-index": text})
    observer.picture.pods.put(read_pod(raw))
    (workload,) = observer.snapshot().workloads
    assert [(pod.attempt, pod.index) for pod in workload.pods] == [(0, 0)]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"', '{"model": 1, "resource": 2, "count": "x"}', "[" * 100_000])
def test_a_pod_with_a_wild_device_harms_nobody(text: str) -> None:
    observer = an_observer(a_training_job())
    observer.picture.pods.put(
        read_pod(a_pod(labels={"berth.dev/uid": "uid-llm"}, annotations={"berth.dev/device": text}))
    )
    (workload,) = observer.snapshot().workloads
    assert [pod.device for pod in workload.pods] == [None]


def test_a_quantity_with_a_huge_exponent_is_read_at_once() -> None:
    assert parse_quantity("1e999999999") >= 10**100
    assert 0 < parse_quantity("1e-999999999") < 1


def test_a_container_with_empty_resources_gets_its_devices() -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "busybox", "resources": None}]}}
    made = builders.job(REF, a_training_job(template=template)["spec"], 1, Placement(GPU, ("n1",)))
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def an_attempts_job(**labels: str) -> Json:
    return {"metadata": {"name": "llm-1", "namespace": "team", "labels": labels}, "spec": {"suspend": False}}


async def test_stopping_leaves_a_foreign_job_of_that_name_alone() -> None:
    api = an_api(JOBS, an_attempts_job())
    await an_applier(api).carry_out(stopped(), [Stop(REF, 1, "Requeued", "")])
    assert api.said() == []


async def test_stopping_suspends_its_own_job() -> None:
    api = an_api(JOBS, an_attempts_job(**{"berth.dev/uid": "uid-llm"}))
    await an_applier(api).carry_out(stopped(), [Stop(REF, 1, "Requeued", "")])
    assert api.said() == ["merge jobs llm-1"]


async def test_a_pin_that_fails_is_told_only_after_the_others_are_answered() -> None:
    api = an_api(PODS, *(a_pod(f"p{i}") for i in range(3)))
    for pod in api.all(PODS):
        pod["spec"]["schedulingGates"] = [{"name": builders.GATE}]
    api.fail("merge_lists pods p0", Refused("no"))
    pins = [Pin(REF, raw["metadata"]["name"], raw["metadata"]["uid"], "n1") for raw in api.all(PODS)]
    with pytest.raises(Refused):
        await an_applier(api).carry_out(stopped(), pins)
    assert [pod["spec"].get("schedulingGates") for pod in api.all(PODS)] == [[{"name": builders.GATE}], [], []]


def test_an_object_that_cannot_be_read_is_left_out_and_the_others_are_seen() -> None:
    picture = Picture()
    wild = a_training_job(status={"finishedAt": "the day after"})
    wild["metadata"] |= {"uid": "uid-wild", "name": "wild"}
    for raw in (wild, a_training_job()):
        picture.record(TRAINING_JOBS, raw)
        picture.validations[raw["metadata"]["uid"]] = Validation(1, "", NOW)
    observer = Observer(picture, Convert(workload=to_workload, queue=to_queue))
    assert [w.ref.name for w in observer.snapshot().workloads] == ["llm"]


def test_a_pod_that_waited_long_at_its_gate_counts_as_pinned_from_its_pin_on() -> None:
    observer = an_observer(a_training_job())
    raw = a_pod(labels={"berth.dev/uid": "uid-llm"}) | {"status": {"conditions": [SINCE_CREATION]}}
    pinned = builders.pin("uid-p", {"kubernetes.io/hostname": "n1"}, "research", NOW)
    raw["metadata"] |= {"creationTimestamp": "1970-01-01T00:00:00Z", "annotations": pinned["metadata"]["annotations"]}
    observer.picture.pods.put(read_pod(raw))
    (workload,) = observer.snapshot().workloads
    assert [pod.pinned_at for pod in workload.pods] == [NOW]


def test_a_claim_that_binds_is_seen_by_the_workload_that_names_it_alone() -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    template = {"spec": {"containers": [{"name": "main", "image": "busybox"}], "volumes": volumes}}
    observer = an_observer(a_training_job(template=template))
    picture = observer.picture
    other = a_training_job()
    other["metadata"] |= {"uid": "uid-other", "name": "other"}
    picture.record(TRAINING_JOBS, other)
    picture.validations["uid-other"] = Validation(1, "", NOW)
    before = {w.ref.name: w for w in observer.snapshot().workloads}
    in_zone = ((Requirement("zone", "In", ("z1",)),),)
    picture.volumes.put(VolumeRecord(Meta("pv", "", "uid-pv", 1, {}, {}), in_zone))
    picture.claims.put(ClaimRecord(Meta("data", "team", "uid-data", 2, {}, {}), "pv"))
    after = {w.ref.name: w for w in observer.snapshot().workloads}
    assert after["other"] is before["other"]
    request = after["llm"].request
    assert request is not None
    assert request.shape.volume_affinity == (in_zone,)


def a_served_one(observer: Observer, *, generation: int) -> None:
    """The Deployment of the service, made from that generation."""
    annotations = {"berth.dev/device": device_text(GPU), "berth.dev/generation": str(generation)}
    meta = Meta("llm", "team", "uid-deployment", 9, {"berth.dev/uid": "uid-llm"}, annotations)
    observer.picture.deployments.put(DeploymentRecord(meta))


@pytest.mark.parametrize("judged", [True, False], ids=["since its start", "after a restart of the operator"])
def test_a_service_whose_change_is_being_judged_holds_what_it_has(judged: bool) -> None:
    raw = a_training_job(kind="InferenceService")
    raw["metadata"]["generation"] = 2
    observer = an_observer(raw)
    if not judged:
        observer.picture.validations.clear()
    a_served_one(observer, generation=1)
    (workload,) = observer.snapshot().workloads
    assert (workload.generation, workload.served_generation, workload.served_device) == (1, 1, GPU)


async def test_serving_does_not_take_over_a_service_of_someone_else() -> None:
    api = an_api(SERVICES, {"metadata": {"name": "llm", "namespace": "team"}})
    ref = Ref(Kind.INFERENCE_SERVICE, "team", "llm", "uid-llm")
    target = Target(Workload(ref, NOW, None), a_training_job(kind="InferenceService"))
    with pytest.raises(Refused, match="services team/llm is not Berth's"):
        await an_applier(api).carry_out(target, [Serve(ref, GPU, 1)])
    assert api.said() == []


async def test_the_late_answer_to_a_write_does_not_bring_a_deleted_workload_back() -> None:
    picture, api = Picture(), an_api(TRAINING_JOBS, a_training_job())
    (raw,) = api.all(TRAINING_JOBS)
    ref = replace(REF, uid=raw["metadata"]["uid"])
    picture.record(TRAINING_JOBS, raw)
    picture.forget(TRAINING_JOBS, ref.uid)
    await an_applier(api, picture).write_status(Target(Workload(ref, NOW, None), raw), {"state": "Pending"})
    assert picture.workloads == {}
