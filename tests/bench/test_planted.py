"""The benchmark of planted MIG layouts: its inputs are what it says, and its figures add up."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from berth.bench import planted as program
from berth.bench.churn import BestFit, Movable, Policy, Priced, run_churn
from berth.bench.idle import CUTTING, FirstFit, Forecast, IdleOnly, WaitingFirstFit
from berth.bench.pieces import full_multisets, planted, profile_named
from berth.bench.planted import best_fit, largest_first, one_by_one, planted_gangs, run_nodes, run_planted
from berth.model.gpus import Profile
from berth.model.mig import legal
from tests.planning.builders import model

H100 = model("H100-80GB")
A30 = model("A30")


def test_a_full_board_is_cut_in_one_of_22_ways_and_a_small_one_in_4() -> None:
    assert (len(full_multisets(H100)), len(full_multisets(A30))) == (22, 4)


def test_planted_pieces_use_every_memory_slice() -> None:
    pieces = [profile_named(H100, name) for name in planted(H100, 20, seed=1)]
    assert sum(profile.memory_slices for profile in pieces) == 20 * 8


def test_the_same_seed_plants_the_same() -> None:
    assert planted(H100, 20, seed=1) == planted(H100, 20, seed=1) != planted(H100, 20, seed=2)
    assert planted_gangs(20, seed=1) == planted_gangs(20, seed=1) != planted_gangs(20, seed=2)


def test_a_profile_that_a_board_lacks_is_no_piece() -> None:
    with pytest.raises(ValueError, match="A30 has no"):
        profile_named(A30, "7g.80gb")


def test_best_fit_takes_the_fullest_board_at_its_first_start() -> None:
    assert best_fit(H100, ["4g.40gb", "3g.40gb"]) == 1
    assert best_fit(H100, ["1g.10gb", "4g.40gb"]) == 2
    assert one_by_one(H100, ["1g.10gb", "4g.40gb"]) == 1


def test_gangs_fill_whole_nodes_and_the_rest_is_cut_from_full_ones() -> None:
    sizes = planted_gangs(50, seed=1)
    assert sum(sizes) == 50 * 8
    assert {size for size in sizes if size > 7} == {8, 16, 32}
    assert largest_first([8, 16, 5, 4, 3]) == 5


def test_ours_needs_no_more_boards_than_best_fit() -> None:
    found = run_planted(H100, 20, seeds=5)
    assert found.at_once == found.at_once_worst == 1.0
    assert found.one_by_one < found.best_fit
    assert run_nodes(20, seeds=5).at_once == 1.0


@pytest.mark.parametrize("policy", [Priced, BestFit, Forecast, FirstFit, WaitingFirstFit])
def test_every_way_holds_only_what_boards_can(policy: type[Policy]) -> None:
    fleet = policy(H100, 3)
    there = [
        placed for n, name in enumerate(planted(H100, 6, seed=1)) if (placed := fleet.place(named(name), float(n)))
    ]
    by_board = {index: [i for board, i in there if board == index] for index in range(3)}
    assert all(legal(H100, instances) for instances in by_board.values())
    for board, instance in there:
        fleet.free(board, instance)
    again = [fleet.place(named("7g.80gb"), 1000.0) for _ in range(3)]
    assert Counter(placed[0] for placed in again if placed) == {0: 1, 1: 1, 2: 1}


def named(name: str) -> Profile:
    return profile_named(H100, name)


@pytest.mark.parametrize(("policy", "placed"), [(Forecast, True), (WaitingFirstFit, True), (FirstFit, False)])
def test_ours_waits_for_a_board_that_is_being_laid_out(policy: type[IdleOnly], placed: bool) -> None:
    fleet = policy(H100, 1)
    assert fleet.place(named("3g.40gb"), now=0.0) is not None
    assert any(instance.profile == named("3g.40gb") for instance in fleet.spare[0])
    assert (fleet.place(named("3g.40gb"), now=CUTTING / 2) is not None) is placed


def test_what_is_free_is_known_without_looking_at_every_board() -> None:
    fleet = Forecast(H100, 6)
    there = [placed for name in planted(H100, 6, seed=3) if (placed := fleet.place(named(name), now=0.0))]
    for board, instance in there[::2]:
        fleet.free(board, instance)
    free = [(i.profile.name, board) for board in range(6) for i in fleet.spare[board]]
    assert +fleet.free_instances == Counter(name for name, _ in free)
    assert {(name, board) for name, boards in fleet.having.items() for board in boards} == set(free)


def test_what_moves_at_will_is_refused_for_want_of_slices_alone() -> None:
    fleet = Movable(A30, 1)
    first, second = (fleet.place(profile_named(A30, name), 0.0) for name in ("1g.6gb", "2g.12gb"))
    assert first is not None
    assert second is not None
    assert fleet.place(profile_named(A30, "2g.12gb"), 0.0) is None
    fleet.free(*first)
    assert fleet.place(profile_named(A30, "2g.12gb"), 0.0) is not None


def test_ours_refuses_fewer_under_churn() -> None:
    beside, idle_only, both_wait = run_churn(H100, 30, seeds=2)
    for found in (beside, idle_only, both_wait):
        assert found.bound <= found.refused
        assert 0 < found.refused_slices < found.best_fit_refused_slices
        assert found.difference == (found.refused - found.best_fit_refused) / 2
    assert beside.layouts == 0 < idle_only.layouts
    assert beside.arrivals == idle_only.arrivals
    assert idle_only.refused == both_wait.refused
    assert idle_only.best_fit_refused > both_wait.best_fit_refused


def test_ours_refuses_fewer_of_small_boards_too() -> None:
    _, idle_only, _ = run_churn(A30, 60, seeds=12)
    assert idle_only.difference < -2 * idle_only.difference_error
    assert idle_only.layouts < idle_only.best_fit_layouts


def test_the_program_prints_tables_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["planted", "--model", "A30", "--boards", "4", "--seeds", "2", "--churn-boards", "4", "--churn-seeds", "1"]
    monkeypatch.setattr(sys, "argv", small)
    program.main()
    table = capsys.readouterr().out
    assert "A30             4 1.0000  1.0000" in table
    assert "idle boards only" in table
    monkeypatch.setattr(sys, "argv", [*small, "--json"])
    program.main()
    found = json.loads(capsys.readouterr().out)
    assert [len(found[part]) for part in ("planted", "nodes", "churn")] == [1, 1, 3]
    assert found["planted"][0]["at_once"] == 1.0
