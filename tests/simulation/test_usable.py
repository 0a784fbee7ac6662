"""Fragmentation, worked by hand."""

from __future__ import annotations

import pytest

from tests.simulation.builders import BOUND, HOUR, READY, a_job, a_pool, run


def fragmentation(*work: object, **more: object) -> tuple[float, float]:
    """The shares that are useless to all, and to the mean workload, while the first one runs."""
    result = run(*work, horizon=BOUND + HOUR, **more)
    moment = len(result.series["atSeconds"]) // 2
    to_all, to_mean = result.series["uselessToAll"][moment], result.series["uselessToMean"][moment]
    assert to_all is not None
    assert to_mean is not None
    return to_all, to_mean


def test_boards_that_only_a_part_of_the_mix_can_use() -> None:
    one, eight = a_job("one", gpus=1), a_job("eight", gpus=8, at=60)
    assert fragmentation(one, eight) == (pytest.approx(0), pytest.approx(1 / 2))


def test_boards_that_nobody_can_use() -> None:
    first, second = a_job("first", gpus=5), a_job("second", gpus=5, at=60)
    assert fragmentation(first, second) == (pytest.approx(1), pytest.approx(1))


def test_what_is_left_over_beside_what_can_be_used() -> None:
    first, second = a_job("first", gpus=3), a_job("second", gpus=3, at=2 * HOUR)
    assert fragmentation(first, second) == (pytest.approx(2 / 5), pytest.approx(2 / 5))


def test_nodes_of_several_racks_are_of_no_use_to_a_gang_that_wants_one() -> None:
    place = {"nodesPerRack": 2}
    gang = a_job("gang", workers=3, topology={"level": "rack", "mode": "Required"}, at=60)
    first = a_job("first", workers=1)
    to_all, to_mean = fragmentation(first, gang, pools=(a_pool(nodes=4, topology=place),))
    assert (to_all, to_mean) == (pytest.approx(0), pytest.approx(1 / 2))


def test_instances_count_as_their_share_of_a_board() -> None:
    pool = a_pool(boards=2, mig=[{"boards": [0], "layout": {"3g.40gb": 1, "1g.10gb": 3}}])
    small = a_job("small") | {"gpus": {"profile": "1g.10gb"}}
    # free: the whole board, 4/8 as 3g.40gb, and two of three 1g.10gb; only these are of use
    assert fragmentation(small, pools=(pool,))[0] == pytest.approx(1.5 / 1.75)


def test_a_node_that_is_down_has_nothing_free() -> None:
    failures = [{"node": "dgx-1", "at": 0, "for": "2h"}]
    result = run(a_job(), pools=(a_pool(nodes=2),), failures=failures, horizon=READY + HOUR / 2)
    assert result.series["uselessToAll"][-1] is None
