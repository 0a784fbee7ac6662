"""How long work runs, by whom that is known."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from berth.model.workloads import Workload
from berth.planning.estimates import STARTING_SECONDS, UNKNOWN_SECONDS, Estimates
from tests.planning.builders import NOW, a_job, a_service, running


def done(name: str, seconds: float, **more: object) -> Workload:
    """A job that ended well after so long."""
    return a_job(name, finished="Succeeded", started_at=NOW - 90_000, finished_at=NOW - 90_000 + seconds, **more)  # type: ignore[arg-type]


def known(job: Workload, *others: Workload) -> float | None:
    """How long a job runs, among these others."""
    return Estimates((*others, job), NOW).run_seconds(job)


def test_what_the_user_says_goes_before_what_others_took() -> None:
    assert known(a_job("train-3", estimated_seconds=60.0), done("train-2", 500)) == 60


def test_jobs_of_the_same_name_but_for_numbers_are_the_best_witnesses() -> None:
    others = [done("train-1", 100), done("train-2", 300), done("train-10", 200), done("eval-1", 9000)]
    assert known(a_job("train-11"), *others) == 200


def test_jobs_of_the_same_queue_and_size_are_the_next_best() -> None:
    others = [done("eval-1", 700), done("other", 9, queue="b"), done("large", 9, workers=2), done("two", 9, gpus=2)]
    assert known(a_job("train-1"), *others) == 700


def test_what_failed_or_never_ran_says_nothing() -> None:
    failed = replace(done("train-1", 5), finished="Failed")
    unseen = replace(done("train-2", 5), started_at=0.0)
    assert known(a_job("train-3"), failed, unseen) is None


@pytest.mark.parametrize(
    ("estimated", "limit", "expected"), [(None, 50.0, 50.0), (80.0, 50.0, 50.0), (30.0, 50.0, 30.0)]
)
def test_no_run_takes_longer_than_its_limit(estimated: float | None, limit: float, expected: float) -> None:
    assert known(a_job(estimated_seconds=estimated, max_runtime_seconds=limit)) == expected


def test_a_service_runs_for_ever() -> None:
    assert known(a_service()) == inf


def test_where_it_is_to_pass_what_nine_of_ten_took_at_most_counts() -> None:
    others = [done(f"train-{minutes}", 60.0 * minutes) for minutes in range(1, 21)]
    estimates = Estimates(others, NOW)
    assert estimates.end(a_job("train-21"))[0] == NOW + 60 * 10.5
    assert estimates.end_if_admitted(a_job("train-21")) == NOW + STARTING_SECONDS + 60 * 18


def test_what_is_not_known_may_last_for_ever_where_it_is_to_pass() -> None:
    estimates = Estimates((), NOW)
    assert estimates.end_if_admitted(a_job()) == inf
    assert estimates.end_if_admitted(a_job(estimated_seconds=60.0)) == NOW + STARTING_SECONDS + 60


@pytest.mark.parametrize(("elapsed", "total"), [(0, 600), (599, 600), (600, 1200), (1300, 2400)])
def test_an_estimate_that_is_overrun_doubles(elapsed: float, total: float) -> None:
    job = running(a_job(estimated_seconds=600.0), "n1", started_at=NOW - elapsed)
    assert Estimates((job,), NOW).end(job) == (NOW - elapsed + total, True)


def test_a_run_of_unknown_length_is_guessed_to_last_as_long_again() -> None:
    job = running(a_job(), "n1", started_at=NOW - 5 * UNKNOWN_SECONDS)
    assert Estimates((job,), NOW).end(job) == (NOW + 3 * UNKNOWN_SECONDS, False)


def test_no_end_is_expected_after_the_limit() -> None:
    job = running(a_job(estimated_seconds=600.0, max_runtime_seconds=1000.0), "n1", started_at=NOW - 700)
    assert Estimates((job,), NOW).end(job) == (NOW + 300, True)


def test_an_attempt_that_is_stopping_ends_soon() -> None:
    job = running(a_job(estimated_seconds=9e9), "n1", stopping="Suspended")
    assert Estimates((job,), NOW).end(job)[0] < NOW + 100
