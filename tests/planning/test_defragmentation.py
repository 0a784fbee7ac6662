"""Quiet hours: gangs move so that another of the largest in use would fit, within a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.model.nodes import Node
from berth.model.workloads import Workload
from berth.planning.actions import Plan, Stop
from berth.planning.plan import plan
from berth.planning.snapshot import Consolidating, Policy, QuietHours
from tests.planning.builders import a_job, a_node, only, verdict_of
from tests.planning.occupied import HOUR, occupied, on
from tests.planning.world import World

DAY = 24 * HOUR
BEGAN = 11 * DAY + 22 * HOUR  # of the quiet hours; a little before the builders' NOW
QUIET = QuietHours(22 * 3600, 6 * 3600, budget_usd=100.0)
NIGHT = Policy(consolidation=Consolidating(quiet=QUIET))
CHEAPEST = 2 * 8.0 * (1 + 120 / HOUR)  # two boards' work of an hour, and a restart


def since(job: Workload, *nodes: str, hours: float) -> Workload:
    """The job, running there since so many hours before the quiet hours."""
    there = on(job, *nodes)
    assert there.attempt is not None
    started = BEGAN - hours * HOUR
    return replace(there, started_at=started, attempt=replace(there.attempt, admitted_at=started))


def running() -> list[Workload]:
    """A job of eight boards, and two of two boards, each alone on a node of eight."""
    return [
        since(a_job("large", gpus=8), "n3", hours=5),
        since(a_job("a", gpus=2), "n1", hours=3),
        since(a_job("b", gpus=2), "n2", hours=1),
    ]


def nodes(count: int = 3) -> list[Node]:
    return [a_node(f"n{i + 1}") for i in range(count)]


def planned(*workloads: Workload, at: float = 0.0, budget: float = 100.0, count: int = 3, **quiet: int) -> Plan:
    hours = replace(QUIET, budget_usd=budget, **quiet)
    policy = Policy(consolidation=Consolidating(quiet=hours))
    return plan(occupied(nodes(count), *workloads), policy, BEGAN + at)


def stopped(made: Plan) -> list[str]:
    return [stop.ref.name for stop in only(made, Stop)]


def test_the_cheapest_move_opens_a_node_for_the_largest_job_in_use() -> None:
    made = planned(*running())
    (stop,) = only(made, Stop)
    assert (stop.ref.name, stop.reason) == ("b", "Consolidated")
    assert stop.moved is not None
    assert stop.moved == (BEGAN, pytest.approx(CHEAPEST))
    assert verdict_of(made, "b").message == "moved elsewhere in quiet hours so that another 1 x 8 boards would fit"


def test_the_same_is_planned_again_from_the_same() -> None:
    assert planned(*running()) == planned(*running())


def test_nothing_moves_by_default_nor_outside_quiet_hours() -> None:
    assert stopped(plan(occupied(nodes(), *running()), Policy(), BEGAN)) == []
    early = planned(*running(), at=-60.0)
    assert (stopped(early), early.wake_at) == ([], BEGAN)
    assert stopped(planned(*running(), at=8 * HOUR)) == []
    assert stopped(planned(*running(), at=8 * HOUR - 900, budget=1000)) == ["b"]


def test_moves_are_looked_for_each_quarter_of_an_hour() -> None:
    between = planned(*running(), at=100.0)
    assert (stopped(between), between.wake_at) == ([], BEGAN + 900)
    assert stopped(planned(*running(), at=901.0)) == ["b"]


def test_no_more_is_spent_than_the_budget() -> None:
    assert stopped(planned(*running(), budget=CHEAPEST - 0.01)) == []
    assert stopped(planned(*running(), budget=CHEAPEST + 0.01)) == ["b"]


def test_what_was_spent_in_these_hours_is_known_from_the_jobs_alone() -> None:
    large, a, b = running()
    spent = replace(large, moved=(BEGAN, 90.0))
    assert stopped(planned(spent, a, b, at=900.0)) == []
    assert stopped(planned(replace(large, moved=(BEGAN - 60, 90.0)), a, b, at=900.0)) == ["b"]
    over = replace(spent, finished="Succeeded", finished_at=BEGAN + 300, attempt=None, pods=())
    assert stopped(planned(over, since(a_job("other", gpus=8), "n3", hours=5), a, b, at=900.0)) == []


def test_nothing_moves_where_another_fits_already() -> None:
    assert stopped(planned(*running(), count=4)) == []


def test_nothing_moves_for_a_job_that_nobody_runs() -> None:
    assert stopped(planned(*running()[1:])) == []


def test_nothing_moves_that_would_have_no_place() -> None:
    large, a, b = running()
    assert stopped(planned(large, a, b, since(a_job("c", gpus=6), "n1", hours=5))) == []


def test_nothing_moves_while_a_job_waits_or_stops() -> None:
    large, a, b = running()
    assert stopped(planned(large, a, b, a_job("huge", gpus=8, workers=9))) == []
    assert large.attempt is not None
    stopping = replace(large, attempt=replace(large.attempt, stopping="Requeued"))
    assert "b" not in stopped(planned(stopping, a, b))
    assert stopped(planned(replace(large, suspend=True), a, b)) == ["large"]


def test_a_job_that_started_in_these_hours_is_left_alone() -> None:
    large, a, b = running()
    assert stopped(planned(large, a, replace(b, started_at=BEGAN + 60), at=4 * HOUR, budget=1000)) == ["a"]


def test_jobs_of_higher_priority_are_left_alone() -> None:
    large, a, b = running()
    assert stopped(planned(large, a, replace(b, priority=1))) == ["a"]


def test_hours_of_one_day_and_hours_over_midnight_hold_their_moments() -> None:
    noon = QuietHours(12 * 3600, 13 * 3600, 1.0)
    assert noon.window(12.5 * HOUR) == (12 * HOUR, 13 * HOUR)
    assert noon.window(13 * HOUR) == (DAY + 12 * HOUR, DAY + 13 * HOUR)
    assert QUIET.window(DAY + 3 * HOUR) == QUIET.window(23 * HOUR) == (22 * HOUR, DAY + 6 * HOUR)


def a_world(budget: float = 100.0) -> World:
    policy = Policy(consolidation=Consolidating(quiet=replace(QUIET, budget_usd=budget)))
    return World({n.name: n for n in nodes()}, {w.ref.uid: w for w in running()}, policy=policy, now=BEGAN)


def places(world: World) -> dict[str, tuple[str, ...]]:
    return {w.ref.name: w.attempt.placement.nodes for w in world.workloads.values() if w.attempt}


def test_the_job_that_moves_starts_elsewhere_and_the_node_stays_open() -> None:
    world = a_world()
    world.settle()
    assert places(world) == {"large": ("n3",), "a": ("n1",), "b": ("n1",)}


def test_a_night_after_a_restart_spends_no_more_and_moves_nobody_again() -> None:
    world = a_world(budget=10_000.0)
    world.settle()
    world.now = BEGAN
    while world.now < BEGAN + 8 * HOUR:  # the planner remembers nothing: each plan is one after a restart
        world.now += 900.0
        world.settle()
    assert {w.ref.name: w.attempts_made for w in world.workloads.values()} == {"large": 1, "a": 1, "b": 2}


def test_a_crash_between_two_stops_spends_nothing_twice() -> None:
    large, a, b = running()
    a = since(a_job("a", gpus=2), "n2", hours=1)
    fixed = since(a_job("fixed", gpus=4, priority=1), "n1", hours=1)
    world = a_world(budget=2 * CHEAPEST + 1)
    world.workloads = {w.ref.uid: w for w in (large, a, b, fixed)}
    first, second = only(world.plan(), Stop)
    world.apply([first])
    world.settle()
    assert places(world) == {"large": ("n3",), "a": ("n1",), "b": ("n1",), "fixed": ("n1",)}
    spent = [w.moved[1] for w in world.workloads.values() if w.moved]
    assert first.moved is not None
    assert second.moved is not None
    assert len(spent) == 2
    assert sum(spent) == pytest.approx(first.moved[1] + second.moved[1], abs=1)
    assert sum(spent) <= 2 * CHEAPEST + 1
