"""Objects as watches deliver them become the planner's types."""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Any

import pytest

from berth.api.convert import to_availability, to_queue, to_request, to_workload
from berth.control.status import failures_status
from berth.model.failures import Crash, Failures, Pace, Restart
from berth.model.reasons import Verdict
from berth.model.workloads import (
    Availability,
    Demand,
    Device,
    Elastic,
    Group,
    Kind,
    Placement,
    PodShape,
    Preemption,
    Reclaim,
    Ref,
    Requirement,
    Resize,
    RunPhase,
    Spot,
    Toleration,
    Topology,
    TopologyMode,
    WithinQueue,
)
from tests.api.builders import a_service_spec, a_template, a_training_job, converted, requested

DEVICE = {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 8}
RUNNING = {
    "attempt": 2,
    "placement": {
        "device": DEVICE,
        "assignments": [{"node": "n1", "ranks": "0,2-3"}, {"node": "n2", "ranks": "1"}],
    },
    "admittedAt": "2026-01-02T03:05:00Z",
    "startedAt": "2026-01-02T03:06:00Z",
}
CRASHED = {
    "restarts": 2,
    "hangs": 1,
    "failures": {
        "inARow": 1,
        "savedStep": 40,
        "last": [
            {"attempt": 1, "time": "2026-01-02T03:04:05Z", "reason": "Hung"},
            {"attempt": 2, "time": "2026-01-02T03:04:06Z", "node": "n1", "exitCode": 137, "reason": "OOMKilled"},
        ],
    },
}
FINISHED = {"type": "Failed", "status": "True", "reason": "Error", "message": "", "lastTransitionTime": "x"}


def test_identity_age_and_generation_come_from_metadata() -> None:
    job = converted(a_training_job())
    assert job.ref == Ref(Kind.TRAINING_JOB, "team-a", "llm", "u-1")
    assert (job.created, job.generation, job.deleting) == (1767323045.0, 3, False)


@pytest.mark.parametrize(
    ("gpus", "demand"),
    [
        ({"count": 8, "models": ["H100", "H200"]}, Demand(count=8, models=("H100", "H200"))),
        ({"profile": "1g.10gb"}, Demand(profile="1g.10gb")),
        ({"memory": "18Gi"}, Demand(memory_bytes=18 * 2**30)),
        ({"memory": 1000}, Demand(memory_bytes=1000)),
        ({"memory": "1.5"}, Demand(memory_bytes=2)),
    ],
)
def test_demands(gpus: dict[str, Any], demand: Demand) -> None:
    assert requested(gpus=gpus).demand == demand


def test_a_gang_asks_for_workers_tensor_groups_and_a_level() -> None:
    request = requested(
        workers=4, gpus={"count": 8}, parallelism={"tensor": 16}, topology={"level": "rack", "mode": "Required"}
    )
    assert (request.workers, request.tensor) == (4, 16)
    assert request.topology == Topology("rack", TopologyMode.REQUIRED)
    assert requested(topology={"level": "rack"}).topology == Topology("rack", TopologyMode.PREFERRED)


def test_groups_are_told_from_the_largest_on_whatever_their_order() -> None:
    groups = [{"size": 2, "level": "nvlink", "mode": "Required"}, {"size": 8, "level": "rack"}]
    topology = requested(workers=16, topology={"level": "block", "groups": groups}).topology
    assert topology is not None
    assert topology.groups == (
        Group(8, "rack", TopologyMode.PREFERRED),
        Group(2, "nvlink", TopologyMode.REQUIRED),
    )


def test_stages_of_a_pipeline_are_a_matter_of_training() -> None:
    assert requested(workers=4, parallelism={"pipeline": 2}).pipeline == 2
    assert requested().pipeline == 1


def test_a_service_asks_for_replicas_and_one_unless_told() -> None:
    assert to_request(a_service_spec(replicas=3), Kind.INFERENCE_SERVICE).workers == 3
    assert to_request(a_service_spec(), Kind.INFERENCE_SERVICE).workers == 1


def test_a_pod_asks_its_node_for_all_but_gpus() -> None:
    template = a_template(
        container={"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}},
        nodeSelector={"zone": "b", "arch": "amd64"},
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]},
                        {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]},
                    ]
                }
            }
        },
        tolerations=[{"operator": "Exists"}, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}],
    )
    assert requested(template=template).shape == PodShape(
        requests=(("cpu", 50), ("memory", 64 * 2**20)),
        node_selector=(("arch", "amd64"), ("zone", "b")),
        affinity=((Requirement("tier", "In", ("a", "b")),), (Requirement("spot", "DoesNotExist"),)),
        tolerations=(Toleration(operator="Exists"), Toleration("gpu", "Equal", "yes", "NoSchedule")),
    )


