"""The cycle: what goes wrong with one workload is told, tried again later, and holds nobody else up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from typing import Any

import pytest

from berth.control.cycle import IDLE_SECONDS, TOLD_AT_ONCE
from berth.control.ports import (
    INFERENCE_SERVICES,
    JOBS,
    NODES,
    PODS,
    QUEUES,
    TRAINING_JOBS,
    Conflict,
    Json,
    NotFound,
    Refused,
    Unavailable,
)
from berth.planning.actions import Plan
from berth.planning.snapshot import Policy, Snapshot
from tests.control.builders import a_node, a_queue, a_service, a_training_job, is_gated
from tests.control.world import World

NOT_OURS = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "llm-1", "namespace": "team"},
    "spec": {"suspend": True},
}


def a_world(*jobs: Json, nodes: int = 2) -> World:
    """Two empty nodes, and jobs that just arrived."""
    world = World(*(a_node(f"n{i}") for i in range(1, nodes + 1)))
    for job in jobs:
        world.api.put(TRAINING_JOBS, job)
    return world


def message(world: World, name: str = "llm") -> str:
    """What the workload's verdict says."""
    return str(world.status(name)["verdict"]["message"])


async def turns(world: World, count: int, *, seconds: float = 0.1) -> None:
    """Let time pass in small steps while everybody works."""
    for _ in range(count):
        await world.turn()
        world.run_controllers()
        world.clock.advance(seconds)


async def test_the_decision_is_in_the_status_before_the_job_exists() -> None:
    world = a_world(a_training_job())
    release = world.api.hold("create services")
    await turns(world, 3)
    assert world.status("llm")["attempt"] == 1
    assert [a["node"] for a in world.status("llm")["placement"]["assignments"]] == ["n1", "n2"]
    assert world.api.all(JOBS) == []
    release.set()
    await world.settle()
    assert [job["metadata"]["name"] for job in world.api.all(JOBS)] == ["llm-1"]


async def test_an_admission_on_its_way_holds_its_room_against_others() -> None:
    world = a_world(a_training_job("first", workers=1))
    release = world.api.hold("merge trainingjobs/status first")
    await turns(world, 2)
    world.api.put(TRAINING_JOBS, a_training_job("second", workers=2))
    await turns(world, 2)
    assert world.status("second")["state"] == "Pending"
    release.set()
    await world.settle()
    assert world.status("first")["state"] == "Running"
    assert world.status("second")["state"] == "Pending"


async def test_a_pin_on_its_way_is_neither_sent_again_nor_its_room_given_away() -> None:
    world = a_world(nodes=1)
    world.api.put(INFERENCE_SERVICES, a_service(replicas=1, boards=4))
    release = world.api.hold("merge_lists pods chat")
    await turns(world, 5)
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, boards=1))
    await turns(world, 5)
    assert len(world.api.said("merge_lists")) == 1
    assert world.status("llm")["state"] == "Pending"
    release.set()
    await world.settle()
    assert world.broken == []
    assert world.pins() == {"chat": "n1"}


async def test_a_change_meanwhile_is_planned_anew_from_the_new_object() -> None:
    world = a_world(a_training_job(workers=2))
    release = world.api.hold("merge trainingjobs/status llm")
    await turns(world, 2)
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"workers": 1})
    release.set()
    await world.settle()
    assert world.status("llm")["ready"] == "1/1"
    assert len(world.api.all(PODS)) == 1


async def test_a_change_of_one_workload_holds_nobody_else_up() -> None:
    world = a_world(a_training_job("first", workers=1), a_training_job("second", workers=1))
    world.api.fail("merge trainingjobs/status first", Conflict("changed"), times=1000)
    await turns(world, 8)
    assert "status" not in (world.api.find(TRAINING_JOBS, "first") or {})
    assert world.status("second")["state"] == "Running"


async def test_a_slow_answer_for_one_workload_delays_no_other() -> None:
    world = a_world(a_training_job("slow", workers=1))
    release = world.api.hold("create services slow-1")
    await turns(world, 3)
    world.api.put(TRAINING_JOBS, a_training_job("quick", workers=1))
    await world.settle()
    assert world.status("quick")["state"] == "Running"
    assert world.status("slow")["state"] == "Admitted"
    release.set()
    await world.settle()
    assert world.status("slow")["state"] == "Running"


