"""The comparators choose as the FGD paper's artefact has them."""

from __future__ import annotations

import pytest

from berth.bench.fleet import Fleet
from berth.bench.fragmentation import Fragmentation
from berth.bench.policies import HighestScore, Policy, RandomFit, best_fit, fgd, gpu_packing
from berth.planning.scarcity import Demand
from tests.bench.openb import a_demand, a_fleet, a_node

MIX = {a_demand(): 0.5, a_demand(share=500): 0.5}


def policies(fleet: Fleet) -> dict[str, Policy]:
    return {
        "random": RandomFit(1),
        "bestfit": HighestScore(best_fit),
        "packing": HighestScore(gpu_packing),
        "fgd": HighestScore(fgd(Fragmentation(MIX, fleet.models))),
    }


@pytest.mark.parametrize("policy", ["random", "bestfit", "packing", "fgd"])
@pytest.mark.parametrize(
    "demand",
    [
        a_demand(cpu=97),
        a_demand(memory=385),
        a_demand(models="T4"),
        a_demand(boards=3),
        a_demand(share=600, models="P100"),
        a_demand(boards=9),
    ],
)
def test_nothing_is_placed_where_it_does_not_fit(policy: str, demand: Demand) -> None:
    fleet = a_fleet(
        a_node("a", boards=4), a_node("b", boards=2, model="P100"), free=[(1000, 1000, 999, 999), (500, 500)]
    )
    assert policies(fleet)[policy].choose(fleet, demand) is None


def test_random_takes_any_board_with_room() -> None:
    fleet = a_fleet(a_node("a", boards=4), a_node("b", boards=4, model="T4"), free=[(400, 600, 0, 1000)])
    chosen = {RandomFit(seed).choose(fleet, a_demand(share=500, models="G2")) for seed in range(30)}
    assert chosen == {(0, 1), (0, 3)}


def test_bestfit_takes_the_node_that_is_left_with_least_and_its_tightest_board() -> None:
    fleet = a_fleet(a_node("a"), a_node("b", boards=4), free=[(), (1000, 700, 600, 200)])
    assert HighestScore(best_fit).choose(fleet, a_demand(share=600)) == (1, 2)


def test_bestfit_weighs_cpu_as_much_as_boards() -> None:
    fleet = a_fleet(a_node("a", cpu=96, boards=2), a_node("b", cpu=16, boards=4))
    assert HighestScore(best_fit).choose(fleet, a_demand()) == (1, 0)


def test_equal_integer_scores_go_to_the_first_node() -> None:
    fleet = a_fleet(a_node("a", cpu=96), a_node("b", cpu=95))  # 1 CPU is 0.4 of a point
    assert HighestScore(best_fit).choose(fleet, a_demand(cpu=2)) == (0, 0)


@pytest.mark.parametrize(
    ("free", "node"),
    [
        ([(1000, 1000), (1000, 500), (1000, 1000, 1000, 1000)], 1),  # a shared board
        ([(1000, 1000), (1000, 100), (1000, 1000, 1000, 1000)], 1),  # a free board of a used node
        ([(1000, 1000), (100, 100), (1000, 1000, 1000, 1000)], 0),  # a small empty node
        ([(600, 1000), (500, 1000), (1000, 1000, 1000, 1000)], 1),  # the fuller of two shared boards
    ],
)
def test_packing_prefers_shared_boards_then_used_nodes_then_small_ones(free: list[tuple[int, ...]], node: int) -> None:
    fleet = a_fleet(a_node("a", boards=2), a_node("b", boards=2), a_node("c", boards=4), free=free)
    choice = HighestScore(gpu_packing).choose(fleet, a_demand(share=400))
    assert choice is not None
    assert choice[0] == node


def test_packing_has_no_opinion_on_pods_without_boards() -> None:
    fleet = a_fleet(a_node("a"), a_node("b", boards=2), free=[(), (500,)])
    assert HighestScore(gpu_packing).choose(fleet, a_demand(boards=0)) == (0, 0)


def test_fgd_fills_the_gap_that_is_of_use_to_nobody_else() -> None:
    fleet = a_fleet(a_node("a", boards=2), free=[(1000, 400)])
    assert HighestScore(fgd(Fragmentation(MIX, fleet.models))).choose(fleet, a_demand(share=300)) == (0, 1)


def test_fgd_takes_the_node_whose_boards_have_lost_their_cpu() -> None:
    mix = {a_demand(cpu=8): 1.0}
    fleet = a_fleet(a_node("a", boards=2), a_node("b", boards=2), cpu=[96, 4])
    assert HighestScore(fgd(Fragmentation(mix, fleet.models))).choose(fleet, a_demand(cpu=2)) == (1, 0)


def test_fgd_keeps_cpu_for_the_boards_that_need_it() -> None:
    mix = {a_demand(cpu=8): 1.0}
    fleet = a_fleet(a_node("a", boards=2), a_node("b", boards=2), cpu=[8, 16])
    assert HighestScore(fgd(Fragmentation(mix, fleet.models))).choose(fleet, a_demand(boards=0, cpu=8)) == (1, 0)


def test_scores_are_renewed_where_something_was_placed() -> None:
    fleet = a_fleet(a_node("a", boards=1), a_node("b", boards=1))
    policy = HighestScore(best_fit)
    for expected in ((0, 0), (1, 0)):
        assert policy.choose(fleet, a_demand()) == expected
        fleet.take(expected[0], a_demand(), expected[1])
    assert policy.choose(fleet, a_demand()) is None