def test_bound_volumes_tie_a_pod_to_where_they_are() -> None:
    in_zone_a = ((Requirement("zone", "In", ("a",)),),)
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("bound", "unbound")] + [
        {"name": "scratch", "emptyDir": {}}
    ]
    job = to_workload(
        a_training_job(template=a_template(volumes=volumes)),
        {},
        lambda namespace, claim: in_zone_a if (namespace, claim) == ("team-a", "bound") else (),
    )
    assert job.request is not None
    assert job.request.shape.volume_affinity == (in_zone_a,)


@pytest.mark.parametrize("checkpoint", [{"claim": "disk"}, {"claimTemplate": {"size": "1Ti"}}])
def test_so_does_the_volume_that_checkpoints_are_on(checkpoint: dict[str, Any]) -> None:
    in_zone_a = ((Requirement("zone", "In", ("a",)),),)
    raw = a_training_job(checkpoint=checkpoint)
    name = checkpoint.get("claim") or f"{raw['metadata']['name']}-checkpoints"
    job = to_workload(raw, {}, lambda namespace, claim: in_zone_a if claim == name else ())
    assert job.request is not None
    assert job.request.shape.volume_affinity == (in_zone_a,)


@pytest.mark.parametrize(
    ("spec", "labels", "queue"),
    [
        ({"queueName": "research"}, {"kueue.x-k8s.io/queue-name": "other"}, "research"),
        ({}, {"kueue.x-k8s.io/queue-name": "other"}, "other"),
        ({}, {}, "default"),
    ],
)
def test_the_queue_is_the_field_then_kueues_label_then_the_default(
    spec: dict[str, Any], labels: dict[str, str], queue: str
) -> None:
    assert converted(a_training_job(labels=labels, **spec)).queue == queue


def test_priority_is_the_class_value_and_the_default_class_for_none() -> None:
    priorities = {"": 5, "high": 1000}
    values = [
        to_workload(a_training_job(**spec), priorities, lambda namespace, claim: ()).priority
        for spec in ({"priorityClassName": "high"}, {})
    ]
    assert values == [1000, 5]


def test_an_unknown_priority_class_is_named_with_the_known_ones() -> None:
    job = converted(a_training_job(priorityClassName="hihg"), high=1000, **{"system-node-critical": 2})
    assert job.problem == ("spec.priorityClassName: there is no PriorityClass 'hihg': use one of high, or leave it out")


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("1h30m", 5400), ("2d", 172800), ("45s", 45)])
def test_durations(text: str, seconds: int) -> None:
    assert converted(a_training_job(maxRuntime=text)).max_runtime_seconds == seconds


def test_an_estimate_is_no_limit() -> None:
    job = converted(a_training_job(estimatedRuntime="40m"))
    assert (job.estimated_seconds, job.max_runtime_seconds) == (2400, None)
    assert converted(a_training_job()).estimated_seconds is None


def test_limits_of_time_are_absent_unless_given() -> None:
    job = converted(a_training_job())
    assert (job.max_runtime_seconds, job.ttl_seconds, job.suspend) == (None, None, False)
    job = converted(a_training_job(ttlSecondsAfterFinished=0, suspend=True))
    assert (job.ttl_seconds, job.suspend) == (0, True)


def test_the_live_attempt_is_read_back_from_the_status() -> None:
    job = converted(a_training_job(workers=4, status=RUNNING))
    assert job.attempt is not None
    assert job.attempt.number == job.attempts_made == 2
    assert job.attempt.placement == Placement(Device("H100-80GB", "nvidia.com/gpu", 8), ("n1", "n2", "n1", "n1"))
    assert (job.attempt.admitted_at, job.started_at) == (1767323100.0, 1767323160.0)
    assert (job.attempt.phase, job.attempt.stopping) == (RunPhase.ABSENT, "")


def test_a_stop_on_its_way_is_read_back() -> None:
    job = converted(a_training_job(status={**RUNNING, "stopping": "Suspended"}))
    assert job.attempt is not None
    assert job.attempt.stopping == "Suspended"


def test_a_finished_job_has_no_live_attempt_though_its_placement_stays_on_record() -> None:
    status = {**RUNNING, "conditions": [FINISHED], "finishedAt": "2026-01-02T04:00:00Z"}
    job = converted(a_training_job(status=status))
    assert (job.attempt, job.finished, job.finished_at) == (None, "Failed", 1767326400.0)


def test_a_misconfigured_job_keeps_its_attempt_so_that_it_can_be_stopped() -> None:
    job = converted(a_training_job(status=RUNNING, template=a_template(nodeName="n1")))
    assert job.request is None
    assert job.attempt is not None


