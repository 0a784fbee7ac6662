"""Gangs that others disturb: evictions, lost pods, deleted Jobs, and specs changed behind a brief suspension."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.workloads import Attempt, PodPhase, RunPhase, Workload
from berth.planning.actions import Finish, Release, Stop
from berth.planning.lifecycle import remembered
from tests.planning.builders import NOW, a_job, a_node, nodes_of, only, planned, running, verdict_of
from tests.planning.world import World

TWO = [a_node("n1"), a_node("n2")]
FULL = {"nvidia.com/gpu": 8, "pods": 1}


def recorded(job: Workload, **fields: Any) -> Workload:
    """The job with other fields of its attempt recorded."""
    assert job.attempt is not None
    return replace(job, attempt=replace(job.attempt, **fields))


def kept(job: Workload, now: float = NOW) -> Attempt:
    """What the status keeps of the job's attempt."""
    attempt = remembered(job, now)
    assert attempt is not None
    return attempt


@pytest.mark.parametrize(("phase", "started"), [(PodPhase.READY, NOW - 8000), (PodPhase.BOUND, 0.0)])
def test_a_gang_that_was_whole_waits_a_while_for_the_replacement_of_a_lost_pod(phase: PodPhase, started: float) -> None:
    job = running(a_job(workers=4), *["n1"] * 4, pods=phase, admitted_at=NOW - 9000, started_at=started)
    plan = planned(TWO, replace(job, pods=job.pods[1:]))
    assert (plan.actions, plan.wake_at) == ((), NOW + 300)
    assert verdict_of(plan).reason == "WaitingForPods"
    assert verdict_of(plan).message.startswith("3 of 4 members are there, worker 0 has no pod: see the events")


def test_what_a_gang_lacks_is_remembered_until_it_is_whole_again() -> None:
    whole = running(a_job(workers=2), "n1", "n1", pods=PodPhase.READY)
    short = replace(whole, pods=whole.pods[1:])
    assert kept(whole).missing_since == 0.0
    assert kept(short).missing_since == NOW
    assert kept(replace(short, attempt=kept(short)), NOW + 9).missing_since == NOW
    assert kept(replace(whole, attempt=kept(short)), NOW + 9).missing_since == 0.0


def test_a_gang_whose_lost_pod_is_not_replaced_in_time_gives_its_room_back() -> None:
    job = running(a_job(workers=4), *["n1"] * 4, pods=PodPhase.READY, started_at=NOW - 8000)
    short = recorded(replace(job, pods=job.pods[1:]), missing_since=NOW - 300)
    (stop,) = planned(TWO, short).actions
    assert (stop.reason, stop.not_before) == ("Requeued", NOW + 120)
    assert stop.message == "3 of 4 pods were there after 300 s: tried again in 120 s; see the events of its Job"


def test_a_member_that_ended_well_is_not_missed_when_its_pod_is_cleaned_up() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n2", pods=PodPhase.READY, started_at=NOW - 8000)
    job = replace(job, pods=(replace(job.pods[0], phase=PodPhase.SUCCEEDED), job.pods[1]))
    job = replace(job, attempt=kept(job), pods=job.pods[1:])
    plan = planned(TWO, job, a_job("next", gpus=8), used={"n2": FULL})
    assert verdict_of(plan).reason == "Placed"
    assert nodes_of(plan, "next") == ("n1",)
    assert kept(job).missing_since == 0.0
    ended = replace(job.pods[0], phase=PodPhase.SUCCEEDED)
    done = recorded(replace(job, pods=(ended,)), phase=RunPhase.SUCCEEDED)
    assert [a.outcome for a in only(planned(TWO, done), Finish)] == ["Succeeded"]


@pytest.mark.parametrize("phase", [PodPhase.BOUND, PodPhase.READY, PodPhase.SUCCEEDED])
def test_a_gang_is_planned_anew_when_a_member_is_told_to_end(phase: PodPhase) -> None:
    job = running(a_job(workers=2), "n1", "n2", pods=PodPhase.READY)
    job = replace(job, pods=(job.pods[0], replace(job.pods[1], phase=phase, terminating=True)))
    (stop,) = planned(TWO, job).actions
    assert (stop.reason, stop.not_before) == ("WorkerEvicted", NOW)
    assert stop.message == "worker 1 on n2 was evicted or deleted, and its gang needs it: planned anew"


