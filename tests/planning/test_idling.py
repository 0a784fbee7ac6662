"""Gangs that hold boards and do nothing with them are told so, and go where their policy wants it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.boards import Board, Instance
from berth.model.idling import Idle, IdleAction, IdlePolicy
from berth.model.nodes import Node
from berth.model.workloads import PodPhase, SaveRequest, Workload
from berth.planning.actions import AskToSave, NoteIdle, Plan, Stop, Suspend
from berth.planning.idling import IDLE
from tests.planning.builders import NOW, a_job, a_node, model, only, planned, running, verdict_of

H100 = model("H100-80GB")
LIMIT = 1800.0
LONG = Idle(NOW - LIMIT - 60, told=True)


def a_gang(*nodes: str, action: str = "Report", idle: Idle | None = None, **more: Any) -> Workload:
    """A gang that has run on these nodes for two hours."""
    gang = running(a_job(workers=len(nodes), gpus=1), *nodes, pods=PodPhase.READY, started_at=NOW - 7200)
    more = {"listens": 1, "idle_policy": IdlePolicy(IdleAction(action)), "idle": idle, **more}
    return replace(gang, **more)


def boards_of(gang: Workload, *utilization: float | None) -> list[Node]:
    """Its nodes, whose boards do this."""
    ns = gang.ref.namespace
    return [
        a_node(pod.node, boards=(Board(0, H100, holder=f"{ns}/{pod.name}", utilization=busy), Board(1, H100)))
        for pod, busy in zip(gang.pods, utilization, strict=True)
    ]


def plan_for(gang: Workload, *utilization: float | None, nodes: list[Node] | None = None, seen: float = NOW) -> Plan:
    nodes = nodes or boards_of(gang, *utilization)
    used = {pod.node: {"nvidia.com/gpu": 1, "pods": 1} for pod in gang.pods}
    return planned(
        nodes,
        gang,
        used=used,
        observed={node.name: seen for node in nodes},
        reported={node.name: node.boards for node in nodes},
    )


def test_a_gang_whose_boards_all_do_nothing_is_noted_with_the_moment() -> None:
    plan = plan_for(a_gang("n1", "n2"), 0.0, 0.02)
    assert only(plan, NoteIdle) == [NoteIdle(a_gang("n1").ref, Idle(NOW))]
    assert plan.wake_at == NOW + LIMIT
    assert verdict_of(plan).reason == "Placed"


@pytest.mark.parametrize("utilization", [(0.0, 0.05), (0.0, None), (None, None)])
def test_one_board_that_works_or_that_nobody_knows_of_is_enough_to_be_left_alone(
    utilization: tuple[float | None, float | None],
) -> None:
    assert plan_for(a_gang("n1", "n2"), *utilization).actions == ()


def test_what_an_agent_said_long_ago_is_not_known() -> None:
    assert plan_for(a_gang("n1"), 0.0, seen=NOW - 600).actions == ()


def test_a_gang_that_is_not_whole_or_has_not_started_is_not_idle() -> None:
    gang = a_gang("n1", "n2")
    assert plan_for(replace(gang, started_at=0.0), 0.0, 0.0).actions == ()
    starting = replace(gang, pods=(gang.pods[0], replace(gang.pods[1], phase=PodPhase.BOUND)))
    assert plan_for(starting, 0.0, 0.0).actions == ()


def test_an_instance_is_idle_where_its_whole_board_is() -> None:
    gang, half = a_gang("n1"), H100.profile("3g.40gb")
    assert half is not None
    (pod,) = gang.pods
    instance = Instance(half, 0, f"{gang.ref.namespace}/{pod.name}")
    for busy, noted in ((0.0, 1), (0.4, 0)):
        board = Board(0, H100, mig_enabled=True, instances=(instance,), utilization=busy)
        assert len(only(plan_for(gang, nodes=[a_node("n1", boards=(board,))]), NoteIdle)) == noted


def test_nothing_is_said_before_the_time_is_over() -> None:
    gang = a_gang("n1", idle=Idle(NOW - LIMIT + 5))
    plan = plan_for(gang, 0.0)
    assert (plan.actions, plan.wake_at) == ((), NOW + 5)


@pytest.mark.parametrize("action", list(IdleAction))
def test_its_user_is_told_once_it_is(action: str) -> None:
    gang = a_gang("n1", action=action, idle=Idle(NOW - LIMIT))
    (noted,) = plan_for(gang, 0.0).actions
    assert noted.idle == Idle(NOW - LIMIT, told=True)
    assert "below 5 % since" in noted.message
    assert "30 min" in noted.message


@pytest.mark.parametrize("action", ["Report", "Warn"])
def test_its_verdict_says_so_from_then_on_and_nothing_else_happens(action: str) -> None:
    plan = plan_for(a_gang("n1", action=action, idle=LONG), 0.0)
    assert plan.actions == ()
    assert verdict_of(plan).reason == IDLE
    assert "spec.idlePolicy.afterMinutes" in verdict_of(plan).message


def test_a_gang_that_works_again_is_told_no_more() -> None:
    plan = plan_for(a_gang("n1", action="Suspend", idle=LONG), 0.6)
    assert plan.actions == (NoteIdle(a_gang("n1").ref, None),)
    assert verdict_of(plan).reason == "Placed"


def test_what_was_seen_of_an_earlier_attempt_does_not_count() -> None:
    gang = a_gang("n1", action="Suspend", idle=Idle(NOW - 9000, told=True))
    assert plan_for(gang, 0.0).actions == (NoteIdle(gang.ref, Idle(NOW)),)


def test_whoever_is_to_be_suspended_saves_before() -> None:
    gang = a_gang("n1", action="Suspend", idle=LONG)
    (asked,) = plan_for(gang, 0.0).actions
    assert isinstance(asked, AskToSave)
    assert (asked.request.reason, asked.request.attempt) == (IDLE, 1)
    asked_for = replace(gang, save_request=asked.request)
    assert plan_for(asked_for, 0.0).actions == ()
    (suspend,) = plan_for(replace(asked_for, saved_for=asked.request.id), 0.0).actions
    assert isinstance(suspend, Suspend)
    assert "saved, to wait until spec.suspend is false again" in suspend.message


def test_who_does_not_answer_or_asks_for_no_requests_is_suspended_all_the_same() -> None:
    asked = SaveRequest("1-7", 1, IDLE, "", NOW - 60)
    for gang in (
        a_gang("n1", action="Suspend", idle=LONG, save_request=asked),
        a_gang("n1", action="Suspend", idle=LONG, listens=0),
    ):
        assert len(only(plan_for(gang, 0.0), Suspend)) == 1


def test_a_suspended_job_stops_as_any_other_does() -> None:
    gang = a_gang("n1", action="Suspend", idle=LONG, suspend=True)
    assert [stop.reason for stop in only(plan_for(gang, 0.0), Stop)] == ["Suspended"]
