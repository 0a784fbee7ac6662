"""Elastic gangs: as large as there is room for, shrunk instead of evicted, and grown where that pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.nodes import Node
from berth.model.workloads import Claim, Demand, Device, Queue, Ref, Resize, Workload
from berth.planning.actions import Admit, Plan, Stop
from berth.planning.estimates import Estimates
from berth.planning.explain import explain
from berth.planning.plan import plan
from berth.planning.snapshot import Backfilling, Consolidating, Growing, Passing, Policy
from tests.planning.builders import NOW, a_job, a_node, a_service, a_snapshot, nodes_of, only, planned, verdict_of
from tests.planning.occupied import occupied, on
from tests.planning.world import World

HOUR = 3600.0
EIGHT = [a_node("n1", gpus=8)]


def elastic(name: str = "job", *, workers: int = 8, bounds: tuple[int, ...] = (2, 12), **more: Any) -> Workload:
    """A job of one board a worker that takes 2 to 12 of them, best 8."""
    return a_job(name, workers=workers, elastic=bounds, **more)


def ref(name: str) -> Ref:
    """A job's identity."""
    return a_job(name).ref


def size(made: Plan, name: str = "job") -> int:
    """With how many workers a plan admits a job; 0 where it does not."""
    return len(nodes_of(made, name) or ())


def decided(nodes: list[Node], *workloads: Workload, queues: list[Queue] | None = None, **rules: float) -> Plan:
    """The plan where these run, and others wait."""
    policy = Policy(growing=Growing(**rules))
    return plan(occupied(nodes, *workloads, queues=queues or ()), policy, NOW)


# As large as there is room for


@pytest.mark.parametrize(("free", "expected"), [(20, 12), (12, 12), (10, 10), (8, 8), (6, 6), (3, 3), (2, 2), (1, 0)])
def test_it_gets_what_it_would_like_or_what_there_is_or_what_nobody_else_wants(free: int, expected: int) -> None:
    assert size(planned([a_node("n1", gpus=free)], elastic())) == expected


def test_it_grows_and_shrinks_by_whole_groups() -> None:
    nodes = [a_node("n1", gpus=7)]
    assert size(planned(nodes, elastic(bounds=(2, 12, 2)))) == 6
    grouped = elastic(bounds=(4, 12, 4), groups={4: "node"})
    assert nodes_of(planned([a_node("n1", gpus=7), a_node("n2", gpus=5)], grouped)) == ("n1",) * 4 + ("n2",) * 4


def test_quota_bounds_it_like_room() -> None:
    queues = [Queue("q", {"H100": 5})]
    made = planned(EIGHT, elastic(queue="q"), queues=queues)
    assert size(made) == 5
    assert made.queues["q"].used == {"H100": "5"}


def test_it_is_told_what_more_workers_would_need() -> None:
    free = verdict_of(planned([a_node("n1", gpus=6)], elastic(bounds=(2, 8))))
    assert free.message.endswith("; 6 of at most 8 workers: 2 more would need room for 2 boards")
    quota = verdict_of(planned(EIGHT, elastic(queue="q", bounds=(2, 8)), queues=[Queue("q", {"H100": 6})]))
    assert quota.message.endswith("; 6 of at most 8 workers: 2 more would need quota for 2 boards in queue q")
    assert verdict_of(planned(EIGHT, elastic(bounds=(2, 8)))).message.endswith("; 8 workers, the most it takes")


def test_it_waits_for_its_fewest_workers() -> None:
    made = planned([a_node("n1", gpus=3)], elastic(bounds=(4, 8)))
    told = verdict_of(made)
    assert (told.reason, told.fits, told.wanted) == ("WaitingForCapacity", 3, 4)
    assert "lower elastic.minWorkers to 3" in told.message


