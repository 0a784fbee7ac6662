"""Jobs with deadlines: on spot capacity while that is expected to cost least, on demand where it has to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import CarbonTerms, PodPhase, SaveRequest, Workload
from berth.planning.actions import AskToSave, Plan, Stop
from berth.planning.capacity import CHEAPER, LOOK_SECONDS
from berth.planning.explain import explain
from berth.planning.snapshot import Policy
from berth.planning.spells import Sightings
from tests.planning.builders import NOW, a_job, a_node, a_snapshot, nodes_of, only, planned, running, verdict_of

HOUR = 3600.0
REGION = "topology.kubernetes.io/region"
GONE = {("", "H100-80GB"): Sightings(False)}
TAKEN = {"nvidia.com/gpu": 8, "pods": 1}


def a_spot_node(name: str = "s1", region: str = "", **more: Any) -> Node:
    """A node of 8 boards that may be taken away."""
    return a_node(name, labels={"karpenter.sh/capacity-type": "spot", **({REGION: region} if region else {})}, **more)


ON_DEMAND, SPOT = a_node("d1"), a_spot_node()


def a_deadline_job(name: str = "job", slack: float = 12 * HOUR, **more: Any) -> Workload:
    """A day on eight boards, with checkpoints, and so much time beyond that before its deadline."""
    terms = {"estimated_seconds": 24 * HOUR, "deadline": NOW + 24 * HOUR + slack, "checkpoints": True}
    return a_job(name, **{"gpus": 8, **terms, **more})


def on_demand(name: str = "job", node: str = "d1", **more: Any) -> Workload:
    """The same, an hour on its way on demand."""
    since = {"admitted_at": NOW - HOUR, "started_at": NOW - HOUR}
    return replace(running(a_deadline_job(name), node, pods=PodPhase.READY, **since), **more)


def plan_of(job: Workload, *nodes: Node, **more: Any) -> Plan:
    return planned(nodes or (ON_DEMAND, SPOT), job, **more)


def test_spot_capacity_that_is_free_is_taken() -> None:
    assert nodes_of(plan_of(a_deadline_job())) == ("s1",)


def test_it_is_waited_for_while_the_deadline_is_far_though_capacity_on_demand_is_free() -> None:
    plan = plan_of(a_deadline_job(), used={"s1": TAKEN})
    verdict = verdict_of(plan)
    assert (nodes_of(plan), verdict.reason) == (None, Reason.WAITING_FOR_SPOT)
    assert "spot capacity is not free: $22.40 instead of $64.00 an hour" in verdict.message
    assert plan.wake_at == NOW + LOOK_SECONDS


def test_spot_nodes_that_are_gone_altogether_are_waited_for_as_well() -> None:
    assert verdict_of(plan_of(a_deadline_job(), ON_DEMAND, spot=GONE)).reason == Reason.WAITING_FOR_SPOT
    assert nodes_of(plan_of(a_deadline_job(), ON_DEMAND)) == ("d1",)


def test_capacity_on_demand_is_taken_where_waiting_would_cost_the_deadline() -> None:
    assert nodes_of(plan_of(a_deadline_job(slack=0.3 * HOUR), used={"s1": TAKEN})) == ("d1",)


def test_and_where_one_interruption_of_spot_capacity_would() -> None:
    plan = plan_of(a_deadline_job(slack=0.15 * HOUR))
    assert nodes_of(plan) == ("d1",)
    assert "too risky for the deadline" in verdict_of(plan).message


def test_late_jobs_take_spot_capacity_where_nothing_else_is_free() -> None:
    assert nodes_of(plan_of(a_deadline_job(slack=0.15 * HOUR), used={"d1": TAKEN})) == ("s1",)


@pytest.mark.parametrize(
    "more",
    [
        {"checkpoints": False},
        {"deadline": None},
        {"estimated_seconds": None},
        {"carbon": CarbonTerms(budget=0.1)},
        {"memory_gib": 60, "gpus": None},
    ],
)
def test_who_has_nothing_to_gain_or_a_choice_of_boards_does_not_wait(more: dict[str, Any]) -> None:
    other = a_node("a1", board="A100-80GB")
    assert nodes_of(plan_of(a_deadline_job(**more), ON_DEMAND, other, spot=GONE)) is not None


def test_all_spot_capacity_that_is_worth_it_is_used_in_one_plan() -> None:
    nodes = (ON_DEMAND, a_spot_node("s1", "north"), a_spot_node("s2", "south"))
    plan = planned(nodes, a_deadline_job("a"), a_deadline_job("b"), a_deadline_job("c"))
    assert {nodes_of(plan, "a"), nodes_of(plan, "b")} == {("s1",), ("s2",)}
    assert verdict_of(plan, "c").reason == Reason.WAITING_FOR_SPOT
    assert "went to others" in verdict_of(plan, "c").message


def test_it_leaves_capacity_on_demand_for_spot_capacity_that_is_free() -> None:
    (stop,) = only(plan_of(on_demand(), used={"d1": TAKEN}), Stop)
    assert stop.reason == CHEAPER
    assert "spot capacity is free: $22.40 instead of $64.00 an hour" in stop.message


def test_where_it_listens_it_is_asked_to_save_first() -> None:
    (asked,) = only(plan_of(on_demand(listens=1), used={"d1": TAKEN}), AskToSave)
    assert asked.request.reason == CHEAPER


def test_it_rests_after_a_start() -> None:
    assert plan_of(on_demand(started_at=NOW - 60), used={"d1": TAKEN}).actions == ()


def test_one_goes_at_a_time() -> None:
    nodes = (a_node("d1"), a_node("d2"), SPOT)
    used = {"d1": TAKEN, "d2": TAKEN}
    plan = planned(nodes, on_demand("a"), on_demand("b", "d2"), used=used)
    assert [stop.ref.name for stop in only(plan, Stop)] == ["a"]
    asked = replace(on_demand("a", listens=1), save_request=SaveRequest("1-1", 1, CHEAPER, "", NOW - 1))
    assert not only(planned(nodes, on_demand("b", "d2"), asked, used=used), Stop)
    leaving = running(a_deadline_job("a"), "d1", pods=PodPhase.READY, stopping=CHEAPER)
    stops = only(planned(nodes, on_demand("b", "d2"), leaving, used=used), Stop)
    assert [stop.ref.name for stop in stops] == ["a"]


def test_who_waits_has_spot_capacity_before_who_runs() -> None:
    plan = planned((ON_DEMAND, SPOT), on_demand("runs"), a_deadline_job("waits"), used={"d1": TAKEN})
    assert not only(plan, Stop)
    assert nodes_of(plan, "waits") == ("s1",)


def test_a_plan_that_has_seen_no_spot_capacity_keeps_to_what_was_written_down() -> None:
    told = Verdict(Reason.WAITING_FOR_SPOT, "waits", until=NOW + HOUR)
    assert verdict_of(plan_of(a_deadline_job(verdict=told), ON_DEMAND)).reason == Reason.WAITING_FOR_SPOT
    over = replace(told, until=NOW - 1)
    assert nodes_of(plan_of(a_deadline_job(verdict=over), ON_DEMAND)) == ("d1",)


@given(slack=st.floats(-2, 40), work=st.floats(0.5, 200), age=st.floats(0, 40), free=st.booleans())
def test_nobody_waits_who_could_not_meet_the_deadline_on_demand_afterwards(
    slack: float, work: float, age: float, free: bool
) -> None:
    seconds = work * HOUR
    job = a_deadline_job(estimated_seconds=seconds, deadline=NOW + seconds + slack * HOUR)
    seen = {("", "H100-80GB"): Sightings(free, age)}
    plan = plan_of(job, spot=seen, used={} if free else {"s1": TAKEN})
    verdict = verdict_of(plan)
    if nodes_of(plan) is None:
        assert job.deadline is not None
        assert NOW + LOOK_SECONDS + seconds < job.deadline
        assert verdict.until is None or verdict.until + seconds < job.deadline


def test_what_would_hold_if_it_did_not_wait_is_explained() -> None:
    told = Verdict(Reason.WAITING_FOR_SPOT, "waits", until=NOW + HOUR)
    job = a_deadline_job(verdict=told)
    explained = explain(a_snapshot([ON_DEMAND], job), Policy(), NOW, job)
    assert "it waits for spot capacity: below is what would hold if it did not" in explained.notes
    assert any("it would be placed" in note for note in explained.notes)
