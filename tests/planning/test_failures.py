"""An attempt that ends badly: whose fault it was, whether it is restarted, when and where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.failures import Crash, Failures, Restart
from berth.model.nodes import Interruption
from berth.model.workloads import Pod, PodPhase, RunPhase, Workload
from berth.planning.actions import Finish, Stop
from berth.planning.failures import FINE_SECONDS, LONGEST_BACKOFF_SECONDS, MOST_CRASHES, backoff
from tests.planning.builders import NOW, a_job, a_node, a_pod, nodes_of, planned, running, verdict_of
from tests.planning.world import World

THREE = [a_node("n1"), a_node("n2"), a_node("n3")]


def failed(*pods: Pod, job: Workload | None = None, workers: int = 1, **more: Any) -> Workload:
    """A job whose attempt failed with these pods, on as many nodes as it has workers."""
    nodes = [f"n{i + 1}" for i in range(workers)]
    given = {"phase": RunPhase.FAILED, "pods": None, **more}
    return replace(running(job or a_job(workers=workers, gpus=8), *nodes, **given), pods=pods)


def ended(code: int | None = 1, *, node: str = "n1", at: float = NOW, **more: Any) -> Pod:
    """A pod that ended by itself."""
    return a_pod(PodPhase.FAILED, node=node, exit_code=code, ended_at=at, container="main", **more)


def stop_of(job: Workload, **more: Any) -> Stop:
    (stop,) = planned(THREE, job, **more).actions
    assert isinstance(stop, Stop)
    return stop


def test_a_crash_is_restarted_after_a_while_elsewhere_and_counted() -> None:
    stop = stop_of(failed(ended()))
    assert (stop.reason, stop.not_before, stop.avoid) == ("Restarted", NOW + 10, (("n1", NOW + 130),))
    expected = "worker 0 on n1 ended with exit code 1: restart 1 of 3 (spec.restart.maxRestarts), in 10 s"
    assert stop.message == expected
    assert stop.failures == Failures(restarts=1, row=1, last=(Crash(1, NOW, "n1", 1),))
    assert stop.log_of == ended()


def test_the_crash_after_the_last_restart_is_the_end() -> None:
    before = Failures(restarts=3, row=3)
    job = failed(ended(139, message="Error"), job=a_job(failures=before))
    (finish,) = planned(THREE, job).actions
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.reason, finish.log_of) == ("Failed", "Failed", job.pods[0])
    assert finish.message == (
        "worker 0 on n1 ended with exit code 139 (SIGSEGV); it was restarted 3 times, and spec.restart.maxRestarts is 3"
    )
    assert finish.failures == replace(before, last=(Crash(1, NOW, "n1", 139, "SIGSEGV"),))


def test_without_restarts_the_first_crash_is_the_end() -> None:
    job = failed(ended(message="out of memory"), job=a_job(restart=Restart(most=0)))
    (finish,) = planned(THREE, job).actions
    told = "worker 0 on n1 ended with exit code 1: out of memory; spec.restart.maxRestarts is 0"
    assert (finish.outcome, finish.message) == ("Failed", told)


def test_a_worker_killed_for_its_memory_is_called_so() -> None:
    stop = stop_of(failed(ended(137, message="OOMKilled")))
    assert stop.message.startswith("worker 0 on n1 ended with exit code 137 (SIGKILL): OOMKilled: restart 1 of 3")
    assert stop.failures is not None
    assert stop.failures.last[0].reason == "OOMKilled"


def test_the_guilty_worker_is_the_first_that_ended() -> None:
    pods = (
        ended(143, index=0, node="n1", at=NOW - 5),
        ended(1, index=1, node="n2", at=NOW - 4),
        ended(1, index=2, node="n3", at=NOW - 6),
    )
    assert stop_of(failed(*pods, workers=3)).message.startswith("worker 2 on n3")


def test_of_workers_that_ended_at_once_one_that_was_not_told_to_is_guilty() -> None:
    pods = (ended(143, index=0, node="n1"), ended(1, index=1, node="n2"), ended(0, index=2, node="n3", at=NOW - 5))
    assert stop_of(failed(*pods, workers=3)).message.startswith("worker 1 on n2")


def test_a_worker_that_crashed_is_guilty_though_another_saved_before() -> None:
    pods = (ended(75, index=0, at=NOW - 9), ended(1, index=1, node="n2"))
    stop = stop_of(failed(*pods, workers=2))
    assert stop.message.startswith("worker 1 on n2 ended with exit code 1")


def test_a_job_about_to_fail_has_crashed_and_was_not_evicted() -> None:
    """Its controller tells the others to end before it says that the Job is to fail."""
    pods = (ended(1, index=0), a_pod(PodPhase.READY, index=1, node="n2", terminating=True, ending_since=NOW))
    stop = stop_of(failed(*pods, workers=2, phase=RunPhase.RUNNING))
    assert (stop.reason, stop.message[:34]) == ("Restarted", "worker 0 on n1 ended with exit cod")


DISRUPTED: dict[str, tuple[Pod, ...]] = {
    "an eviction": (ended(143, disrupted=True), ended(1, index=1, node="n2")),
    "a deletion that ended first": (
        ended(143, at=NOW - 3, terminating=True),
        ended(1, index=1, node="n2"),
    ),
    "a deletion that is not over": (
        a_pod(PodPhase.READY, node="n1", terminating=True, ending_since=NOW - 3),
        ended(1, index=1, node="n2"),
    ),
    "nothing but an eviction": (ended(137, disrupted=True),),
}


@pytest.mark.parametrize("what", DISRUPTED)
def test_what_a_disruption_brings_about_does_not_count(what: str) -> None:
    stop = stop_of(failed(*DISRUPTED[what], workers=2))
    assert (stop.reason, stop.failures, stop.not_before) == ("Requeued", None, NOW)


def test_what_comes_after_a_crash_does_not_excuse_it() -> None:
    pods = (ended(1, at=NOW - 3), ended(143, index=1, node="n2", terminating=True, ending_since=NOW - 3))
    assert stop_of(failed(*pods, workers=2)).reason == "Restarted"


GOING = a_node("n2", interruption=Interruption("SpotInterruption", "a test"))


@pytest.mark.parametrize("lost", [[a_node("n2", ready=False)], [GOING], []])
def test_the_end_of_a_gang_whose_node_is_lost_does_not_count(lost: list[Any]) -> None:
    job = failed(ended(1), workers=2)
    (stop,) = planned([a_node("n1"), a_node("n3"), *lost], job).actions
    assert isinstance(stop, Stop)
    assert (stop.reason, stop.failures) == ("Requeued", None)
    assert "n2 is" in stop.message


def test_who_saved_and_asks_for_it_is_restarted_at_once() -> None:
    stop = stop_of(failed(ended(75), job=a_job(saved_step=7, failures=Failures(restarts=3, row=2, step=5))))
    assert (stop.reason, stop.not_before, stop.avoid) == ("Restarted", NOW, ())
    assert stop.failures == Failures(restarts=3, row=0, step=7)
    assert stop.message == "worker 0 on n1 saved, and asked to be restarted (exit code 75)"


def test_who_asks_for_it_again_and_again_and_saves_nothing_new_has_to_wait() -> None:
    stop = stop_of(failed(ended(75), job=a_job(saved_step=5, failures=Failures(row=2, step=5))))
    assert (stop.not_before, stop.failures) == (NOW + 40, Failures(row=3, step=5))


def test_the_wait_doubles_with_each_crash_and_begins_anew_once_something_new_was_saved() -> None:
    vain = failed(ended(), job=a_job(saved_step=5, failures=Failures(restarts=2, row=2, step=5)))
    assert stop_of(vain).not_before == NOW + 40
    assert stop_of(replace(vain, saved_step=6)).not_before == NOW + 10


def test_the_wait_begins_anew_after_a_long_run() -> None:
    job = failed(ended(), job=a_job(failures=Failures(restarts=2, row=2)), started_at=NOW - FINE_SECONDS)
    assert stop_of(job).not_before == NOW + 10


@given(st.floats(1.0, 1e6), st.integers(0, 10_000))
def test_waits_grow_up_to_five_minutes_or_to_what_the_user_says(first: float, row: int) -> None:
    restart = Restart(backoff_seconds=first)
    waits = [backoff(restart, row), backoff(restart, row + 1)]
    assert waits == sorted(waits)
    assert waits[1] <= max(first, LONGEST_BACKOFF_SECONDS)
    assert waits[1] >= first


def test_a_gang_may_go_where_its_other_workers_still_are() -> None:
    going = a_pod(PodPhase.READY, index=1, node="n2", terminating=True, ending_since=NOW)
    used = {"n2": {"nvidia.com/gpu": 8, "pods": 1}}
    assert stop_of(failed(ended(), going, workers=2), used=used).avoid == (("n1", NOW + 130),)
    used["n3"] = {"nvidia.com/gpu": 1}
    assert stop_of(failed(ended(), going, workers=2), used=used).avoid == ()


def test_a_job_goes_back_to_its_node_where_there_is_no_other() -> None:
    (stop,) = planned(THREE[:1], failed(ended())).actions
    assert isinstance(stop, Stop)
    assert stop.avoid == ()


def test_a_job_that_waits_for_its_restart_goes_on_telling_why() -> None:
    crash = stop_of(failed(ended()))
    waiting = a_job(not_before=NOW + 10, verdict=replace(verdict_of(planned(THREE, a_job())), reason="Restarted"))
    assert verdict_of(planned(THREE, waiting)).message.startswith("waits for its next attempt after: ")
    assert nodes_of(planned(THREE, replace(waiting, avoid=crash.avoid), now=NOW + 10)) == ("n2",)


def test_no_more_is_remembered_than_the_last_few_crashes() -> None:
    old = tuple(Crash(i, NOW - 50 + i, "n1", 1) for i in range(MOST_CRASHES))
    stop = stop_of(failed(ended(2), job=a_job(failures=Failures(last=old))))
    assert stop.failures is not None
    assert stop.failures.last == (*old[1:], Crash(1, NOW, "n1", 2))


@given(most=st.integers(0, 4), codes=st.lists(st.sampled_from([1, 75, 137]), max_size=9))
def test_a_job_fails_with_one_crash_more_than_it_may_have(most: int, codes: list[int]) -> None:
    job = a_job(gpus=8, restart=Restart(most))
    uid = job.ref.uid
    world = World({node.name: node for node in THREE}, {uid: job})
    world.settle(rounds=60, seconds=400.0)
    crashes = 0
    for code in codes:
        crashes += code != 75
        pods = tuple(replace(p, exit_code=code, ended_at=world.now) for p in world.workloads[uid].pods)
        world.workloads[uid] = replace(world.workloads[uid], pods=pods)
        world.end(uid, PodPhase.FAILED)
        world.settle(rounds=60, seconds=400.0)
        w = world.workloads[uid]
        assert w.failures.restarts == min(crashes, most)
        assert (w.finished == "Failed") == (crashes > most)
        if w.finished:
            return
        assert w.attempt is not None
        assert [p.phase for p in w.pods] == [PodPhase.READY]
