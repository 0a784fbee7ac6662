"""Gangs leave spot capacity at the last moment at which that keeps their deadlines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from berth.model.workloads import PodPhase, SaveRequest, Spot, Workload
from berth.planning.actions import AskToSave, Plan, Stop
from berth.planning.rescue import AT_RISK, LAST_SECONDS
from tests.planning.builders import NOW, a_job, a_node, nodes_of, only, planned, running, shape, verdict_of

HOUR = 3600.0
SPOT_NODE = a_node("s1", labels={"karpenter.sh/capacity-type": "spot"})
BOTH = [a_node("d1"), SPOT_NODE]
NEEDED = 300.0  # of a gang that listens: to save, stop, start, and to be where it was
TAKEN = {"s1": {"nvidia.com/gpu": 8, "pods": 1}}


def a_gang(spare: float, on: str = "s1", **more: Any) -> Workload:
    """One hour of four is done; a move now would leave so many seconds before the deadline."""
    deadline = NOW + 3 * HOUR + NEEDED + spare
    job = a_job(gpus=8, estimated_seconds=4 * HOUR, deadline=deadline, checkpoints=True)
    gang = running(job, on, pods=PodPhase.READY, admitted_at=NOW - HOUR, started_at=NOW - HOUR)
    return replace(gang, **{"listens": 1, **more})


def plan_for(gang: Workload, nodes: list[Any] = BOTH, **more: Any) -> Plan:
    """The plan where it holds its node."""
    return planned(nodes, gang, **{"used": TAKEN, **more})


def test_it_stays_while_there_is_time() -> None:
    plan = plan_for(a_gang(spare=LAST_SECONDS + 60))
    assert (plan.actions, plan.wake_at) == ((), NOW + 60)


def test_it_saves_and_leaves_at_the_last_moment() -> None:
    gang = a_gang(spare=LAST_SECONDS - 10)
    (asked,) = only(plan_for(gang), AskToSave)
    assert asked.request.reason == AT_RISK
    saved = replace(gang, save_request=SaveRequest("1-7", 1, AT_RISK, "", NOW), saved_for="1-7")
    (stop,) = only(plan_for(saved), Stop)
    assert "go on where capacity stays" in stop.message


def test_then_it_goes_to_capacity_that_stays() -> None:
    gang = a_gang(spare=LAST_SECONDS - 10)
    waits = replace(gang, attempt=None, pods=(), started_at=0.0, worked_seconds=HOUR)
    plan = planned(BOTH, waits)
    assert nodes_of(plan) == ("d1",)
    assert "too risky for the deadline" in verdict_of(plan).message


def test_it_stays_where_nothing_else_is_free_or_allowed() -> None:
    gang = a_gang(spare=100.0)
    assert plan_for(gang, [SPOT_NODE]).actions == ()
    assert plan_for(gang, used={**TAKEN, "d1": {"nvidia.com/gpu": 8}}).actions == ()
    assert gang.request is not None
    only_spot = replace(gang, request=replace(gang.request, shape=shape(spot=Spot.ONLY)))
    assert plan_for(only_spot).actions == ()


def test_who_is_not_on_spot_capacity_stays() -> None:
    assert plan_for(a_gang(spare=100.0, on="d1"), used={"d1": TAKEN["s1"]}).actions == ()


def test_who_would_lose_all_its_work_stays() -> None:
    assert plan_for(a_gang(spare=100.0, checkpoints=False)).actions == ()


@given(spare=st.floats(-4 * HOUR, 4 * HOUR), listens=st.booleans(), saved=st.floats(0, HOUR))
def test_a_move_never_costs_the_deadline_that_it_is_for(spare: float, listens: bool, saved: float) -> None:
    gang = a_gang(spare, listens=int(listens), saved_at=NOW - saved)
    if plan_for(gang).actions:
        lost = 60.0 if listens else saved
        assert gang.deadline is not None
        assert NOW + 3 * HOUR + lost + NEEDED - 60.0 <= gang.deadline + 1e-6
