"""What the agent tells Prometheus, read back from the page that it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from berth.adapters.gpu_metrics import COUNTERS, GAUGES
from berth.agent.measuring import MEASURE_SECONDS, Measurer, NamedPod
from berth.agent.program import measurer_of
from berth.control.gpus import GpuError, Reading
from berth.control.records import Meta
from e2e.fakegpu.sensors import Sensors
from tests.agent.nodes import World, a_node, mig

BUSY = "berth_gpu_utilization_ratio"
WATTS = "berth_gpu_power_watts"
JOULES = "berth_gpu_energy_joules_total"


@dataclass
class Measured:
    """A world whose agent measures."""

    world: World
    measurer: Measurer

    async def pass_by(self, seconds: float = MEASURE_SECONDS) -> None:
        """Time passes, and the agent looks and measures."""
        await self.world.later(seconds)
        await self.measurer.measure()

    async def series(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Values of a metric by board, instance and pod, of those with these labels."""
        return {
            (sample.labels["gpu"], sample.labels["instance"], sample.labels["pod"]): sample.value
            for sample in await self.samples(name)
            if labels.items() <= sample.labels.items()
        }

    async def samples(self, name: str) -> list[Any]:
        """All series of a metric."""
        page = (await self.measurer.page()).decode()
        return [s for family in text_string_to_metric_families(page) for s in family.samples if s.name == name]


async def a_measured(*pods: NamedPod, load: dict[str, float] | None = None, **pool: Any) -> Measured:
    world = World(a_node(**pool))
    world.driver.sensors = Sensors(world.node, world.api.clock)
    world.node.load = load or {}
    measurer = measurer_of(world.agent, world.driver)
    measurer.pods = pods
    return Measured(world, measurer)


def a_pod(name: str, workload: str = "", queue: str = "") -> NamedPod:
    labels, notes = {"berth.dev/name": workload}, {"berth.dev/queue": queue}
    return NamedPod(Meta(name, "team", "u", 1, labels, notes))


async def test_a_pods_utilization_is_that_of_its_board_or_instance_alone() -> None:
    load = {"0@0": 0.75, "0@4": 0.25, "1": 0.5}
    measured = await a_measured(load=load, mig=mig("4g.40gb@0", "3g.40gb@4"))
    measured.world.hold("llm-0", board=0, at=0)
    measured.world.hold("chat-0", board=1)
    await measured.pass_by()
    assert await measured.series(BUSY) == {
        ("0", "1", "llm-0"): 0.75,
        ("0", "5", ""): 0.25,
        ("0", "", ""): pytest.approx((0.75 * 4 + 0.25 * 3) / 7),
        ("1", "", "chat-0"): 0.5,
    }


async def test_a_series_names_the_workload_and_the_queue_of_the_pod() -> None:
    measured = await a_measured(a_pod("llm-0", "llm", "research"), mig=mig("3g.40gb@4"))
    measured.world.hold("llm-0", at=4)
    await measured.pass_by()
    (sample,) = [s for s in await measured.samples(BUSY) if s.labels["instance"]]
    board = measured.world.node.boards[0]
    assert sample.labels == {
        "node": "n-0",
        "gpu": "0",
        "uuid": board.uuid,
        "model": "H100-80GB",
        "profile": "3g.40gb",
        "instance": "5",
        "namespace": "team",
        "pod": "llm-0",
        "workload": "llm",
        "queue": "research",
    }


async def test_a_pod_that_is_gone_is_not_named_even_by_the_next_scrape() -> None:
    measured = await a_measured(load={"0": 0.5})
    measured.world.hold("llm-0")
    await measured.pass_by()
    assert ("0", "", "llm-0") in await measured.series(BUSY)
    measured.world.node.holders.clear()
    assert b"llm-0" not in await measured.measurer.page()


async def test_what_the_last_pod_did_is_not_told_of_the_next() -> None:
    measured = await a_measured(load={"0": 0.9})
    measured.world.hold("llm-0")
    await measured.pass_by()
    measured.world.hold("chat-0")
    assert ("0", "", "chat-0") not in await measured.series(BUSY)
    assert ("0", "", "chat-0") in await measured.series(JOULES)
    measured.world.node.load = {"0": 0.1}
    await measured.pass_by()
    assert (await measured.series(BUSY, gpu="0")) == {("0", "", "chat-0"): 0.1}


async def test_power_and_energy_are_shared_out_and_counted_once() -> None:
    measured = await a_measured(load={"0@0": 1.0}, mig=mig("1g.10gb@0", "3g.40gb@4"))
    await measured.pass_by()
    await measured.pass_by()
    (board,) = (r for r in await measured.world.driver.measure() if r.instances)
    assert board.watts is not None
    power = await measured.series(WATTS, gpu="0")
    assert power == {
        ("0", "1", ""): pytest.approx(board.watts / 8),
        ("0", "5", ""): pytest.approx(board.watts / 2),
        ("0", "", ""): pytest.approx(board.watts * 3 / 8),
    }
    assert sum((await measured.series(JOULES, gpu="0")).values()) == pytest.approx(board.watts * MEASURE_SECONDS)


