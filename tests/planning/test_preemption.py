"""Who gives way to whom, at what loss, and that what is freed goes to whom it was freed for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest

from berth.model.nodes import Node
from berth.model.workloads import Claim, Device, PodPhase, Preemption, Queue, Reclaim, WithinQueue, Workload
from berth.planning.actions import Admit, Plan, Shed, Stop
from berth.planning.owed import Owed
from berth.planning.plan import plan
from berth.planning.quota import Quota
from berth.planning.snapshot import Backfilling, Passing, Policy, Preempting
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, model, nodes_of, only, racks, verdict_of
from tests.planning.occupied import occupied, on

BOTH = [a_node("n1"), a_node("n2")]


def decided(
    nodes: list[Node], *workloads: Workload, queues: list[Queue] | None = None, now: float = NOW, **rules: float
) -> Plan:
    """The plan where these run, and others wait."""
    return plan(occupied(nodes, *workloads, queues=queues or ()), Policy(preemption=Preempting(**rules)), now)


def stopped(made: Plan) -> list[str]:
    """The names of who is stopped."""
    return sorted(stop.ref.name for stop in only(made, Stop))


def waits(name: str = "big", **more: object) -> Workload:
    """A job that has just come, more important than others unless said otherwise."""
    return a_job(name, **{"gpus": 8, "priority": 5, "created": NOW, **more})  # type: ignore[arg-type]


def a_tree(*own: int, **rules: object) -> list[Queue]:
    """Queues "q1", "q2"... of one root, with so many boards each."""
    preemption = Preemption(**rules)  # type: ignore[arg-type]
    queues = [Queue(f"q{i}", {"H100": n}, parent="root", preemption=preemption) for i, n in enumerate(own, 1)]
    return [Queue("root", {}), *queues]


def test_the_job_with_the_least_work_to_lose_is_stopped() -> None:
    made = decided(BOTH, waits(), on(a_job("a", gpus=8), "n1", hours=3), on(a_job("b", gpus=8), "n2", hours=1))
    assert stopped(made) == ["b"]


def test_work_counts_from_the_last_checkpoint() -> None:
    a = on(a_job("a", gpus=8), "n1", hours=3, saved_at=NOW - 60)
    assert stopped(decided(BOTH, waits(), a, on(a_job("b", gpus=8), "n2", hours=1))) == ["a"]


def test_nobody_is_stopped_for_a_job_of_equal_priority() -> None:
    assert stopped(decided([a_node("n1")], waits(priority=0), on(a_job("a", gpus=8), "n1"))) == []


def test_nobody_is_stopped_for_a_job_that_fits() -> None:
    made = decided(BOTH, waits(), on(a_job("a", gpus=8), "n1"))
    assert stopped(made) == []
    assert nodes_of(made, "big") == ("n2",)


def test_nobody_is_stopped_where_it_would_not_help() -> None:
    made = decided(BOTH, waits(workers=2), on(a_job("a", gpus=8), "n1"), on(a_job("b", gpus=8, priority=9), "n2"))
    assert stopped(made) == []


def test_no_more_are_stopped_than_it_takes() -> None:
    small = [on(a_job(f"s{i}", gpus=2), "n1", hours=1 + i) for i in range(4)]
    assert stopped(decided([a_node("n1")], waits(gpus=4), *small)) == ["s0", "s1"]


def test_a_whole_rack_is_freed_for_a_gang_that_must_share_one() -> None:
    nodes = racks(count=2, nodes=2)
    cheap = [on(a_job("c1", gpus=8), "r1n1", hours=1), on(a_job("c2", gpus=8), "r2n1", hours=1)]
    dear = [on(a_job("d1", gpus=8), "r1n2", hours=5), on(a_job("d2", gpus=8), "r2n2", hours=4)]
    assert stopped(decided(nodes, waits(workers=2, required="rack"), *cheap, *dear)) == ["c2", "d2"]


def test_who_has_just_started_is_left_alone() -> None:
    fresh = on(a_job("a", gpus=8), "n1", hours=0.05)
    assert stopped(decided([a_node("n1")], waits(), fresh, min_runtime_seconds=300)) == []
    assert stopped(decided([a_node("n1")], waits(), fresh, min_runtime_seconds=120)) == ["a"]


def test_a_queue_may_forbid_it() -> None:
    queues = [Queue("default", None, preemption=Preemption(WithinQueue.NEVER))]
    assert stopped(decided([a_node("n1")], waits(), on(a_job("a", gpus=8), "n1"), queues=queues)) == []


def test_work_of_an_unrelated_queue_is_left_alone() -> None:
    queues = [Queue("default", None), Queue("other", None)]
    assert stopped(decided([a_node("n1")], waits(queue="other"), on(a_job("a", gpus=8), "n1"), queues=queues)) == []


def test_a_queue_takes_back_what_it_lent() -> None:
    lent = on(a_job("a", gpus=8, queue="q2", priority=9), "n1", hours=3)
    own = on(a_job("b", gpus=8, queue="q2", priority=9), "n2", hours=4)
    made = decided(BOTH, waits(queue="q1", priority=0), lent, own, queues=a_tree(8, 8))
    assert stopped(made) == ["a"]
    assert only(made, Stop)[0].reason == "Reclaimed"


def test_no_more_is_taken_back_than_is_borrowed() -> None:
    held = [
        on(a_job(f"j{i}", gpus=4, queue="q2"), node, hours=1 + i) for i, node in enumerate(("n1", "n1", "n2", "n2"))
    ]
    assert len(stopped(decided(BOTH, waits(queue="q1"), *held, queues=a_tree(8, 8)))) == 2
    assert stopped(decided(BOTH, waits(queue="q1"), *held, queues=a_tree(8, 16))) == []


def test_a_queue_that_would_borrow_takes_nothing_back() -> None:
    held = [on(a_job("a", gpus=8, queue="q2"), "n1"), on(a_job("b", gpus=4, queue="q2"), "n2")]
    assert stopped(decided(BOTH, waits(queue="q1"), *held, queues=a_tree(4, 4))) == []


@pytest.mark.parametrize(("rule", "expected"), [(Reclaim.ANY, 1), (Reclaim.LOWER_PRIORITY, 0), (Reclaim.NEVER, 0)])
def test_reclaiming_follows_the_queues_rule(rule: Reclaim, expected: int) -> None:
    held = on(a_job("a", gpus=8, queue="q2", priority=7), "n1")
    made = decided([a_node("n1")], waits(queue="q1", priority=7), held, queues=a_tree(8, 0, reclaim=rule))
    assert len(stopped(made)) == expected


def test_own_work_of_lower_priority_may_go_while_the_queue_borrows() -> None:
    own = on(a_job("a", gpus=8, queue="q1"), "n1")
    other = on(a_job("b", gpus=8, queue="q2"), "n2")
    assert stopped(decided(BOTH, waits(queue="q1"), own, other, queues=a_tree(4, 12))) == ["a"]


def test_what_ends_already_is_waited_for() -> None:
    ends = on(a_job("a", gpus=8), "n1", hours=9, stopping="Suspended")
    assert stopped(decided(BOTH, waits(), ends, on(a_job("b", gpus=8), "n2"))) == ["a"]  # its stop, once more


def test_both_are_told_what_happens_and_why() -> None:
    made = decided([a_node("n1")], waits(), on(a_job("a", gpus=8, priority=2), "n1", hours=3))
    assert verdict_of(made, "big").reason == "WaitingForPreemption"
    assert "waits for team/a to stop, which loses 24.3 board-hours" in verdict_of(made, "big").message
    told = verdict_of(made, "a")
    assert told.reason == "Preempted"
    assert "team/big: priority 5 goes before 2" in told.message
    assert "180 min of work" in told.message
    assert "a priority of 5 would have kept it" in told.message


def test_whoever_is_reclaimed_is_told_what_quota_would_have_kept_it() -> None:
    made = decided([a_node("n1")], waits(queue="q1"), on(a_job("a", gpus=8, queue="q2"), "n1"), queues=a_tree(8, 2))
    assert "of which q2 holds 6 boards beyond its own" in verdict_of(made, "a").message
    assert "a nominal quota larger by that would have kept it" in verdict_of(made, "a").message


def gave_way(job: Workload, to: Workload, *nodes: str, **more: object) -> Workload:
    """The job as it is while it stops for another."""
    return replace(on(job, *nodes, stopping="Preempted"), gave_way_to=Claim(to.ref, 1), **more)


def test_what_is_freed_is_kept_while_its_victims_end() -> None:
    big = waits(workers=2)
    late = a_job("late", gpus=8, created=NOW + 1)
    nodes = [a_node("n1"), a_node("n2")]  # n2 is free, but half of what the gang waits for
    made = decided(nodes, big, late, gave_way(a_job("v", gpus=8), big, "n1"), now=NOW + 10)
    assert nodes_of(made, "late") is None
    assert verdict_of(made, "big").reason == "WaitingForPreemption"


def test_what_nobody_was_stopped_for_is_for_anybody() -> None:
    big, late = waits(), a_job("late", gpus=8, created=NOW + 1)
    made = decided(BOTH, big, late, on(a_job("v", gpus=8, priority=9), "n1"), now=NOW + 1)
    assert nodes_of(made, "big") == ("n2",)
    nodes = [*BOTH, a_node("n3")]
    made = decided(nodes, big, late, gave_way(a_job("v", gpus=8), big, "n1"), now=NOW + 1)
    assert {a.ref.name for a in only(made, Admit)} == {"big", "late"}


def test_a_victim_that_is_served_first_does_not_take_its_room_back() -> None:
    big = waits(queue="q1", priority=0)
    victim = replace(a_job("v", gpus=8, queue="q2", priority=9, created=1.0), gave_way_to=Claim(big.ref, 1))
    made = decided([a_node("n1")], big, victim, queues=a_tree(8, 0), now=NOW + 60)
    assert nodes_of(made, "big") == ("n1",)
    assert nodes_of(made, "v") is None


def test_a_victim_whose_better_is_gone_has_its_room_back() -> None:
    victim = replace(a_job("v", gpus=8), gave_way_to=Claim(waits().ref, 1))
    assert nodes_of(decided([a_node("n1")], victim), "v") == ("n1",)


def test_who_had_its_place_and_lost_it_again_claims_no_room_that_was_freed_for_it_before() -> None:
    first = replace(waits("first", queue="q2", priority=9), attempts_made=1)
    own = waits("own", queue="q1", priority=0)
    long_ago = replace(a_job("v", gpus=8, queue="q2"), gave_way_to=Claim(first.ref, 1))
    lately = replace(first, gave_way_to=Claim(own.ref, 1))
    made = decided([a_node("n1")], own, long_ago, lately, queues=a_tree(8, 0), now=NOW + 60)
    assert nodes_of(made, "own") == ("n1",)


def test_a_promised_place_that_is_free_is_not_held_up_by_one_promised_beside_it() -> None:
    """The other one is on the same node, on boards that end: until then, they seem to be taken twice."""
    soon, better = waits("soon", gpus=4, priority=1), waits("better", gpus=4, priority=2)
    ended = replace(a_job("ended", gpus=4), gave_way_to=Claim(soon.ref, 1))
    made = decided([a_node("n1")], soon, better, ended, on(a_job("ends", gpus=4), "n1", hours=1))
    assert stopped(made) == ["ends"]
    assert [a.ref.name for a in only(made, Admit)] == ["soon"]


def lending(*waiting: Workload, nodes: int = 2) -> Plan:
    """The plan where "q1" owns a node of 8 boards and "q2" none, while "q2" has held half a node for a minute."""
    held = on(a_job("held", gpus=4, queue="q2"), "n1", hours=1 / 60)
    fleet = [a_node(f"n{i}") for i in range(1, nodes + 1)]
    return decided(fleet, held, *waiting, queues=a_tree(8, 0))


def test_nobody_borrows_what_its_owner_waits_for() -> None:
    own = waits("own", queue="q1", priority=0)
    urgent = waits("urgent", queue="q2", priority=9, gpus=4)
    made = lending(own, urgent, nodes=1)
    assert nodes_of(made, "urgent") is None
    assert "may take 0 boards while team/own waits for what queue q1 owns" in verdict_of(made, "urgent").message


def test_what_its_owner_could_not_use_is_lent() -> None:
    urgent = waits("urgent", queue="q2", priority=9, gpus=4)
    other = on(a_job("other", gpus=1, queue="q1"), "n1", hours=1)
    split = waits("split", queue="q1", priority=0, gpus=7)  # as many as it owns beside the other, on no node together
    made = decided([a_node("n1", gpus=4), a_node("n2", gpus=4)], other, split, urgent, queues=a_tree(8, 0), now=NOW + 1)
    assert nodes_of(made, "urgent") == ("n2",)


def test_quota_that_is_set_aside_is_not_told_as_used() -> None:
    big = waits(queue="q1")
    victim = gave_way(a_job("v", gpus=8, queue="q2"), big, "n1")
    made = decided([a_node("n1")], big, victim, queues=a_tree(8, 0))
    assert made.queues["q1"].used == {}


def a_web(*nodes: str, least: int = 1, **more: object) -> Workload:
    """A service with a replica of 4 boards on each of these nodes, for two hours."""
    device = Device("H100-80GB", "nvidia.com/gpu", 4)
    pods = tuple(
        a_pod(PodPhase.READY, node=n, name=f"web-{i}", attempt=0, created=NOW - 7200 - i, device=device)
        for i, n in enumerate(nodes)
    )
    made = a_service("web", gpus=4, replicas=len(nodes), served_device=device, served_generation=1, **more)
    return replace(made, pods=pods, least_replicas=least)


def test_replicas_above_the_minimum_go_first() -> None:
    made = decided(BOTH, waits(gpus=4), a_web("n1", "n2"), on(a_job("a", gpus=4), "n1"), on(a_job("b", gpus=4), "n2"))
    assert [len(shed.pods) for shed in only(made, Shed)] == [1]
    assert stopped(made) == []


def test_the_last_replicas_stay_while_others_can_make_room() -> None:
    made = decided([a_node("n1")], waits(gpus=4), a_web("n1"), on(a_job("a", gpus=4), "n1", hours=99))
    assert only(made, Shed) == []
    assert stopped(made) == ["a"]


def test_a_whole_service_goes_where_nothing_else_is_enough() -> None:
    made = decided([a_node("n1")], waits(), a_web("n1"), on(a_job("a", gpus=4), "n1"))
    assert [(shed.whole, len(shed.pods)) for shed in only(made, Shed)] == [(True, 1)]
    assert stopped(made) == ["a"]


def test_replicas_that_gave_way_are_told_again_until_they_end_and_forgotten_then() -> None:
    big = waits(gpus=8)
    web = replace(a_web("n1", "n1"), gave_way_to=Claim(big.ref, 1), shed=("uid-web-1",))
    again = only(decided([a_node("n1")], big, web), Shed)
    assert [(shed.pods, shed.whole) for shed in again] == [((("web-1", "uid-web-1"),), False)]
    over = only(decided([a_node("n1")], web), Shed)
    assert [(shed.pods, shed.gives_way_to) for shed in over] == [((), None)]


def test_it_looks_at_once_and_then_each_half_minute() -> None:
    seen = occupied([a_node("n1")], waits(), on(a_job("a", gpus=8), "n1"))
    looks = {t: bool(only(plan(seen, Policy(), NOW + t), Stop)) for t in (0, 4, 6, 19, 20, 34, 36, 50)}
    assert NOW % 30 == 10
    assert looks == {0: True, 4: True, 6: False, 19: False, 20: True, 34: True, 36: False, 50: True}


def test_it_asks_for_another_plan_when_it_may_look_again() -> None:
    seen = occupied([a_node("n1")], waits(), on(a_job("a", gpus=8), "n1"))
    assert plan(seen, Policy(), NOW + 7).wake_at == NOW + 20
    fresh = occupied([a_node("n1")], waits(), on(a_job("a", gpus=8), "n1", hours=0.05))
    alone = Policy(backfill=Backfilling(Passing.ANYBODY))  # else the start that is kept for it asks for one
    assert plan(fresh, alone, NOW).wake_at == NOW + 140  # the first half minute after its guaranteed runtime


def test_a_gang_of_instances_frees_instances() -> None:
    node = a_node("n1", gpus=0, mig={"3g.40gb": 2})
    device = Device("H100-80GB", "nvidia.com/mig-3g.40gb", 1)
    held = [on(a_job(f"m{i}", profile="3g.40gb"), "n1", hours=1 + i, device=device) for i in range(2)]
    assert stopped(decided([node], waits(gpus=None, profile="3g.40gb"), *held)) == ["m0"]


def test_owners_that_wait_do_not_ask_of_each_other_for_ever() -> None:
    quota, h100 = Quota({queue.name: queue for queue in a_tree(4, 4, 0)}), model("H100-80GB")
    owed = Owed(quota)
    for mine, other in (("q1", "q2"), ("q2", "q1")):
        able = partial(lambda queue: owed.to_borrow(queue, h100, Fraction(9)) is None, other)
        owed.wait(waits(mine, queue=mine), h100, Fraction(4), able)
    bound = owed.to_borrow("q3", h100, Fraction(1))
    assert bound is not None
    assert (bound[0], bound[1].queue) == (0, "q1")
