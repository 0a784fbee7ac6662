"""Queues as plans see them: lending, stops, who may use one, and what is told of a tree that is wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest

from berth.model.workloads import Device, PodPhase, Queue, RunPhase, StopPolicy
from berth.planning.actions import Pin, Release, Stop
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, nodes_of, only, planned, running, verdict_of

NODES = [a_node("n1"), a_node("n2")]
BOARD = Device("H100-80GB", "nvidia.com/gpu", 1)
TREE = [Queue("org"), Queue("a", {"H100": 8}, parent="org"), Queue("b", {"H100": 8}, parent="org")]


def test_lent_boards_are_used_and_told_of() -> None:
    first = running(a_job("first", gpus=8, queue="b"), "n1")
    assert nodes_of(planned(NODES, first, a_job(gpus=8, queue="b"), queues=TREE)) == ("n2",)
    third = planned([*NODES, a_node("n3")], first, a_job(workers=2, gpus=8, queue="b"), queues=TREE)
    told = "asks 16 boards of H100-80GB; queue b has 8 of 16 left: lower workers to 1 or wait"
    assert verdict_of(third).message.startswith(told)


def test_work_in_a_cohort_is_charged_there() -> None:
    plan = planned(NODES, a_job(gpus=8, queue="org"), queues=TREE)
    assert nodes_of(plan) is not None
    assert (plan.queues["org"].used, plan.queues["a"].used) == ({"H100": "8"}, {})


def test_a_cohort_s_status_counts_all_under_it() -> None:
    plan = planned(NODES, a_job("x", gpus=8, queue="a"), a_job("y", gpus=4, queue="b"), queues=TREE)
    assert plan.queues["org"].used == {"H100": "12"}


@pytest.mark.parametrize("policy", [StopPolicy.HOLD, StopPolicy.HOLD_AND_DRAIN])
def test_a_stopped_queue_admits_nothing_new_nor_does_any_under_it(policy: StopPolicy) -> None:
    queues = [Queue("org", stop_policy=policy), Queue("a", parent="org"), Queue("free")]
    plan = planned(NODES, a_job(queue="a"), a_job("other", queue="free"), queues=queues)
    assert verdict_of(plan).reason == "QueueStopped"
    assert verdict_of(plan).message == (
        "queue org, which is above a, is stopped: set its spec.stopPolicy to None to go on"
    )
    assert nodes_of(plan, "other") is not None
    assert plan.queues["a"].stopped
    assert not plan.queues["free"].stopped


def test_what_runs_in_a_held_queue_goes_on_and_in_a_drained_one_is_stopped() -> None:
    job = running(a_job(queue="a"), "n1", pods=PodPhase.READY)
    assert only(planned(NODES, job, queues=[Queue("a", stop_policy=StopPolicy.HOLD)]), Stop) == []
    drained = [Queue("a", stop_policy=StopPolicy.HOLD_AND_DRAIN)]
    (stop,) = only(planned(NODES, job, queues=drained), Stop)
    assert stop.reason == "QueueStopped"
    stopped = running(a_job(queue="a"), "n1", pods=None, phase=RunPhase.SUSPENDED, stopping="QueueStopped")
    (release,) = only(planned(NODES, stopped, queues=drained), Release)
    assert release.reason == "QueueStopped"


def test_a_service_in_a_stopped_queue_keeps_its_replicas_and_gets_no_more() -> None:
    pods = (a_pod(PodPhase.READY, name="p0", node="n1", attempt=0), a_pod(PodPhase.GATED, name="p1", attempt=0))
    service = a_service(replicas=2, queue="a", pods=pods, served_device=BOARD, served_generation=1)
    plan = planned(NODES, service, queues=[Queue("a", stop_policy=StopPolicy.HOLD)])
    assert only(plan, Pin) == []
    assert verdict_of(plan, "service").reason == "QueueStopped"


def test_only_the_namespaces_of_a_queue_may_use_it() -> None:
    queues = [Queue("a", namespaces=("red",)), Queue("b", namespaces=("team",))]
    assert nodes_of(planned(NODES, a_job(queue="b"), queues=queues)) is not None
    verdict = verdict_of(planned(NODES, a_job(queue="a"), queues=queues))
    assert verdict.reason == "Misconfigured"
    assert verdict.message == (
        "spec.queueName: team is not in spec.namespaces of queue a: name one of b, default, or add it there"
    )


def test_work_in_a_tree_that_is_wrong_is_told_and_the_rest_goes_on() -> None:
    queues = [Queue("a", parent="gone"), Queue("fine")]
    plan = planned(NODES, a_job(queue="a"), a_job("other", queue="fine"), queues=queues)
    assert verdict_of(plan).reason == "Misconfigured"
    assert 'there is no Queue "gone"' in verdict_of(plan).message
    assert nodes_of(plan, "other") is not None
    assert 'there is no Queue "gone"' in plan.queues["a"].problem


def test_of_two_defaults_of_a_namespace_the_younger_is_told_so() -> None:
    queues = [Queue("new", default_of=("team",), created=2.0), Queue("old", default_of=("team", "red"), created=1.0)]
    plan = planned(NODES, queues=queues)
    assert plan.queues["old"].not_default == ""
    assert plan.queues["new"].not_default == (
        "spec.defaultOf: team goes to old, which is older: leave it out of one of the two"
    )


def test_a_dollar_limit_holds_for_what_the_queues_under_it_have_together() -> None:
    queues = [Queue("org", max_usd_per_hour=Fraction(80)), Queue("a", parent="org"), Queue("b", parent="org")]
    first = running(a_job("first", gpus=8, queue="a"), "n1")
    plan = planned(NODES, first, a_job(gpus=2, queue="b"), a_job("more", queue="b", created=NOW), queues=queues)
    assert nodes_of(plan) is not None
    assert verdict_of(plan, "more").reason == "WaitingForQuota"
