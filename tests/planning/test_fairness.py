"""Whose turn it is: shares by weight, what was used fades, and what is admitted counts at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.workloads import Device, Past, Queue
from berth.planning.actions import Plan
from berth.planning.fairness import counted
from berth.planning.line import Line
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Policy
from berth.planning.whatif import order
from tests.planning.builders import NOW, a_job, a_node, a_snapshot, nodes_of, planned, running, verdict_of

HOUR, WEEK = 3600.0, 168.0
BOARD = "H100-80GB"


def used(hours: float) -> Past:
    return Past(NOW, {BOARD: hours}, {})


def admitted(plan: Plan, *names: str) -> list[str]:
    return [name for name in names if nodes_of(plan, name) is not None]


def test_half_of_what_was_used_is_forgotten_after_a_half_life() -> None:
    assert counted(Past(NOW, {BOARD: 80.0}, {}), NOW + WEEK * HOUR, WEEK)[BOARD] == pytest.approx(40)


def test_what_is_held_counts_as_time_goes_by() -> None:
    assert counted(Past(NOW, {}, {BOARD: 8.0}), NOW + HOUR, WEEK)[BOARD] == pytest.approx(8, rel=0.01)
    for_ever = counted(Past(NOW, {}, {BOARD: 8.0}), NOW + 10**9, WEEK)[BOARD]
    assert for_ever == pytest.approx(8 * WEEK / 0.6931, rel=0.001)  # what it holds, over the mean time of forgetting


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.lists(st.floats(0, 1e6), max_size=6))
def test_counting_step_by_step_is_counting_at_once(hours: float, boards: float, steps: list[float]) -> None:
    moments = [NOW, *sorted(NOW + step for step in steps)]
    at_once = counted(Past(NOW, {BOARD: hours}, {BOARD: boards}), moments[-1], WEEK)
    for before, after in pairwise(moments):
        hours = counted(Past(before, {BOARD: hours}, {BOARD: boards}), after, WEEK)[BOARD]
    assert at_once[BOARD] == pytest.approx(hours, rel=1e-6, abs=1e-6)


def test_the_queue_that_used_less_is_served_first() -> None:
    queues = [Queue("a", past=used(10)), Queue("b", past=used(5))]
    plan = planned([a_node("n1", gpus=1)], a_job("x", queue="a"), a_job("y", queue="b", created=9.0), queues=queues)
    assert admitted(plan, "x", "y") == ["y"]


def test_priority_goes_before_shares() -> None:
    queues = [Queue("a", past=used(10)), Queue("b")]
    jobs = [a_job("x", queue="a", priority=1), a_job("y", queue="b")]
    assert admitted(planned([a_node("n1", gpus=1)], *jobs, queues=queues), "x", "y") == ["x"]


def test_among_equal_shares_the_older_is_served_first() -> None:
    jobs = [a_job("x", queue="a", created=2.0), a_job("y", queue="b", created=1.0)]
    assert admitted(planned([a_node("n1", gpus=1)], *jobs, queues=[Queue("a"), Queue("b")]), "x", "y") == ["y"]


def test_a_queue_of_twice_the_weight_gets_twice_as_much_of_what_is_free() -> None:
    queues = [Queue("a", weight=2), Queue("b")]
    jobs = [a_job(f"{queue}{i}", queue=queue, created=float(i)) for queue in "ab" for i in range(9)]
    plan = planned([a_node("n1", gpus=6)], *jobs, queues=queues)
    assert admitted(plan, *(f"a{i}" for i in range(9))) == ["a0", "a1", "a2", "a3"]
    assert admitted(plan, *(f"b{i}" for i in range(9))) == ["b0", "b1"]


def test_what_runs_counts_as_much_as_what_is_admitted_now() -> None:
    first = running(a_job("first", gpus=4, queue="a"), "n1")
    jobs = [a_job(f"{queue}{i}", queue=queue) for queue in "ab" for i in range(4)]
    plan = planned([a_node("n1", gpus=8)], first, *jobs, queues=[Queue("a"), Queue("b")])
    assert admitted(plan, *(f"b{i}" for i in range(4))) == ["b0", "b1", "b2", "b3"]


def test_cohorts_are_compared_before_the_queues_under_them() -> None:
    queues = [
        Queue("big"), Queue("small"), Queue("a", parent="big"), Queue("b", parent="big"), Queue("c", parent="small")
    ]  # fmt: skip
    jobs = [a_job(f"{queue}{i}", queue=queue) for queue in "abc" for i in range(8)]
    plan = planned([a_node("n1")], *jobs, queues=queues)
    got = {queue: len(admitted(plan, *(f"{queue}{i}" for i in range(8)))) for queue in "abc"}
    assert got == {"a": 2, "b": 2, "c": 4}


def test_a_queue_is_judged_by_the_model_that_it_uses_most_of() -> None:
    nodes = [a_node("h", gpus=8), *(a_node(f"a{i}", board="A100-80GB") for i in range(4))]
    few, many = Past(NOW, {BOARD: 8.0}, {}), Past(NOW, {"A100-80GB": 16.0}, {})
    queues = [Queue("a", past=few), Queue("b", past=many)]
    jobs = [a_job(q, gpus=8, queue=q, models=("H100",), created=at) for q, at in (("a", 1.0), ("b", 2.0))]
    assert admitted(planned(nodes, *jobs, queues=queues), "a", "b") == ["b"]


def test_each_job_that_waits_knows_its_position_in_its_queue() -> None:
    jobs = [a_job(f"j{i}", gpus=8, queue="a", created=float(i)) for i in range(3)]
    others = [a_job("other", gpus=8, queue="b", created=9.0), a_job("off", queue="a", suspend=True)]
    plan = planned([a_node("n1")], *jobs, *others, queues=[Queue("a"), Queue("b")])
    positions = {name: verdict_of(plan, name).position for name in ("j0", "j1", "j2", "off")}
    assert positions == {"j0": None, "j1": 1, "j2": 2, "off": None}


def test_a_plan_says_how_each_queue_stands() -> None:
    queues = [Queue("a", weight=3, past=used(30)), Queue("b", past=used(10))]
    stands = {name: has.standing for name, has in planned([a_node("n1")], queues=queues).queues.items() if has.standing}
    assert (stands["a"].part, stands["b"].part) == (0.75, 0.25)
    assert (stands["a"].due, stands["b"].due) == (0.75, 0.25)
    assert stands["a"].past == used(30)


def test_what_was_lent_is_told_of_the_lenders_in_proportion() -> None:
    lenders = [Queue("a", {"H100": 4}, parent="org"), Queue("b", {"H100": 8}, parent="org")]
    tree = [Queue("org"), *lenders, Queue("c", parent="org")]
    plan = planned([a_node("n1")], running(a_job("x", gpus=6, queue="c"), "n1"), queues=tree)
    assert (plan.queues["a"].lent, plan.queues["b"].lent, plan.queues["c"].lent) == ({"H100": "2"}, {"H100": "4"}, {})
    assert (plan.queues["c"].borrowed, plan.queues["org"].borrowed) == ({"H100": "6"}, {})


WAITING = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()), max_size=12)
TREE = [Queue("a", weight=2), Queue("b", parent="a", weight=3), Queue("c", parent="a"), Queue("d", past=used(3))]


@given(WAITING)
def test_the_line_is_what_looking_at_all_that_wait_each_time_would_give(rows: list[tuple[int, int, bool]]) -> None:
    jobs = [a_job(f"j{i}", queue="abcd"[q], priority=priority) for i, (q, priority, _) in enumerate(rows)]
    admits = {job.ref.uid: given for job, (_, _, given) in zip(jobs, rows, strict=True)}
    s = Scratch(a_snapshot([a_node("n1")], queues=TREE), Policy(), NOW)
    left = list(jobs)
    for w in Line(s, jobs):
        assert w == min(left, key=lambda v: (-v.priority, s.fairness.rank(v.queue), order(v)))
        left.remove(w)
        if admits[w.ref.uid]:
            s.charge(w.queue, Device(BOARD, "nvidia.com/gpu", 1), 1)
    assert left == []


def behind_and_ahead(**more: Any) -> Plan:
    """Queue b, which used much, wants one board, and a, which used none, two nodes of which one is in use."""
    nodes = [a_node("n1"), a_node("n2")]
    first = running(a_job("first", gpus=1, queue="b"), "n1")
    jobs = [a_job("large", workers=2, gpus=8, queue="a"), a_job("small", queue="b", **more)]
    return planned(nodes, first, *jobs, queues=[Queue("a"), Queue("b", past=used(100))])


def test_a_queue_that_had_more_than_its_share_does_not_take_what_another_waits_for() -> None:
    verdict = verdict_of(behind_and_ahead(), "small")
    assert verdict.reason == "WaitingForTurn"
    told = "goes after team/large of queue a, which has had less of its share and waits for H100-80GB too: wait"
    assert verdict.message.startswith(told)


def test_higher_priority_goes_first_however_much_its_queue_has_had() -> None:
    assert nodes_of(behind_and_ahead(priority=1), "small") is not None


def test_a_queue_takes_what_it_owns_however_much_it_has_had() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    first = running(a_job("first", gpus=1, queue="a"), "n1")
    tree = [Queue("org"), Queue("a", {"H100": 8}, parent="org"), Queue("b", {"H100": 8}, parent="org", past=used(100))]
    plan = planned(nodes, first, a_job("large", gpus=8, workers=2, queue="a"), a_job("small", queue="b"), queues=tree)
    assert nodes_of(plan, "small") is not None


def test_what_could_not_fit_on_all_nodes_together_holds_nobody_up() -> None:
    queues = [Queue("a"), Queue("b", past=used(100))]
    plan = planned(
        [a_node("n1")], a_job("large", gpus=8, workers=2, queue="a"), a_job("small", queue="b"), queues=queues
    )
    assert nodes_of(plan, "small") is not None