def test_what_another_waits_for_is_not_taken_beyond_what_it_would_like() -> None:
    nodes = [a_node("n1", gpus=10), a_node("n2", gpus=1, ready=False)]
    for other in (a_job("other", gpus=10, created=9.0), a_service("other", gpus=10, created=9.0)):
        made = planned(nodes, elastic(), other)
        assert (size(made), size(made, "other")) == (8, 0)


def test_what_waits_for_other_boards_or_could_never_run_is_no_reason_to_stay_small() -> None:
    a100 = a_node("n2", board="A100-80GB", gpus=1)
    other = a_job("other", gpus=1, workers=2, models=("A100",))
    too_large = a_job("large", gpus=32)
    too_many = a_job("many", workers=21, created=9.0)
    assert size(planned([a_node("n1", gpus=20), a100], other, too_large, too_many, elastic())) == 12


def test_its_run_takes_longer_with_fewer_workers() -> None:
    job = elastic(estimated_seconds=HOUR)
    estimates = Estimates([job], NOW)
    assert [estimates.run_seconds(job, n) for n in (8, 4, 12)] == [HOUR, 2 * HOUR, HOUR * 8 / 12]
    bounded = replace(job, max_runtime_seconds=1.5 * HOUR)
    assert estimates.run_seconds(bounded, 4) == 1.5 * HOUR


def test_the_room_kept_for_another_is_left_alone_by_the_size_that_would_stay_too_long() -> None:
    """With 4 workers it ends in time; with those that a longer run gets, it would not."""
    ends_soon = on(a_job("ends", gpus=4), "n1", hours=0.5, estimated_seconds=3 * HOUR)
    kept = a_job("kept", gpus=8, created=NOW - 60.0)
    late = elastic(bounds=(2, 4), workers=4, created=NOW, estimated_seconds=0.5 * HOUR)
    assert size(decided(EIGHT, ends_soon, kept, late)) == 4
    assert size(decided(EIGHT, ends_soon, kept, replace(late, estimated_seconds=2 * HOUR))) == 0


# Its live attempt


def test_an_attempt_of_another_size_goes_on_as_long_as_it_is_allowed() -> None:
    job = on(elastic(), *["n1"] * 3)
    assert only(decided(EIGHT, job, elastic("more", bounds=(6, 8))), Stop) == []
    assert decided(EIGHT, job).queues["default"].used == {"H100-80GB": "3"}


def test_an_attempt_of_a_size_that_is_not_allowed_is_planned_anew() -> None:
    (stop,) = only(decided(EIGHT, on(elastic(bounds=(4, 8)), *["n1"] * 3)), Stop)
    assert stop.reason == "Requeued"


# Shrunk instead of evicted


def urgent(workers: int, **more: Any) -> Workload:
    """A job that has just come, more important than others."""
    return a_job("urgent", workers=workers, priority=5, created=NOW, **more)


def test_it_is_told_with_how_many_workers_it_goes_on() -> None:
    (stop,) = only(decided(EIGHT, on(elastic(), *["n1"] * 8), urgent(2)), Stop)
    assert (stop.reason, stop.resize) == ("Preempted", Resize(2, 8, 6))
    assert stop.message.startswith("shrunk from 8 to 6 workers for team/urgent: priority 5 goes before 0")


def test_it_is_evicted_where_less_than_its_fewest_would_be_left() -> None:
    (stop,) = only(decided(EIGHT, on(elastic(), *["n1"] * 8), urgent(7)), Stop)
    assert stop.resize is None
    assert stop.message.startswith("stopped for team/urgent")


def test_each_of_several_keeps_what_is_left() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    both = [on(elastic(name), *[node] * 8) for name, node in (("a", "n1"), ("b", "n2"))]
    made = decided(nodes, *both, urgent(12))
    left = sorted(stop.resize.after if stop.resize else 0 for stop in only(made, Stop))
    assert left == [0, 4]  # 4 boards are left, and one of the two keeps them


def released(job: Workload, resized: Resize, **more: Any) -> Workload:
    """A job that has stopped to go on with another number of workers."""
    return replace(job, attempts_made=1, resized=resized, **more)