def test_a_placement_that_berth_did_not_write_is_a_problem_not_a_crash() -> None:
    garbled = {**RUNNING, "placement": {"device": DEVICE, "assignments": [{"node": "n1", "ranks": "first"}]}}
    assert converted(a_training_job(status=garbled)).problem.startswith("status.placement: ")


def test_waits_and_verdicts_are_read_back() -> None:
    status = {
        "avoid": [{"node": "n3", "until": "2026-01-02T03:04:15Z"}],
        "moved": {"time": "2026-01-02T03:04:15Z", "usd": 12.5},
        "notBefore": "2026-01-02T03:04:25Z",
        "verdict": {"reason": "WaitingForQuota", "message": "asks 8", "nodes": [{"cause": "full", "count": 2}]},
    }
    job = converted(a_training_job(status=status))
    assert job.avoid == (("n3", 1767323055.0),)
    assert job.moved == (1767323055.0, 12.5)
    assert job.not_before == 1767323065.0
    assert job.verdict == Verdict("WaitingForQuota", "asks 8", nodes=(("full", 2),))


@pytest.mark.parametrize(
    ("more", "step"),
    [
        ({}, 1),
        ({"parallelism": {"pipeline": 2}}, 2),
        ({"topology": {"level": "rack", "groups": [{"size": 4, "level": "nvlink"}, {"size": 2, "level": "node"}]}}, 4),
        ({"gpus": {"count": 4}, "parallelism": {"tensor": 8, "pipeline": 4}}, 4),
        ({"gpus": {"count": 8}, "parallelism": {"tensor": 4}}, 1),
    ],
)
def test_an_elastic_gang_grows_and_shrinks_by_whole_groups(more: dict[str, Any], step: int) -> None:
    job = converted(a_training_job(workers=8, elastic={"minWorkers": 4, "maxWorkers": 12}, **more))
    assert job.problem == ""
    assert job.request is not None
    assert job.request.elastic == Elastic(4, 12, step)


@pytest.mark.parametrize(
    ("elastic", "pipeline", "message"),
    [
        ((3, 8), 1, "minWorkers must be at most workers"),
        ((1, 1), 1, "maxWorkers at least"),
        ((1, 4), 2, "must be multiples of parallelism.pipeline"),
    ],
)
def test_elastic_bounds_that_make_no_sense_are_refused(elastic: tuple[int, int], pipeline: int, message: str) -> None:
    bounds = {"minWorkers": elastic[0], "maxWorkers": elastic[1]}
    problem = converted(a_training_job(workers=2, elastic=bounds, parallelism={"pipeline": pipeline})).problem
    assert problem.startswith("spec.elastic: ")
    assert message in problem


def test_a_resize_and_what_the_program_expects_are_read_back() -> None:
    told = {"estimatedEnd": "2026-01-02T04:00:00Z", "time": "2026-01-02T03:30:00Z"}
    status = {**RUNNING, "resized": {"attempt": 2, "from": 4, "to": 8}, "progress": told}
    job = converted(a_training_job(status=status))
    assert job.resized == Resize(2, 4, 8)
    assert job.expected_end == 1767326400.0
    earlier = {**status, "progress": {**told, "time": "2026-01-02T03:05:59Z"}}
    assert converted(a_training_job(status=earlier)).expected_end == 0.0  # an attempt before this one told it


def test_a_live_attempt_stays_in_the_queue_that_it_is_charged_to() -> None:
    placement = {"device": {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 1}, "assignments": []}
    running = converted(a_training_job(status={"queue": "red", "placement": placement}))
    assert (running.queue, running.queue_named) == ("red", True)
    waiting = converted(a_training_job(status={"queue": "red"}))
    assert (waiting.queue, waiting.queue_named) == ("default", False)


def test_a_queue_s_place_limits_and_policies() -> None:
    quota = {"model": "H100", "nominal": 16, "borrowingLimit": 0, "lendingLimit": 4}
    spec = {"parent": "org", "quotas": [quota], "weight": 3, "maxPricePerHour": 2.4, "namespaces": ["a"]}
    queue = to_queue(
        {"metadata": {"name": "q"}, "spec": {**spec, "stopPolicy": "Hold", "preemption": {"reclaim": "Never"}}}
    )
    assert (queue.parent, queue.weight, queue.namespaces) == ("org", 3, ("a",))
    assert (queue.borrowing, queue.lending) == ({"H100": 0}, {"H100": 4})
    assert queue.max_usd_per_hour == Fraction(12, 5)
    assert queue.stop_policy == "Hold"
    assert queue.preemption == Preemption(WithinQueue.LOWER_PRIORITY, Reclaim.NEVER)


