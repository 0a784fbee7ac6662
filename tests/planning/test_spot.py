"""What is learned of spot capacity, what a job is expected to cost until its deadline, and what it does next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.prices import CapacityType
from berth.planning.horizon import Horizon, Problem, averages
from berth.planning.spells import PRIOR, Habits, Hazards, Sightings
from berth.planning.spot import Decision, Job, Move, Place, Pool, decide

STEADY = Habits(Hazards(1e-9, 1e-9), Hazards(1e-9, 1e-9))  # nothing changes
NEW_JOB = Job(work_hours=4, left_hours=8, restart_hours=0.5, move_hours=0.5)


def a_problem(
    *,
    step: float = 0.5,
    hours: float = 8,
    work: float = 4,
    restart: float = 0.5,
    pools: int = 1,
    habits: Habits = STEADY,
) -> Problem:
    """Spot at $1, on-demand at $3, in each of some pools."""
    steps = round(hours / step)
    return Problem(
        step_hours=step,
        slack_hours=hours - work,
        restart_hours=restart,
        move_hours=restart,
        spot=((1.0,) * steps,) * pools,
        on_demand=((3.0,) * steps,) * pools,
        start_relief=((0.0,) * steps,) * pools,
        habits=(habits,) * pools,
        together=pools,
    )


def a_pool(*, up: bool = True, spot: float = 1.0, on_demand: float = 3.0, kilograms: float = 0.0) -> Pool:
    """A pool looked at for the first time."""
    return Pool(spot, on_demand, kilograms, kilograms, Sightings(up))


def decided(job: Job, *pools: Pool, step: float = 0.5, carbon_price: float = 0.0) -> Decision:
    """What `decide` says by a horizon with the prior's habits."""
    habits = pools[0].seen.habits
    problem = a_problem(step=step, hours=job.left_hours, work=job.work_hours, pools=len(pools), habits=habits)
    return decide(job, pools, carbon_price, Horizon(problem), step)


def seen(looks: str, hours: float = 0.25) -> Sightings:
    """A pool looked at every so often, such as "110100"."""
    found = Sightings(looks[0] == "1")
    for look in looks[1:]:
        found = found.then(look == "1", hours)
    return found


def test_a_pool_that_was_never_looked_at_is_taken_for_an_ordinary_one() -> None:
    assert Sightings(True).habits == Habits(PRIOR, PRIOR)


def test_a_pool_that_often_loses_its_capacity_is_expected_to_lose_it_again() -> None:
    assert seen("10" * 40).habits.up.settled > PRIOR.settled


def test_a_pool_that_keeps_its_capacity_for_days_is_expected_to_keep_it() -> None:
    steady = seen("1" * 200)
    assert steady.habits.up.settled < PRIOR.settled
    assert steady.habits.availability > Sightings(True).habits.availability


def test_a_spell_settles_with_age_and_its_successor_is_fresh() -> None:
    assert seen("0" + "1" * 5).settled
    assert not seen("0" + "1" * 5 + "0").settled


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.01, 3))
def test_the_odds_of_what_a_pool_turns_to_add_up_to_one(fresh: float, settled: float, hours: float) -> None:
    hazards = Hazards(fresh, settled)
    for row in Habits(hazards, hazards).transitions(hours):
        assert sum(row) == pytest.approx(1)
        assert min(row) >= 0


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=30), st.integers(1, 40))
def test_a_forecast_keeps_its_mean_whatever_the_steps(series: Sequence[float], steps: int) -> None:
    found = averages(np.array(series), 1.0, len(series) / steps, steps)
    assert found.mean() == pytest.approx(np.mean(series), abs=1e-6)


def test_capacity_that_stays_costs_its_work_and_one_start() -> None:
    horizon = Horizon(a_problem())
    up, down = np.array([[0, 0, 0, 1]], np.float32), np.array([[0, 1, 0, 0]], np.float32)
    assert horizon.idle(up, 8, 4)[0] == pytest.approx(4.5, rel=1e-4)
    assert horizon.spot(up, 8, 4)[0] == pytest.approx(4.0, rel=1e-4)
    assert horizon.idle(down, 8, 4)[0] == pytest.approx(13.5, rel=1e-4)
    assert horizon.on_demand(down, 8, 4)[0] == pytest.approx(12.0, rel=1e-4)


def test_another_pool_is_worth_something_where_the_own_one_fails() -> None:
    habits = Sightings(True).habits
    down = np.array([[0, 1, 0, 0]] * 3, np.float32)
    alone = Horizon(a_problem(habits=habits)).idle(down[:1], 8, 4)[0]
    among_three = Horizon(a_problem(habits=habits, pools=3)).idle(down, 8, 4)[0]
    assert among_three < alone


def test_spot_capacity_is_taken_where_it_is_there() -> None:
    best = decided(NEW_JOB, a_pool()).best
    assert (best.move, best.place) == (Move.RUN, Place(0, CapacityType.SPOT))
    assert best.dollars == pytest.approx(0.5)


def test_a_job_with_slack_waits_for_spot_capacity() -> None:
    assert decided(NEW_JOB, a_pool(up=False)).best.move is Move.WAIT


def test_a_job_without_slack_has_one_option() -> None:
    job = Job(work_hours=7.4, left_hours=8, restart_hours=0.5, move_hours=0.5)
    (only,) = decided(job, a_pool()).options
    assert only.place == Place(0, CapacityType.ON_DEMAND)


def test_a_polling_step_of_slack_is_needed_to_try_spot_capacity() -> None:
    enough = Job(work_hours=7.0, left_hours=8, restart_hours=0.5, move_hours=0.5)
    short = Job(work_hours=7.01, left_hours=8, restart_hours=0.5, move_hours=0.5)
    spot = Place(0, CapacityType.SPOT)
    assert spot in [option.place for option in decided(enough, a_pool()).options]
    assert spot not in [option.place for option in decided(short, a_pool()).options]


def test_a_running_job_stays_where_another_pool_is_no_better() -> None:
    job = Job(4, 8, 0.5, 0.5, place=Place(1, CapacityType.SPOT), pool=1)
    assert decided(job, a_pool(), a_pool()).best.place == Place(1, CapacityType.SPOT)


def test_a_job_whose_pool_failed_moves_to_one_with_capacity() -> None:
    job = Job(4, 8, 0.5, 0.5, pool=0)
    best = decided(job, a_pool(up=False), a_pool()).best
    assert (best.move, best.place) == (Move.MOVE, Place(1, CapacityType.SPOT))


def test_options_list_their_terms() -> None:
    options = decided(NEW_JOB, a_pool(kilograms=0.4), carbon_price=2.0).options
    running = next(option for option in options if option.place == Place(0, CapacityType.ON_DEMAND))
    assert (running.dollars, running.kilograms, running.carbon_dollars) == pytest.approx((1.5, 0.2, 0.4))
    assert running.cost == pytest.approx(1.9 + running.to_come)


def test_the_same_input_gives_the_same_decision() -> None:
    job = Job(4, 8, 0.5, 0.5, pool=0)
    pools = [a_pool(), a_pool(up=False), a_pool()]
    assert decided(job, *pools) == decided(job, *pools)
