"""When work that may wait runs: laws, and the optimum found by trying everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.deferral import HOUR, Curve, Run, Schedule, Work, schedule

FOUR_DAYS = 96


def a_curve(*hours: float, start: float = 0.0) -> Curve:
    return Curve(start, hours)


def some_work(hours: float, *, by: float, now: float = 0.0, pausable: bool = True, **more: float) -> Work:
    """Work of so many hours that has to end by an hour."""
    return Work(now * HOUR, hours * HOUR, by * HOUR, pausable, **more)


def in_hours(found: Schedule) -> list[tuple[float, float]]:
    return [(begin / HOUR, end / HOUR) for begin, end in found.runs]


def test_runs_in_the_cleanest_hours() -> None:
    found = schedule(a_curve(400, 100, 300, 100, 400), some_work(2, by=5))
    assert in_hours(found) == [(1, 2), (3, 4)]
    assert (found.grams, found.delay_seconds) == (200, 2 * HOUR)


def test_stays_in_one_piece_where_it_may_not_pause() -> None:
    assert in_hours(schedule(a_curve(400, 100, 300, 90, 500), some_work(2, by=5, pausable=False))) == [(2, 4)]


def test_stays_in_one_piece_where_pauses_cost_more_than_they_save() -> None:
    work = some_work(2, by=5, pause_seconds=HOUR)
    assert in_hours(schedule(a_curve(400, 100, 150, 100, 400), work)) == [(1, 3)]


def test_a_restart_is_run_for() -> None:
    found = schedule(a_curve(100, 100, 900, 100, 100, 100), some_work(4, by=6, pause_seconds=HOUR / 2))
    assert in_hours(found) == [(0, 2), (3, 5.5)]


def test_runs_at_once_without_slack() -> None:
    assert in_hours(schedule(a_curve(400, 100, 100), some_work(2, by=1.5))) == [(0, 2)]


def test_waits_only_as_long_as_it_is_worth() -> None:
    hours = a_curve(300, 250, 100, 90)
    ends = [schedule(hours, some_work(1, by=4, delay_price=price)).end / HOUR for price in (0, 50, 101)]
    assert ends == [4, 3, 1]


def test_expects_the_mean_where_no_forecast_reaches() -> None:
    assert a_curve(100, 300).grams([(-HOUR, 3 * HOUR)]) == 800
    assert in_hours(schedule(a_curve(100, 300), some_work(1, by=9, now=1))) == [(2, 3)]


def test_a_curve_has_hours() -> None:
    with pytest.raises(ValueError, match="at least one hour"):
        Curve(0, [])


curves = st.lists(st.floats(0, 900), min_size=1, max_size=FOUR_DAYS).map(lambda hours: Curve(1e9, hours))


@st.composite
def works(draw: st.DrawFn) -> Work:
    now = 1e9 + draw(st.floats(0, 40 * HOUR))
    seconds = draw(st.floats(1, 30 * HOUR))
    return Work(
        now,
        seconds,
        now + seconds + draw(st.floats(-HOUR, 48 * HOUR)),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 240.0, HOUR])),
        draw(st.sampled_from([0.0, 5.0, 100.0])),
    )


@given(curves, works())
def test_works_all_of_it_in_time_and_is_never_worse_off_than_at_once(curve: Curve, work: Work) -> None:
    found = schedule(curve, work)
    assert sum(end - begin for begin, end in found.runs) == pytest.approx(
        work.seconds + work.pause_seconds * (len(found.runs) - 1), abs=1e-4
    )
    assert work.now <= found.runs[0][0]
    assert found.end <= max(work.latest_end, work.now + work.seconds) + 1e-5
    assert all(a[1] < b[0] for a, b in zip(found.runs, found.runs[1:], strict=False))
    assert found.runs[1:] == () or work.pausable
    at_once = curve.grams([(work.now, work.now + work.seconds)])
    assert found.grams + work.delay_price * found.delay_seconds / HOUR <= at_once + 1e-6
    assert found == schedule(curve, work)


@given(curves, works())
def test_more_time_never_emits_more_in_one_piece(curve: Curve, work: Work) -> None:
    work = replace(work, pausable=False, delay_price=0.0)
    longer = replace(work, latest_end=work.latest_end + 6 * HOUR)
    assert schedule(curve, longer).grams <= schedule(curve, work).grams + 1e-6


@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=9),
    st.integers(1, 4),
    st.sampled_from([0, 1]),
    st.sampled_from([0, 60]),
)
def test_nothing_is_cheaper_where_all_is_in_whole_hours(
    hours: list[int], needed: int, restart: int, delay_price: int
) -> None:
    needed = min(needed, len(hours))
    work = some_work(needed, by=len(hours), pause_seconds=restart * HOUR, delay_price=float(delay_price))
    found = schedule(Curve(0, hours), work)
    price = found.grams + delay_price * found.delay_seconds / HOUR
    assert price == pytest.approx(min(prices(hours, needed, restart, delay_price)), abs=1e-6)


def prices(hours: list[int], needed: int, restart: int, delay_price: int) -> list[float]:
    """What each choice of hours costs that works enough of them."""
    return [
        sum(hours[hour] for hour in chosen) + delay_price * (chosen[-1] + 1 - needed)
        for count in range(needed, len(hours) + 1)
        for chosen in combinations(range(len(hours)), count)
        if count == needed + restart * (pieces(chosen) - 1) and all(r > restart for r in restarted(chosen))
    ]


def restarted(chosen: tuple[int, ...]) -> list[int]:
    return [len(list(group)) for _, group in groupby(enumerate(chosen), lambda pair: pair[1] - pair[0])][1:]


def pieces(chosen: tuple[int, ...]) -> int:
    return len(restarted(chosen)) + 1


def test_the_order_of_options_does_not_depend_on_chance() -> None:
    flat: tuple[Run, ...] = schedule(a_curve(*[100] * 48), some_work(3, by=48)).runs
    assert flat == ((0, 3 * HOUR),)