def test_what_is_left_is_kept_from_all_but_the_more_important() -> None:
    shrunk = released(elastic(created=50.0, bounds=(2, 8)), Resize(2, 8, 6))
    equal, better = a_job("equal", gpus=8), a_job("better", gpus=8, priority=1)
    made = planned(EIGHT, shrunk, equal)
    assert (size(made), size(made, "equal")) == (8, 0)
    assert (size(planned(EIGHT, shrunk, better)), size(planned(EIGHT, replace(shrunk, resized=None), equal))) == (0, 0)


def test_it_is_had_by_whom_it_is_kept_for_though_others_alike_sought_in_vain() -> None:
    shrunk = released(elastic(bounds=(6, 8), created=50.0), Resize(2, 8, 6))
    alike = [elastic(f"alike-{i}", bounds=(6, 8)) for i in range(3)]
    made = planned(EIGHT, shrunk, *alike, policy=Policy(backfill=Backfilling(Passing.ANYBODY)))
    assert [size(made), *(size(made, f"alike-{i}") for i in range(3))] == [8, 0, 0, 0]


def test_it_is_kept_while_the_attempt_stops() -> None:
    stopping = on(elastic(bounds=(2, 8)), *["n1"] * 8, stopping="Preempted", resized=Resize(2, 8, 6))
    gone = replace(stopping, pods=())
    assert size(planned(EIGHT, gone, a_job("equal", workers=3)), "equal") == 0
    assert size(planned(EIGHT, gone, a_job("equal", workers=2)), "equal") == 2
    assert size(planned(EIGHT, replace(gone, suspend=True), a_job("equal", workers=3)), "equal") == 3


def test_whom_it_shrank_for_has_its_place_first() -> None:
    big = urgent(2)
    shrunk = released(elastic(bounds=(2, 8)), Resize(2, 8, 6), gave_way_to=Claim(big.ref, 1))
    made = planned(EIGHT, big, shrunk)
    assert (size(made, "urgent"), size(made)) == (2, 6)


def test_who_others_gave_way_to_meanwhile_has_one_place_set_aside_and_not_two() -> None:
    shrunk = released(elastic(bounds=(2, 8), priority=1), Resize(2, 8, 4))
    gone = replace(a_job("gone", workers=4, suspend=True), gave_way_to=Claim(shrunk.ref, 2))
    assert size(planned(EIGHT, shrunk, gone, queues=[Queue("default", {"H100": 6})])) == 6


def test_an_old_record_keeps_nothing() -> None:
    old = released(elastic(bounds=(2, 8), created=50.0), Resize(1, 8, 6))
    made = planned(EIGHT, old, a_job("equal", workers=4))
    assert (size(made, "equal"), size(made)) == (4, 4)


def a_world(*nodes: Node, **more: Any) -> World:
    """A cluster whose gangs may be resized at once."""
    return World({n.name: n for n in nodes}, {}, policy=Policy(growing=Growing(0.0, 60.0)), **more)


def add(world: World, *workloads: Workload) -> None:
    """These are applied, and the cluster comes to rest."""
    world.workloads |= {w.ref.uid: replace(w, created=world.now) for w in workloads}
    world.settle()


def sizes(world: World) -> dict[str, int]:
    """How many workers of each job run."""
    return {w.ref.name: len(w.pods) for w in world.workloads.values() if w.attempt}


def test_it_shrinks_for_what_is_more_important_and_grows_again_when_that_has_ended() -> None:
    world = a_world(a_node("n1", gpus=8))
    add(world, elastic(bounds=(2, 8), estimated_seconds=24 * HOUR))
    assert sizes(world) == {"job": 8}
    world.now += 400.0
    add(world, urgent(2))
    assert sizes(world) == {"job": 6, "urgent": 2}
    del world.workloads["uid-urgent"]
    world.settle()
    assert sizes(world) == {"job": 8}
    assert world.workloads["uid-job"].attempts_made == 3


