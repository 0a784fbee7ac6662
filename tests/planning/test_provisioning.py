"""Capacity that does not exist yet: whom pools are asked for, which is, for how long, and what comes after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.pools import NodePool, Shortfall
from berth.model.prices import CapacityType
from berth.model.workloads import Device, Placement, Pod, PodPhase, Queue, RunPhase, Spot, Workload
from berth.planning.actions import Admit, MakeAttempt, Move, Pin, Plan, Stop
from berth.planning.snapshot import Policy
from tests.planning.builders import NOW, a_job, a_node, a_pod, nodes_of, only, planned, running, shape, verdict_of

H100 = Device("H100-80GB", "nvidia.com/gpu", 8)
KEY = "karpenter.sh/nodepool"


def a_pool(name: str = "burst", **more: Any) -> NodePool:
    """A pool of up to 4 nodes of 8 boards."""
    made = {"labels": ((KEY, name),), "model": "H100-80GB", "boards_per_node": 8, "nodes_most": 4}
    return NodePool(name, **{**made, **more})


BURST = a_pool()
SPOT = a_pool("cheap", capacity=CapacityType.SPOT)


def came(name: str, pool: str = "burst", **more: Any) -> Node:
    return a_node(name, labels={KEY: pool}, **more)


def growing(*pools: NodePool) -> Policy:
    return Policy(pools=pools or (BURST,))


def a_gang(**more: Any) -> Workload:
    return a_job(**{"workers": 2, "gpus": 8, **more})


def asked(plan: Plan, name: str = "job") -> str | None:
    """The pool that a plan admits a job to; None where it does not admit it, "" where to nodes."""
    return next((a.placement.pool for a in only(plan, Admit) if a.ref.name == name), None)


def released(*pods: Pod, since: float = NOW, pool: str = "burst", **more: Any) -> Workload:
    """Two workers that wait for nodes of a pool."""
    w = running(a_gang(**more), "", "", pods=None, device=H100, admitted_at=since)
    assert w.attempt is not None
    attempt = replace(w.attempt, placement=Placement(H100, ("", ""), pool))
    return replace(w, attempt=attempt, pods=pods)


def gated() -> list[Pod]:
    return [a_pod(PodPhase.GATED, index=i) for i in range(2)]


def unbound(since: float = NOW) -> list[Pod]:
    return [a_pod(PodPhase.PINNED, index=i, pinned_at=since) for i in range(2)]


def test_a_gang_that_fits_nowhere_asks_a_pool() -> None:
    plan = planned([a_node("n1")], a_gang(), policy=growing())
    assert [a.placement for a in only(plan, Admit)] == [Placement(H100, ("", ""), "burst")]
    verdict = verdict_of(plan)
    assert verdict.reason == "WaitingForNodes"
    assert verdict.message == (
        "waits for nodes of pool burst since 13:46:40 UTC, taken back at 13:56:40 UTC: 0 of 2 workers have one; "
        "asks for 2 nodes, 8 x H100-80GB a worker, on demand $64.00 an hour a worker"
    )
    assert plan.wake_at == NOW + 600


def test_one_that_fits_does_not() -> None:
    assert asked(planned([a_node("n1"), a_node("n2")], a_gang(), policy=growing())) == ""


def test_a_cluster_without_such_boards_asks_too() -> None:
    assert asked(planned([a_node("l", board="L40S")], a_gang(models=("H100",)), policy=growing())) == "burst"
    plan = planned([], a_gang(models=("A100",)), policy=growing())
    assert verdict_of(plan).reason == "NoMatchingGPU"


@pytest.mark.parametrize(
    ("pool", "job"),
    [
        (a_pool(nodes_most=1), {}),
        (a_pool(boards_per_node=4), {}),
        (a_pool(), {"pod": shape(node_selector=(("disk", "fast"),))}),
        (a_pool(), {"pod": shape(spot=Spot.ONLY)}),
        (a_pool(), {"max_usd_per_hour": 127.0}),
        (a_pool(), {"required": "rack"}),
        (a_pool(), {"models": ("A100",)}),
        (a_pool(), {"gpus": None, "profile": "1g.10gb"}),
        (a_pool(), {"queue": "small"}),
        (a_pool(), {"suspend": True}),
        (a_pool(model="L40S"), {"tensor": 8}),
    ],
)
def test_no_pool_is_asked_that_could_not_hold_it_or_that_it_may_not_pay(pool: NodePool, job: dict[str, Any]) -> None:
    queues = [Queue("small", {"H100": 15})]
    assert asked(planned([a_node("n1", board="L40S")], a_gang(**job), policy=growing(pool), queues=queues)) is None


def test_the_quota_is_charged_while_the_nodes_are_to_come() -> None:
    queues = [Queue("team", {"H100": 16})]
    plan = planned(
        [], released(*unbound(), queue="team"), a_gang(name="next", queue="team"), policy=growing(), queues=queues
    )
    assert plan.queues["team"].used == {"H100": "16"}
    assert asked(plan, "next") is None


def test_a_pool_grows_to_its_most_with_what_it_has_and_what_is_asked_of_it() -> None:
    next_one, nodes = a_gang(name="next", workers=1), [came("b1")]
    busy = {"b1": {"nvidia.com/gpu": 8}}
    assert asked(planned(nodes, released(*unbound()), next_one, policy=growing(), used=busy), "next") == "burst"
    full = growing(a_pool(nodes_most=3))
    assert asked(planned(nodes, released(*unbound()), next_one, policy=full, used=busy), "next") is None


def test_nodes_of_the_pool_that_are_idle_are_a_part_of_what_is_asked_for() -> None:
    two = growing(a_pool(nodes_most=2))
    assert asked(planned([came("b1")], a_gang(), policy=two)) == "burst"
    assert asked(planned([came("b1")], a_gang(), policy=two, used={"b1": {"nvidia.com/gpu": 1}})) is None
    assert asked(planned([came("b1", unschedulable=True)], a_gang(), policy=two)) is None


def test_gangs_of_one_plan_share_what_a_pool_may_make() -> None:
    jobs = [a_gang(name=f"j{i}", created=float(i)) for i in range(3)]
    plan = planned([], *jobs, policy=growing())
    assert [asked(plan, job.ref.name) for job in jobs] == ["burst", "burst", None]


def test_the_cheapest_pool_is_asked_first() -> None:
    save = {"checkpoints": True, "estimated_seconds": 4 * 3600.0}
    assert asked(planned([], a_gang(**save), policy=growing(BURST, SPOT))) == "cheap"
    assert asked(planned([], a_gang(**save, pod=shape(spot=Spot.NEVER)), policy=growing(BURST, SPOT))) == "burst"


def test_an_elastic_gang_asks_for_as_many_as_it_would_like_or_else_for_the_least() -> None:
    gang = a_gang(workers=4, elastic=(2, 4))
    assert nodes_of(planned([], gang, policy=growing())) == ("",) * 4
    assert nodes_of(planned([], gang, policy=growing(a_pool(nodes_most=3)))) == ("",) * 2


def test_its_pods_are_released_to_the_labels_of_the_pool_once_all_are_there() -> None:
    plan = planned([], released(*gated()), policy=growing())
    assert [(p.pod, p.node, p.labels) for p in only(plan, Pin)] == [
        (f"pod-{i}", "", ((KEY, "burst"),)) for i in range(2)
    ]
    assert not only(planned([], released(gated()[0]), policy=growing()), Pin)


def test_a_lost_job_is_made_again_for_the_pool() -> None:
    lost = released()
    assert lost.attempt is not None
    lost = replace(lost, attempt=replace(lost.attempt, phase=RunPhase.ABSENT))
    assert [a.placement.pool for a in only(planned([], lost, policy=growing()), MakeAttempt)] == ["burst"]


def test_who_waits_is_told_how_many_nodes_have_come() -> None:
    pods = [a_pod(PodPhase.READY, index=0, node="b1"), unbound()[1]]
    plan = planned([came("b1")], released(*pods), policy=growing(), used={"b1": {"nvidia.com/gpu": 8}})
    assert plan.actions == ()
    assert "burst since 13:46:40 UTC, taken back at 13:56:40 UTC: 1 of 2 workers have one" in verdict_of(plan).message


def test_what_comes_is_not_given_to_others() -> None:
    other = a_job("other", gpus=1, models=("H100",))
    plan = planned([came("b1"), came("b2")], released(*unbound()), other, policy=Policy(pools=(a_pool(nodes_most=2),)))
    assert asked(plan, "other") is None
    plan = planned([came("b1"), came("b2"), came("b3")], released(*unbound()), other, policy=growing())
    assert nodes_of(plan, "other") == ("b3",)


def test_once_all_are_bound_they_are_where_they_were_bound() -> None:
    pods = [a_pod(PodPhase.READY, index=0, node="b2"), a_pod(PodPhase.BOUND, index=1, node="b1")]
    used = {"b1": {"nvidia.com/gpu": 8}, "b2": {"nvidia.com/gpu": 8}}
    plan = planned([came("b1"), came("b2")], released(*pods), now=NOW + 85, policy=growing(), used=used)
    assert [a.placement for a in only(plan, Move)] == [Placement(H100, ("b2", "b1"))]
    assert verdict_of(plan).message == "2 workers on 2 nodes (b2, b1): nodes of pool burst came after 85 s"


def test_after_the_time_out_it_is_taken_back_and_the_pool_remembered() -> None:
    pods = [a_pod(PodPhase.READY, index=0, node="b1"), unbound()[1]]
    waits = released(*pods)
    assert not only(planned([came("b1")], waits, now=NOW + 599, policy=growing()), Stop)
    [stop] = only(planned([came("b1")], waits, now=NOW + 600, policy=growing()), Stop)
    assert (stop.reason, stop.shortfalls) == ("NodesNotProvided", (Shortfall("burst", NOW + 600),))
    assert stop.message.startswith("pool burst did not bring nodes for all workers in 600 s")


def test_waiting_for_nodes_is_no_part_of_a_run() -> None:
    assert not planned([], released(*unbound(), max_runtime_seconds=60.0), now=NOW + 90, policy=growing()).actions


def test_a_pool_that_is_configured_no_more_is_waited_for_no_longer() -> None:
    [stop] = only(planned([], released(*unbound()), policy=Policy()), Stop)
    assert stop.message.startswith("pool burst is not in the configuration any more")


def test_next_the_other_pool_is_asked_however_cheap_the_one_that_failed() -> None:
    gang = a_gang(checkpoints=True, estimated_seconds=4 * 3600.0, shortfalls=(Shortfall("cheap", NOW - 1),))
    assert asked(planned([], gang, policy=growing(BURST, SPOT))) == "burst"


def test_a_pool_that_failed_is_asked_again_after_a_while_that_doubles() -> None:
    gang = a_gang(shortfalls=(Shortfall("burst", NOW - 599),))
    plan = planned([], gang, policy=growing())
    assert asked(plan) is None
    assert plan.wake_at == NOW + 1
    assert "; pool burst brought no nodes by 13:36:41 UTC" in verdict_of(plan).message
    assert asked(planned([], gang, now=NOW + 1, policy=growing())) == "burst"
    twice = replace(gang, shortfalls=(Shortfall("burst", NOW - 3000), *gang.shortfalls))
    assert asked(planned([], twice, now=NOW + 1, policy=growing())) is None
    assert asked(planned([], twice, now=NOW + 601, policy=growing())) == "burst"


def test_a_pool_that_failed_others_is_believed_less_and_in_time_again() -> None:
    near = a_pool("near", model="H100-80GB", region="here")
    far = a_pool("far", region="there")
    failed = a_gang(name="failed", suspend=True, shortfalls=(Shortfall("near", NOW),))
    assert asked(planned([], a_gang(), policy=growing(near, far))) == "near"
    assert asked(planned([], a_gang(), failed, policy=growing(near, far))) == "far"
    assert asked(planned([], a_gang(), failed, now=NOW + 12 * 1800, policy=growing(near, far))) == "near"


def test_the_spot_pool_that_failed_once_is_still_cheaper_for_others_and_is_not_after_more() -> None:
    saves = {"checkpoints": True, "estimated_seconds": 4 * 3600.0}
    for times, pool in ((1, "cheap"), (3, "burst")):
        failed = a_gang(name="failed", suspend=True, shortfalls=(Shortfall("cheap", NOW),) * times)
        assert asked(planned([], a_gang(**saves), failed, policy=growing(BURST, SPOT))) == pool


@given(
    most=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    gangs=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), max_size=5),
    there=st.integers(0, 3),
)
def test_law_no_pool_is_asked_for_more_than_it_may_make(
    most: list[int], gangs: list[tuple[int, int]], there: int
) -> None:
    pools = [a_pool(f"p{i}", nodes_most=n) for i, n in enumerate(most)]
    nodes = [came(f"n{i}", "p0") for i in range(there)]
    busy = {node.name: {"nvidia.com/gpu": 8} for node in nodes}
    jobs = [a_job(f"j{i}", workers=n, gpus=k, created=float(i)) for i, (n, k) in enumerate(gangs)]
    plan = planned(nodes, *jobs, policy=growing(*pools), used=busy)
    assert plan == planned(nodes, *jobs, policy=growing(*pools), used=busy)
    assert not plan.faults
    for i, pool in enumerate(pools):
        boards = sum(
            len(a.placement.nodes) * a.placement.device.count
            for a in only(plan, Admit)
            if a.placement.pool == pool.name
        )
        assert boards <= 8 * max(0, pool.nodes_most - (there if i == 0 else 0))
    assert all(a.placement.pool and not any(a.placement.nodes) for a in only(plan, Admit))
