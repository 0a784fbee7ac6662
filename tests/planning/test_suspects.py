"""Nodes on which different jobs crashed are left alone for a while, and verdicts say so."""

from __future__ import annotations

from typing import Any

import pytest

from berth.model.failures import Crash, Failures
from berth.model.workloads import Device, PodPhase, Workload
from berth.planning.actions import Pin
from berth.planning.plan import plan
from berth.planning.snapshot import Policy
from berth.planning.suspects import LATELY_SECONDS
from berth.planning.whatif import concerning
from tests.planning.builders import (
    NOW,
    a_job,
    a_node,
    a_pod,
    a_service,
    a_snapshot,
    nodes_of,
    only,
    planned,
    running,
    verdict_of,
)

TWO = [a_node("n1"), a_node("n2")]


def crashed(name: str, node: str = "n1", *, code: int = 1, at: float = NOW - 60, reason: str = "") -> Workload:
    """A job that failed after a crash on a node."""
    return a_job(name, finished="Failed", failures=Failures(last=(Crash(1, at, node, code, reason),)))


def test_a_node_on_which_two_jobs_crashed_is_avoided_and_the_verdict_says_so() -> None:
    plan = planned(TWO, crashed("a"), crashed("b", code=2), a_job(gpus=8))
    assert nodes_of(plan) == ("n2",)
    assert plan.suspects == {"n1"}
    assert verdict_of(plan).message.endswith("; n1 is avoided: a and b crashed there lately")


def test_who_waits_is_told_of_it() -> None:
    plan = planned(TWO, crashed("a"), crashed("b"), a_job(workers=2, gpus=8))
    assert verdict_of(plan).nodes == (("avoided after a refusal or a crash", 1),)
    assert "; n1 is avoided: a and b crashed there lately" in verdict_of(plan).message


def test_a_job_that_crashes_everywhere_blames_no_node() -> None:
    everywhere = a_job("a", failures=Failures(last=(Crash(1, NOW, "n1", 1), Crash(2, NOW, "n2", 1))))
    assert nodes_of(planned(TWO, everywhere, crashed("b"), a_job(gpus=8, priority=1))) == ("n1",)


INNOCENT: dict[str, list[Workload]] = {
    "one job alone": [crashed("a")],
    "one job twice": [a_job("a", finished="Failed", failures=Failures(last=(Crash(1, NOW, "n1", 1),) * 2))],
    "jobs on different nodes": [crashed("a"), crashed("b", "n2")],
    "a job that took too much memory": [crashed("a"), crashed("b", code=137, reason="OOMKilled")],
    "a crash of long ago": [crashed("a"), crashed("b", at=NOW - LATELY_SECONDS)],
    "a gang that hung somewhere": [crashed("a"), crashed("b", "")],
}


@pytest.mark.parametrize("what", INNOCENT)
def test_no_node_is_suspected_for(what: str) -> None:
    plan = planned(TWO, *INNOCENT[what], a_job(gpus=8))
    assert nodes_of(plan) == ("n1",)
    assert "avoided" not in verdict_of(plan).message


def test_suspicion_ends_an_hour_after_all_but_one_crashed_and_the_plan_is_made_anew_then() -> None:
    jobs = (crashed("a", at=NOW - 100), crashed("b", at=NOW - 10), a_job(workers=2, gpus=8))
    assert planned(TWO, *jobs).wake_at == NOW - 100 + LATELY_SECONDS
    assert nodes_of(planned(TWO, *jobs, now=NOW - 100 + LATELY_SECONDS)) is not None


def test_half_of_the_nodes_of_a_model_are_avoided_at_most_the_worst_first() -> None:
    nodes = [a_node(f"n{i}") for i in range(1, 4)]
    twice = [crashed(f"{name}{i}", f"n{i}") for name in "ab" for i in range(1, 4)]
    assert nodes_of(planned(nodes, *twice, crashed("c2", "n2"), a_job(gpus=8))) == ("n1",)
    assert nodes_of(planned(nodes[:1], *twice, a_job(gpus=8))) == ("n1",)


def test_what_runs_on_a_suspected_node_stays_and_what_has_no_pod_there_yet_goes_elsewhere() -> None:
    def plan(**more: Any) -> Any:
        return planned(TWO, crashed("a"), crashed("b"), running(a_job(gpus=8), "n1", **more))

    assert [type(a).__name__ for a in plan().actions] == ["Move", "Pin"]
    assert plan(pods=PodPhase.READY).actions == ()


def test_services_avoid_it_too() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 8)
    pod = a_pod(PodPhase.GATED, attempt=0, device=device)
    service = a_service(gpus=8, served_device=device, served_generation=1, pods=(pod,))
    assert [pin.node for pin in only(planned(TWO, crashed("a"), crashed("b"), service), Pin)] == ["n2"]


def test_who_is_asked_about_alone_is_told_the_same_though_those_that_crashed_are_left_out() -> None:
    job = a_job(gpus=8)
    snapshot = concerning(a_snapshot(TWO, crashed("a"), crashed("b"), job), job)
    assert nodes_of(plan(snapshot, Policy(), NOW)) == ("n2",)
