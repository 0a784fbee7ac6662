"""The table of boards: every layout legal, every figure as the sources give it."""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.model.gpus import (
    MODELS,
    WHOLE_BOARD,
    BoardModel,
    Profile,
    model_of_product,
    nominal_mib,
    resource_of,
)

WITH_MIG = [m for m in MODELS if m.profiles]
FIGURES = ("compute_slices", "memory_slices", "starts", "max_instances")
Instance = tuple[int, int, int]
"""Start, memory slices, GPU-instance profile id."""


def model(name: str) -> BoardModel:
    return next(m for m in MODELS if m.name == name)


@cache
def layouts(board: str) -> frozenset[frozenset[Instance]]:
    """Every set of instances that a board can hold, found by adding one after another."""
    profiles = model(board).profiles
    found: set[frozenset[Instance]] = {frozenset()}
    todo = list(found)
    while todo:
        layout = todo.pop()
        for p in profiles:
            if sum(1 for *_, gi in layout if gi == p.gi_profile_id) >= p.max_instances:
                continue
            for start in p.starts:
                free = all(start + p.memory_slices <= s or s + size <= start for s, size, _ in layout)
                larger = layout | {(start, p.memory_slices, p.gi_profile_id)}
                if free and larger not in found:
                    found.add(larger)
                    todo.append(larger)
    return frozenset(found)


def without_media(board: str) -> set[frozenset[tuple[int, int, int]]]:
    media = {p.gi_profile_id for p in model(board).profiles if p.media}
    return {layout for layout in layouts(board) if not any(gi in media for *_, gi in layout)}


@pytest.mark.parametrize("board", WITH_MIG, ids=lambda m: m.name)
def test_every_start_lies_on_the_board(board: BoardModel) -> None:
    for profile in board.profiles:
        assert all(0 <= start <= board.memory_slices - profile.memory_slices for start in profile.starts)


@pytest.mark.parametrize("board", WITH_MIG, ids=lambda m: m.name)
def test_no_more_instances_are_allowed_than_fit_side_by_side(board: BoardModel) -> None:
    for profile in board.profiles:
        apart = sum(b - a >= profile.memory_slices for a, b in pairwise(profile.starts)) + 1
        assert profile.max_instances == (1 if profile.media else apart)


@pytest.mark.parametrize("board", ["A100-40GB", "H100-80GB", "B200"])
def test_compute_never_exceeds_seven_slices_in_any_layout(board: str) -> None:
    compute = {p.gi_profile_id: p.compute_slices for p in model(board).profiles}
    assert max(sum(compute[gi] for *_, gi in layout) for layout in layouts(board)) == 7


def test_an_eight_slice_board_has_723_layouts_of_which_78_are_full() -> None:
    plain = without_media("H100-80GB")
    full = {layout for layout in plain if not any(layout < other for other in plain)}
    assert (len(plain), len(full)) == (723, 78)


def test_all_eight_slice_boards_share_one_geometry() -> None:
    geometries = {
        tuple((p.gi_profile_id, p.compute_slices, p.memory_slices, p.starts, p.max_instances) for p in m.profiles)
        for m in WITH_MIG
        if m.memory_slices == 8
    }
    assert len(geometries) == 1


def test_a_larger_instance_of_a_board_has_more_memory() -> None:
    for board in WITH_MIG:
        by_slices = sorted(board.profiles, key=lambda p: p.memory_slices)
        for smaller, larger in pairwise(by_slices):
            if smaller.memory_slices < larger.memory_slices:
                assert smaller.usable_mib < larger.usable_mib <= board.memory_mib


def test_names_are_unique() -> None:
    assert len({m.name for m in MODELS}) == len(MODELS)
    products = [product for m in MODELS for product in m.products]
    assert len(set(products)) == len(products)
    for board in WITH_MIG:
        names = [name for p in board.profiles for name in (p.name, *p.aliases)]
        assert len(set(names)) == len(names)


def test_a_2g_20gb_has_less_than_20_gib() -> None:
    profile = model("A100-80GB").profile("2g.20gb")
    assert profile is not None
    assert profile.usable_mib == 19968 < 20 * 1024


def test_unknown_memory_is_reckoned_from_the_nominal_size() -> None:
    assert Profile("1g.34gb", 19, 1, 1, (0,), 7).usable_mib == nominal_mib(34) == 31452


def test_a_profile_answers_to_the_names_of_older_drivers() -> None:
    h100 = model("H100-80GB")
    assert h100.profile("7g.79gb") is h100.profile("7g.80gb")
    assert h100.profile("2g.10gb") is None
    assert h100.profile_of("nvidia.com/mig-7g.79gb") is h100.profile("7g.80gb")
    assert h100.profile_of(WHOLE_BOARD) is None


def test_a_plus_is_spelled_as_a_dot_in_a_resource_name() -> None:
    assert resource_of("1g.10gb+me") == "nvidia.com/mig-1g.10gb.me"


def test_a_model_answers_to_its_name_its_family_and_its_product_in_any_case() -> None:
    assert {m.name for m in MODELS if m.answers_to("h100")} == {"H100-80GB", "H100-PCIE-80GB", "H100-94GB"}
    assert [m.name for m in MODELS if m.answers_to("nvidia-h100-80gb-hbm3")] == ["H100-80GB"]
    assert [m for m in MODELS if m.answers_to("H1000")] == []


def test_a_product_that_the_table_lacks_is_a_model_of_its_own_without_mig() -> None:
    board = model_of_product("NVIDIA-RTX-9", 24576)
    assert (board.name, board.memory_mib, board.profiles) == ("RTX-9", 24576, ())
    assert model_of_product("NVIDIA-H200") is model("H200")


def reference() -> list[dict[str, Any]]:
    """The machine-readable geometry that the project was given, where it is at hand."""
    shared = Path(os.environ.get("BERTH_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = shared / "gpu" / "mig-geometry.yaml"
    if not path.is_file():
        pytest.skip(f"no reference geometry at {path}; BERTH_DATA names the folder that holds gpu/")
    boards: list[dict[str, Any]] = yaml.safe_load(path.read_text())["gpus"]
    return boards


def test_the_table_agrees_with_the_reference_geometry() -> None:
    boards = {name: board for board in reference() for name in (board["id"].upper(), *board["gfd_products"])}
    compared = set()
    for ours in WITH_MIG:
        for theirs in (boards[name] for name in (ours.name, *ours.products) if name in boards):
            assert ours.memory_slices == theirs["memory_slice_count"]
            assert len(ours.profiles) == len(theirs["profiles"])
            expected = {p["gi_profile_id"]: p for p in theirs["profiles"]}
            for profile in ours.profiles:
                other = expected[profile.gi_profile_id]
                where = (ours.name, profile.name)
                figures = {name: getattr(profile, name) for name in FIGURES}
                assert figures == {**{name: other[name] for name in FIGURES}, "starts": tuple(other["starts"])}, where
                assert profile.media == (other["media"] == "+me"), where
                names = {other["name"], *theirs.get("name_aliases", {}).get(other["name"], [])}
                assert names <= {profile.name, *profile.aliases}, where
                if other["memory_mib"] is not None:
                    assert profile.memory_mib == other["memory_mib"], where
            compared.add(theirs["id"])
    assert compared == {board["id"] for board in boards.values()}
