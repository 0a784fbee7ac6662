"""Who may go before work that waits: what does not delay its start, on its nodes or in its quota."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.model.workloads import Device, PodPhase, Queue, Workload
from berth.planning.actions import Pin, Plan
from berth.planning.snapshot import Backfilling, Passing, Policy
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, nodes_of, only, planned, running, verdict_of

NODES = [a_node("n1"), a_node("n2")]
HOUR = 3600.0
PATIENT = Policy(backfill=Backfilling(most_wait_seconds=1e9))


def going(name: str, node: str, *, boards: int = 8, left: float | None = HOUR, **more: object) -> Workload:
    """A job that runs on a node, and is expected to go on for so long; None: nobody knows."""
    estimated = None if left is None else 60.0 + left
    job = a_job(name, gpus=boards, estimated_seconds=estimated, **more)  # type: ignore[arg-type]
    return running(job, node, pods=PodPhase.READY, started_at=NOW - 60.0, admitted_at=NOW - 90.0)


def big(**more: object) -> Workload:
    """A gang that needs both nodes, and is served before what is made later."""
    return a_job("big", **{"workers": 2, "gpus": 8, "created": NOW - 10, **more})  # type: ignore[arg-type]


def small(seconds: float | None = None, **more: object) -> Workload:
    """A job of one board that came last, and is expected to run for so long."""
    return a_job("small", estimated_seconds=seconds, **{"created": NOW - 5, **more})  # type: ignore[arg-type]


def after(*work: Workload, policy: Policy = PATIENT, **more: object) -> Plan:
    """The plan while these run or wait."""
    used = {
        w.attempt.placement.nodes[0]: {"nvidia.com/gpu": w.attempt.placement.device.count} for w in work if w.attempt
    }
    return planned(NODES, *work, used=used, policy=policy, **more)  # type: ignore[arg-type]


def test_work_that_ends_before_a_gang_can_start_goes_first() -> None:
    assert nodes_of(after(going("a", "n1"), big(), small(HOUR / 3)), "small") == ("n2",)


def test_work_that_would_delay_a_gang_waits_and_is_told_for_whom() -> None:
    plan = after(going("a", "n1"), big(), small(2 * HOUR))
    assert nodes_of(plan, "small") is None
    assert verdict_of(plan, "small").reason == "WaitingForReservation"
    assert verdict_of(plan, "small").message.startswith(
        "would fit now, but the room is kept for team/big, which is served before it and is to start about 14:50 UTC: "
        "wait, or ask for less; starts when team/big and team/a have ended"
    )
    assert verdict_of(plan, "small").message.endswith("1 ahead, team/big first")


def test_work_of_unknown_length_is_told_that_an_estimate_would_help() -> None:
    plan = after(going("a", "n1"), big(), small())
    assert nodes_of(plan, "small") is None
    assert "set spec.estimatedRuntime" in verdict_of(plan, "small").message


def test_a_gang_is_told_when_it_starts_and_after_whom() -> None:
    verdict = verdict_of(after(going("a", "n1"), going("b", "n2", left=2 * HOUR), big()), "big")
    assert verdict.reason == "WaitingForCapacity"
    assert verdict.message.endswith("starts about 15:50 UTC, when team/b and team/a have ended")


def test_a_guess_is_told_as_such() -> None:
    verdict = verdict_of(after(going("a", "n1", left=None), big()), "big")
    assert "starts when team/a has ended: about 13:51 UTC, if" in verdict.message


def test_the_next_ones_are_told_when_they_start_after_those_ahead() -> None:
    plan = after(going("a", "n1"), big(estimated_seconds=HOUR), a_job("next", gpus=8, created=NOW - 8, workers=2))
    assert "starts about 15:50 UTC" in verdict_of(plan, "next").message
    assert verdict_of(plan, "next").message.endswith("1 ahead, team/big first")


def test_room_that_a_gang_leaves_is_there_for_everybody() -> None:
    gang = big(gpus=7)
    plan = after(going("a", "n1"), gang, small(), a_job("late", created=NOW - 4), a_job("later", created=NOW - 3))
    assert nodes_of(plan, "small") == ("n2",)
    assert nodes_of(plan, "late") is None  # two nodes have eight boards each, of which seven are kept


def test_nodes_that_a_gang_does_not_need_are_there_for_everybody() -> None:
    assert nodes_of(after(going("a", "n1"), going("b", "n2", boards=4), big(workers=1), small()), "small") is not None


def test_a_gang_that_no_end_of_work_would_let_start_holds_nobody_up() -> None:
    plan = planned(NODES, big(), small(), used={"n1": {"nvidia.com/gpu": 1}})
    assert nodes_of(plan, "small") is not None


def test_only_the_first_of_a_pool_has_its_start_kept() -> None:
    first, second = big(), a_job("second", gpus=8, created=NOW - 9)
    plan = after(going("a", "n1", left=HOUR), going("b", "n2", boards=1, left=HOUR), first, second, small(HOUR / 3))
    assert nodes_of(plan, "small") == ("n2",)


def test_work_on_another_model_is_not_held_up() -> None:
    l40s = a_node("l", board="L40S")
    plan = planned([*NODES, l40s], going("a", "n1"), big(models=("H100",)), small(models=("L40S",)))
    assert nodes_of(plan, "small") == ("l",)


def test_who_has_waited_for_too_long_is_passed_by_nobody() -> None:
    policy = Policy(backfill=Backfilling(most_wait_seconds=HOUR))
    gang = big(created=NOW - 2 * HOUR)
    plan = after(going("a", "n1"), gang, small(60.0), policy=policy)
    assert nodes_of(plan, "small") is None
    assert "waited for too long to be passed" in verdict_of(plan, "small").message


def test_what_began_since_it_waited_for_too_long_does_not_change_its_mind() -> None:
    policy = Policy(backfill=Backfilling(most_wait_seconds=HOUR))
    gang = a_job("big", gpus=8, created=NOW - HOUR - 1)  # since a second it is passed by nobody
    old = going("old", "n1", boards=7, left=9 * HOUR)
    young = replace(going("young", "n2", boards=7, left=60.0))
    assert young.attempt is not None
    young = replace(young, attempt=replace(young.attempt, admitted_at=NOW - 0.5))
    assert nodes_of(after(old, young, gang, small(), policy=policy), "small") == ("n2",)


def test_quota_that_a_gang_waits_for_is_kept_as_well() -> None:
    queues = [Queue("a", {"H100": 8}), Queue("b", {"H100": 8})]
    held = going("a", "n1", boards=4, queue="a")
    gang = big(workers=1, queue="a")
    plan = after(held, gang, small(2 * HOUR, queue="a"), queues=queues)
    assert nodes_of(plan, "small") is None
    assert "the quota of queue a is kept for team/big" in verdict_of(plan, "small").message
    assert nodes_of(after(held, gang, small(HOUR / 3, queue="a"), queues=queues), "small") is not None
    assert nodes_of(after(held, gang, small(2 * HOUR, queue="b"), queues=queues), "small") is not None


def test_a_queue_may_have_what_it_owns_though_a_borrower_waits_for_it() -> None:
    owners = [Queue(name, {"H100": 8}, parent="root") for name in ("a", "b")]
    queues = [Queue("root"), *owners, Queue("c", {"H100": 0}, parent="root")]
    runs = going("a", "n1", queue="a"), going("b", "n2", boards=7, left=99 * HOUR, queue="b")
    borrower = big(workers=3, gpus=3, queue="a", priority=1)
    assert nodes_of(after(*runs, borrower, small(9 * HOUR, queue="b"), queues=queues), "small") == ("n2",)
    assert nodes_of(after(*runs, borrower, small(9 * HOUR, queue="c"), queues=queues), "small") is None


def test_replicas_obey_reservations_and_never_end() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 1)
    pods = (a_pod(PodPhase.GATED, name="p", attempt=0),)
    service = a_service(created=NOW - 5, pods=pods, served_device=device, served_generation=1)
    plan = after(going("a", "n1"), big(), service)
    assert only(plan, Pin) == []
    assert verdict_of(plan, "service").reason == "WaitingForReservation"


def test_a_replica_that_waits_has_its_start_kept_too() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 8)
    pods = (a_pod(PodPhase.GATED, name="p", attempt=0),)
    service = a_service(gpus=8, created=NOW - 9, pods=pods, served_device=device, served_generation=1)
    plan = after(going("a", "n1"), going("b", "n2", boards=1, left=HOUR / 2), service, small())
    assert nodes_of(plan, "small") is None


def test_who_waits_behind_a_replica_is_not_promised_its_room_at_the_end_of_time() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 8)
    pods = (a_pod(PodPhase.GATED, name="p", attempt=0),)
    service = a_service(gpus=8, created=NOW - 9, pods=pods, served_device=device, served_generation=1)
    plan = planned(
        [a_node("n1")],
        going("a", "n1"),
        service,
        a_job("late", gpus=8, created=NOW),
        used={"n1": {"nvidia.com/gpu": 8}},
    )
    assert not plan.faults
    assert verdict_of(plan, "late").reason == "WaitingForCapacity"


@pytest.mark.parametrize(("passing", "passes"), [(Passing.NOBODY, False), (Passing.ANYBODY, True)])
def test_the_rules_that_comparisons_use(passing: Passing, passes: bool) -> None:
    policy = Policy(backfill=Backfilling(passing))
    long, short = small(9 * HOUR), replace(small(60.0))
    assert (nodes_of(after(going("a", "n1"), big(), long, policy=policy), "small") is not None) is passes
    assert (nodes_of(after(going("a", "n1"), big(), short, policy=policy), "small") is not None) is passes