def test_an_owner_takes_back_only_what_it_needs() -> None:
    queues = {
        q.name: q
        for q in (
            Queue("root", {}),
            Queue("own", {"H100": 8}, parent="root"),
            Queue("lent", {"H100": 0}, parent="root"),
        )
    }
    world = a_world(a_node("n1", gpus=8), queues=queues)
    add(world, elastic(bounds=(2, 8), queue="lent"))
    world.now += 400.0
    add(world, a_job("owner", workers=3, queue="own"))
    assert sizes(world) == {"job": 5, "owner": 3}


# Growth


def grows(*others: Workload, nodes: list[Node] | None = None, hours: float = 1.0, **more: Any) -> list[Stop]:
    """Whether a gang of 4 that has run for an hour and is said to run for a day grows; 8 boards are there."""
    about = {"estimated_seconds": 24 * HOUR, "saved_at": NOW - 300.0, **more}
    job = on(elastic(bounds=(2, 8)), *["n1"] * 4, hours=hours, **about)
    return [stop for stop in only(decided(nodes or EIGHT, job, *others), Stop) if stop.ref == job.ref]


def test_it_grows_where_that_outweighs_the_restart() -> None:
    (stop,) = grows()
    assert (stop.reason, stop.resize) == ("Resized", Resize(2, 4, 8))
    expected = "grows from 4 to 8 workers: 4 boards that nobody waits for bring 188.0 board-hours until it ends; "
    assert stop.message == expected + "the restart and 5 min of work since its last checkpoint or start cost 0.6"


def test_a_start_that_is_kept_in_another_tree_does_not_hold_it_to_its_size() -> None:
    tree = [Queue("root"), Queue("owns", {"H100": 8}, parent="root"), Queue("borrows", {"H100": 0}, parent="root")]
    a100 = Device("A100-80GB", "nvidia.com/gpu", 8)
    busy = on(a_job("busy", gpus=8, models=("A100",), queue="other"), "n2", device=a100)
    waits = a_job("waits", gpus=8, models=("A100",), queue="other")
    nodes = [*EIGHT, a_node("n2", board="A100-80GB"), a_node("n3", board="A100-80GB")]
    gang = on(elastic(bounds=(2, 8), queue="borrows"), *["n1"] * 4, saved_at=NOW, estimated_seconds=24 * HOUR)
    made = decided(nodes, gang, busy, waits, queues=[*tree, Queue("other", {"A100": 8})])
    assert verdict_of(made, "waits").reason == "WaitingForQuota"
    assert [stop.resize and stop.resize.after for stop in only(made, Stop)] == [8]


def test_it_does_not_grow_just_before_its_end() -> None:
    assert grows(expected_end=NOW + 500.0) == []  # 8 x 120 s of restart and 4 x 300 s of lost work against 4 x 500 s
    assert len(grows(expected_end=NOW + 600.0)) == 1


def test_it_does_not_grow_for_less_than_the_work_it_would_lose() -> None:
    about = {"hours": 20.0, "estimated_seconds": 13 * HOUR}  # with 8 workers: 26 hours with 4
    assert grows(saved_at=0.0, **about) == []
    assert len(grows(saved_at=NOW, **about)) == 1


def test_of_an_unknown_length_it_is_expected_to_last_as_long_again() -> None:
    assert grows(estimated_seconds=None, saved_at=0.0) == []
    assert len(grows(estimated_seconds=None)) == 1


def test_it_is_left_alone_for_ten_minutes() -> None:
    assert grows(hours=0.16) == []
    assert len(grows(hours=0.17)) == 1


def test_growth_is_looked_at_again_when_it_may_pay() -> None:
    young = on(elastic(bounds=(2, 8)), *["n1"] * 4, hours=0.1)
    alone = Policy(backfill=Backfilling(Passing.ANYBODY))
    assert plan(occupied(EIGHT, young), alone, NOW).wake_at == pytest.approx(NOW + 240.0)
    dear = on(elastic(bounds=(2, 8)), *["n1"] * 4, hours=1.0)
    assert plan(occupied(EIGHT, dear), alone, NOW).wake_at == NOW + 60.0


