"""Many jobs planned at once from the same forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from berth.model.prices import CapacityType
from berth.planning.horizons import Forecast, Horizons, Kind, rounded_down
from berth.planning.spells import Sightings
from berth.planning.spot import Move, Option, Place

CLEAN, DIRTY = 50.0, 700.0


def best(
    *grams: Sequence[float],
    work: float = 4,
    left: float = 24,
    carbon_price: float = 20.0,
    up: bool = True,
    kilowatts: float = 1.0,
) -> Option:
    """What a new job does whose pools have these g/kWh, hour by hour."""
    kinds = [Kind((1.0,) * len(grams), (3.0,) * len(grams), draw, draw / 10, 0.1, 0.1) for draw in (kilowatts, 0.2)]
    pools = [Forecast(tuple(series), Sightings(up)) for series in grams]
    horizons = Horizons(pools, kinds, carbon_price, step_hours=1.0, polled_hours=0.1)
    return horizons.decide(work, left, kinds[0]).best


def test_a_job_with_slack_waits_for_the_clean_hours() -> None:
    assert best([DIRTY] * 10 + [CLEAN] * 14).move is Move.WAIT


def test_a_job_without_slack_runs_at_once() -> None:
    option = best([DIRTY] * 10 + [CLEAN] * 14, work=23.85)
    assert option.place == Place(0, CapacityType.ON_DEMAND)


def test_where_carbon_costs_nothing_spot_capacity_is_taken_at_once() -> None:
    assert best([DIRTY] * 10 + [CLEAN] * 14, carbon_price=0.0).place == Place(0, CapacityType.SPOT)


def test_a_job_that_draws_little_does_not_wait_for_clean_hours() -> None:
    assert best([DIRTY] * 10 + [CLEAN] * 14, kilowatts=0.005).place == Place(0, CapacityType.SPOT)


def test_the_cleaner_of_two_pools_is_taken() -> None:
    assert best([DIRTY] * 24, [CLEAN] * 24).place == Place(1, CapacityType.SPOT)


@pytest.mark.parametrize("left", [0.5, 2.0, 30.0, 500.0])
def test_any_deadline_is_planned(left: float) -> None:
    assert best([CLEAN] * 24, work=left / 2, left=left).cost > 0


def test_a_deadline_is_taken_for_less_than_an_eighth_earlier() -> None:
    assert all(0 <= steps - rounded_down(steps) < steps / 8 for steps in range(1, 1000))


def test_ninety_six_deadlines_become_few() -> None:
    assert len({rounded_down(steps) for steps in range(1, 97)}) == 36