def test_queues_hold_quota_by_name_and_none_means_unlimited() -> None:
    limited = to_queue({"metadata": {"name": "q"}, "spec": {"quotas": [{"model": "H100", "nominal": 16}]}})
    assert limited.nominal == {"H100": 16}
    assert to_queue({"metadata": {"name": "q"}, "spec": {"quotas": []}}).nominal == {}
    assert to_queue({"metadata": {"name": "q"}, "spec": {}}).nominal is None


def test_the_record_of_an_attempt_keeps_who_is_done_who_lacks_and_the_spec() -> None:
    status = RUNNING | {"finishedRanks": "0,2-3", "missingSince": "2026-01-02T03:04:05Z", "specDigest": "abc"}
    attempt = converted(a_training_job(status=status)).attempt
    assert attempt is not None
    assert (attempt.done, attempt.missing_since, attempt.spec_digest) == ({0, 2, 3}, 1767323045.0, "abc")


def test_ranks_that_others_wrote_are_a_problem_of_the_status() -> None:
    assert converted(a_training_job(status=RUNNING | {"finishedRanks": "all"})).problem.startswith(
        "status.finishedRanks"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 2},
        {"elastic": {"minWorkers": 1, "maxWorkers": 2}},
        {"gpus": {"count": 2}},
        {"parallelism": {"pipeline": 2}},
        {"topology": {"level": "rack"}},
        {"queueName": "research"},
        {"template": a_template(container={"image": "other"})},
    ],
)
def test_a_change_of_what_pods_are_made_from_changes_the_digest(change: dict[str, Any]) -> None:
    assert converted(a_training_job(**change)).spec_digest != converted(a_training_job()).spec_digest


def test_defaults_and_what_may_change_while_it_runs_leave_the_digest_as_it_is() -> None:
    more = {"suspend": True, "maxRuntime": "2d", "parallelism": {"tensor": 1}, "topology": None}
    assert converted(a_training_job(**more)).spec_digest == converted(a_training_job()).spec_digest
    assert converted(a_training_job(workers=0)).spec_digest == ""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Restart(3, 10.0, None)),
        ({"restart": {"maxRestarts": 0, "backoff": "1m30s"}}, Restart(0, 90.0, None)),
        ({"restart": {"hangTimeout": "never"}}, Restart(3, 10.0, inf)),
        ({"restart": {"hangTimeout": "1h"}}, Restart(3, 10.0, 3600.0)),
    ],
)
def test_what_is_done_about_failures(asked: dict[str, Any], expected: Restart) -> None:
    assert converted(a_training_job(**asked)).restart == expected


def test_failures_are_read_back_from_status() -> None:
    crashes = (Crash(1, 1767323045.0, reason="Hung"), Crash(2, 1767323046.0, "n1", 137, "OOMKilled"))
    failures = Failures(restarts=2, hangs=1, row=1, step=40, last=crashes)
    assert converted(a_training_job(status=CRASHED)).failures == failures
    assert failures_status(failures) == CRASHED["failures"] | {
        "last": [
            {**CRASHED["failures"]["last"][0], "node": None, "exitCode": None},
            CRASHED["failures"]["last"][1],
        ]
    }


def test_pace_and_last_save_are_read_back_from_status() -> None:
    progress = {"attempt": 2, "advancedAt": "2026-01-02T03:04:05Z", "usualSeconds": 5.1, "longestSeconds": 60.0}
    saved = {"attempt": 1, "step": 40, "time": "2026-01-02T03:04:05Z", "bytes": 1, "seconds": 2.5}
    job = converted(a_training_job(status={"progress": progress, "checkpoint": saved}))
    assert job.pace == Pace(2, 1767323045.0, 5.1, 60.0)
    assert (job.saved_step, job.save_seconds) == (40, 2.5)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": 1}, Availability(on_demand=1, per_spot_pool=1)),
        ({"replicas": 5}, Availability(on_demand=3, per_spot_pool=2)),
        ({"replicas": 5, "spot": "Only"}, Availability(on_demand=0, per_spot_pool=2)),
        (
            {"replicas": 8, "availability": {"onDemandMinimum": 2, "maxPerSpotPool": "50%"}},
            Availability(on_demand=2, per_spot_pool=4),
        ),
        ({"replicas": 8, "availability": {"onDemandMinimum": 0, "maxPerSpotPool": 0}}, Availability(0, 1)),
    ],
)
def test_how_many_replicas_spot_capacity_may_take(spec: dict[str, Any], expected: Availability) -> None:
    assert to_availability(spec) == expected


@pytest.mark.parametrize("spot", list(Spot))
def test_a_service_says_whether_it_runs_on_spot_capacity(spot: Spot) -> None:
    assert to_request(a_service_spec(spot=spot.value), Kind.INFERENCE_SERVICE).shape.spot is spot
