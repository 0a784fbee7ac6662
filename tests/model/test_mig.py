"""MIG geometry as masks: every state and every layout of a board, and what fits beside what is there."""

from __future__ import annotations

from itertools import combinations

import pytest

from berth.model.boards import Instance
from berth.model.gpus import MODELS, BoardModel, Profile
from berth.model.mig import (
    MEDIA,
    counts_of,
    free_slices,
    free_starts,
    layouts,
    legal,
    mask_of,
    maximal_layouts,
    multisets,
    taken_by,
)

WITH_MIG = [m for m in MODELS if m.profiles]
SHAPES = [m for m in WITH_MIG if m.name in ("A30", "H100-80GB")]  # one of each geometry


def board(name: str) -> BoardModel:
    return next(m for m in MODELS if m.name == name)


def profile(name: str, of: str = "H100-80GB") -> Profile:
    found = board(of).profile(name)
    assert found is not None
    return found


def plain(found: tuple[tuple[Instance, ...], ...]) -> list[tuple[Instance, ...]]:
    return [layout for layout in found if not any(instance.profile.media for instance in layout)]


@pytest.mark.parametrize(
    ("name", "states", "maximal", "full"), [("H100-80GB", 723, 78, 22), ("B200", 723, 78, 22), ("A30", 26, 5, 4)]
)
def test_all_states_and_layouts_of_a_board_are_known(name: str, states: int, maximal: int, full: int) -> None:
    """Counted without media engines; "full" are the multisets of profiles that use every memory slice."""
    model = board(name)
    using_all = {
        counts_of(model, layout) for layout in plain(layouts(model)) if free_slices(model, taken_by(layout)) == 0
    }
    assert (len(plain(layouts(model))), len(plain(maximal_layouts(model))), len(using_all)) == (states, maximal, full)


@pytest.mark.parametrize("model", SHAPES, ids=lambda m: m.name)
def test_the_layouts_are_just_the_sets_of_instances_that_lie_apart(model: BoardModel) -> None:
    instances = [Instance(p, start) for p in model.profiles for start in p.starts]
    apart = {
        frozenset(pair) for pair in combinations(instances, 2) if not set(slices(pair[0])) & set(slices(pair[1]))
    } - {frozenset(pair) for pair in combinations(instances, 2) if pair[0].profile.media and pair[1].profile.media}
    for layout in layouts(model):
        assert all(frozenset(pair) in apart for pair in combinations(layout, 2))
    assert {frozenset(layout) for layout in layouts(model) if len(layout) == 2} == apart
    assert len(set(layouts(model))) == len(layouts(model))


def slices(instance: Instance) -> range:
    return range(instance.start, instance.start + instance.profile.memory_slices)


@pytest.mark.parametrize("model", WITH_MIG, ids=lambda m: m.name)
def test_masks_alone_keep_each_profile_within_its_number_and_compute_within_the_boards(model: BoardModel) -> None:
    largest = max(p.compute_slices for p in model.profiles)
    for counts in multisets(model):
        assert all(n <= p.max_instances for n, p in zip(counts, model.profiles, strict=True))
        assert sum(n * p.compute_slices for n, p in zip(counts, model.profiles, strict=True)) <= largest


def test_an_instance_fits_at_the_starts_that_nothing_overlaps() -> None:
    busy = taken_by([Instance(profile("2g.20gb"), 2)])
    assert free_starts(busy, profile("1g.10gb")) == (0, 1, 4, 5, 6)
    assert free_starts(busy, profile("1g.20gb")) == (0, 4, 6)
    assert free_starts(busy, profile("3g.40gb")) == (4,)
    assert free_starts(busy, profile("4g.40gb")) == ()


def test_a_board_has_one_set_of_media_engines() -> None:
    busy = taken_by([Instance(profile("1g.10gb+me"), 0)])
    assert busy == MEDIA | 1
    assert free_starts(busy, profile("1g.10gb+me")) == ()
    assert free_starts(busy, profile("1g.10gb")) == (1, 2, 3, 4, 5, 6)
    assert free_slices(board("H100-80GB"), busy) == 7


def test_a_layout_is_illegal_with_a_wrong_start_an_overlap_or_a_profile_of_another_board() -> None:
    h100 = board("H100-80GB")
    assert legal(h100, [Instance(profile("3g.40gb"), 0), Instance(profile("3g.40gb"), 4)])
    assert not legal(h100, [Instance(profile("4g.40gb"), 4)])
    assert not legal(h100, [Instance(profile("3g.40gb"), 0), Instance(profile("1g.10gb"), 3)])
    assert not legal(h100, [Instance(profile("1g.6gb", "A30"), 0)])


@pytest.mark.parametrize("model", SHAPES, ids=lambda m: m.name)
def test_every_multiset_comes_with_an_arrangement_beside_what_is_taken(model: BoardModel) -> None:
    for p in model.profiles:
        for start in p.starts:
            beside = mask_of(p, start)
            for counts, layout in multisets(model, beside).items():
                assert counts_of(model, layout) == counts
                assert legal(model, (*layout, Instance(p, start)))


def test_an_arrangement_leaves_the_most_room_for_more() -> None:
    h100 = board("H100-80GB")
    one_3g = counts_of(h100, [Instance(profile("3g.40gb"), 0)])
    assert multisets(h100)[one_3g] == (Instance(profile("3g.40gb"), 4),)
