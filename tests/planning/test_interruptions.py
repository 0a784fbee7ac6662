"""Gangs whose nodes go away save, stop and find another place: in that order, and in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.boards import Board, Instance
from berth.model.nodes import Interruption, Node
from berth.model.workloads import Device, PodPhase, RunPhase, SaveRequest, Workload
from berth.planning.actions import AskToSave, LetGo, Move, Pin, Release, Replace, Serve, Stop
from tests.planning.builders import (
    NOW,
    a_job,
    a_node,
    a_pod,
    a_service,
    model,
    nodes_of,
    only,
    planned,
    running,
    verdict_of,
)

BOARDS = Device("H100-80GB", "nvidia.com/gpu", 8)
SPOT = Interruption("SpotInterruption", "EC2 instance metadata", NOW + 120)
DRAIN = Interruption("Drain", "berth drain")
GOING, STAYING = a_node("n1", interruption=SPOT), a_node("n2")
ASKED = SaveRequest("1-7", 1, "SpotInterruption", "n1", NOW, NOW + 120)


def a_gang(*nodes: str, listens: bool = True, **more: Any) -> Workload:
    """A gang that runs on these nodes, and has for an hour."""
    gang = running(a_job(workers=len(nodes), gpus=8), *nodes, pods=PodPhase.READY, started_at=NOW - 3600)
    return replace(gang, listens=int(listens), **more)


def held_by(gang: Workload) -> dict[str, dict[str, int]]:
    """What its pods take from their nodes."""
    return {pod.node: {"nvidia.com/gpu": 8, "pods": 1} for pod in gang.pods}


def plan_for(nodes: list[Node], gang: Workload, *others: Workload, now: float = NOW) -> Any:
    return planned(nodes, gang, *others, now=now, used=held_by(gang))


def test_all_members_are_asked_to_save_when_one_node_is_about_to_go() -> None:
    gang = a_gang("n1", "n2")
    (asked,) = plan_for([GOING, STAYING], gang).actions
    assert isinstance(asked, AskToSave)
    request = asked.request
    assert (request.attempt, request.reason, request.node) == (1, "SpotInterruption", "n1")
    assert (request.at, request.deadline) == (NOW, NOW + 120)
    assert "EC2 instance metadata" in asked.message


def test_who_asks_for_no_requests_gets_sigterm_at_once() -> None:
    (stop,) = plan_for([GOING, STAYING], a_gang("n1", listens=False)).actions
    assert (stop.reason, stop.not_before) == ("SpotInterruption", NOW)


def test_a_gang_goes_once_it_has_saved() -> None:
    gang = a_gang("n1", save_request=ASKED, saved_for="1-7")
    (stop,) = plan_for([GOING, STAYING], gang, now=NOW + 5).actions
    assert isinstance(stop, Stop)
    assert "saved" in stop.message


def test_a_checkpoint_that_answers_another_request_does_not_count() -> None:
    assert not plan_for([GOING, STAYING], a_gang("n1", save_request=ASKED, saved_for="1-6"), now=NOW + 5).actions


def test_who_does_not_answer_is_stopped_while_there_is_time_to_save_at_sigterm() -> None:
    gang = a_gang("n1", save_request=ASKED)
    early = plan_for([GOING, STAYING], gang, now=NOW + 104)
    assert (early.actions, early.wake_at) == ((), NOW + 105)
    (stop,) = plan_for([GOING, STAYING], gang, now=NOW + 105).actions
    assert "no checkpoint after 105 s" in stop.message


def test_of_a_short_notice_half_is_left_to_sigterm() -> None:
    nodes = [a_node("n1", interruption=replace(SPOT, deadline=NOW + 20)), STAYING]
    gang = a_gang("n1", save_request=replace(ASKED, deadline=NOW + 20))
    assert plan_for(nodes, gang, now=NOW + 9).wake_at == NOW + 10
    assert only(plan_for(nodes, gang, now=NOW + 10), Stop)


def test_without_a_deadline_the_grace_of_the_job_is_the_limit() -> None:
    nodes = [a_node("n1", interruption=DRAIN), STAYING]
    gang = a_gang("n1", save_request=replace(ASKED, reason="Drain", deadline=0.0), grace_seconds=90.0)
    assert plan_for(nodes, gang, now=NOW + 89).wake_at == NOW + 90
    assert only(plan_for(nodes, gang, now=NOW + 90), Stop)


def test_a_deadline_that_draws_nearer_is_asked_for_anew() -> None:
    nodes = [a_node("n1", interruption=replace(SPOT, deadline=NOW + 30)), STAYING]
    (asked,) = only(plan_for(nodes, a_gang("n1", save_request=ASKED), now=NOW + 5), AskToSave)
    assert asked.request.deadline == NOW + 30
    later = [a_node("n1", interruption=replace(SPOT, deadline=NOW + 300)), STAYING]
    assert not plan_for(later, a_gang("n1", save_request=ASKED), now=NOW + 5).actions


def test_an_answer_of_long_ago_is_no_answer_to_another_interruption() -> None:
    nodes = [a_node("n1", interruption=replace(SPOT, deadline=NOW + 9000))]
    (asked,) = plan_for(nodes, a_gang("n1", save_request=ASKED, saved_for="1-7"), now=NOW + 8880).actions
    assert asked.request.at == NOW + 8880


def test_the_nearest_of_several_deadlines_counts() -> None:
    nodes = [a_node("n1", interruption=DRAIN), a_node("n2", interruption=SPOT)]
    (asked,) = plan_for(nodes, a_gang("n1", "n2")).actions
    assert (asked.request.node, asked.request.deadline) == ("n2", NOW + 120)


def test_members_that_ended_well_are_not_in_danger() -> None:
    gang = a_gang("n1", "n2")
    done = replace(gang.pods[0], phase=PodPhase.SUCCEEDED)
    assert not plan_for([GOING, STAYING], replace(gang, pods=(done, gang.pods[1]))).actions


def test_a_gang_that_has_stopped_is_placed_elsewhere_before_its_node_is_gone() -> None:
    job = a_job(gpus=8, attempts_made=1, not_before=NOW)
    assert nodes_of(planned([GOING, STAYING], job)) == ("n2",)
    waits = planned([GOING], job)
    assert not waits.actions
    assert dict(verdict_of(waits).nodes) == {"about to go away (SpotInterruption)": 1}


def test_a_member_that_waits_at_its_gate_for_such_a_node_moves() -> None:
    (move,) = only(planned([GOING, STAYING], running(a_job(gpus=8), "n1")), Move)
    assert move.placement.nodes == ("n2",)


def test_a_gang_leaves_a_node_that_is_gone() -> None:
    (stop,) = plan_for([STAYING], a_gang("n1")).actions
    assert (stop.reason, stop.not_before) == ("NodeLost", NOW)


def test_a_gang_leaves_a_node_that_has_not_been_heard_of_for_a_while() -> None:
    nodes = [a_node("n1", ready=False, lost_since=NOW), STAYING]
    early = plan_for(nodes, a_gang("n1"), now=NOW + 9)
    assert (early.actions, early.wake_at) == ((), NOW + 10)
    (stop,) = plan_for(nodes, a_gang("n1"), now=NOW + 10).actions
    assert stop.reason == "NodeLost"


def test_a_pod_out_of_reach_holds_up_no_new_attempt() -> None:
    gang = a_gang("n1", "n2")
    attempt = gang.attempt
    assert attempt is not None
    lost = replace(gang.pods[0], terminating=True)
    stopping = replace(gang, attempt=replace(attempt, phase=RunPhase.SUSPENDED, stopping="NodeLost"))
    nodes = [a_node("n1", ready=False, lost_since=NOW - 60), STAYING]
    still = replace(stopping, pods=(lost, replace(gang.pods[1], terminating=True)))
    assert not plan_for(nodes, still).actions, "worker 1 may be saving still"
    assert only(plan_for(nodes, replace(stopping, pods=(lost,))), Release)
    assert only(plan_for([STAYING], replace(stopping, pods=(lost,))), Release)


@pytest.mark.parametrize("held", ["board", "instance"])
def test_a_gang_leaves_a_board_that_is_not_healthy(held: str) -> None:
    h100 = model("H100-80GB")
    instance = Instance(h100.profiles[0], 0, holder="team/pod-0")
    bad = {
        "board": Board(3, h100, healthy=False, holder="team/pod-0"),
        "instance": Board(3, h100, healthy=False, mig_enabled=True, instances=(instance,)),
    }[held]
    (asked,) = plan_for([a_node("n1", boards=(bad,))], a_gang("n1")).actions
    assert asked.request.reason == "BoardUnhealthy"
    assert "board 3" in asked.message


def test_a_gang_leaves_a_device_that_its_plugin_calls_unhealthy() -> None:
    gang = a_gang("n1")
    (asked,) = plan_for([a_node("n1")], replace(gang, pods=(replace(gang.pods[0], unhealthy="GPU-7"),))).actions
    assert asked.request.reason == "BoardUnhealthy"
    assert "GPU-7" in asked.message


def test_another_pod_on_a_bad_board_is_no_reason_to_leave() -> None:
    boards = (Board(3, model("H100-80GB"), healthy=False, holder="team/other"),)
    assert not plan_for([a_node("n1", boards=boards)], a_gang("n1")).actions


def test_cordon_alone_moves_nothing() -> None:
    assert not plan_for([a_node("n1", unschedulable=True), STAYING], a_gang("n1")).actions


def a_service_on(*nodes: str, least: int = 1) -> Workload:
    """A service with a replica on each of these nodes."""
    pods = tuple(a_pod(PodPhase.READY, index=i, node=n, attempt=0, device=BOARDS) for i, n in enumerate(nodes))
    return replace(
        a_service(replicas=len(nodes), gpus=8),
        pods=pods,
        served_device=BOARDS,
        served_generation=1,
        least_replicas=least,
    )


def test_replicas_leave_a_node_that_goes_away_as_far_as_there_is_room_for_others() -> None:
    service = a_service_on("n1", "n1", "n3")
    nodes = [a_node("n1", gpus=16, interruption=SPOT), STAYING, a_node("n3")]
    (evicted,) = plan_for(nodes, service).actions
    assert isinstance(evicted, Replace)
    assert "SpotInterruption of n1" in evicted.why
    assert not plan_for([nodes[0], nodes[2]], service).actions


def test_replicas_that_a_disruption_budget_keeps_stay_to_the_end_where_there_is_no_room_for_others() -> None:
    assert not plan_for([GOING, a_node("full", gpus=4)], replace(a_service_on("n1"), served_replicas=1)).actions


def test_where_there_is_another_is_made_before_they_go() -> None:
    service = replace(a_service_on("n1"), served_replicas=1)
    assert plan_for([GOING, STAYING], service).actions == (Serve(service.ref, BOARDS, 2),)


def surged(phase: PodPhase, *, wanted: int = 2) -> Workload:
    """One replica on a node that goes away, and another in its place."""
    service = a_service_on("n1")
    other = a_pod(
        phase, name="other", node=STAYING.name if phase is not PodPhase.GATED else "", attempt=0, device=BOARDS
    )
    return replace(service, pods=(*service.pods, other), served_replicas=wanted)


def test_it_is_placed_and_the_old_one_stays_until_it_is_ready() -> None:
    [pin] = plan_for([GOING, STAYING], surged(PodPhase.GATED)).actions
    assert isinstance(pin, Pin)
    assert pin.node == STAYING.name
    assert not plan_for([GOING, STAYING], surged(PodPhase.BOUND)).actions


def test_then_the_old_one_is_the_first_to_go() -> None:
    service = surged(PodPhase.READY)
    marked, smaller = plan_for([GOING, STAYING], service).actions
    assert (marked, smaller) == (LetGo(service.ref, "pod-0", "uid-pod-0", True), Serve(service.ref, BOARDS, 1))


def test_a_deployment_that_has_too_many_once_nothing_goes_away_gets_smaller() -> None:
    service = replace(a_service_on(STAYING.name), served_replicas=2)
    assert plan_for([STAYING], service).actions == (Serve(service.ref, BOARDS, 1),)
