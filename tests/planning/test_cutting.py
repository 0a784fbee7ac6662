"""Whole-board demands given at once fill nodes exactly; those in part use first, and whole ones stay whole."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from berth.model.workloads import Workload
from berth.planning.actions import Admit
from berth.planning.cutting import cuts, guided
from tests.planning.builders import a_job, a_node, nodes_of, only, planned

GANGS = ((1, 8), (2, 4), (8, 1))  # workers and boards of each, for every 8 boards of a gang


def planted(count: int, seed: int) -> list[Workload]:
    """Shuffled demands that fill so many nodes of 8 boards: gangs of 8, 16 and 32 boards, and 1 to 7 boards."""
    chance = random.Random(seed)
    asked: list[tuple[int, int]] = []
    left = count
    while left:
        nodes = chance.choice([n for n in (1, 2, 4, 0, 0, 0) if n <= left])
        if nodes:
            workers, gpus = chance.choice(GANGS)
            asked.append((workers * nodes, gpus))
        else:
            rest = 8
            while rest:
                asked.append((1, chance.randint(1, min(7, rest))))
                rest -= asked[-1][1]
        left -= nodes or 1
    chance.shuffle(asked)
    return [a_job(f"j{i}", workers=workers, gpus=gpus) for i, (workers, gpus) in enumerate(asked)]


@pytest.mark.parametrize(("count", "seeds"), [(20, 50), (50, 50), (200, 10)])
def test_what_fills_n_nodes_exactly_is_packed_back_into_n_when_given_at_once(count: int, seeds: int) -> None:
    nodes = [a_node(f"n{i}", labels={"rack": f"r{i // 8}"}) for i in range(count + 8)]
    for seed in range(seeds):
        work = planted(count, seed)
        admitted = only(planned(nodes, *work), Admit)
        assert len(admitted) == len(work), seed
        assert len({node for admit in admitted for node in admit.placement.nodes}) == count, seed
        assert len(only(planned(nodes[:count], *work), Admit)) == len(work), seed


def test_best_fit_of_the_largest_first_would_not_do() -> None:
    jobs = [a_job(f"{gpus}-{i}", gpus=gpus) for gpus, n in ((4, 1), (3, 2), (2, 3)) for i in range(n)]
    nodes = [a_node("n1"), a_node("n2")]
    plan = planned(nodes, *jobs)
    assert Counter(nodes_of(plan, j.ref.name) for j in jobs if j.ref.name[0] == "2") == {("n1",): 2, ("n2",): 1}
    assert len(only(plan, Admit)) == len(jobs)


def test_of_jobs_made_in_the_same_second_the_largest_is_served_first() -> None:
    plan = planned([a_node("n1")], a_job("a", gpus=2), a_job("z", gpus=8))
    assert nodes_of(plan, "z") == ("n1",)
    assert nodes_of(plan, "a") is None


def test_age_goes_before_size() -> None:
    plan = planned([a_node("n1")], a_job("a", gpus=2), a_job("z", gpus=8, created=1.0))
    assert nodes_of(plan, "z") is None


def test_places_kept_for_what_waits_are_open_to_others_that_fit_nowhere_else() -> None:
    nodes = [a_node("n1", gpus=5), a_node("n2", gpus=3)]
    late = a_job("late", gpus=3, models=("H100",), created=2.0)
    held = a_job("held", gpus=5, created=3.0, not_before=2e9)
    plan = planned(nodes, a_job("three", gpus=3), late, a_job("two", gpus=2, created=1.0), held)
    assert nodes_of(plan, "three") is not None
    assert nodes_of(plan, "late") is not None


def test_nodes_in_part_use_are_filled_exactly_before_a_whole_one_is_begun() -> None:
    assert cuts({3: 1, 5: 1, 8: 4}, {3: 1, 2: 2, 1: 1, 7: 1, 6: 1}) == {
        (3, (3,)): 1,
        (5, (2, 2, 1)): 1,
        (8, (7,)): 1,
        (8, (6,)): 1,
    }


def test_sizes_that_divide_each_other_need_no_guide() -> None:
    assert not guided([1, 2, 4, 8, 2])
    assert guided([1, 2, 3])
