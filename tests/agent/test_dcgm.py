"""Readings from a local server that answers like dcgm-exporter: the same as NVML's, however they came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from berth.adapters.dcgm import Dcgm, readings
from berth.control.gpus import GpuError, Load, Reading
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.sensors import Sensors
from tests.agent.exporter import Exporter
from tests.agent.nodes import World, a_node, mig
from tests.agent.test_metrics import BUSY, WATTS, Measured, a_measured, a_pod
from tests.control.fakes import HandClock


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def told(exporter: Exporter, session: aiohttp.ClientSession) -> tuple[Reading, ...]:
    async with TestServer(exporter.app()) as server:
        return await Dcgm(str(server.make_url("/metrics")), session).measure()


async def test_its_readings_are_those_of_the_boards_own_driver(session: aiohttp.ClientSession) -> None:
    node = a_node(mig=mig("4g.40gb@0", "3g.40gb@4"))
    node.load = {"0@0": 0.25, "0@4": 0.75, "1": 0.5}
    node.boards[1].xids, node.boards[1].ecc_corrected = [79, 31, 79], 4
    sensors = Sensors(node, HandClock())
    found = {reading.uuid: reading for reading in await told(Exporter(sensors), session)}
    for reading in sensors.read():
        own = replace(reading, load=Load()) if reading.instances else reading  # which it tells of instances only
        theirs = found[reading.uuid]
        assert replace(theirs, xids=None, last_xid=None) == replace(own, xids=None, last_xid=None)
    assert (found[node.boards[1].uuid].xids, found[node.boards[1].uuid].last_xid) == ({79: 2, 31: 1}, 79)


async def test_without_profiling_fields_a_board_has_its_utilization_and_no_sm_activity(
    session: aiohttp.ClientSession,
) -> None:
    page = Exporter(Sensors(a_node(board="L40S"))).page()
    assert "PROF" not in page
    assert [(found.load.utilization, found.load.sm_active) for found in readings(page)] == 2 * [(0.0, None)]


@pytest.mark.parametrize("page", ["", "up 1\n", "# TYPE DCGM_FI_DEV_GPU_TEMP gauge\nDCGM_FI_DEV_GPU_TEMP 3\n"])
def test_a_page_of_somebody_else_is_told_not_taken_for_idle_boards(page: str) -> None:
    with pytest.raises(GpuError, match="is that its /metrics"):
        readings(page)


def test_a_page_that_is_broken_is_told() -> None:
    with pytest.raises(GpuError, match="can't be read"):
        readings('DCGM_FI_DEV_GPU_TEMP{UUID="GPU-1"} warm\n')


def test_a_value_that_is_no_number_is_absent() -> None:
    (reading,) = readings('DCGM_FI_DEV_GPU_TEMP{UUID="GPU-1"} NaN\nDCGM_FI_DEV_POWER_USAGE{UUID="GPU-1"} 70\n')
    assert (reading.celsius, reading.watts) == (None, 70)


async def test_an_exporter_that_is_down_or_wrong_is_told_with_its_address(session: aiohttp.ClientSession) -> None:
    with pytest.raises(GpuError, match=r"does not answer at http://127.0.0.1:1/metrics"):
        await Dcgm("http://127.0.0.1:1/metrics", session).measure()
    with pytest.raises(GpuError, match=r"answers 404: is that its /metrics\?"):
        await told(Exporter(Sensors(a_node()), status=404), session)


async def joined(measured: Measured, session: aiohttp.ClientSession, exporter: Exporter) -> None:
    """Measure once through the exporter."""
    async with TestServer(exporter.app()) as server:
        measured.measurer.meters = Dcgm(str(server.make_url("/metrics")), session)
        await measured.pass_by()


async def test_its_values_come_out_under_the_same_names_with_the_pods_that_we_know(
    session: aiohttp.ClientSession,
) -> None:
    measured = await a_measured(a_pod("llm-0", "llm", "research"), load={"0@4": 0.75}, mig=mig("3g.40gb@4"))
    measured.world.hold("llm-0", at=4)
    await joined(measured, session, Exporter(measured.world.driver.sensors))
    assert (await measured.series(BUSY, workload="llm", queue="research")) == {("0", "5", "llm-0"): 0.75}
    board = measured.world.node.boards[0]
    watts = measured.world.driver.sensors.watts(board)
    assert sum((await measured.series(WATTS, gpu="0")).values()) == pytest.approx(watts)


async def test_an_exporter_of_another_node_is_told_not_joined(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    measured, other = await a_measured(), World(a_node())
    for board in other.node.boards:
        board.uuid += "-elsewhere"
    await joined(measured, session, Exporter(Driver(other.node).sensors))
    assert not await measured.series(WATTS)
    assert "internalTrafficPolicy: Local" in caplog.text
