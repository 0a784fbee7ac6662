"""Nominal quota: never exceeded, counted in exact boards, and told with numbers."""

from __future__ import annotations

import pytest

from berth.model.workloads import Device, PodPhase, Queue
from berth.planning.actions import Pin
from tests.planning.builders import (
    NOW,
    a_job,
    a_node,
    a_pod,
    a_service,
    device_of,
    nodes_of,
    only,
    planned,
    running,
    verdict_of,
)

NODES = [a_node("n1"), a_node("n2")]


def test_a_queue_without_quota_is_unlimited() -> None:
    assert nodes_of(planned(NODES, a_job(workers=2, gpus=8, queue="free"), queues=[Queue("free")])) is not None


def test_the_default_queue_needs_no_object() -> None:
    assert nodes_of(planned(NODES, a_job(workers=2, gpus=8))) is not None


def test_an_unknown_queue_is_misconfigured() -> None:
    verdict = verdict_of(planned(NODES, a_job(queue="nowhere"), queues=[Queue("team-a")]))
    assert verdict.reason == "Misconfigured"
    assert verdict.message.startswith("spec.queueName: ")
    assert "team-a" in verdict.message


def test_more_than_the_whole_quota_is_refused_with_the_numbers() -> None:
    verdict = verdict_of(planned(NODES, a_job(workers=2, gpus=8, queue="a"), queues=[Queue("a", {"H100": 8})]))
    assert verdict.reason == "ExceedsMaxQuota"
    assert (
        verdict.message
        == "asks 16 boards of H100-80GB; queue a has 8 boards in all: lower workers to 1 or raise the quota"
    )


def test_more_than_what_is_left_waits_with_the_numbers() -> None:
    first = running(a_job("first", workers=1, gpus=6, queue="a"), "n1")
    plan = planned(NODES, first, a_job(workers=3, gpus=1, queue="a"), queues=[Queue("a", {"H100-80GB": 8})])
    assert verdict_of(plan).reason == "WaitingForQuota"
    asks = "asks 3 boards of H100-80GB; queue a has 2 of 8 left: lower workers to 2 or wait"
    assert verdict_of(plan).message.startswith(f"{asks}; starts when team/first has ended")


def test_two_jobs_admitted_at_once_share_one_quota() -> None:
    jobs = [a_job("x", gpus=6, queue="a"), a_job("y", gpus=6, queue="a", created=1.0)]
    plan = planned(NODES, *jobs, queues=[Queue("a", {"H100": 8})])
    assert nodes_of(plan, "x") is not None
    assert verdict_of(plan, "y").reason == "WaitingForQuota"


def test_a_model_without_an_entry_can_not_be_used() -> None:
    nodes = [a_node("a", board="L40S"), a_node("h")]
    queues = [Queue("a", {"H100": 8})]
    assert device_of(planned(nodes, a_job(queue="a"), queues=queues)) == "H100-80GB gpu 1"
    verdict = verdict_of(planned(nodes, a_job(queue="a", models=("L40S",)), queues=queues))
    assert verdict.reason == "ExceedsMaxQuota"
    assert verdict.message == "queue a has no quota for L40S"


def test_a_family_s_quota_is_shared_by_its_models() -> None:
    nodes = [a_node("a", board="A100-40GB"), a_node("b", board="A100-80GB")]
    first = running(a_job("first", gpus=6, queue="a"), "a", device=Device("A100-40GB", "nvidia.com/gpu", 6))
    plan = planned(nodes, first, a_job(gpus=4, models=("A100-80GB",), queue="a"), queues=[Queue("a", {"A100": 8})])
    assert verdict_of(plan).reason == "WaitingForQuota"
    assert plan.queues["a"].used == {"A100": "6"}


def test_a_model_s_own_entry_goes_before_its_family_s() -> None:
    nodes = [a_node("a", board="A100-40GB"), a_node("b", board="A100-80GB")]
    queues = [Queue("a", {"A100": 8, "A100-80GB": 2})]
    plan = planned(nodes, a_job(gpus=4, models=("A100-80GB",), queue="a"), queues=queues)
    assert verdict_of(plan).reason == "ExceedsMaxQuota"


def test_instances_are_charged_by_their_share_of_the_board() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=0, mig={"1g.10gb": 14, "3g.40gb": 4})]
    queues = [Queue("a", {"A100": 1})]
    eight = planned(nodes, a_job(workers=8, profile="1g.10gb", queue="a"), queues=queues)
    assert eight.queues["a"].used == {"A100": "1"}
    nine = planned(nodes, a_job(workers=9, profile="1g.10gb", queue="a"), queues=queues)
    assert verdict_of(nine).reason == "ExceedsMaxQuota"
    assert "asks 9/8 boards" in verdict_of(nine).message
    mixed = planned(
        nodes,
        a_job("x", profile="3g.40gb", queue="a"),
        a_job("y", workers=3, profile="1g.10gb", queue="a"),
        queues=queues,
    )
    assert mixed.queues["a"].used == {"A100": "7/8"}


def test_higher_priority_is_served_first_then_age_then_uid() -> None:
    one = [a_node("n1", gpus=1)]
    old, young = a_job("old", created=1.0), a_job("young", created=2.0)
    assert nodes_of(planned(one, young, old), "old") == ("n1",)
    urgent = a_job("urgent", created=3.0, priority=5)
    assert nodes_of(planned(one, old, young, urgent), "urgent") == ("n1",)
    assert nodes_of(planned(one, a_job("b"), a_job("a")), "a") == ("n1",)


def test_work_that_fits_does_not_wait_behind_work_that_does_not() -> None:
    plan = planned([a_node("n1", gpus=4)], a_job("big", gpus=4, workers=2), a_job("small", created=9.0))
    assert nodes_of(plan, "small") == ("n1",)


@pytest.mark.parametrize(("nominal", "pinned"), [(1, 1), (2, 2), (9, 3)])
def test_a_service_pins_as_many_replicas_as_its_quota_allows(nominal: int, pinned: int) -> None:
    pods = tuple(a_pod(PodPhase.GATED, name=f"p{i}", attempt=0) for i in range(3))
    service = a_service(
        replicas=3, queue="a", pods=pods, served_device=Device("H100-80GB", "nvidia.com/gpu", 1), served_generation=1
    )
    plan = planned(NODES, service, queues=[Queue("a", {"H100": nominal})], now=NOW)
    assert len(only(plan, Pin)) == pinned
    assert verdict_of(plan, "service").reason == ("ExceedsMaxQuota" if nominal < 3 else "Placed")


def test_the_queue_s_status_counts_what_waits_and_what_runs() -> None:
    jobs = [a_job("x", gpus=8, queue="a"), a_job("y", gpus=8, queue="a"), a_job("z", queue="a", suspend=True)]
    usage = planned(NODES, *jobs, queues=[Queue("a", {"H100": 8})]).queues["a"]
    assert (usage.pending, usage.admitted, usage.used) == (1, 1, {"H100": "8"})
