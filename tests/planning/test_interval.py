"""How often to save: golden values, and laws of the interval that is chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.interval import (
    AGES,
    DAY,
    HOUR,
    MINUTE,
    SPOT,
    STEADY,
    Hazard,
    Rate,
    caught,
    daly,
    exact,
    next_interval,
    wall_time,
    waste,
    young,
)
from berth.worker import schedule

SAVES = st.floats(1, 600)
MTBFS = st.floats(HOUR, 30 * DAY)


@pytest.mark.parametrize(("mtbf", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)])
def test_the_published_intervals_for_a_save_of_five_minutes(mtbf: float, minutes: float) -> None:
    assert minutes == pytest.approx(daly(300, mtbf) / MINUTE, abs=1)
    assert minutes == pytest.approx(exact(300, mtbf) / MINUTE, abs=1)


def test_where_saves_take_longer_than_failures_are_apart_one_is_made_per_failure() -> None:
    assert daly(300, 100) == 100


@given(SAVES, MTBFS)
def test_daly_s_interval_is_near_the_exact_one_and_below_young_s(save: float, mtbf: float) -> None:
    assert daly(save, mtbf) == pytest.approx(exact(save, mtbf), rel=0.01)
    assert daly(save, mtbf) < young(save, mtbf)


@given(SAVES, MTBFS, st.floats(0.2, 5))
def test_no_other_interval_ends_work_sooner_than_the_exact_one(save: float, mtbf: float, factor: float) -> None:
    best = exact(save, mtbf)
    assert wall_time(DAY, best, save, mtbf, 60) <= wall_time(DAY, best * factor, save, mtbf, 60) * (1 + 1e-9)


@given(SAVES, MTBFS)
def test_the_first_order_waste_is_near_the_true_one_where_failures_are_rare(save: float, mtbf: float) -> None:
    interval = daly(save, mtbf)
    if interval + save < mtbf / 10:
        lost = 1 - DAY / wall_time(DAY, interval, save, mtbf, 60)
        assert waste(interval, save, mtbf, 60) == pytest.approx(lost, rel=0.12)


@given(SAVES, MTBFS)
def test_the_worker_s_formula_is_the_same(save: float, mtbf: float) -> None:
    """It has its own, since it stands alone."""
    assert schedule.daly(save, mtbf) == pytest.approx(daly(save, mtbf))


def test_of_interruptions_with_a_notice_that_saves_fit_in_none_counts() -> None:
    assert caught(6 * HOUR, 0.75) == 24 * HOUR
    steady = Hazard(Rate(1, 6 * HOUR))
    assert next_interval(steady, 30, caught_share=0.75) == pytest.approx(daly(30, 24 * HOUR))
    assert next_interval(steady, 30, caught_share=1.0) == float("inf")


def test_a_gang_of_many_nodes_saves_more_often() -> None:
    steady = Hazard(Rate(1, 100 * DAY))
    assert next_interval(steady, 30, members=100) == pytest.approx(daly(30, DAY))


def test_a_prior_gives_way_to_what_is_seen() -> None:
    seen = Hazard(SPOT)
    for _ in range(200):
        seen = seen.ran(24 * HOUR, failed=True)
    assert seen.overall.mtbf == pytest.approx(24 * HOUR, rel=0.02)
    assert next_interval(seen, 60, 5 * HOUR) > next_interval(Hazard(SPOT), 60, 5 * HOUR)


def test_spot_is_believed_less_than_other_capacity() -> None:
    assert next_interval(Hazard(SPOT), 60) < next_interval(Hazard(STEADY), 60) / 10


def test_where_failures_come_in_bursts_a_run_that_lasted_saves_less_often_than_a_fresh_one() -> None:
    seen = Hazard(SPOT)
    for _ in range(30):
        seen = seen.ran(5 * MINUTE, failed=True).ran(12 * HOUR, failed=True)
    assert next_interval(seen, 10, 5 * HOUR) > 1.5 * next_interval(seen, 10)


RUNS = st.lists(st.tuples(st.floats(0, 2 * DAY), st.booleans()), max_size=20)


@given(RUNS, SAVES, st.floats(0, 3 * DAY), st.integers(1, 1000))
def test_an_interval_is_always_finite_and_above_0(
    runs: list[tuple[float, bool]], save: float, age: float, members: int
) -> None:
    seen = Hazard(SPOT)
    for seconds, failed in runs:
        seen = seen.ran(seconds, failed)
    assert 0 < next_interval(seen, save, age, members=members) < 30 * DAY


@given(RUNS)
def test_what_is_seen_adds_up(runs: list[tuple[float, bool]]) -> None:
    seen = Hazard(SPOT)
    for seconds, failed in runs:
        seen = seen.ran(seconds, failed)
    assert sum(seen.failures) == sum(failed for _, failed in runs)
    assert sum(seen.seconds) == pytest.approx(sum(seconds for seconds, _ in runs))
    assert len(seen.failures) == len(AGES)