def test_it_does_not_grow_while_somebody_waits_for_such_boards() -> None:
    assert grows(a_job("other", gpus=8)) == []
    assert grows(replace(on(a_job("back", workers=2), "n1", "n1", stopping="Preempted"), pods=())) == []
    assert len(grows(a_job("other", gpus=8, suspend=True))) == 1
    assert len(grows(a_job("other", gpus=8, models=("A100",)))) == 1


def test_it_does_not_grow_beyond_its_quota() -> None:
    queues = [Queue("q", {"H100": 6})]
    job = on(elastic(bounds=(2, 8), queue="q", estimated_seconds=24 * HOUR), *["n1"] * 4, saved_at=NOW)
    (stop,) = only(decided(EIGHT, job, queues=queues), Stop)
    assert stop.resize == Resize(2, 4, 6)


def test_one_grows_at_a_time_in_the_order_of_service() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    about = {"estimated_seconds": 24 * HOUR, "saved_at": NOW}
    first = on(elastic("first", bounds=(2, 8), priority=1, **about), *["n1"] * 4)
    second = on(elastic("second", bounds=(2, 8), **about), *["n2"] * 4)
    assert [stop.ref.name for stop in only(decided(nodes, second, first), Stop)] == ["first"]
    starts = on(elastic("first", bounds=(2, 8)), *["n1"] * 8, resized=Resize(1, 4, 8), hours=0.01)
    assert only(decided(nodes, second, replace(starts, started_at=0.0)), Stop) == []


def test_it_grows_into_what_is_free_and_is_never_lost() -> None:
    world = a_world(a_node("n1", gpus=8))
    add(world, a_job("other", workers=4))
    add(world, elastic(bounds=(2, 8), estimated_seconds=24 * HOUR))
    del world.workloads["uid-other"]
    (stop,) = only(world.plan(), Stop)
    world.apply([stop])
    add(world, a_job("thief", workers=4))
    assert sizes(world) == {"job": 4, "thief": 4}


def large(hours: float = 1.0, **more: Any) -> Workload:
    """A gang that has 12 workers, and would like 8."""
    return on(elastic(**more), *["n1"] * 12, hours=hours)


TWELVE = [a_node("n1", gpus=12)]


def test_what_it_has_beyond_what_it_would_like_goes_to_an_equal_that_waits() -> None:
    made = decided(TWELVE, large(), a_job("other", workers=3))
    (stop,) = only(made, Stop)
    assert (stop.reason, stop.resize, stop.gives_way_to) == ("Resized", Resize(2, 12, 8), Claim(ref("other"), 1))
    assert stop.message == "shrinks from 12 to 8 workers, as many as it would like, for team/other"
    assert verdict_of(made, "other").reason == "WaitingForPreemption"


@pytest.mark.parametrize(
    "other", [a_job("other", workers=5), a_job("other", priority=-1), a_job("other", models=("A100",))]
)
def test_it_keeps_what_would_not_help_or_is_for_the_less_important(other: Workload) -> None:
    assert only(decided(TWELVE, large(), other), Stop) == []


def test_it_gives_nothing_back_within_ten_minutes() -> None:
    assert only(decided(TWELVE, large(hours=0.16), a_job("other")), Stop) == []


def test_no_more_gangs_give_back_than_it_takes() -> None:
    nodes = [a_node("n1", gpus=12), a_node("n2", gpus=12)]
    dear = replace(large(), saved_at=NOW - 900.0)
    cheap = replace(on(elastic("cheap"), *["n2"] * 12), saved_at=NOW)
    assert [stop.ref.name for stop in only(decided(nodes, dear, cheap, a_job("other")), Stop)] == ["cheap"]
    both = only(decided(nodes, dear, cheap, a_job("other", workers=5)), Stop)
    assert {stop.ref.name for stop in both} == {"cheap", "job"}


