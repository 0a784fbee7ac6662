"""What holds for every driver of GPUs: simulated ones, NVML on a stand-in for its library, and real boards.

On real hardware the suite changes the layout of a board: it runs only where BERTH_TEST_GPU names one, by its UUID,
that is idle and in MIG mode. Everywhere else those tests are skipped: no GPU here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from berth.adapters import nvml
from berth.adapters.nvml import Nvml
from berth.control.gpus import Gpu, GpuError, GpuInUse, Reading
from e2e.fakegpu.driver import Driver, RemoteDriver, serving
from tests.agent.library import Library
from tests.agent.nodes import a_node, mig

DRIVERS = ("in process", "through a socket", "NVML on a stand-in", "real NVML")


@dataclass
class Bench:
    """One board in MIG mode, without instances, behind some driver."""

    gpus: Driver | RemoteDriver | Nvml  # all of them Gpus and Meters
    uuid: str

    async def board(self) -> Gpu:
        """The board as it is now."""
        return next(gpu for gpu in (await self.gpus.read()).gpus if gpu.uuid == self.uuid)

    async def reading(self) -> Reading:
        """What the board does, of two looks the second, as monitoring tells what happened between two."""
        await self.gpus.measure()
        return next(found for found in await self.gpus.measure() if found.uuid == self.uuid)

    async def create(self, profile: str, start: int) -> None:
        """Make an instance of a profile, by name."""
        found = (await self.board()).model.profile(profile)
        assert found is not None
        await self.gpus.create(self.uuid, found.gi_profile_id, start)

    async def layout(self) -> list[tuple[int, int]]:
        """GPU-instance profile and start of what exists."""
        return [(i.profile_id, i.start) for i in (await self.board()).instances]


@pytest.fixture(params=DRIVERS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    node = a_node(mig=mig())
    if request.param == "in process":
        yield Bench(Driver(node), node.boards[0].uuid)
    elif request.param == "through a socket":
        async with serving(Driver(node), tmp_path / "gpus.sock"):
            yield Bench(RemoteDriver(tmp_path / "gpus.sock"), node.boards[0].uuid)
    elif request.param == "NVML on a stand-in":
        yield Bench(Nvml(Library(node), listen=True), node.boards[0].uuid)
    else:
        async for real in _real():
            yield real


async def _real() -> AsyncIterator[Bench]:
    uuid = os.environ.get("BERTH_TEST_GPU", "")
    if not uuid:
        pytest.skip("no GPU here: set BERTH_TEST_GPU to the UUID of an idle board in MIG mode")
    bench = Bench(nvml.connect(listen=True), uuid)
    assert await bench.layout() == [], "the board has instances: choose an empty one"
    yield bench
    for instance in (await bench.board()).instances:
        await bench.gpus.destroy(uuid, instance.id)


def plain(gpu: Gpu, slices: int) -> str:
    """The plain profile of that many compute slices, by this model's name."""
    return next(p.name for p in gpu.model.profiles if p.compute_slices == slices and not p.media)


async def test_an_instance_is_where_it_was_asked_for_and_can_be_used(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 3), 4)
    (instance,) = (await bench.board()).instances
    assert (instance.profile_id, instance.start, instance.size) == (9, 4, 4)
    assert instance.uuid.startswith("MIG-")
    assert instance.profile_name == plain(gpu, 3)


async def test_instances_come_and_go_one_by_one(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 3), 0)
    await bench.create(plain(gpu, 2), 4)
    await bench.create(plain(gpu, 1), 6)
    assert await bench.layout() == [(9, 0), (14, 4), (19, 6)]
    middle = (await bench.board()).instances[1]
    await bench.gpus.destroy(bench.uuid, middle.id)
    assert await bench.layout() == [(9, 0), (19, 6)]


async def test_other_instances_keep_their_names_meanwhile(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 3), 0)
    before = (await bench.board()).instances[0].uuid
    await bench.create(plain(gpu, 3), 4)
    await bench.gpus.destroy(bench.uuid, (await bench.board()).instances[1].id)
    assert (await bench.board()).instances[0].uuid == before


async def test_refuses_what_does_not_fit_and_changes_nothing(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 4), 0)
    with pytest.raises(GpuError):
        await bench.create(plain(gpu, 3), 0)
    assert await bench.layout() == [(5, 0)]


async def test_refuses_an_illegal_start_and_a_profile_that_nobody_has(bench: Bench) -> None:
    gpu = await bench.board()
    with pytest.raises(GpuError):
        await bench.create(plain(gpu, 3), 2)
    with pytest.raises(GpuError):
        await bench.gpus.create(bench.uuid, 999, 0)
    assert await bench.layout() == []


async def test_refuses_to_remove_what_does_not_exist(bench: Bench) -> None:
    with pytest.raises(GpuError):
        await bench.gpus.destroy(bench.uuid, 5)
    with pytest.raises(GpuError):
        await bench.gpus.destroy("GPU-of-another-node", 5)


async def test_a_board_with_instances_stays_in_mig_mode(bench: Bench) -> None:
    await bench.create(plain(await bench.board(), 1), 0)
    with pytest.raises(GpuInUse):
        await bench.gpus.set_mig(bench.uuid, False)
    assert (await bench.board()).mig_enabled


async def test_a_board_says_what_it_is(bench: Bench) -> None:
    gpu = await bench.board()
    assert gpu.healthy
    assert gpu.mig_capable
    assert gpu.mig_enabled
    assert gpu.model.memory_slices == 8
    assert gpu.memory_mib > 30_000


async def test_a_board_tells_what_it_takes_and_how_it_is(bench: Bench) -> None:
    gpu, reading = await bench.board(), await bench.reading()
    assert reading.watts is not None
    assert 10 < reading.watts < 1.5 * gpu.model.power_watts
    assert reading.celsius is not None
    assert 10 < reading.celsius < 110
    assert reading.load.memory_total is not None
    assert reading.load.memory_used is not None
    assert reading.load.memory_used <= reading.load.memory_total
    assert abs(reading.load.memory_total / 2**20 - gpu.memory_mib) < 0.05 * gpu.memory_mib
    assert (reading.ecc_corrected is None) == (reading.ecc_uncorrected is None)


async def test_energy_is_counted_and_never_falls(bench: Bench) -> None:
    before, after = await bench.reading(), await bench.reading()
    assert before.joules is not None
    assert after.joules is not None
    assert after.joules >= before.joules


async def test_a_board_in_mig_mode_has_no_utilization_and_its_instances_have_their_own(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 3), 0)
    await bench.create(plain(gpu, 1), 4)
    instances = (await bench.board()).instances
    reading = await bench.reading()
    assert reading.load.utilization is None
    assert reading.instances.keys() == {instance.id for instance in instances}
    large, small = (reading.instances[instance.id] for instance in instances)
    assert large.memory_total is not None
    assert small.memory_total is not None
    assert small.memory_total < large.memory_total < gpu.memory_mib * 2**20
    for load in (large, small):  # on a board with performance monitoring, as all that this suite runs on
        assert load.utilization is not None
        assert 0 <= load.utilization <= 1


async def test_measuring_keeps_nobody_from_changing_the_layout(bench: Bench) -> None:
    gpu = await bench.board()
    await bench.create(plain(gpu, 1), 0)
    await bench.reading()
    await bench.gpus.destroy(bench.uuid, (await bench.board()).instances[0].id)
    assert (await bench.reading()).instances == {}


async def test_errors_are_counted_by_their_xid_from_when_somebody_listens(bench: Bench) -> None:
    assert (await bench.reading()).xids == {}
