"""F, by its formula: what a demand drawn from the mix can't use of a node's free shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.bench.fleet import Fleet
from berth.bench.fragmentation import Fragmentation, task_classes
from berth.planning.scarcity import WHOLE, Demand
from tests.bench.openb import a_demand, a_fleet, a_node


def fragmented(fleet: Fleet, classes: dict[Demand, float]) -> list[float]:
    measure = Fragmentation(classes, fleet.models)
    return [round(amount, 6) for amount in measure.of(fleet.cpu, fleet.model, fleet.free)]


@pytest.mark.parametrize(
    ("demand", "amount"),
    [
        (a_demand(share=500), 200),  # fits, and leaves the board with 200
        (a_demand(share=700), 200),
        (a_demand(), 900),  # no board is whole
        (a_demand(boards=2), 900),
        (a_demand(share=100, cpu=97), 900),
        (a_demand(share=100, models="T4"), 900),
        (a_demand(boards=0), 900),
        (a_demand(share=100, memory=9999), 0),  # memory is no part of the measure
    ],
)
def test_what_one_demand_can_not_use(demand: Demand, amount: int) -> None:
    fleet = a_fleet(a_node(boards=3, model="G2"), a_node(boards=3, model="T4"), free=[(200, 700, 0), (0, 0, 0)])
    assert fragmented(fleet, {demand: 1.0}) == [amount, 0]


def test_demands_weigh_by_their_frequency() -> None:
    fleet = a_fleet(a_node(boards=2), free=[(300, 1000)])
    assert fragmented(fleet, {a_demand(): 0.75, a_demand(share=400): 0.25}) == [300]
    assert fragmented(fleet, {a_demand(share=200): 0.75, a_demand(share=400): 0.25}) == [75]


def test_task_classes_are_the_most_frequent_demands_that_cover_95_percent() -> None:
    pods = [a_demand()] * 90 + [a_demand(cpu=2)] * 6 + [a_demand(cpu=3)] * 4
    assert task_classes(pods) == {a_demand(memory=0): 90 / 96, a_demand(cpu=2, memory=0): 6 / 96}


def test_task_classes_do_not_tell_memory_apart() -> None:
    assert task_classes([a_demand(memory=1), a_demand(memory=2)]) == {a_demand(memory=0): 1.0}


demands = st.builds(
    a_demand,
    boards=st.sampled_from([0, 1, 1, 2, 4]),
    share=st.sampled_from([100, 300, 500, 1000]),
    cpu=st.integers(1, 20),
    models=st.sampled_from(["", "G2", "T4", "G2 T4", "A10"]),
)


@given(
    classes=st.dictionaries(demands, st.floats(0.01, 1), min_size=1, max_size=8),
    free=st.lists(st.tuples(*[st.integers(0, 10)] * 4), min_size=1, max_size=4),
    cpu=st.integers(0, 20),
)
def test_equals_the_formula_read_literally(classes: dict[Demand, float], free: list[tuple[int, ...]], cpu: int) -> None:
    classes = {demand: weight / sum(classes.values()) for demand, weight in classes.items()}
    nodes = [a_node(str(n), boards=4, model=("G2", "T4")[n % 2]) for n in range(len(free))]
    fleet = a_fleet(*nodes, free=[[100 * share for share in row] for row in free], cpu=[cpu] * len(free))
    assert fragmented(fleet, classes) == pytest.approx(
        [
            sum(weight * literally(demand, fleet, node) for demand, weight in classes.items())
            for node in range(len(fleet))
        ],
        abs=1e-5,
    )


def literally(demand: Demand, fleet: Fleet, node: int) -> float:
    free = fleet.free[node]
    runs = (
        fleet.cpu[node] >= demand.cpu_milli
        and demand.accepts(fleet.models[fleet.model[node]])
        and np.count_nonzero(free >= demand.share) >= demand.boards
    )
    return float(free[free < demand.share].sum()) if demand.boards and runs else float(free.sum())


def test_whole_boards_are_a_thousand_thousandths() -> None:
    assert a_fleet(a_node(boards=2)).free.tolist() == [[WHOLE, WHOLE]]