def test_it_gives_back_once_waiting_has_cost_as_much_as_that_loses() -> None:
    """8 x 120 s of restart, and 12 x 60 s of work; the other has waited with its 3 boards."""
    job = replace(large(), saved_at=NOW - 60.0)
    assert only(decided(TWELVE, job, a_job("other", workers=3, created=NOW - 559.0)), Stop) == []
    assert len(only(decided(TWELVE, job, a_job("other", workers=3, created=NOW - 560.0)), Stop)) == 1
    assert only(decided(TWELVE, large(), a_job("other", workers=3, created=NOW - 3600.0)), Stop) == []


def test_it_goes_on_with_as_many_as_it_would_like() -> None:
    world = a_world(a_node("n1", gpus=12))
    add(world, elastic(saved_at=world.now + HOUR))  # it saves all the time
    assert sizes(world) == {"job": 12}
    add(world, a_job("other", workers=3))
    world.now += 160.0
    world.settle()
    assert sizes(world) == {"job": 9, "other": 3}
    add(world, a_job("another"))
    world.now += 480.0
    world.settle()
    assert sizes(world) == {"job": 8, "other": 3, "another": 1}
    add(world, a_job("late"))
    world.now += HOUR
    world.settle()
    assert sizes(world) == {"job": 8, "other": 3, "another": 1}


def test_nobody_grows_in_a_trial() -> None:
    job = on(elastic(bounds=(2, 8), estimated_seconds=24 * HOUR), *["n1"] * 4, saved_at=NOW)
    other = a_job("other", workers=2)
    told = explain(occupied(EIGHT, job, other), Policy(), NOW, other)
    assert any("places it" in note for note in told.notes)


def test_explain_says_why_it_has_no_more_workers() -> None:
    def why(*others: Workload, nodes: list[Node] = EIGHT, **more: Any) -> str:
        job = on(elastic(bounds=(2, 8)), *["n1"] * 4, **{"estimated_seconds": 24 * HOUR, "saved_at": NOW, **more})
        return explain(occupied(nodes, job, *others), Policy(), NOW, job).notes[0]

    assert why(nodes=[a_node("n1", gpus=4)]) == ("4 of at most 8 workers: 1 more would need room for 1 board")
    assert why(a_job("other", gpus=8)) == "4 of at most 8 workers: team/other waits for H100-80GB"
    assert why(hours=0.1).endswith("it is left alone for 600 s after its start")
    assert "8 would not pay: 4 boards that nobody waits for bring" in why(estimated_seconds=None, saved_at=0.0)


def test_a_gang_that_is_moved_keeps_its_size() -> None:
    """Consolidation gathers room by moving the elastic gang as it is, not by shrinking it."""
    nodes = [a_node("n1"), a_node("n2")]
    small = on(elastic(bounds=(2, 4), workers=4), *["n1"] * 4)
    other = on(a_job("other", workers=4), *["n2"] * 4)
    waits = a_job("waits", gpus=8, created=NOW - HOUR)
    policy = Policy(consolidation=Consolidating(enabled=True, restart_seconds=1.0), preemption=None)
    now = NOW + 30.0 * 1.25**22 - HOUR
    made = plan(a_snapshot(nodes, *(small, other, waits), used=occupied(nodes, small, other).used), policy, now)
    assert {stop.ref.name for stop in only(made, Stop)} <= {"job", "other"}
    assert all(stop.resize is None for stop in only(made, Stop))


def test_admitting_one_gang_leaves_no_trace_of_the_size_it_had_first() -> None:
    made = planned([a_node("n1", gpus=12)], elastic())
    assert len(only(made, Admit)) == 1
    assert made.queues["default"].used == {"H100-80GB": "12"}
    assert Demand(1) == elastic().request.demand  # type: ignore[union-attr]
