"""How one board is cut: what is wanted beside what stays, and the rest after the forecast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.boards import Instance
from berth.model.gpus import MODELS, BoardModel
from berth.model.mig import free_starts, layouts, legal, taken_by
from berth.planning.layouts import layout_for, multiset_of
from tests.planning.builders import model

H100 = model("H100-80GB")
A30 = model("A30")
Layout = tuple[Instance, ...] | None


def names(layout: Layout) -> list[str]:
    assert layout is not None
    return [instance.profile.name for instance in layout]


def at(start: int, name: str, holder: str = "") -> Instance:
    profile = H100.profile(name)
    assert profile is not None
    return Instance(profile, start, holder)


def test_what_is_wanted_is_cut_and_the_rest_left_whole_where_nothing_is_forecast() -> None:
    assert layout_for(H100, {"3g.40gb": 1}, {}) == (at(4, "3g.40gb"),)


def test_the_rest_is_cut_for_what_the_mix_asks() -> None:
    assert names(layout_for(H100, {"3g.40gb": 1}, {"1g.10gb": 1})) == ["1g.10gb"] * 4 + ["3g.40gb"]
    assert names(layout_for(H100, {"3g.40gb": 1}, {"2g.20gb": 1})) == ["2g.20gb", "2g.20gb", "3g.40gb"]
    assert names(layout_for(A30, {}, {"2g.12gb": 1, "1g.6gb": 2})) == ["1g.6gb", "1g.6gb", "2g.12gb"]


def test_what_is_free_elsewhere_is_not_cut_once_more() -> None:
    mix = {"1g.10gb": 4, "3g.40gb": 1}
    assert names(layout_for(H100, {"3g.40gb": 1}, mix)) == ["1g.10gb"] * 4 + ["3g.40gb"]
    assert names(layout_for(H100, {"3g.40gb": 1}, mix, free={"1g.10gb": 30})) == ["3g.40gb", "3g.40gb"]
    assert names(layout_for(H100, {"3g.40gb": 1}, mix, free={"3g.40gb": 30})) == ["1g.10gb"] * 4 + ["3g.40gb"]


@pytest.mark.parametrize("free", [0, 1, 100])
def test_boards_laid_out_one_after_another_follow_the_mix_together(free: int) -> None:
    mix = {"1g.10gb": 2.0, "2g.20gb": 1.0, "3g.40gb": 1.0}
    fleet = Counter({name: round(free * weight) for name, weight in mix.items()})
    before = Counter(fleet)
    for _ in range(60):
        fleet.update(names(layout_for(H100, {}, mix, free=fleet)))
    made = fleet - before
    slices = {name: n * profile.memory_slices for name, n in made.items() if (profile := H100.profile(name))}
    share = {name: n / sum(slices.values()) for name, n in slices.items()}
    assert share == pytest.approx({"1g.10gb": 0.25, "2g.20gb": 0.25, "3g.40gb": 0.5}, abs=0.15)


def test_in_a_large_fleet_too_a_board_is_cut_for_what_is_scarce() -> None:
    mix = {"1g.10gb": 1.0, "2g.20gb": 1.0}
    assert set(names(layout_for(H100, {}, mix, free={"1g.10gb": 5_000, "2g.20gb": 20_000}))) == {"1g.10gb"}
    assert set(names(layout_for(H100, {}, mix, free={"1g.10gb": 20_000, "2g.20gb": 5_000}))) >= {"2g.20gb"}


def test_the_starts_are_chosen_so_that_the_rest_can_be_used() -> None:
    layout = layout_for(H100, {"3g.40gb": 1}, {"4g.40gb": 1})
    assert layout == (at(0, "4g.40gb"), at(4, "3g.40gb"))


def test_an_instance_that_stays_keeps_its_start_and_its_holder() -> None:
    kept = (at(0, "1g.10gb", "team/web"),)
    layout = layout_for(H100, {"3g.40gb": 1, "2g.20gb": 1}, {}, kept)
    assert layout == (at(0, "1g.10gb", "team/web"), at(2, "2g.20gb"), at(4, "3g.40gb"))


def test_no_layout_has_more_than_the_board_holds() -> None:
    assert layout_for(H100, {"4g.40gb": 2}, {}) is None
    assert layout_for(H100, {"4g.40gb": 1}, {}, (at(3, "1g.10gb", "team/web"),)) is None
    assert layout_for(H100, {"1g.6gb": 1}, {}) is None


def test_a_layout_around_what_no_board_can_hold_is_none() -> None:
    assert layout_for(H100, {}, {}, (at(3, "3g.40gb"),)) is None


def test_names_of_older_drivers_mean_the_same() -> None:
    assert layout_for(H100, {"7g.79gb": 1}, {}) == layout_for(H100, {"7g.80gb": 1}, {})
    assert names(layout_for(model("H100-94GB"), {}, {"2g.22gb": 1})) == ["2g.24gb"] * 3


def test_mig_manager_is_told_how_many_of_each_and_no_starts() -> None:
    layout = (at(0, "1g.10gb"), at(1, "1g.10gb"), at(4, "3g.40gb"))
    assert multiset_of(H100, layout) == {"1g.10gb": 2, "3g.40gb": 1}
    assert multiset_of(H100, ()) == {}


BOARDS = st.sampled_from([m for m in MODELS if m.profiles])


@st.composite
def asked(draw: st.DrawFn) -> tuple[BoardModel, dict[str, int], dict[str, float], tuple[Instance, ...]]:
    board = draw(BOARDS)
    profiles = [profile.name for profile in board.profiles]
    wanted = draw(st.dictionaries(st.sampled_from(profiles), st.integers(0, 3), max_size=2))
    mix = draw(st.dictionaries(st.sampled_from(profiles), st.floats(0, 100), max_size=4))
    return board, wanted, mix, draw(st.sampled_from(layouts(board)))[:2]


@given(asked())
def test_a_layout_is_legal_and_has_all_that_is_wanted_beside_all_that_stays(
    case: tuple[BoardModel, Mapping[str, int], Mapping[str, float], tuple[Instance, ...]],
) -> None:
    board, wanted, mix, kept = case
    layout = layout_for(board, wanted, mix, kept)
    possible = any(
        all(Counter(i.profile.name for i in other)[name] >= n for name, n in wanted.items())
        for other in layouts(board, taken_by(kept))
    )
    assert (layout is not None) == possible
    if layout is not None:
        rest = Counter(i.profile.name for i in layout)
        rest.subtract(i.profile.name for i in kept)
        assert legal(board, layout)
        assert set(kept) <= set(layout)
        assert all(rest[name] >= n for name, n in wanted.items())
        assert all(n <= wanted.get(name, 0) or mix.get(name, 0) > 0 for name, n in rest.items())


@pytest.mark.parametrize("board", [H100, A30], ids=lambda m: m.name)
def test_no_room_is_left_for_a_profile_of_the_mix(board: BoardModel) -> None:
    for profile in board.profiles:
        for kept in layouts(board)[::50]:
            layout = layout_for(board, {}, {profile.name: 1.0}, kept)
            assert layout is not None
            assert free_starts(taken_by(layout), profile) == ()
