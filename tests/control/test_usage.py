"""What statuses tell of usage, over the life of a workload and over crashes of the operator."""

from __future__ import annotations

from time import perf_counter

import pytest

from berth.control.ports import GPU_NODES, INFERENCE_SERVICES, NODES, PODS, TRAINING_JOBS, Conflict, Json, Unavailable
from berth.control.status import from_rfc3339, to_rfc3339
from berth.control.usages import usage_from, usage_status
from berth.model.energy import board_watts, drawn_watts
from berth.model.gpus import MODELS
from berth.model.prices import BUSY, CapacityType, Price, PriceBook
from berth.model.usage import Amounts, Bought, Usage
from tests.control.builders import a_node, a_service, a_training_job
from tests.control.world import World

BOARDS, DOLLARS = 8, 6.0
HOUR = 3600.0
LONG = 700.0  # seconds, after which what was used is due to be written


def a_spot_node(name: str) -> Json:
    node = a_node(name)
    node["metadata"]["labels"] |= {"topology.kubernetes.io/region": "west", "karpenter.sh/capacity-type": "spot"}
    return node


async def a_gang(*nodes: Json) -> World:
    """Two workers with four boards each, which run; a board costs $6 an hour, $1.50 on spot capacity in the west."""
    world = World(*(nodes or (a_node("n1"), a_node("n2"))))
    world.prices = PriceBook((Price("H100", DOLLARS), Price("H100", 1.5, "west", CapacityType.SPOT)))
    world.api.put(TRAINING_JOBS, a_training_job())
    await world.settle()
    return world


def usage(world: World) -> Json:
    found: Json = world.status("llm")["usage"]
    return found


def held_hours(world: World) -> float:
    """From the admission to the moment that usage counts to."""
    return (from_rfc3339(usage(world)["until"]) - from_rfc3339(world.status("llm")["admittedAt"])) / HOUR


async def look(world: World) -> None:
    world.watch()
    world.cycle.once()
    await world.rest()
    await world.meter.look()


def usage_writes(world: World) -> int:
    return sum(set(call.body.get("status", ())) == {"usage"} for call in world.api.calls if call.number)


async def test_a_job_is_charged_from_its_admission_to_its_end() -> None:
    world = await a_gang()
    world.clock.advance(HOUR)
    world.end_pods()
    await world.settle()
    status = world.status("llm")
    hours = (from_rfc3339(status["finishedAt"]) - from_rfc3339(status["admittedAt"])) / HOUR
    assert hours > 1
    assert usage(world)["until"] == status["finishedAt"]
    assert usage(world)["gpuHours"] == pytest.approx(BOARDS * hours, abs=1e-5)
    assert usage(world)["usd"] == pytest.approx(DOLLARS * BOARDS * hours, abs=1e-4)
    assert usage(world)["unknownCarbonKWh"] == usage(world)["kWh"] > 0
    assert usage(world)["kgCO2e"] == 0


async def test_while_it_runs_usage_is_written_every_few_minutes_and_no_more_often() -> None:
    world = await a_gang()
    before = usage_writes(world)
    for _ in range(200):  # 50 minutes
        world.clock.advance(15.0)
        await look(world)
    assert 5 <= usage_writes(world) - before <= 10
    assert usage(world)["gpuHours"] == pytest.approx(BOARDS * held_hours(world), abs=1e-5)


@pytest.mark.parametrize(("age", "kilowatts"), [(0.0, 0.3), (600.0, None)], ids=["fresh", "stale"])
async def test_energy_is_what_boards_were_measured_to_draw_while_that_is_fresh(
    age: float, kilowatts: float | None
) -> None:
    world = await a_gang()
    before, hours = usage(world)["kWh"], held_hours(world)
    world.clock.advance(LONG)
    for pod in world.api.all(PODS):
        holder = {key: pod["metadata"][key] for key in ("namespace", "name")}
        board = {"model": "H100-80GB", "healthy": True, "migEnabled": False, "pod": holder, "watts": 300}
        boards = [{"index": i, "uuid": f"GPU-{i}", **board} for i in range(4)]
        status = {"observedTime": to_rfc3339(world.clock() - age), "boards": boards}
        world.api.put(GPU_NODES, {"metadata": {"name": pod["spec"]["nodeName"]}, "status": status})
    await look(world)
    rated = board_watts(next(model for model in MODELS if model.name == "H100-80GB"), BUSY) / 1000
    drawn = drawn_watts(BOARDS, rated if kilowatts is None else kilowatts)
    assert usage(world)["kWh"] - before == pytest.approx(drawn * (held_hours(world) - hours), rel=1e-4)


async def test_usage_alone_wakes_no_plan() -> None:
    world = await a_gang()
    world.clock.advance(LONG)
    await look(world)
    woken: list[int] = []
    world.picture.wake = lambda: woken.append(1)
    world.watch()
    assert not woken


