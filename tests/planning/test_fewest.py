"""All pieces given at once: as few boards, or nodes, as an exact solver needs."""

from __future__ import annotations

import random
from collections import Counter
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.bench.pieces import planted
from berth.bench.planted import planted_gangs
from berth.model.gpus import MODELS, BoardModel
from berth.model.mig import legal
from berth.planning.fewest import board_patterns, fewest, fewest_boards, fewest_nodes, node_patterns
from tests.planning.builders import model
from tests.planning.solver import least_bins

SHAPES = [model("H100-80GB"), model("A30")]


@pytest.mark.parametrize("board", SHAPES, ids=lambda m: m.name)
@pytest.mark.parametrize("boards", [1, 20, 50, 200])
def test_planted_pieces_fit_back_onto_exactly_their_boards(board: BoardModel, boards: int) -> None:
    for seed in range(50, 60):
        pieces = Counter(planted(board, boards, seed))
        layouts = fewest_boards(board, pieces)
        assert len(layouts) == boards
        assert Counter(instance.profile.name for layout in layouts for instance in layout) == pieces
        assert all(legal(board, layout) for layout in layouts)


def test_two_hundred_planted_boards_take_less_than_two_seconds() -> None:
    pieces = Counter(planted(model("H100-80GB"), 200, seed=1))
    before = process_time()
    fewest_boards(model("H100-80GB"), pieces)
    assert process_time() - before < 2.0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([m for m in MODELS if m.profiles]), st.integers(0, 10_000))
def test_any_pieces_need_no_more_boards_than_an_exact_solver_finds(board: BoardModel, seed: int) -> None:
    chance = random.Random(seed)
    most = chance.choice([3, 12, 60])
    pieces = tuple(chance.randint(0, most) * chance.choice([0, 1, 1]) for _ in board.profiles)
    packed = fewest(board_patterns(board), pieces)
    assert len(packed.bins) == least_bins(board_patterns(board), pieces)
    assert packed.proven
    assert tuple(map(sum, zip(*packed.bins, strict=True))) == (pieces if any(pieces) else ())


@pytest.mark.parametrize("nodes", [4, 20, 50, 200])
def test_planted_gangs_of_whole_boards_fit_back_onto_exactly_their_nodes(nodes: int) -> None:
    for seed in range(20):
        sizes = planted_gangs(nodes, seed)
        packed = fewest_nodes(8, Counter(sizes))
        assert len(packed) == nodes
        assert all(sum(demands) == 8 for demands in packed)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=60))
def test_any_demands_need_no_more_nodes_than_an_exact_solver_finds(sizes: list[int]) -> None:
    pieces = [sizes.count(8 - i) for i in range(8)]
    assert len(fewest_nodes(8, Counter(sizes))) == least_bins(node_patterns(8), pieces)


def test_a_demand_of_more_than_a_node_takes_whole_nodes_and_shares_one() -> None:
    assert fewest_nodes(8, {20: 1, 4: 1}) == ((8,), (8,), (4, 4))


def test_nothing_needs_no_boards() -> None:
    assert fewest_boards(model("A30"), {}) == ()