async def test_a_refused_job_is_told_in_the_verdict_and_tried_again_later_and_later() -> None:
    world = a_world(a_training_job())
    world.api.fail("create jobs llm-1", Refused("the quota of pods is used up"), times=8)
    asked: list[float] = []
    for _ in range(400):
        before = len([c for c in world.api.calls if str(c) == "create jobs llm-1"])
        await turns(world, 1)
        if len([c for c in world.api.calls if str(c) == "create jobs llm-1"]) > before:
            asked.append(world.clock.now)
        if len(asked) == 6:
            break
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(2 * pauses[-2], rel=0.2)
    assert message(world).endswith("; the last step failed: the quota of pods is used up")
    assert message(world).count("the last step failed") == 1
    assert world.status("llm")["verdict"]["reason"] == "Placed"


async def test_the_verdict_stops_telling_a_failure_once_the_step_is_done() -> None:
    world = a_world(a_training_job())
    world.api.fail("create jobs llm-1", Refused("no"), times=3)
    await turns(world, 20)
    await world.settle()
    assert world.status("llm")["state"] == "Running"
    assert "failed" not in message(world)


async def test_telling_of_a_failure_that_is_refused_too_is_not_tried_in_a_tight_loop() -> None:
    world = a_world(a_training_job())
    await turns(world, 2)
    world.api.fail("create jobs llm-1", Refused("no"), times=1000)
    world.api.fail("merge trainingjobs/status", Refused("no"), times=1000)
    before = len(world.api.calls)
    await turns(world, 100)
    assert len(world.api.calls) - before < 40


async def test_a_foreign_job_of_that_name_is_left_alone_and_told() -> None:
    world = a_world(a_training_job())
    world.api.put(JOBS, NOT_OURS)
    await turns(world, 10)
    assert "jobs team/llm-1 is not Berth's: delete it, or rename TrainingJob" in message(world)
    assert world.api.find(JOBS, "llm-1") is not None
    world.api.remove(JOBS, "team", "llm-1")
    await turns(world, 300)
    assert world.status("llm")["state"] == "Running"


async def test_failures_for_half_a_day_do_not_overflow_the_pause() -> None:
    world = a_world(a_training_job())
    await turns(world, 2)
    for _ in range(2000):
        world.cycle._fail("uid-1", "")
    assert world.cycle._failures["uid-1"][1] - world.clock() == 30.0


async def test_a_workload_that_is_gone_is_forgotten_even_if_its_deletion_was_never_told() -> None:
    world = a_world(a_training_job())
    release = world.api.hold("merge trainingjobs/status")
    await turns(world, 2)
    assert len(world.picture.workloads) == 1
    world.api.remove(TRAINING_JOBS, "team", "llm")
    release.set()
    await world.rest()  # no watch says anything
    assert world.picture.workloads == {}


async def test_a_pod_that_is_gone_does_not_make_its_workload_forgotten() -> None:
    world = a_world(a_training_job(workers=1))
    world.api.fail("merge_lists pods", NotFound("no such pod"))
    await world.settle()
    assert world.status("llm")["state"] == "Running"


async def test_a_dry_run_without_an_answer_is_asked_again_soon() -> None:
    world = a_world(a_training_job())
    world.api.fail("create jobs berth-dry-run", Unavailable("overloaded"))
    wake_at = await world.turn()
    wake_at = await world.turn()
    assert wake_at is not None
    assert wake_at - world.clock() < 1.0


async def test_who_waited_before_a_restart_is_in_line_after_it_before_any_dry_run_is_answered() -> None:
    world = a_world(a_training_job(), nodes=0)
    await world.settle()
    assert message(world)
    await world.restart()
    world.api.fail("create jobs berth-dry-run", Unavailable("overloaded"), times=100)
    for name in ("n1", "n2"):
        world.api.put(NODES, a_node(name))
    await world.settle()
    assert world.status("llm")["state"] == "Running"


async def test_a_refused_template_is_misconfigured_until_what_it_lacked_exists() -> None:
    world = a_world(a_training_job())
    world.api.fail("create pods", Refused('pods "x" is forbidden: error looking up service account team/me'))
    await world.settle()
    assert world.status("llm")["verdict"]["reason"] == "Misconfigured"
    assert message(world).startswith("spec.template.spec.serviceAccountName: ")
    world.clock.advance(61.0)
    await world.settle()
    assert world.status("llm")["state"] == "Running"


