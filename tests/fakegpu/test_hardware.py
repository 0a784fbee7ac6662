"""Boards accept exactly the layouts that real ones do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.gpus import MODELS, BoardModel, Profile
from e2e.fakegpu.hardware import Board, LayoutError, Wanted, board_model, place, silicon_of
from e2e.fakegpu.links import nvlinks, preferred

MIG_MODELS = [model for model in MODELS if model.profiles]


@st.composite
def _wishes(draw: st.DrawFn) -> tuple[BoardModel, list[Wanted]]:
    model = draw(st.sampled_from([board_model("A30"), board_model("H100-80GB")]))
    names = st.sampled_from([profile.name for profile in model.profiles])
    starts = st.none() | st.integers(0, model.memory_slices)
    return model, draw(st.lists(st.builds(Wanted, names, starts), max_size=5))


def _apart(profiles: Sequence[Profile], starts: Sequence[int]) -> bool:
    """Whether instances at these starts are legal and share no memory slice."""
    pairs = list(zip(profiles, starts, strict=True))
    slices = [piece for profile, start in pairs for piece in range(start, start + profile.memory_slices)]
    legal = all(start in profile.starts for profile, start in pairs)
    return legal and len(slices) == len(set(slices)) and sum(profile.media for profile in profiles) <= 1


@settings(deadline=None)
@given(_wishes())
def test_a_layout_is_accepted_if_and_only_if_some_legal_starts_keep_it_apart(
    wish: tuple[BoardModel, list[Wanted]],
) -> None:
    model, wanted = wish
    profiles = [profile for want in wanted if (profile := model.profile(want.profile))]
    choices = [p.starts if w.start is None else (w.start,) for p, w in zip(profiles, wanted, strict=True)]
    if not any(_apart(profiles, starts) for starts in product(*choices)):
        with pytest.raises(LayoutError):
            place(model, wanted)
        return
    placed = place(model, wanted)
    assert _apart([each.profile for each in placed], [each.start for each in placed])
    assert Counter(each.profile for each in placed) == Counter(profiles)
    fixed = Counter((want.profile, want.start) for want in wanted if want.start is not None)
    assert fixed <= Counter((each.profile.name, each.start) for each in placed)


@pytest.mark.parametrize("model", MIG_MODELS, ids=lambda model: model.name)
def test_every_profile_fits_as_often_as_the_board_allows_and_no_more(model: BoardModel) -> None:
    for profile in model.profiles:
        assert len(place(model, [Wanted(profile.name)] * profile.max_instances)) == profile.max_instances
        with pytest.raises(LayoutError):
            place(model, [Wanted(profile.name)] * (profile.max_instances + 1))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_knows_the_silicon_of_every_model(model: BoardModel) -> None:
    assert silicon_of(model).nvlinks >= (model.nvlink_gb_per_s > 0)


def test_the_driver_puts_the_first_half_at_slice_4() -> None:
    (placed,) = place(board_model("H100-80GB"), [Wanted("3g.40gb")])
    assert placed.start == 4


def test_a_refused_layout_leaves_the_board_as_it_was() -> None:
    board = Board(0, "GPU-0", board_model("H100-80GB"))
    board.lay(True, [Wanted("3g.40gb")])
    before = list(board.instances)
    with pytest.raises(LayoutError):
        board.lay(True, [Wanted("4g.40gb"), Wanted("4g.40gb")])
    assert board.instances == before


def test_bridges_join_boards_in_pairs_and_a_switch_joins_all() -> None:
    assert nvlinks("pairs", 4, 4) == ((0, 4, 0, 0), (4, 0, 0, 0), (0, 0, 0, 4), (0, 0, 4, 0))
    assert nvlinks("nvswitch", 2, 18) == ((0, 18), (18, 0))
    assert nvlinks("none", 2, 18) == ((0, 0), (0, 0))


def test_preferred_boards_share_a_bridge_and_break_no_other() -> None:
    links = nvlinks("pairs", 4, 4)
    assert preferred(links, [1, 2, 3], [], 2) == (2, 3)
    assert preferred(links, [1, 2, 3], [], 1) == (1,)
    assert preferred(links, [0, 1, 2, 3], [3], 2) == (2, 3)


def test_preferred_boards_without_bridges_share_a_socket() -> None:
    assert preferred(nvlinks("none", 8, 0), [1, 4, 6], [], 2) == (4, 6)