async def test_energy_never_falls_when_the_layout_changes() -> None:
    measured = await a_measured(mig=mig("3g.40gb@4"))
    await measured.pass_by()
    await measured.pass_by()
    before = await measured.series(JOULES, gpu="0")
    await measured.world.want({"index": 0, "instances": [{"profile": "3g.40gb", "start": s} for s in (0, 4)]})
    await measured.pass_by()
    after = await measured.series(JOULES, gpu="0")
    assert after.keys() == {*before, ("0", "1", "")}
    assert all(after[key] >= value for key, value in before.items())


async def test_energy_goes_on_when_the_driver_is_loaded_anew() -> None:
    measured = await a_measured()
    for _ in range(3):
        await measured.pass_by()
    before = await measured.series(JOULES)
    measured.world.driver.sensors = Sensors(measured.world.node, measured.world.api.clock)
    await measured.pass_by()
    await measured.pass_by()
    after = await measured.series(JOULES)
    assert all(before[key] < after[key] < 3 * before[key] for key in before)


async def test_memory_temperature_and_errors_are_told() -> None:
    measured = await a_measured(load={"0": 0.5})
    board = measured.world.node.boards[0]
    board.xids, board.ecc_corrected, board.healthy = [79, 79], 3, False
    await measured.pass_by()
    whole = ("0", "", "")
    assert (await measured.series("berth_gpu_memory_total_bytes"))[whole] == board.model.memory_mib * 2**20
    assert (await measured.series("berth_gpu_memory_used_bytes"))[whole] > 0
    assert (await measured.series("berth_gpu_memory_used_bytes"))["1", "", ""] == 0
    assert 40 < (await measured.series("berth_gpu_temperature_celsius"))[whole] < 70
    assert (await measured.series("berth_gpu_xid_errors_total", xid="79"))[whole] == 2
    assert await measured.series("berth_gpu_last_xid") == {whole: 79, ("1", "", ""): 0}
    assert (await measured.series("berth_gpu_ecc_errors_total", kind="corrected"))[whole] == 3
    assert await measured.series("berth_gpu_healthy") == {whole: 0, ("1", "", ""): 1}


async def test_what_no_sensor_tells_has_no_series_rather_than_0() -> None:
    measured = await a_measured(board="A100-80GB", mig=mig("3g.40gb@4"), load={"0@4": 0.5})
    await measured.pass_by()
    assert ("0", "5", "") not in await measured.series(BUSY)
    assert ("0", "", "") not in await measured.series(BUSY)
    assert ("0", "5", "") not in await measured.series("berth_gpu_sm_active_ratio")
    assert ("0", "5", "") in await measured.series(WATTS)


async def test_a_kubelet_that_does_not_answer_costs_the_names_of_pods_and_says_so() -> None:
    measured = await a_measured(load={"0": 0.5})
    measured.world.hold("llm-0")
    await measured.pass_by()
    measured.world.no_kubelet = "not there"
    assert b"llm-0" not in await measured.measurer.page()
    assert ("1", "", "") in await measured.series(BUSY)
    assert {s.labels["source"]: s.value for s in await measured.samples("berth_agent_source_up")} == {
        "boards": 1,
        "kubelet": 0,
    }


async def test_boards_that_do_not_answer_are_told_for_half_a_minute_and_no_longer() -> None:
    measured = await a_measured()
    await measured.pass_by()

    class Dead:
        async def measure(self) -> tuple[Reading, ...]:
            raise GpuError("gone")

    measured.measurer.meters = Dead()
    await measured.pass_by()
    assert await measured.series(WATTS)
    await measured.pass_by(60)
    assert not await measured.series(WATTS)
    assert {s.labels["source"]: s.value for s in await measured.samples("berth_agent_source_up")} == {
        "boards": 0,
        "kubelet": 1,
    }


async def test_a_board_that_two_pods_share_is_told_of_neither() -> None:
    measured = await a_measured(load={"0": 0.5})
    uuid = measured.world.node.boards[0].uuid
    measured.world.hold("a")
    (holder,) = measured.world.node.holders.values()
    measured.world.node.holders = {f"{uuid}::0": holder, f"{uuid}::1": type(holder)("team", "b")}
    await measured.pass_by()
    assert (await measured.series(BUSY, gpu="0")) == {("0", "", ""): 0.5}


def test_every_metric_of_the_agents_is_documented() -> None:
    told = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    for name in (*GAUGES, *(f"{counter}_total" for counter in COUNTERS), "berth_agent_source_up"):
        assert f"`{name}`" in told


async def test_no_series_outlives_what_it_is_of() -> None:
    """Labels are bounded by what is there: whatever came and went leaves no trace on the page."""
    measured = await a_measured()
    for number in range(50):
        measured.world.hold(f"llm-{number}")
        await measured.pass_by()
    page = (await measured.measurer.page()).decode()
    assert page.count('gpu="0"') == page.count('gpu="1"')
    assert {s.labels["pod"] for s in await measured.samples(JOULES)} == {"llm-49", ""}
