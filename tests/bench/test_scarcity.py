"""What is scarce is dear: shares beside whole boards, boards beside CPU and memory, models, and whole nodes."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.bench.fleet import Fleet
from berth.planning.scarcity import MOST_SHARES, WHOLE, Demand, Scarcity, worth_of_shares
from tests.bench.openb import a_demand, a_fleet, a_node


def costs(fleet: Fleet, mix: dict[Demand, int], demand: Demand) -> list[float]:
    """What the demand costs on each node, in boards."""
    prices = Scarcity(mix, fleet.models, fleet).priced(fleet)
    return [round(float(cost), 6) for cost in prices.cost(fleet, demand, np.arange(len(fleet)))[0]]


wanted_shares = st.dictionaries(st.sampled_from(range(100, 1001, 50)), st.integers(1, 50), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(wanted=wanted_shares)
def test_all_that_is_wanted_is_worth_the_fewest_boards_that_hold_it(wanted: dict[int, int]) -> None:
    worth = worth_of_shares(wanted)
    assert float(sum(wanted[share] * worth[share] for share in wanted)) == pytest.approx(fewest_boards(wanted))


def fewest_boards(wanted: dict[int, int]) -> float:
    """By an exact solver over every way to cut a board."""
    shares = sorted(wanted)
    ways = [
        way
        for way in product(*(range(WHOLE // share + 1) for share in shares))
        if any(way) and sum(n * share for n, share in zip(way, shares, strict=True)) <= WHOLE
    ]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    used = [solver.addVariable(0, highspy.kHighsInf, 1) for _ in ways]
    for row, share in enumerate(shares):
        cut = [way[row] * boards for way, boards in zip(ways, used, strict=True) if way[row]]
        solver.addConstr(sum(cut) >= wanted[share])
    solver.minimize()
    return float(solver.getInfo().objective_function_value)


def test_a_rare_share_among_very_many_is_worth_what_it_leaves_less_of_a_board() -> None:
    wanted = {1000: 1000} | {500 + n: 100 for n in range(MOST_SHARES)} | {300: 1}
    assert worth_of_shares(wanted)[300] == 0
    assert worth_of_shares(wanted | {400: 500})[300] == 0
    assert worth_of_shares({1000: 1000, 500: 100} | {501 + n: 90 for n in range(MOST_SHARES)} | {600: 1})[600] == 1


def test_shares_that_fill_what_others_leave_cost_nothing_there() -> None:
    assert worth_of_shares({1000: 10, 810: 10, 160: 1}) == {160: 0, 810: 1, 1000: 1}
    assert worth_of_shares({1000: 10, 500: 3}) == {500: Fraction(1, 2), 1000: 1}


def test_nothing_is_scarce_where_nobody_wants_boards() -> None:
    fleet = a_fleet(a_node("a"), a_node("b", boards=2, model="T4"), free=[(0,) * 8, (0,) * 2])
    assert costs(fleet, {a_demand(boards=0): 5}, a_demand(boards=0)) == [0, 0]


def test_a_board_of_a_model_that_others_can_not_do_without_costs_more() -> None:
    fleet = a_fleet(a_node("a", model="G2", boards=4), a_node("b", model="T4", boards=4))
    common, scarce = costs(fleet, {a_demand(): 10, a_demand(models="T4"): 10}, a_demand())
    assert common < scarce


def test_cpu_beside_free_boards_costs_more_than_cpu_beside_none() -> None:
    fleet = a_fleet(a_node("a", boards=2), a_node("b", boards=2), free=[(1000, 1000), (0, 0)], cpu=[16, 16])
    beside_boards, idle = costs(fleet, {a_demand(cpu=8): 10}, a_demand(boards=0, cpu=8))
    assert idle == 0
    assert beside_boards > 0.9  # a board that has lost its CPU


def test_memory_beside_free_boards_costs_likewise() -> None:
    nodes = [a_node(name, boards=2, memory=64) for name in "ab"]
    fleet = a_fleet(*nodes, free=[(1000, 1000), (0, 0)])
    beside_boards, idle = costs(fleet, {a_demand(memory=32): 10}, a_demand(boards=0, memory=32))
    assert (idle, beside_boards > 0.9) == (0, True)


def test_a_board_without_cpu_costs_less_than_one_with_cpu() -> None:
    fleet = a_fleet(a_node("a", boards=2), a_node("b", boards=2), cpu=[96, 10])
    with_cpu, without = costs(fleet, {a_demand(cpu=16): 9, a_demand(cpu=2): 1}, a_demand(cpu=2))
    assert without < with_cpu


def test_breaking_into_a_whole_node_costs_more_when_such_nodes_are_wanted() -> None:
    fleet = a_fleet(a_node("a"), a_node("b"), free=[(1000,) * 8, (1000,) * 7 + (0,)])
    singles, with_sets = {a_demand(): 100}, {a_demand(): 60, a_demand(boards=8): 5}
    whole, broken = costs(fleet, with_sets, a_demand())
    assert whole - broken > 0.5
    whole, broken = costs(fleet, singles, a_demand())
    assert whole - broken == pytest.approx(0.02, abs=0.01)  # tidiness alone


def test_a_share_goes_where_it_fits_best() -> None:
    fleet = a_fleet(a_node("a", boards=3), free=[(1000, 350, 500)])
    mix = {a_demand(share=650): 10, a_demand(share=320): 12, a_demand(): 10}
    prices = Scarcity(mix, fleet.models, fleet).priced(fleet)
    assert prices.cost(fleet, a_demand(share=320), np.array([0]))[1].tolist() == [1]


def test_equal_states_cost_the_same_whatever_their_place() -> None:
    nodes = [a_node(str(n), boards=4) for n in range(5)]
    fleet = a_fleet(*nodes, free=[(1000, 500, 300, 0), (0, 300, 500, 1000)] * 2)
    mix = Counter({a_demand(): 10, a_demand(share=470): 5, a_demand(boards=2): 1})
    for demand in mix:
        first, *others = costs(fleet, mix, demand)[:4]
        assert others == [first] * 3