@pytest.mark.parametrize("phase", [PodPhase.GATED, PodPhase.PINNED])
def test_an_unbound_member_that_is_being_replaced_stops_nothing(phase: PodPhase) -> None:
    job = running(a_job(workers=2), "n1", "n2", pods=PodPhase.READY)
    job = replace(job, pods=(job.pods[0], replace(job.pods[1], phase=phase, terminating=True)))
    assert planned(TWO, job).actions == ()


@pytest.mark.parametrize("stopping", ["Requeued", "Suspended"])
@pytest.mark.parametrize("gone", [True, False])
def test_an_exit_after_an_eviction_is_no_success_though_the_job_is_complete(stopping: str, gone: bool) -> None:
    job = running(a_job(workers=2), "n1", "n2", phase=RunPhase.SUCCEEDED, pods=PodPhase.SUCCEEDED, stopping=stopping)
    evicted = () if gone else (replace(job.pods[1], terminating=True),)
    assert [type(a) for a in planned(TWO, replace(job, pods=(job.pods[0], *evicted))).actions] == [Release]


def test_a_complete_job_of_which_a_member_was_evicted_unseen_runs_again() -> None:
    job = running(a_job(workers=2), "n1", "n2", phase=RunPhase.SUCCEEDED, pods=PodPhase.SUCCEEDED)
    for evicted in ((), (replace(job.pods[1], terminating=True),)):
        (stop,) = planned(TWO, replace(job, pods=(job.pods[0], *evicted))).actions
        assert stop.reason == "Requeued"
        assert stop.message.startswith("its Job is complete, but worker 1 was evicted")


def test_a_complete_job_whose_pods_are_seen_late_is_waited_for() -> None:
    job = running(a_job(), "n1", phase=RunPhase.SUCCEEDED, pods=PodPhase.READY)
    assert planned(TWO, job).actions == ()


def test_a_drained_gang_succeeds_in_its_next_attempt_alone() -> None:
    world = World({n.name: n for n in TWO}, {"uid-job": a_job(workers=2, gpus=8)})
    world.settle()
    world.evict("uid-job")
    world.settle()
    assert world.workloads["uid-job"].attempts_made == 2
    for index in (0, 1):
        world.end("uid-job", PodPhase.SUCCEEDED, index)
    world.settle()
    assert world.workloads["uid-job"].finished == "Succeeded"


def test_an_eviction_that_nobody_saw_is_no_success_either() -> None:
    world = World({n.name: n for n in TWO}, {"uid-job": a_job(workers=2, gpus=8)})
    world.settle()
    world.evict("uid-job", 0)
    world.evict("uid-job", 1)
    world.work()  # the operator was away meanwhile, and the Job is complete
    complete = world.workloads["uid-job"].attempt
    assert complete is not None
    assert complete.phase is RunPhase.SUCCEEDED
    world.settle()
    assert (world.workloads["uid-job"].attempts_made, world.workloads["uid-job"].finished) == (2, "")


def test_a_gang_that_ran_is_planned_anew_when_its_job_is_deleted() -> None:
    job = running(a_job(), "n1", phase=RunPhase.ABSENT, pods=None, started_at=NOW - 10)
    (stop,) = planned(TWO, job).actions
    assert (stop.reason, stop.message) == ("Requeued", "its Job was deleted: planned anew")


@pytest.mark.parametrize("phase", [RunPhase.RUNNING, RunPhase.ABSENT])
def test_a_gang_whose_spec_was_changed_behind_a_brief_suspension_is_planned_anew(phase: RunPhase) -> None:
    job = running(a_job(spec_digest="new"), "n1", phase=phase)
    for same in ("new", ""):
        assert only(planned(TWO, recorded(job, spec_digest=same)), Stop) == []
    (stop,) = planned(TWO, recorded(job, spec_digest="old")).actions
    assert stop.reason == "Requeued"
    assert "suspended and resumed with another spec (template, gpus" in stop.message


def test_an_attempt_remembers_the_spec_that_it_was_admitted_with() -> None:
    job = running(a_job(spec_digest="old"), "n1")
    assert kept(job).spec_digest == "old"
    assert kept(replace(job, spec_digest="new", attempt=kept(job))).spec_digest == "old"
