"""An attempt that gets on no more is restarted elsewhere once; the next in a row counts as a crash."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from berth.model.failures import HUNG, Crash, Failures, Pace, Restart
from berth.model.workloads import PodPhase, RunPhase, Workload
from berth.planning.actions import Finish, Plan, Stop
from berth.planning.hangs import DISCONNECTED_SECONDS, UNMEASURED_SECONDS, patience
from tests.planning.builders import NOW, a_job, a_node, planned, running

TWO = [a_node("n1"), a_node("n2")]
STEADY = Pace(1, NOW - 400, usual_seconds=5.0, longest_seconds=20.0)
LAST = Crash(1, NOW - 900, "n2", None, HUNG)


def a_run(pace: Pace = STEADY, *, save_seconds: float = 10.0, **more: Any) -> Workload:
    """A job that has been running for an hour, and has saved."""
    job = a_job(gpus=8, pace=pace, save_seconds=save_seconds, **more)
    return running(job, "n1", pods=PodPhase.READY, started_at=NOW - 3600)


def looked_at(job: Workload, *, listening: float = 0.0, **more: Any) -> Plan:
    return planned(TWO, job, listening=listening, **more)


def test_who_gets_on_no_more_is_restarted_elsewhere_and_not_counted() -> None:
    (stop,) = looked_at(a_run(saved_step=7)).actions
    assert isinstance(stop, Stop)
    assert (stop.reason, stop.not_before, stop.avoid) == ("Restarted", NOW, (("n1", NOW + 120),))
    assert stop.failures == Failures(hangs=1, step=7, last=(Crash(1, NOW, "n1", None, HUNG),))
    assert stop.message == "no progress was reported for 400 s, though one comes every 5 s: restarted"
    assert stop.log_of is not None


def test_who_gets_on_goes_on_and_is_looked_at_when_it_would_have_hung() -> None:
    plan = looked_at(a_run(replace(STEADY, advanced_at=NOW - 100)))
    assert (plan.actions, plan.wake_at) == ((), NOW + 200)


def test_what_was_heard_last_counts_though_no_status_tells_it_yet() -> None:
    job = a_run()
    assert looked_at(job, paces={job.ref.uid: replace(STEADY, advanced_at=NOW - 1)}).actions == ()


def test_the_next_hang_in_a_row_counts_as_a_crash() -> None:
    before = Failures(hangs=1, step=7, last=(LAST,))
    (stop,) = looked_at(a_run(replace(STEADY, advanced_at=NOW - 600), saved_step=7, failures=before)).actions
    assert isinstance(stop, Stop)
    assert (stop.reason, stop.not_before) == ("Restarted", NOW + 10)
    assert stop.failures is not None
    assert (stop.failures.restarts, stop.failures.hangs, stop.failures.row) == (1, 2, 1)


def test_a_hang_after_something_new_was_saved_counts_as_the_first() -> None:
    before = Failures(hangs=1, step=7, last=(LAST,))
    (stop,) = looked_at(a_run(replace(STEADY, advanced_at=NOW - 600), saved_step=8, failures=before)).actions
    assert isinstance(stop, Stop)
    assert stop.failures is not None
    assert (stop.failures.restarts, stop.failures.hangs) == (0, 2)


def test_a_hang_too_many_is_the_end_once_its_pods_are_gone() -> None:
    before = Failures(restarts=3, hangs=1, step=7, last=(LAST,))
    job = a_run(replace(STEADY, advanced_at=NOW - 600), saved_step=7, failures=before)
    (stop,) = looked_at(job).actions
    assert isinstance(stop, Stop)
    assert stop.reason == HUNG
    assert job.attempt is not None
    gone = replace(job, pods=(), attempt=replace(job.attempt, phase=RunPhase.SUSPENDED, stopping=HUNG))
    (finish,) = looked_at(gone).actions
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.reason) == ("Failed", HUNG)


@pytest.mark.parametrize(
    ("pace", "more", "expected"),
    [
        (Pace(1, NOW, 5.0, 20.0), {}, 300.0),
        (Pace(1, NOW, 60.0, 70.0), {}, 600.0),
        (Pace(1, NOW, 5.0, 1200.0), {}, 2400.0),
        (Pace(1, NOW, 5.0, 20.0), {"save_seconds": 400.0}, 1200.0),
        (Pace(1, NOW, 5.0, 20.0), {"save_seconds": 0.0}, UNMEASURED_SECONDS),
        (Pace(1, NOW, 5.0, 20.0), {"failures": Failures(last=(LAST, LAST))}, 1200.0),
        (Pace(1, NOW, 5.0, 20.0), {"failures": Failures(last=(LAST, Crash(2, NOW, "n1", 1)))}, 300.0),
        (Pace(1, NOW, None, 20.0), {}, inf),
        (Pace(1, NOW, 5.0, 20.0), {"restart": Restart(hang_seconds=30.0)}, 30.0),
        (Pace(1, NOW, 5.0, 20.0), {"restart": Restart(hang_seconds=inf)}, inf),
    ],
)
def test_how_long_is_too_long_goes_by_the_pace_pauses_saves_and_hangs_so_far(
    pace: Pace, more: dict[str, Any], expected: float
) -> None:
    assert patience(a_run(pace, **more), pace) == expected


def test_a_time_of_its_users_counts_from_the_start_where_nothing_is_reported() -> None:
    job = a_run(Pace(), restart=Restart(hang_seconds=3600.0))
    assert [type(a) for a in looked_at(job).actions] == [Stop]
    assert looked_at(job, now=NOW - 1).actions == ()


def test_the_pace_of_an_earlier_attempt_says_nothing() -> None:
    assert looked_at(a_run(replace(STEADY, attempt=0))).actions == ()


def test_silence_before_the_operator_listened_says_nothing() -> None:
    plan = looked_at(a_run(), listening=NOW - 100)
    assert (plan.actions, plan.wake_at) == ((), NOW - 100 + DISCONNECTED_SECONDS + 300)
    assert looked_at(a_run(), listening=inf).actions == ()


def test_a_gang_that_lacks_a_member_has_not_hung() -> None:
    job = a_run()
    for pods in ((), (replace(job.pods[0], terminating=True),), (replace(job.pods[0], phase=PodPhase.BOUND),)):
        assert [a for a in looked_at(replace(job, pods=pods)).actions if a.failures] == []  # type: ignore[union-attr]
