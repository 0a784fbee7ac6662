"""Explanations: the causes by node, what each option lacks, what would make a job fit, and what a running one costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given

from berth.model.nodes import Node, Taint
from berth.model.reasons import Verdict
from berth.model.workloads import Device, Kind, PodPhase, Queue, Workload
from berth.planning.explain import Explanation, State, explain
from berth.planning.plan import plan
from berth.planning.snapshot import Policy
from berth.planning.trials import Remedy, Way, placed_in
from berth.planning.whatif import concerning, without
from tests.planning.boards import a_laid_node, holding, used
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, a_snapshot, nodes_of, racks, shape
from tests.planning.occupied import occupied, on, small_worlds
from tests.planning.strategies import clusters, many_workloads, quotas, workloads
from tests.planning.world import World


def explained(nodes: Iterable[Node], w: Workload, *others: Workload, **more: Any) -> Explanation:
    return explain(occupied(nodes, w, *others, **more), Policy(), NOW, w)


def the(way: Way, told: Explanation) -> Remedy:
    """The first remedy of one kind."""
    found = [remedy for remedy in told.remedies if remedy.way is way]
    assert found, [remedy.way for remedy in told.remedies]
    return found[0]


def ways(told: Explanation) -> set[Way]:
    return {remedy.way for remedy in told.remedies}


def test_nodes_are_counted_by_their_first_cause_with_examples() -> None:
    nodes = [
        a_node("n1"),
        a_node("n2"),
        a_node("bad", ready=False),
        a_node("mine", taints=(Taint("team", "red", "NoSchedule"),)),
        a_node("other", board="L40S"),
        a_node("cpu", board=None),
    ]
    told = explained(
        nodes, a_job("big", workers=2, gpus=8, models=("H100",)), on(a_job("a"), "n1"), on(a_job("b"), "n2")
    )
    assert {(c.cause, c.count, c.examples) for c in told.causes} == {
        ("lack free GPUs", 2, ("n1", "n2")),
        ("not ready", 1, ("bad",)),
        ("tainted", 1, ("mine",)),
        ("hold other GPUs", 1, ("other",)),
        ("without GPUs", 1, ("cpu",)),
    }


def test_each_option_says_what_fits_on_it_and_at_what_price() -> None:
    nodes = [a_node("n1"), a_node("a1", board="A100-80GB", gpus=4)]
    told = explained(nodes, a_job("j", workers=3, gpus=4, models=("H100", "A100")))
    assert [(o.device.model, o.fits, o.wanted, o.usd_per_hour, o.reason) for o in told.offers] == [
        ("A100-80GB", 1, 3, 3 * 4 * 4.1, ""),
        ("H100-80GB", 2, 3, 3 * 4 * 8.0, ""),
    ]


def test_an_option_says_which_quota_forbids_it() -> None:
    told = explained([a_node("n1")], a_job(gpus=8, queue="red"), queues=[Queue("red", {"H100": 4})])
    (offer,) = told.offers
    assert offer.reason == "ExceedsMaxQuota"
    assert "queue red has 4 boards in all" in offer.message
    assert offer.fits == 1


def test_the_largest_number_of_workers_that_fits() -> None:
    told = explained([a_node("n1"), a_node("n2"), a_node("n3")], a_job(workers=5, gpus=8))
    assert the(Way.FEWER_MEMBERS, told).details["members"] == 3


def test_fewer_workers_keep_the_rack_and_whole_groups() -> None:
    racked = explained(racks(count=2, nodes=3), a_job(workers=5, gpus=8, required="rack"))
    assert the(Way.FEWER_MEMBERS, racked).details["members"] == 3
    nodes = [a_node("n1", gpus=6), a_node("n2", gpus=6)]
    assert the(Way.FEWER_MEMBERS, explained(nodes, a_job(workers=12, tensor=4))).details["members"] == 8


def test_fewer_workers_keep_the_quota() -> None:
    told = explained(
        [a_node("n1"), a_node("n2")], a_job(workers=2, gpus=8, queue="red"), queues=[Queue("red", {"H100": 8})]
    )
    assert the(Way.FEWER_MEMBERS, told).details["members"] == 1


def test_another_model_with_room_is_named_with_its_price() -> None:
    nodes = [a_node("n1", gpus=4), a_node("a1", board="A100-80GB")]
    told = explained(nodes, a_job(gpus=8, models=("H100",)))
    remedy = the(Way.ANOTHER_DEVICE, told)
    assert remedy.details["device"] == {"model": "A100-80GB", "resource": "nvidia.com/gpu", "count": 8}
    assert "gpus: {count: 8, models: [A100-80GB]}" in remedy.message


def test_another_profile_with_no_less_memory_comes_before_a_smaller_one() -> None:
    nodes = [a_node("m1", board="A100-80GB", gpus=0, mig={"1g.10gb": 4, "2g.20gb": 1, "3g.40gb": 1})]
    told = explained(nodes, a_job("j", profile="2g.20gb"), on_mig("k", "m1", "2g.20gb"))
    others = [r.details["device"]["resource"] for r in told.remedies if r.way is Way.ANOTHER_DEVICE]
    assert others == ["nvidia.com/mig-3g.40gb", "nvidia.com/mig-1g.10gb"]
    assert "if 9 GiB of memory are enough" in told.remedies[1].message


def on_mig(name: str, node: str, profile: str, *, board: str = "A100-80GB", **more: Any) -> Workload:
    device = Device(board, f"nvidia.com/mig-{profile}", 1)
    return on(a_job(name, profile=profile), node, device=device, **more)


def test_a_dearer_device_that_the_price_forbids_can_be_asked_for_by_name() -> None:
    nodes = [a_node("m1", board="A100-80GB", gpus=0, mig={"1g.10gb": 1}), a_node("n1", gpus=1)]
    told = explained(nodes, a_job("j", memory_gib=9), on_mig("k", "m1", "1g.10gb"))
    assert [o.reason for o in told.offers] == ["", "WaitingForCapacity"]
    assert "16 times the price" in the(Way.ANOTHER_DEVICE, told).message


def test_the_closest_broader_level_that_holds_it() -> None:
    told = explained(racks(count=3, nodes=2), a_job(workers=3, gpus=8, required="rack"))
    assert the(Way.LOOSER_TOPOLOGY, told).details["level"] == "zone"


def test_preferred_where_no_broader_level_holds_it() -> None:
    nodes = [a_node(f"n{i}", labels={"rack": f"r{i}"}) for i in range(3)]
    told = explained(nodes, a_job(workers=3, gpus=8, required="rack"))
    assert the(Way.LOOSER_TOPOLOGY, told).details["mode"] == "Preferred"


def test_the_fewest_workloads_whose_end_makes_room() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    others = [on(a_job("a", gpus=4), "n1"), on(a_job("b", gpus=4), "n1"), on(a_job("c", gpus=7), "n2", hours=3)]
    remedy = the(Way.FREE_WORKLOADS, explained(nodes, a_job("big", gpus=8), *others))
    assert [w["name"] for w in remedy.details["workloads"]] == ["c"]
    assert "team/c (7 boards of H100-80GB for 3 h)" in remedy.message


def test_of_as_many_workloads_those_with_the_fewest_boards() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    others = [on(a_job("a", gpus=8), "n1"), on(a_job("b", gpus=1), "n2")]
    remedy = the(Way.FREE_WORKLOADS, explained(nodes, a_job("big", gpus=8), *others))
    assert [w["name"] for w in remedy.details["workloads"]] == ["b"]


def test_workloads_that_must_end_together() -> None:
    nodes = racks(count=2, nodes=2)
    gang = on(a_job("gang", workers=2, gpus=1), "r1n1", "r2n1")
    others = [gang, on(a_job("a", gpus=1), "r1n2"), on(a_job("b", gpus=1), "r2n2"), on(a_job("c", gpus=1), "r2n2")]
    remedy = the(Way.FREE_WORKLOADS, explained(nodes, a_job("big", workers=2, gpus=8, required="rack"), *others))
    assert [w["name"] for w in remedy.details["workloads"]] == ["a", "gang"]


def test_what_gives_quota_back_is_of_the_same_queue() -> None:
    nodes = [a_node("n1"), a_node("n2"), a_node("n3")]
    others = [on(a_job("theirs", gpus=8, queue="blue"), "n1"), on(a_job("ours", gpus=8, queue="red"), "n2")]
    told = explained(nodes, a_job("j", gpus=8, queue="red"), *others, queues=[Queue("red", {"H100": 8}), Queue("blue")])
    assert told.verdict.reason == "WaitingForQuota"
    assert [w["name"] for w in the(Way.FREE_WORKLOADS, told).details["workloads"]] == ["ours"]
    assert the(Way.MORE_QUOTA, told).details["nominal"] == 16


def test_replicas_of_services_may_be_what_has_to_go() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 8)
    pod = a_pod(PodPhase.READY, node="n1", attempt=0)
    service = a_service("web", gpus=8, served_device=device, served_generation=1, pods=(pod,))
    remedy = the(Way.FREE_WORKLOADS, explained([a_node("n1")], a_job("j", gpus=8), service))
    assert [(w["kind"], w["name"]) for w in remedy.details["workloads"]] == [("InferenceService", "web")]


def test_the_pods_of_others_are_not_freed() -> None:
    w = a_job("j", gpus=8)
    snapshot = a_snapshot([a_node("n1")], w, used={"n1": {"nvidia.com/gpu": 1, "pods": 1}})
    assert Way.FREE_WORKLOADS not in ways(explain(snapshot, Policy(), NOW, w))


def test_quota_and_nodes_may_be_needed_together() -> None:
    told = explained([a_node("n1")], a_job(workers=3, gpus=8, queue="red"), queues=[Queue("red", {"H100": 8})])
    remedy = the(Way.MORE_QUOTA, told)
    assert (remedy.details["nominal"], remedy.details["count"]) == (24, 2)
    assert Way.MORE_NODES not in ways(told)


def test_how_many_more_nodes() -> None:
    assert the(Way.MORE_NODES, explained([a_node("n1")], a_job(workers=6, gpus=4))).details["count"] == 2


def test_more_nodes_go_where_the_fewest_are_needed() -> None:
    nodes = [*racks(count=1, nodes=3), a_node("far", labels={"zone": "z1", "rack": "r2"})]
    remedy = the(Way.MORE_NODES, explained(nodes, a_job(workers=4, gpus=8, required="rack")))
    assert remedy.details["count"] == 1
    assert "in rack r1" in remedy.message


def test_nodes_of_a_model_that_the_fleet_lacks() -> None:
    told = explained([a_node("n1")], a_job(workers=3, gpus=4, models=("B200",), required="rack"))
    assert told.verdict.reason == "NoMatchingGPU"
    remedy = the(Way.MORE_NODES, told)
    assert (remedy.details["model"], remedy.details["count"]) == ("B200", 2)


def test_moving_others_is_said_with_its_price() -> None:
    others = [on(a_job("a", gpus=2), "n1", hours=3), on(a_job("b", gpus=2), "n2", hours=1)]
    remedy = the(Way.MOVE_WORKLOADS, explained([a_node("n1"), a_node("n2")], a_job("big", gpus=8), *others))
    assert "moving team/b from n2 to n1 (costs $16.53" in remedy.message


def test_the_least_priority_for_which_others_give_way() -> None:
    others = [
        on(a_job("dear", priority=1, gpus=8), "n1", hours=9),
        on(a_job("high", priority=7, gpus=8), "n2", hours=1),
    ]
    w = a_job("big", gpus=8)
    remedy = the(Way.HIGHER_PRIORITY, explained([a_node("n1"), a_node("n2")], w, *others))
    assert remedy.message.startswith("a priority of 2 instead of 0: waits for team/dear to stop, which loses")
    assert remedy.details == {"priority": 2, "workloads": [{"namespace": "team", "name": "dear"}]}
    off = explain(occupied([a_node("n1"), a_node("n2")], w, *others), Policy(preemption=None), NOW, w)
    assert Way.HIGHER_PRIORITY not in ways(off)


def test_a_job_that_the_next_plan_places_needs_nothing() -> None:
    told = explained([a_node("n1")], a_job(gpus=8))
    assert (told.state, told.remedies) == (State.PENDING, ())
    assert told.notes[0].startswith("the next plan of the operator places it: 1 worker on node n1")


def test_a_suspended_job_is_explained_as_if_it_were_not() -> None:
    told = explained([a_node("n1")], a_job(workers=2, gpus=8, suspend=True))
    assert told.state is State.SUSPENDED
    assert "spec.suspend is true" in told.notes[0]
    assert the(Way.FEWER_MEMBERS, told).details["members"] == 1


def test_a_job_that_waits_for_its_next_attempt() -> None:
    told = explained([a_node("n1")], a_job(gpus=8, not_before=NOW + 90))
    assert told.notes[0].startswith("it is tried again in 1.5 min")


def test_a_running_job_tells_its_price_and_the_runner_up() -> None:
    nodes = [a_node("n1"), a_node("n2"), a_node("h1", board="H200")]
    told = explained(nodes, on(a_job("j", workers=2, gpus=4), "n1", "n1", hours=2))
    assert told.state is State.RUNNING
    assert told.running is not None
    assert [(t.name, t.usd, t.per_hour) for t in told.running.terms] == [
        ("boards", 64.0, True),
        ("so far", 128.0, False),
    ]
    assert told.running.where == "2 workers on node n1"
    assert told.running.elsewhere is not None
    assert told.running.elsewhere.message == "2 workers on node n2"
    up = told.running.runner_up
    assert up is not None
    assert (up.device.model, up.usd_per_hour, up.dearer_by, up.nodes) == ("H200", 72.0, 8.0, ("h1", "h1"))


def test_a_runner_up_that_would_not_fit_says_what_it_lacks() -> None:
    nodes = [a_node("n1"), a_node("h1", board="H200", gpus=4)]
    told = explained(nodes, on(a_job("j", workers=2, gpus=4), "n1", "n1"))
    assert told.running is not None
    assert told.running.runner_up is not None
    assert (told.running.runner_up.nodes, told.running.runner_up.message) == ((), "1 of 2 would fit now")
    assert told.running.elsewhere is None


def test_a_place_tells_how_many_free_nodes_it_breaks_into() -> None:
    nodes = [a_node("n1"), a_node("n2"), a_node("n3")]
    told = explained(nodes, on(a_job("j", gpus=2), "n1"), on(a_job("k", gpus=2), "n1"), on(a_job("l", gpus=8), "n2"))
    assert told.running is not None
    assert told.running.elsewhere is not None
    assert (told.running.opens, told.running.elsewhere.nodes, told.running.elsewhere.opens) == (0, ("n3",), 1)


def test_a_workload_whose_end_lets_a_board_be_laid_out() -> None:
    node = a_laid_node("n", "6x1g.10gb! 1g.10gb", "6x1g.10gb 1g.10gb!")
    first, second = (
        [name.removeprefix("team/") for name in sorted(holding(node)["n"]) if name.startswith(f"team/n-{i}")]
        for i in (0, 1)
    )
    device = Device("A100-80GB", "nvidia.com/mig-1g.10gb", 1)

    def holder(name: str, pods: list[str]) -> Workload:
        job = on(a_job(name, workers=len(pods), profile="1g.10gb"), *["n"] * len(pods), device=device)
        return replace(job, pods=tuple(replace(p, name=pods[i], uid=pods[i]) for i, p in enumerate(job.pods)))

    w = a_job("j", profile="3g.40gb")
    snapshot = a_snapshot([node], w, holder("a", first), holder("b", second), used=used(node))
    told = explain(replace(snapshot, holding=holding(node), observed={"n": NOW}), Policy(), NOW, w)
    remedy = the(Way.FREE_WORKLOADS, told)
    assert [(v["name"], v["boards"]) for v in remedy.details["workloads"]] == [("b", "1/8")]
    assert "boards would then be laid out for it" in remedy.message


def test_boards_that_are_laid_out_for_a_job_are_named() -> None:
    node = a_laid_node("n", "7x1g.10gb")
    w = a_job(profile="3g.40gb")
    snapshot = replace(a_snapshot([node], w, used=used(node)), holding=holding(node), observed={"n": NOW})
    told = explain(snapshot, Policy(), NOW, w)
    assert told.verdict.reason == "WaitingForRepartition"
    assert told.notes[0].startswith("the next plan of the operator has boards of n laid out for it, at $0.")
    assert "board 0 as 3g.40gb" in told.notes[0]
    assert [(o.device.resource, o.fits) for o in told.offers] == [("nvidia.com/mig-3g.40gb", 0)]


def test_a_bound_on_the_price_of_a_run() -> None:
    told = explained([a_node("n1")], on(a_job("j", gpus=8, max_runtime_seconds=7200.0), "n1"))
    assert told.running is not None
    assert [t.usd for t in told.running.terms] == [64.0, 64.0, 128.0]


def test_a_service_that_lacks_replicas_has_both_sides() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 4)
    pods = (
        a_pod(PodPhase.READY, name="p1", node="n1", attempt=0),
        a_pod(PodPhase.READY, name="p2", node="n1", attempt=0),
        a_pod(PodPhase.GATED, name="p3", attempt=0),
    )
    told = explained(
        [a_node("n1"), a_node("n2", gpus=2)],
        a_service("web", replicas=3, gpus=4, served_device=device, served_generation=1, pods=pods),
    )
    assert told.state is State.PENDING
    assert told.running is not None
    assert told.running.terms[0].usd == 64.0
    assert the(Way.MORE_NODES, told).details["count"] == 1
    assert told.verdict.fits == 2


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"finished": "Succeeded"}, State.SUCCEEDED),
        ({"finished": "Failed"}, State.FAILED),
        ({"deleting": True}, State.DELETING),
    ],
)
def test_what_has_ended_is_said_and_no_more(more: dict[str, Any], state: State) -> None:
    told = explained([a_node("n1")], a_job(verdict=Verdict("Succeeded", "all ended well"), **more))
    assert (told.state, told.causes, told.remedies) == (state, (), ())
    assert told.verdict.message == "all ended well"


def test_what_is_misconfigured_names_the_field() -> None:
    told = explained([a_node("n1")], a_job(models=("H1000",)))
    assert told.state is State.MISCONFIGURED
    assert "spec.gpus.models[0]" in told.verdict.message


def test_what_is_being_stopped_says_why() -> None:
    told = explained([a_node("n1")], on(a_job("j", gpus=8), "n1", stopping="Suspended"))
    assert told.state is State.STOPPING


def test_cpu_that_is_lacking_is_a_cause_and_freed_with_the_job_that_has_it() -> None:
    other = on(a_job("cpu", gpus=1, pod=shape(cpu=60)), "n1")
    told = explained([a_node("n1")], a_job("j", gpus=1, pod=shape(cpu=8)), other)
    assert [(c.cause, c.count) for c in told.causes] == [("lack cpu", 1)]
    assert [w["name"] for w in the(Way.FREE_WORKLOADS, told).details["workloads"]] == ["cpu"]


def boards_held(w: Workload) -> int:
    assert w.attempt is not None
    return w.attempt.placement.device.count * len(w.attempt.placement.nodes)


def fewest_by_brute_force(nodes: list[Node], waits: Workload, others: list[Workload]) -> tuple[int, int] | None:
    """How many jobs, and then how many boards, have to go at least."""
    snapshot = occupied(nodes, waits, *others)
    enough = [
        (size, sum(boards_held(w) for w in ended))
        for size in range(len(others) + 1)
        for ended in combinations(others, size)
        if nodes_of(plan(without(snapshot, ended), Policy(), NOW), "big")
    ]
    return min(enough, default=None)


@given(small_worlds())
def test_no_fewer_workloads_and_no_fewer_boards_would_do(world: tuple[list[Node], Workload, list[Workload]]) -> None:
    nodes, waits, others = world
    least = fewest_by_brute_force(nodes, waits, others)
    told = explained(nodes, waits, *others)
    found = [r.details["workloads"] for r in told.remedies if r.way is Way.FREE_WORKLOADS]
    if least in (None, (0, 0)):
        assert found == []
    else:
        assert [(len(ended), sum(int(w["boards"]) for w in ended)) for ended in found] == [least]


@given(clusters(), many_workloads(queues=("a", "b")), workloads("new", ("a", "b")), quotas())
def test_what_is_left_out_of_a_snapshot_does_not_decide_who_is_admitted(
    nodes: list[Node], older: list[Workload], new: Workload, queues: dict[str, Queue]
) -> None:
    world = World({n.name: n for n in nodes}, {w.ref.uid: w for w in older}, queues=queues)
    world.settle()
    world.workloads[new.ref.uid] = new
    for w in world.workloads.values():
        if w.ref.kind is Kind.TRAINING_JOB and w.attempt is None:
            whole = placed_in(world.snapshot(), Policy(), world.now, w)
            less = placed_in(concerning(world.snapshot(), w), Policy(), world.now, w)
            assert (whole and whole.device) == (less and less.device)
