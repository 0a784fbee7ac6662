"""Spot or on demand, here or in another region: gangs go where their work costs least."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.nodes import Node, Way
from berth.model.prices import CapacityType, Price, PriceBook
from berth.model.reasons import Reason
from berth.model.usage import Amounts, Bought, Usage
from berth.model.workloads import CarbonTerms, PodPhase, Spot, Workload
from berth.planning.carbon import Origin, Outlook
from berth.planning.explain import explain
from berth.planning.snapshot import Policy
from tests.planning.boards import a_laid_node
from tests.planning.builders import NOW, a_job, a_node, a_snapshot, nodes_of, planned, running, shape, verdict_of

HOUR = 3600.0
REGION = "topology.kubernetes.io/region"


def a_spot_node(name: str = "s1", region: str = "", **more: Any) -> Node:
    """A node of 8 boards that may be taken away."""
    return a_node(name, labels={"karpenter.sh/capacity-type": "spot", **({REGION: region} if region else {})}, **more)


def a_saving_job(**more: Any) -> Workload:
    """Four hours on eight boards, with checkpoints."""
    return a_job(**{"gpus": 8, "estimated_seconds": 4 * HOUR, "checkpoints": True, **more})


BOTH = [a_node("d1"), a_spot_node()]


def test_work_that_saves_goes_to_spot_capacity() -> None:
    plan = planned(BOTH, a_saving_job())
    assert nodes_of(plan) == ("s1",)
    assert "spot $22.40 an hour a worker, 6 % more for interruptions (else on demand $64.00" in verdict_of(plan).message


def test_long_work_that_saves_nothing_does_not() -> None:
    assert nodes_of(planned(BOTH, a_saving_job(checkpoints=False, estimated_seconds=40 * HOUR))) == ("d1",)


def test_nor_does_work_whose_deadline_leaves_no_time_for_an_interruption() -> None:
    plan = planned(BOTH, a_saving_job(deadline=NOW + 4.15 * HOUR))
    assert nodes_of(plan) == ("d1",)
    assert "too risky for the deadline" in verdict_of(plan).message


def test_what_does_not_fit_on_spot_capacity_takes_both() -> None:
    assert set(nodes_of(planned(BOTH, a_saving_job(workers=2))) or ()) == {"d1", "s1"}


def test_cheap_spot_boards_are_not_left_for_a_cheaper_list_price_while_other_boards_could_be_laid_out() -> None:
    able = a_laid_node("m", "7g.80gb", way=Way.AGENT)
    nodes = [a_node("d1", board="A30", gpus=4), a_spot_node(board="L40S"), able]
    plan = planned(nodes, a_job(checkpoints=True))
    assert nodes_of(plan) == ("s1",)
    assert "; spot $0.52 an hour a worker" in verdict_of(plan).message


@pytest.mark.parametrize(("gigabytes", "goes_to"), [(100, "w1"), (4000, "e1")])
def test_a_job_goes_on_in_a_cheaper_region_unless_fetching_its_checkpoint_costs_more(
    gigabytes: int, goes_to: str
) -> None:
    nodes = [a_node(name, labels={REGION: region}) for name, region in (("e1", "east"), ("w1", "west"))]
    prices = PriceBook((Price("H100", 5.0, "east"), Price("H100", 4.0, "west")), egress_usd_per_gb=0.02)
    ran = Usage(bought=(Bought("H100-80GB", CapacityType.ON_DEMAND, "east", Amounts(gpu_hours=8.0)),))
    job = a_saving_job(saved_bytes=gigabytes * 10**9, usage=ran)  # $32 less for the boards, $2 or $80 to move
    plan = planned(nodes, job, policy=Policy(prices=prices))
    assert nodes_of(plan) == (goes_to,)
    assert f"in west $32.00 an hour a worker, ${gigabytes * 0.02 / 4:.2f} to fetch" in verdict_of(plan).message


def test_a_discount_that_interruptions_eat_up_is_none() -> None:
    assert nodes_of(planned(BOTH, a_saving_job(), policy=Policy(prices=PriceBook(spot_share=0.97)))) == ("d1",)


@pytest.mark.parametrize(("spot", "node"), [(Spot.NEVER, "d1"), (Spot.ONLY, "s1")])
def test_what_is_forbidden_is_not_tried(spot: Spot, node: str) -> None:
    assert nodes_of(planned(BOTH, a_saving_job(pod=shape(spot=spot), checkpoints=False))) == (node,)


@pytest.mark.parametrize(
    ("spot", "node", "cause"),
    [
        (Spot.NEVER, a_spot_node(), "on spot capacity (spec.spot is Never)"),
        (Spot.ONLY, a_node("d1"), "on demand (spec.spot is Only)"),
    ],
)
def test_who_waits_is_told_what_forbids_a_node(spot: Spot, node: Node, cause: str) -> None:
    verdict = verdict_of(planned([node], a_saving_job(pod=shape(spot=spot))))
    assert (verdict.reason, verdict.nodes) == (Reason.WAITING_FOR_CAPACITY, ((cause, 1),))


def test_prices_of_regions_count() -> None:
    nodes = [a_node("a1", labels={REGION: "a"}), a_node("b1", labels={REGION: "b"})]
    book = PriceBook((Price("H100", 9.0, "a"), Price("H100", 5.0, "b")))
    assert nodes_of(planned(nodes, a_saving_job(), policy=Policy(prices=book))) == ("b1",)


def test_spot_capacity_of_a_dear_model_goes_before_a_cheap_one_on_demand() -> None:
    nodes = [a_node("cheap", board="A100-80GB"), a_spot_node("dear")]
    assert nodes_of(planned(nodes, a_saving_job())) == ("dear",)


def test_within_a_budget_the_least_carbon_counts() -> None:
    def outlook(grams: float) -> Outlook:
        return Outlook(int(NOW // HOUR), (grams,) * 48, (Origin.FORECAST,) * 48)

    nodes = [a_node("a1", labels={REGION: "a"}), a_node("b1", labels={REGION: "b"})]
    book = PriceBook((Price("H100", 5.0, "a"), Price("H100", 5.2, "b")))
    outlooks = {"a": outlook(400.0), "b": outlook(50.0)}
    for budget, node in ((0.02, "a1"), (0.05, "b1")):
        job = a_saving_job(carbon=CarbonTerms(budget=budget))
        plan = planned(nodes, job, policy=Policy(prices=book), outlooks=outlooks)
        assert nodes_of(plan) == (node,)


@given(
    spots=st.lists(st.booleans(), min_size=1, max_size=6), workers=st.integers(1, 6), spot=st.sampled_from(list(Spot))
)
def test_markets_change_where_a_gang_goes_and_never_whether(spots: list[bool], workers: int, spot: Spot) -> None:
    nodes = [a_spot_node(f"n{i}") if is_spot else a_node(f"n{i}") for i, is_spot in enumerate(spots)]
    allowed = [n.name for n in nodes if spot is Spot.ALLOW or n.spot == (spot is Spot.ONLY)]
    found = nodes_of(planned(nodes, a_saving_job(workers=workers, pod=shape(spot=spot))))
    assert (found is not None) == (workers <= len(allowed))
    assert set(found or ()) <= set(allowed)
    if found and spot is Spot.ALLOW and workers <= sum(spots):
        assert all(node.spot for node in nodes if node.name in found)


def test_explain_tells_what_spot_capacity_costs() -> None:
    job = running(a_saving_job(), "s1", pods=PodPhase.READY, started_at=NOW - HOUR)
    taken = {"s1": {"nvidia.com/gpu": 8, "pods": 1}}
    told = explain(a_snapshot(BOTH, job, used=taken), Policy(), NOW, job)
    assert told.running is not None
    assert told.running.terms[0].message == "1 x 8 x H100-80GB at $22.40/h, spot"


def test_where_spot_nodes_are_taken_back_often_work_does_not_go() -> None:
    rates = {("", "H100-80GB"): 1 / 60}
    assert nodes_of(planned(BOTH, a_saving_job(), spot_rates=rates)) == ("d1",)


def test_a_job_takes_no_dearer_boards_than_it_may() -> None:
    job = a_saving_job(max_usd_per_hour=30.0, checkpoints=False, estimated_seconds=40 * HOUR)
    assert nodes_of(planned(BOTH, job)) == ("s1",)
    assert nodes_of(planned([BOTH[0]], job)) is None
    assert nodes_of(planned(BOTH, job, used={"s1": {"nvidia.com/gpu": 8}})) is None


def test_who_can_afford_no_board_is_told_the_price() -> None:
    verdict = verdict_of(planned(BOTH, a_saving_job(workers=2, max_usd_per_hour=30.0)))
    assert verdict.reason == Reason.EXCEEDS_MAX_PRICE
    told = "2 x 8 x H100-80GB cost $44.80/h at least; spec.maxPricePerHour is $30.00: raise it or ask for less"
    assert verdict.message == told


def test_an_elastic_gang_is_as_large_as_it_can_afford() -> None:
    nodes = [a_node(f"d{i}") for i in range(4)]
    plan = planned(nodes, a_saving_job(workers=4, elastic=(1, 4, 1), max_usd_per_hour=130.0))
    assert len(nodes_of(plan) or ()) == 2


def test_work_of_unknown_length_does_not_begin_on_spot_capacity_for_ever() -> None:
    job = a_saving_job(estimated_seconds=None, checkpoints=False)
    chosen = [nodes_of(planned(BOTH, replace(job, attempts_made=made))) for made in range(6)]
    assert chosen == [("s1",)] * 4 + [("d1",)] * 2