async def test_a_bug_with_one_workload_is_logged_and_holds_nobody_else_up(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world(a_training_job("first", workers=1), a_training_job("second", workers=1))
    make = world.applier._make_attempt

    async def broken(target: Any, number: int, placement: Any) -> None:
        if target.workload.ref.name == "first":
            raise KeyError("surprise")
        await make(target, number, placement)

    world.applier._make_attempt = broken  # type: ignore[method-assign]
    with caplog.at_level(logging.CRITICAL, "berth"):
        await turns(world, 12)
    assert world.status("second")["state"] == "Running"
    assert "internal error" in message(world, "first")


async def test_numbers_alone_are_refreshed_once_in_a_while() -> None:
    world = a_world(a_training_job("big", workers=3))
    await world.settle()
    writes = world.api.changes
    for name in ("a", "b"):
        world.api.put(TRAINING_JOBS, a_training_job(name, workers=1, boards=1))
        await turns(world, 10)
    assert [s for s in world.api.said()[writes:] if s.endswith(" big")] == []
    world.clock.advance(15.0)
    await world.settle()
    assert [s for s in world.api.said()[writes:] if s.endswith(" big")] == ["merge trainingjobs/status big"]


async def test_a_queue_tells_what_it_holds_and_changes_at_most_once_a_second() -> None:
    world = World(*(a_node(f"n{i}") for i in range(6)))
    world.api.put(QUEUES, a_queue("red", H100_80GB=16))
    for i in range(5):
        world.api.put(TRAINING_JOBS, a_training_job(f"job-{i}", workers=1, queueName="red"))
        await turns(world, 1, seconds=0.05)
    assert len([s for s in world.api.said() if "queues" in s]) <= 2
    await world.settle()
    status = world.status("red", QUEUES)
    assert (status["admitted"], status["pending"]) == (4, 1)
    assert status["usage"] == [{"model": "H100-80GB", "used": "16", "nominal": 16}]


async def test_many_queues_tell_what_they_hold_in_turn() -> None:
    world = World(*(a_node(f"n{i}") for i in range(6)))
    for name in ("red", *(f"queue-{i}" for i in range(29))):
        world.api.put(QUEUES, a_queue(name, H100_80GB=16))
    await world.settle()
    before = world.api.changes
    for i in range(4):
        world.api.put(TRAINING_JOBS, a_training_job(f"job-{i}", workers=1, queueName="red"))
        await turns(world, 7, seconds=0.1)
    assert len([s for s in world.api.said()[before:] if s.endswith(" red")]) <= 1  # of thirty, one every 3 s
    await world.settle()
    assert world.status("red", QUEUES)["admitted"] == 4


async def test_of_many_that_wait_few_are_told_at_once_and_no_admission_waits_for_them() -> None:
    world = a_world(*(a_training_job(f"big-{i}", workers=9) for i in range(40)))
    releases = [world.api.hold("merge trainingjobs/status big") for _ in range(40)]
    await turns(world, 5)
    assert world.api.held == TOLD_AT_ONCE
    world.api.put(TRAINING_JOBS, a_training_job("small", workers=1))
    await turns(world, 10)
    assert world.status("small")["state"] == "Running"
    assert world.api.held == TOLD_AT_ONCE
    for release in releases:
        release.set()
    await world.settle()
    assert {world.status(f"big-{i}")["state"] for i in range(40)} == {"Pending"}


async def test_a_service_whose_edit_waits_for_a_dry_run_keeps_its_quota() -> None:
    world = World(a_node("n1"), a_node("n2"))
    world.api.put(QUEUES, a_queue("red", H100_80GB=2))
    world.api.put(INFERENCE_SERVICES, a_service(replicas=2, queueName="red"))
    await world.settle()
    release = world.api.hold("create deployments berth-dry-run")
    world.api.edit(INFERENCE_SERVICES, "team", "chat", spec={"template": {"metadata": {"labels": {"a": "b"}}}})
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, boards=1, queueName="red"))
    await turns(world, 5)
    assert world.status("llm")["verdict"]["reason"] == "WaitingForQuota"
    release.set()
    await world.settle()
    assert world.status("llm")["verdict"]["reason"] == "WaitingForQuota"


class Planner:
    """Counts its cycles, and asks for the next at a moment of the test's choosing."""

    def __init__(self, *wakes: float | None) -> None:
        self.wakes = list(wakes)
        self.loop = asyncio.get_running_loop()
        self.called = asyncio.Event()
        self.count = 0

    def __call__(self, snapshot: Snapshot, policy: Policy, now: float) -> Plan:
        """One cycle's plan: nothing to do."""
        self.count += 1
        self.loop.call_soon_threadsafe(self.called.set)
        return Plan(wake_at=self.wakes.pop(0) if self.wakes else None)


async def running(world: World, planner: Planner) -> asyncio.Task[None]:
    """The cycle's own loop."""
    world.cycle.plan = planner
    return asyncio.create_task(world.cycle.run())


async def test_plans_again_at_the_moment_that_the_plan_asked_for() -> None:
    world = World()
    planner = Planner(world.clock() + 0.1)
    task = await running(world, planner)
    world.cycle.wake()
    async with asyncio.timeout(5.0):
        while planner.count < 2:
            planner.called.clear()
            await planner.called.wait()
    task.cancel()


