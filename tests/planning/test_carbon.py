"""What is expected of hours that no fresh forecast tells of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.carbon import CarbonForecast, Known, Point, hourly
from berth.model.energy import board_watts, drawn_watts, kilograms, kilowatt_hours
from berth.model.gpus import MODELS
from berth.planning.carbon import WORLD_GRAMS, Origin, merged, outlook

NOW = 480_000 * 3600.0 + 600
HOUR = 480_000
STALE = 7200.0

hours = st.dictionaries(st.integers(HOUR - 200, HOUR + 100), st.floats(0, 1000), max_size=40)


def known(values: dict[int, float], age: float = 0.0) -> Known:
    """So many hours from the current one, told `age` seconds ago."""
    return Known("x", NOW - age, NOW - age, {HOUR + hour: grams for hour, grams in values.items()})


def test_a_fresh_forecast_is_taken_as_it_is() -> None:
    found = outlook(known({0: 300, 1: 200}), None, NOW, 2, STALE)
    assert (found.start, found.grams, found.counts) == (HOUR, (300, 200), {Origin.FORECAST: 2})


def test_falls_back_hour_by_hour_from_a_stale_forecast_to_yesterday_to_the_table() -> None:
    found = outlook(known({0: 300, -23: 250, -70: 240}, age=7201), 400, NOW, 4, STALE)
    assert found.grams == (300, 250, 240, 400)
    assert found.origins == (Origin.STALE, Origin.YESTERDAY, Origin.YESTERDAY, Origin.STATIC)


def test_knows_the_world_where_it_knows_nothing_else() -> None:
    found = outlook(None, None, NOW, 2, STALE)
    assert (found.grams, set(found.origins)) == ((WORLD_GRAMS,) * 2, {Origin.WORLD})


def test_what_yesterday_was_is_not_remembered_for_ever() -> None:
    assert outlook(known({-24 * 8: 100}), None, NOW, 1, STALE).origins == (Origin.WORLD,)


@given(st.one_of(st.none(), hours), st.one_of(st.none(), st.floats(0, 1000)), st.floats(0, 1e6), st.integers(1, 100))
def test_there_is_never_a_gap(told: dict[int, float] | None, assumed: float | None, age: float, count: int) -> None:
    before = None if told is None else Known("x", NOW - age, NOW - age, told)
    found = outlook(before, assumed, NOW, count, STALE)
    assert len(found.grams) == len(found.origins) == sum(found.counts.values()) == count
    assert found.curve.at(NOW) == found.grams[0]


def test_a_new_forecast_wins_and_the_past_is_kept_for_a_week() -> None:
    found = merged(known({-169: 1, -168: 2, 0: 3, 1: 4}), "x", CarbonForecast(NOW - 5, {HOUR + 1: 9}), NOW)
    assert found == Known("x", NOW - 5, NOW, {HOUR - 168: 2, HOUR: 3, HOUR + 1: 9})


def test_what_another_source_told_is_forgotten() -> None:
    assert merged(known({-1: 1}), "y", CarbonForecast(NOW, {HOUR: 9}), NOW).hours == {HOUR: 9}


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(60, 9000), st.floats(0, 900)), min_size=1, max_size=20))
def test_the_mean_of_an_hour_lies_between_its_values(stretches: list[tuple[int, int, float]]) -> None:
    points = [Point(time * 60.0, float(seconds), grams) for time, seconds, grams in stretches]
    for hour, grams in hourly(points).items():
        inside = [p.grams for p in points if p.time < (hour + 1) * 3600 and p.time + p.seconds > hour * 3600]
        assert min(inside) - 1e-6 <= grams <= max(inside) + 1e-6


def test_an_hour_of_an_idle_and_of_a_busy_h100_in_a_building() -> None:
    h100 = next(m for m in MODELS if m.name == "H100-80GB")
    assert (board_watts(h100, 0), board_watts(h100, 1), board_watts(h100, 7)) == (pytest.approx(80.5), 700, 700)
    watts = drawn_watts(8, board_watts(h100, 1), pue=1.1)
    assert watts == pytest.approx(9240)
    assert kilograms(kilowatt_hours(watts, 3600), 400) == pytest.approx(3.696)
