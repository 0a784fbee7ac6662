"""Our packer: never over-commits, and depends on nothing but states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.bench.fleet import Fleet
from berth.bench.packer import LeastCost
from berth.bench.replay import Run, replay
from berth.bench.trace import Node
from berth.planning.scarcity import WHOLE, Demand
from tests.bench.openb import a_demand, a_node

MODELS = ("G2", "T4", "P100")

nodes = st.builds(
    a_node,
    boards=st.sampled_from([0, 1, 2, 4, 8]),
    cpu=st.sampled_from([8, 16, 96]),
    memory=st.sampled_from([8, 64]),
    model=st.sampled_from(MODELS),
)
demands = st.builds(
    a_demand,
    boards=st.sampled_from([0, 1, 1, 1, 1, 2, 4, 8]),
    share=st.sampled_from([110, 320, 470, 500, 810, 1000, 1000, 1000]),
    cpu=st.integers(0, 12),
    memory=st.integers(0, 20),
    models=st.sampled_from(["", "", "G2", "T4", "T4 P100", "A10"]),
)
fleets = st.lists(nodes, min_size=1, max_size=8).filter(lambda fleet: any(node.boards for node in fleet))


def packed(fleet: Sequence[Node], arrivals: Sequence[Demand]) -> Run:
    return replay(fleet, arrivals, LeastCost(Counter(arrivals), Fleet(fleet)))


@settings(max_examples=40, deadline=None)
@given(fleet=fleets, arrivals=st.lists(demands, min_size=1, max_size=60))
def test_no_node_and_no_board_is_ever_over_committed_and_what_fits_is_placed(
    fleet: list[Node], arrivals: list[Demand]
) -> None:
    run = packed(fleet, arrivals)
    room = Fleet(fleet)
    for number, (demand, node) in enumerate(zip(arrivals, run.placed.tolist(), strict=True)):
        fits = room.fits(demand, np.arange(len(fleet)))
        assert (node >= 0) == fits.any()
        if node < 0:
            continue
        assert fits[node]
        free = np.array(run.free_after[number])
        assert (free >= 0).all()
        assert (room.free[node] - free).sum() == demand.milli
        assert sorted(set((room.free[node] - free).tolist()) - {0}) == ([demand.share] if demand.boards else [])
        room.free[node] = free
        room.cpu[node] -= demand.cpu_milli
        room.memory[node] -= demand.memory_mib
    assert (room.cpu >= 0).all()
    assert (room.memory >= 0).all()
    assert (room.free <= WHOLE).all()


@settings(max_examples=25, deadline=None)
@given(fleet=fleets, arrivals=st.lists(demands, min_size=1, max_size=60), seed=st.integers(0, 99))
def test_the_order_of_the_nodes_changes_nothing(fleet: list[Node], arrivals: list[Demand], seed: int) -> None:
    shuffled = list(fleet)
    Random(seed).shuffle(shuffled)
    first, second = packed(fleet, arrivals), packed(shuffled, arrivals)
    assert taken(first) == taken(second)


def taken(run: Run) -> list[tuple[object, ...]]:
    """What kind of node each pod got, and what it left free there."""
    return [
        (node >= 0 and (run.nodes[node].model, run.nodes[node].boards), int(cpu), sorted(free))
        for node, cpu, free in zip(run.placed.tolist(), run.cpu_after, run.free_after.tolist(), strict=True)
    ]


@settings(max_examples=10, deadline=None)
@given(fleet=fleets, arrivals=st.lists(demands, min_size=1, max_size=40))
def test_the_same_arrivals_are_placed_the_same(fleet: list[Node], arrivals: list[Demand]) -> None:
    assert packed(fleet, arrivals).placed.tolist() == packed(fleet, arrivals).placed.tolist()


def test_a_common_model_is_used_before_a_scarce_one() -> None:
    fleet = [a_node("a", boards=4, model="T4"), a_node("b", boards=4, model="G2")]
    arrivals = [a_demand()] * 4 + [a_demand(models="T4")] * 4
    assert packed(fleet, arrivals).placed.tolist() == [1] * 4 + [0] * 4


def test_pods_without_boards_leave_the_cpu_to_those_with_boards() -> None:
    fleet = [a_node("a", boards=8, cpu=64), a_node("b", boards=2, cpu=64, model="T4")]
    arrivals = [a_demand(boards=0, cpu=24)] * 2 + [a_demand(cpu=8)] * 10
    assert packed(fleet, arrivals).placed.tolist()[:2] == [1, 1]
    assert (packed(fleet, arrivals).placed >= 0).all()


def test_whole_nodes_stay_whole_for_those_that_need_them() -> None:
    fleet = [a_node(str(n)) for n in range(4)]
    arrivals = [a_demand()] * 8 + [a_demand(boards=8)] * 3
    assert (packed(fleet, arrivals).placed >= 0).all()
