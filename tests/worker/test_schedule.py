"""When a save is due."""

from __future__ import annotations

import math

import pytest

from berth.worker.schedule import Schedule, daly

HOUR = 3600.0


class Timer:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("mtbf_hours", "minutes"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_the_golden_values_of_daly_s_formula(mtbf_hours: float, minutes: float) -> None:
    assert daly(300, mtbf_hours * HOUR) / 60 == pytest.approx(minutes, abs=1)


def test_a_fixed_interval_counts_from_the_end_of_the_last_save() -> None:
    timer = Timer()
    schedule = Schedule(60, timer=timer)
    timer.now += 59
    assert not schedule.due()
    timer.now += 1
    assert schedule.due()
    timer.now += 30
    schedule.saved(30)
    assert not schedule.due()
    timer.now += 60
    assert schedule.due()


def test_an_automatic_interval_follows_the_time_that_saves_take() -> None:
    schedule = Schedule(mtbf_seconds=6 * HOUR)
    assert schedule.interval_seconds == pytest.approx(daly(10, 6 * HOUR))
    schedule.saved(300)
    assert schedule.interval_seconds == pytest.approx(daly(300, 6 * HOUR))
    schedule.saved(100)
    assert schedule.interval_seconds == pytest.approx(daly(200, 6 * HOUR))


def test_what_berth_tells_goes_before_what_the_process_knows() -> None:
    schedule = Schedule()
    schedule.tell(500)
    assert schedule.interval_seconds != 500, "the first save comes early, so that its time is known"
    schedule.saved(30)
    assert schedule.interval_seconds == 500


def test_what_the_user_fixed_goes_before_what_berth_tells() -> None:
    schedule = Schedule(60)
    schedule.saved(30)
    schedule.tell(500)
    assert schedule.interval_seconds == 60


@pytest.mark.parametrize("nonsense", [0, -1, math.nan, math.inf])
def test_no_interval_is_taken_from_nonsense(nonsense: float) -> None:
    schedule = Schedule()
    schedule.saved(30)
    schedule.tell(nonsense)
    assert schedule.interval_seconds == daly(30, 24 * HOUR)


def test_after_a_failure_it_is_tried_again_soon_but_not_at_every_step() -> None:
    timer = Timer()
    schedule = Schedule(600, timer=timer)
    timer.now += 600
    assert schedule.due()
    schedule.failed()
    timer.now += 59
    assert not schedule.due()
    timer.now += 1
    assert schedule.due()