@pytest.mark.parametrize("mishap", [None, Conflict("changed meanwhile"), Unavailable("the connection broke")])
@pytest.mark.parametrize("applied", [True, False], ids=["after the write", "before the write"])
async def test_a_crash_loses_and_doubles_nothing(mishap: Conflict | Unavailable | None, applied: bool) -> None:
    world = await a_gang()
    for _ in range(3):
        world.clock.advance(LONG)
        world.api.fail("merge trainingjobs/status", mishap or Unavailable("gone"), applied=applied)
        await look(world)
        if mishap is None:
            await world.restart()
            world.clock.advance(90.0)  # nobody is there
    await world.settle()
    world.clock.advance(LONG)
    await look(world)
    assert usage(world)["gpuHours"] == pytest.approx(BOARDS * held_hours(world), abs=1e-4)
    assert held_hours(world) * HOUR > 4 * LONG


async def test_attempts_add_up_and_what_lies_between_them_is_free() -> None:
    world = await a_gang()
    world.clock.advance(HOUR)
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": True})
    await world.settle()
    first = usage(world)["gpuHours"]
    world.clock.advance(24 * HOUR)
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": False})
    await world.settle()
    world.clock.advance(HOUR)
    await look(world)
    assert usage(world)["gpuHours"] == pytest.approx(first + BOARDS * held_hours(world), abs=1e-5)
    assert first >= BOARDS


async def test_boards_of_a_node_that_is_gone_cost_what_they_did() -> None:
    world = await a_gang(a_spot_node("n1"), a_spot_node("n2"))
    world.clock.advance(HOUR)
    for name in ("n1", "n2"):
        world.api.remove(NODES, "", name)
    await world.restart()
    await world.settle()
    (one,) = usage(world)["byCapacity"]
    assert (one["capacityType"], one["region"]) == ("spot", "west")
    assert one["usd"] == pytest.approx(1.5 * one["gpuHours"], abs=1e-4)
    assert usage(world)["onDemandUsd"] < 0.01  # all of it is lost, and done again


async def test_a_services_replicas_are_charged_while_they_are_there() -> None:
    world = World(a_node("n1"))
    world.prices = PriceBook((Price("H100", DOLLARS),))
    world.intensity = lambda region, hour: 100.0
    world.api.put(INFERENCE_SERVICES, a_service(replicas=2))
    await world.settle()
    await look(world)
    world.clock.advance(LONG)
    await look(world)
    world.api.edit(INFERENCE_SERVICES, "team", "chat", spec={"replicas": 1})
    await world.turn()
    world.api.remove(PODS, "team", world.api.all(PODS)[0]["metadata"]["name"])
    await world.settle()
    world.clock.advance(LONG)
    await look(world)
    world.clock.advance(LONG)
    await look(world)
    found = world.status("chat", INFERENCE_SERVICES)["usage"]
    assert 4 * LONG <= found["gpuHours"] * HOUR <= 4 * LONG + 100
    assert found["onDemandKgCO2e"] == found["kgCO2e"] > 0


def test_usage_is_read_back_as_it_was_written() -> None:
    amounts = Amounts(1.5, 2.5, 0.5, 3.0, 0.25, 4.0, 0.75)
    unknown = Amounts(1.5, 2.5, 0.0, 3.0, 2.5, 4.0, None)
    bought = (
        Bought("H100-80GB", CapacityType.SPOT, "west", amounts),
        Bought("A30", CapacityType.ON_DEMAND, "", unknown),
    )
    told = Usage(1_000_000.0, 3600.0, bought, (("2026-W48", unknown),))
    assert usage_from(usage_status(told)) == told
    assert usage_from(None) == Usage()


async def test_a_fault_in_the_account_keeps_no_status_from_being_written(caplog: pytest.LogCaptureFixture) -> None:
    world = await a_gang()

    def broken(region: str, hour: int) -> float | None:
        raise ZeroDivisionError

    world.intensity = broken
    world.clock.advance(LONG)
    await look(world)
    world.end_pods()
    await world.settle()
    assert world.status("llm")["state"] == "Succeeded"
    assert "usage of team/llm is not counted" in caplog.messages


async def test_a_look_at_two_thousand_running_jobs_of_which_none_is_due_is_cheap() -> None:
    world = await a_gang()
    jobs = list(world.cycle.observer.workloads) * 2000
    world.cycle.observer._whole = {str(i): job for i, job in enumerate(jobs)}
    began = perf_counter()
    await world.meter.look()
    assert perf_counter() - began < 0.25  # 0.01 s on an idle core
    assert not [
        call for call in world.api.calls if "usage" in call.body.get("status", ()) and len(call.body["status"]) == 1
    ]
