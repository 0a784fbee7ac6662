"""A live attempt: pins once the whole gang is there, other nodes where one is lost, and its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Device, Placement, PodPhase, RunPhase
from berth.planning.actions import (
    Admit,
    Expire,
    Finish,
    MakeAttempt,
    Move,
    Pin,
    Release,
    Replace,
    Stop,
)
from tests.planning.builders import (
    NOW,
    a_job,
    a_node,
    a_pod,
    nodes_of,
    only,
    planned,
    racks,
    running,
    verdict_of,
)

TWO = [a_node("n1"), a_node("n2")]
FULL = {"nvidia.com/gpu": 8, "pods": 1}


def pins(plan: Any) -> list[tuple[str, str]]:
    return [(p.pod, p.node) for p in only(plan, Pin)]


def test_an_admission_records_the_next_attempt_and_takes_its_room_at_once() -> None:
    plan = planned([a_node("n1")], a_job("a", gpus=8, attempts_made=4), a_job("b", gpus=8, created=1.0))
    assert [(a.ref.name, a.number) for a in only(plan, Admit)] == [("a", 5)]
    assert verdict_of(plan, "b").reason == "WaitingForCapacity"


def test_an_admitted_gang_without_a_job_gets_one_again() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n2", phase=RunPhase.ABSENT, pods=None)
    plan = planned(TWO, job)
    assert plan.actions == (MakeAttempt(job.ref, 1, job.attempt.placement),)  # type: ignore[union-attr]


def test_an_admitted_gang_holds_its_room_before_it_has_pods() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n2", phase=RunPhase.ABSENT, pods=None)
    assert nodes_of(planned(TWO, job, a_job("late")), "late") is None


def test_the_whole_gang_is_pinned_where_it_was_placed() -> None:
    plan = planned(TWO, running(a_job(workers=2, gpus=8), "n1", "n2"))
    assert pins(plan) == [("pod-0", "n1"), ("pod-1", "n2")]
    assert len(plan.actions) == 2


def test_no_member_is_pinned_before_all_are_there() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n2")
    plan = planned(TWO, replace(job, pods=job.pods[:1]))
    assert plan.actions == ()
    assert plan.wake_at == NOW + 300


def test_an_incomplete_gang_gives_its_room_back_in_time() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n2", admitted_at=NOW - 300)
    (stop,) = planned(TWO, replace(job, pods=job.pods[:1])).actions
    assert (stop.reason, stop.not_before) == ("Requeued", NOW + 120)
    assert "1 of 2 pods" in stop.message


def test_a_job_that_can_not_be_made_gives_its_room_back_in_time() -> None:
    job = running(a_job(), "n1", phase=RunPhase.ABSENT, pods=None, admitted_at=NOW - 300)
    assert [a.reason for a in only(planned(TWO, job), Stop)] == ["Requeued"]


def test_the_replacement_of_a_lost_pod_is_pinned_again() -> None:
    job = running(a_job(workers=2), "n1", "n1", pods=PodPhase.READY)
    assert pins(planned(TWO, replace(job, pods=(a_pod(PodPhase.GATED), job.pods[1])))) == [("pod-0", "n1")]


@pytest.mark.parametrize("bad", [{"ready": False}, {"unschedulable": True}])
def test_a_gated_member_moves_off_a_node_that_went_bad(bad: dict[str, bool]) -> None:
    nodes = [a_node("n1", **bad), a_node("n2"), a_node("n3")]
    plan = planned(nodes, running(a_job(workers=2, gpus=8), "n1", "n2"))
    (move,) = only(plan, Move)
    assert move.placement.nodes == ("n3", "n2")
    assert plan.actions[0] is move
    assert pins(plan) == [("pod-0", "n3"), ("pod-1", "n2")]


def test_a_gated_member_moves_off_a_node_that_is_gone() -> None:
    plan = planned(TWO, running(a_job(), "lost"))
    assert only(plan, Move)[0].placement.nodes == ("n1",)


def test_a_member_moves_when_someone_else_took_its_room() -> None:
    plan = planned(TWO, running(a_job(gpus=8), "n1"), used={"n1": {"nvidia.com/gpu": 1}})
    assert only(plan, Move)[0].placement.nodes == ("n2",)


def test_two_that_move_at_once_do_not_get_the_same_room() -> None:
    nodes = [a_node("n1", gpus=8), a_node("n2", gpus=12)]
    first = running(a_job("first", workers=2, gpus=4), "n1", "lost")
    second = running(a_job("second", workers=2, gpus=4, created=1.0), "n1", "lost")
    moves = {m.ref.name: m.placement.nodes for m in only(planned(nodes, first, second), Move)}
    assert moves == {"first": ("n1", "n2"), "second": ("n1", "n2")}
    assert [a.reason for a in only(planned([a_node("n1"), a_node("n2", gpus=4)], first, second), Stop)] == ["Requeued"]


def test_two_whole_gangs_that_move_at_once_do_not_get_the_same_room() -> None:
    plan = planned(TWO, running(a_job("a", gpus=8), "lost"), running(a_job("b", gpus=8), "gone"))
    assert sorted(m.placement.nodes for m in only(plan, Move)) == [("n1",), ("n2",)]


def test_what_was_admitted_is_not_moved_without_cause() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    plan = planned(nodes, running(a_job(), "n1"), used={"n2": {"nvidia.com/gpu": 7}})
    assert pins(plan) == [("pod-0", "n1")]
    assert only(plan, Move) == []


def test_a_move_stays_in_the_required_domain() -> None:
    nodes = racks(count=2, nodes=2)
    job = running(a_job(workers=2, gpus=4, required="rack"), "r1n1", "r1n2")
    used = {"r1n1": FULL}
    assert only(planned(nodes, job, used=used), Move)[0].placement.nodes == ("r1n2", "r1n2")
    used["r1n2"] = {"nvidia.com/gpu": 4}
    (stop,) = planned(nodes, job, used=used).actions
    assert (stop.reason, stop.not_before) == ("Requeued", NOW)


def test_a_move_keeps_a_tensor_group_in_its_clique() -> None:
    nodes = [a_node(f"n{i}", gpus=4, board="GB200", labels={"nvlink": f"c{i // 3}"}) for i in range(6)]
    device = Device("GB200", "nvidia.com/gpu", 4)
    job = running(a_job(workers=2, gpus=4, tensor=8), "n3", "n4", device=device)
    assert only(planned(nodes, job, used={"n4": FULL}), Move)[0].placement.nodes == ("n3", "n5")


def test_a_whole_gang_is_packed_anew_when_its_only_node_is_lost() -> None:
    nodes = [a_node("n2", gpus=1), *racks(count=1, nodes=1)]
    plan = planned(nodes, running(a_job(workers=2), "lost", "lost"))
    assert only(plan, Move)[0].placement.nodes == ("r1n1", "r1n1")


def test_a_record_follows_a_member_that_was_bound_before_it_could_be_moved() -> None:
    job = running(a_job(workers=2, gpus=8), "n1", "n3", pods=PodPhase.READY)
    bound = replace(job, pods=(job.pods[0], replace(job.pods[1], node="n2")))
    plan = planned([*TWO, a_node("n3")], bound, used={"n1": FULL, "n2": FULL})
    (move,) = plan.actions
    assert move.placement.nodes == ("n1", "n2")
    assert "bound just before" in verdict_of(plan).message


def test_a_pod_that_stays_unbound_is_replaced_and_its_node_avoided() -> None:
    job = running(a_job(gpus=8), "n1", pods=PodPhase.PINNED)
    assert planned(TWO, job, now=NOW + 59).actions == ()
    assert planned(TWO, job, now=NOW + 59).wake_at == NOW + 60
    move, again = planned(TWO, job, now=NOW + 60).actions
    assert isinstance(move, Move)
    assert (move.placement.nodes, move.avoid) == (("n2",), (("n1", NOW + 180),))
    assert again == Replace(job.ref, "pod-0", "uid-pod-0", "it stays unbound")


def test_a_move_already_recorded_is_followed_by_the_replacement_alone() -> None:
    job = running(a_job(gpus=8), "n2", pods=PodPhase.PINNED, avoid=(("n1", NOW + 180),))
    stuck = replace(job, pods=(replace(job.pods[0], node="n1"),))
    assert [type(a) for a in planned(TWO, stuck, now=NOW + 60).actions] == [Replace]


def test_a_recorded_move_holds_its_room_until_the_replacement_is_there() -> None:
    job = running(a_job(gpus=8), "n2", pods=PodPhase.PINNED)
    stuck = replace(job, pods=(replace(job.pods[0], node="n1"),))
    assert nodes_of(planned(TWO, stuck, a_job("late", gpus=8), used={"n1": FULL}), "late") is None


def test_a_gang_that_nobody_takes_is_requeued() -> None:
    (stop,) = planned(TWO[:1], running(a_job(gpus=8), "n1", pods=PodPhase.PINNED), now=NOW + 60).actions
    assert (stop.reason, stop.avoid) == ("Requeued", (("n1", NOW + 180),))


def test_a_node_that_refuses_again_is_avoided_for_twice_as_long() -> None:
    once = (("n1", NOW - 10),)
    job = running(a_job(gpus=8), "n1", pods=PodPhase.PINNED, avoid=once)
    assert only(planned(TWO, job, now=NOW + 60), Move)[0].avoid == (*once, ("n1", NOW + 300))


def test_a_refusal_by_the_kubelet_is_retried_elsewhere() -> None:
    pod = a_pod(PodPhase.FAILED, node="n1", refusal="UnexpectedAdmissionError")
    job = running(a_job(), "n1", phase=RunPhase.FAILED, pods=None)
    (stop,) = planned(TWO, replace(job, pods=(pod,))).actions
    assert (stop.reason, stop.avoid, stop.not_before) == ("Requeued", (("n1", NOW + 120),), NOW)


def test_a_job_that_failed_by_the_deletion_of_a_pod_is_tried_again() -> None:
    deleted = a_pod(PodPhase.FAILED, node="n1", exit_code=143, terminating=True)
    job = running(a_job(), "n1", phase=RunPhase.FAILED, pods=None)
    for pods in ((), (deleted,)):
        (stop,) = planned(TWO, replace(job, pods=pods)).actions
        assert (stop.reason, stop.not_before) == ("Requeued", NOW + 120)


def test_a_gang_placed_for_another_number_of_workers_is_planned_anew() -> None:
    job = running(a_job(workers=3), "n1", "n1", phase=RunPhase.ABSENT, pods=None)
    (stop,) = planned(TWO, job).actions
    assert (stop.reason, stop.message) == ("Requeued", "spec.workers is 3, but 2 were placed: planned anew")


def test_success_is_recorded_for_good() -> None:
    job = running(a_job(), "n1", phase=RunPhase.SUCCEEDED, pods=PodPhase.SUCCEEDED)
    assert [(a.outcome, a.number) for a in only(planned(TWO, job), Finish)] == [("Succeeded", 1)]


def test_a_member_that_ended_well_gives_its_room_back() -> None:
    job = running(a_job(workers=2, gpus=4), "n1", "n1", pods=PodPhase.READY)
    job = replace(job, pods=(replace(job.pods[0], phase=PodPhase.SUCCEEDED), job.pods[1]))
    used = {"n1": {"nvidia.com/gpu": 4, "pods": 1}}
    assert nodes_of(planned(TWO[:1], job, a_job("next", gpus=4), used=used), "next") == ("n1",)


def test_suspending_stops_a_live_attempt_and_holds_a_pending_one() -> None:
    (stop,) = planned(TWO, running(a_job(suspend=True), "n1", pods=PodPhase.READY)).actions
    assert stop.reason == "Suspended"
    pending = planned(TWO, a_job(suspend=True))
    assert (pending.actions, verdict_of(pending).reason) == ((), "Suspended")


def test_a_stop_is_repeated_until_its_job_is_suspended() -> None:
    job = running(a_job(), "n1", pods=PodPhase.READY, stopping="Suspended", avoid=(("n2", 5.0),), not_before=7.0)
    (stop,) = planned(TWO, job).actions
    assert (stop.reason, stop.avoid, stop.not_before) == ("Suspended", (("n2", 5.0),), 7.0)


def test_members_that_were_still_gated_when_they_are_stopped_hold_nothing() -> None:
    job = running(a_job(gpus=8), "n1", phase=RunPhase.SUSPENDED, stopping="Suspended")
    assert nodes_of(planned(TWO[:1], job, a_job("next", gpus=8)), "next") == ("n1",)


@pytest.mark.parametrize("phase", [PodPhase.GATED, PodPhase.PINNED, PodPhase.BOUND, PodPhase.READY])
def test_a_stopped_attempt_holds_on_until_its_pods_are_gone(phase: PodPhase) -> None:
    job = running(a_job(), "n1", phase=RunPhase.SUSPENDED, pods=phase, stopping="Suspended")
    assert planned(TWO, job, now=NOW + 1000).actions == ()


@pytest.mark.parametrize("phase", [RunPhase.SUSPENDED, RunPhase.ABSENT, RunPhase.FAILED])
@pytest.mark.parametrize("pods", [None, PodPhase.SUCCEEDED, PodPhase.FAILED])
def test_a_stopped_attempt_without_living_pods_is_released(phase: RunPhase, pods: PodPhase | None) -> None:
    last = Verdict("Requeued", "n1 refused worker 0")
    job = running(a_job(), "n1", phase=phase, pods=pods, stopping="Requeued", verdict=last)
    assert planned(TWO, job).actions == (Release(job.ref, 1, "Requeued", "n1 refused worker 0"),)


def test_a_job_that_ended_while_it_was_to_stop_has_succeeded() -> None:
    job = running(a_job(), "n1", phase=RunPhase.SUCCEEDED, pods=PodPhase.SUCCEEDED, stopping="Suspended")
    assert [a.outcome for a in only(planned(TWO, job), Finish)] == ["Succeeded"]


def test_the_longest_runtime_counts_from_the_start_of_the_work() -> None:
    job = running(a_job(max_runtime_seconds=100), "n1", pods=PodPhase.READY, admitted_at=NOW - 500, started_at=NOW - 90)
    assert planned(TWO, job).actions == ()
    assert planned(TWO, job).wake_at == NOW + 10
    (stop,) = planned(TWO, job, now=NOW + 10).actions
    assert stop.reason == "MaxRuntimeExceeded"


def test_a_job_that_ran_too_long_has_failed_once_its_pods_are_gone() -> None:
    job = running(a_job(), "n1", phase=RunPhase.SUSPENDED, pods=None, stopping="MaxRuntimeExceeded")
    (finish,) = planned(TWO, job).actions
    assert (finish.outcome, finish.reason) == ("Failed", "MaxRuntimeExceeded")


def test_a_job_suspended_by_someone_else_is_planned_anew() -> None:
    (stop,) = planned(TWO, running(a_job(), "n1", phase=RunPhase.SUSPENDED, pods=None)).actions
    assert stop.reason == "Requeued"


def test_a_requeued_job_waits_for_its_moment() -> None:
    job = a_job(not_before=NOW + 30)
    assert planned(TWO, job).actions == ()
    assert planned(TWO, job).wake_at == NOW + 30
    assert nodes_of(planned(TWO, job, now=NOW + 30)) == ("n1",)


def test_a_requeued_job_keeps_telling_why_it_waits() -> None:
    job = a_job(not_before=NOW + 30, verdict=Verdict("Requeued", "n1 refused worker 0"))
    first = verdict_of(planned(TWO, job))
    assert first.message == "waits for its next attempt after: n1 refused worker 0"
    assert verdict_of(planned(TWO, replace(job, verdict=first))) == first


def test_a_finished_job_expires_when_its_time_has_passed() -> None:
    job = a_job(finished="Succeeded", finished_at=NOW, ttl_seconds=60)
    assert planned(TWO, job).actions == ()
    assert planned(TWO, job).wake_at == NOW + 60
    assert planned(TWO, job, now=NOW + 60).actions == (Expire(job.ref),)


def test_a_finished_job_holds_nothing() -> None:
    done = running(a_job("done", gpus=8), "n1", pods=None, finished="Failed")
    assert nodes_of(planned(TWO[:1], done, a_job(gpus=8))) == ("n1",)


def test_what_is_being_deleted_is_left_alone() -> None:
    job = running(a_job(gpus=8, deleting=True), "n1")
    plan = planned(TWO, job, replace(a_job("pending"), deleting=True))
    assert plan.actions == ()
    assert plan.verdicts == {}


def test_the_verdict_of_the_admission_stays() -> None:
    told = Verdict("Placed", "1 worker on node n1: the cheapest of 3 choices")
    plan = planned(TWO, running(a_job(), "n1", pods=PodPhase.READY, verdict=told))
    assert verdict_of(plan) is told


def test_an_attempt_whose_spec_became_unreadable_goes_on() -> None:
    job = replace(running(a_job(gpus=8), "n1"), request=None, problem="spec.gpus: broken")
    plan = planned(TWO, job, a_job("next", gpus=8))
    assert pins(plan) == [("pod-0", "n1")]
    assert nodes_of(plan, "next") == ("n2",)


def test_pods_of_an_older_attempt_are_not_taken_for_members() -> None:
    job = a_job(gpus=8)
    attempt = Attempt(2, Placement(Device("H100-80GB", "nvidia.com/gpu", 8), ("n1",)), NOW, RunPhase.RUNNING)
    assert planned(TWO, replace(job, attempt=attempt, pods=(a_pod(PodPhase.GATED),))).actions == ()