async def test_plans_once_for_changes_that_come_together() -> None:
    world = World()
    world.cycle.debounce_seconds = 0.05
    planner = Planner()
    task = await running(world, planner)
    for _ in range(10):
        world.cycle.wake()
        await asyncio.sleep(0)
    async with asyncio.timeout(5.0):
        await planner.called.wait()
    assert planner.count == 1
    assert IDLE_SECONDS >= 60
    task.cancel()


async def test_a_plan_that_took_long_leaves_as_long_to_the_writes() -> None:
    world = World()
    began: list[float] = []

    def slowly(snapshot: Snapshot, policy: Policy, now: float) -> Plan:
        began.append(time.monotonic())
        time.sleep(0.2)
        return Plan()

    world.cycle.plan = slowly
    task = asyncio.create_task(world.cycle.run())
    async with asyncio.timeout(5.0):
        while len(began) < 2:
            world.cycle.wake()
            await asyncio.sleep(0.01)
    assert began[1] - began[0] >= 0.4
    task.cancel()


async def test_stops_all_writing_when_the_operator_has_to_stop() -> None:
    world = a_world(a_training_job())
    release = world.api.hold("merge trainingjobs/status llm")
    task = asyncio.create_task(world.cycle.run())
    world.watch()
    async with asyncio.timeout(5.0):
        while not world.api.held:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    release.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.api.find(TRAINING_JOBS, "llm").get("status") is None  # type: ignore[union-attr]
    assert world.api.all(JOBS) == []


async def test_what_changes_while_a_plan_is_made_is_left_to_the_next_cycle() -> None:
    world = a_world(a_training_job("llm"), a_training_job("other"), a_training_job("gone"))
    await world.turn()  # templates are judged first
    world.watch()
    made = world.cycle.plan
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    go_on = threading.Event()

    def slowly(snapshot: Snapshot, policy: Policy, now: float) -> Plan:
        loop.call_soon_threadsafe(told.set)
        go_on.wait(5.0)
        return made(snapshot, policy, now)

    world.cycle.plan = slowly
    task = asyncio.create_task(world.cycle.run())
    world.cycle.wake()
    async with asyncio.timeout(5.0):
        await told.wait()
        world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": True})
        world.api.remove(TRAINING_JOBS, "team", "gone")
        world.watch()
        go_on.set()
        while not (world.api.find(TRAINING_JOBS, "other") or {}).get("status", {}).get("placement"):
            await asyncio.sleep(0)
        while "Suspended" not in str((world.api.find(TRAINING_JOBS, "llm") or {}).get("status")):
            world.watch()
            await asyncio.sleep(0)
    task.cancel()
    assert "placement" not in world.status("llm")


async def test_a_gang_is_pinned_only_once_all_its_pods_are_there() -> None:
    world = a_world(a_training_job(workers=2))
    for _ in range(3):
        await world.turn()  # without the Job controller
    (job,) = world.api.all(JOBS)
    world.make_pod(job, "-0-", {"batch.kubernetes.io/job-completion-index": "0"})
    for _ in range(3):
        await world.turn()
    assert [is_gated(pod) for pod in world.api.all(PODS)] == [True]
    await world.settle()
    assert [is_gated(pod) for pod in world.api.all(PODS)] == [False, False]


async def test_a_pod_that_was_bound_just_before_its_eviction_stays() -> None:
    world = a_world(a_training_job(workers=1), nodes=3)
    world.unwilling = {"n1"}
    await world.settle()
    world.clock.advance(61.0)
    world.watch()
    world.unwilling = set()
    world.run_controllers()  # bound, and the watch has not said so yet
    world.cycle.once()
    await world.rest()
    await world.settle()
    assert world.pins() == {"llm-1-0": "n1"}
    assert world.status("llm")["state"] == "Running"
    assert world.status("llm")["placement"]["assignments"] == [{"node": "n1", "ranks": "0"}]


async def test_an_object_made_again_under_its_name_is_another_job_with_a_job_of_its_own() -> None:
    world = a_world(a_training_job(workers=1))
    await world.settle()
    world.api.remove(TRAINING_JOBS, "team", "llm")
    world.api.put(TRAINING_JOBS, a_training_job(workers=1))
    await world.settle()
    (job,) = world.api.all(JOBS)
    raw = world.api.find(TRAINING_JOBS, "llm")
    assert raw is not None
    assert job["metadata"]["labels"]["berth.dev/uid"] == raw["metadata"]["uid"]
    assert world.status("llm")["state"] == "Running"
    assert world.broken == []
