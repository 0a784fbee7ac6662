"""The adapter of NVML against a stand-in for its library: what the contract can't say of every driver."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pynvml
import pytest

from berth.adapters.nvml import Nvml
from berth.control.gpus import Gpu, GpuError
from tests.agent.library import Killed, Library
from tests.agent.nodes import a_node, mig


def a_library(**pool: Any) -> Library:
    return Library(a_node(**pool))


async def boards(library: Library) -> tuple[Gpu, ...]:
    return (await Nvml(library).read()).gpus


async def test_a_board_without_mig_is_read_like_any_other() -> None:
    gpus = await boards(a_library(board="L40S"))
    assert [(gpu.mig_capable, gpu.mig_enabled, gpu.instances, gpu.healthy) for gpu in gpus] == 2 * [
        (False, False, (), True)
    ]
    assert gpus[0].product == "NVIDIA-L40S"
    assert gpus[0].model.name == "L40S"


async def test_a_board_whose_memory_can_not_be_mended_is_not_healthy() -> None:
    library = a_library()
    library.node.set_unhealthy([1])
    assert [gpu.healthy for gpu in await boards(library)] == [True, False]


async def test_a_board_that_fell_off_the_bus_is_not_healthy_and_the_others_go_on() -> None:
    library = a_library(board="A30", nvlink="pairs")
    nvml = Nvml(library)
    before = await nvml.read()
    library.lost = frozenset({1})
    after = await nvml.read()
    assert [gpu.healthy for gpu in after.gpus] == [True, False]
    assert [gpu.uuid for gpu in after.gpus] == [gpu.uuid for gpu in before.gpus]
    assert after.links == before.links


async def test_a_board_that_was_never_there_is_told_not_guessed() -> None:
    library = a_library()
    library.lost = frozenset({1})
    with pytest.raises(GpuError, match="reboot the node"):
        await boards(library)


async def test_bridged_boards_show_their_links() -> None:
    assert (await Nvml(a_library(board="A30", boardsPerNode=4, nvlink="pairs")).read()).links == (
        (0, 4, 0, 0),
        (4, 0, 0, 0),
        (0, 0, 0, 4),
        (0, 0, 4, 0),
    )


@pytest.mark.parametrize("nvlink", ["nvswitch", "none"])
async def test_switched_and_unlinked_boards_show_no_matrix(nvlink: str) -> None:
    assert (await Nvml(a_library(nvlink=nvlink)).read()).links is None


async def test_switches_the_mode_of_an_idle_board() -> None:
    library = a_library()
    nvml = Nvml(library)
    await nvml.set_mig(library.node.boards[1].uuid, True)
    assert [gpu.mig_enabled for gpu in (await nvml.read()).gpus] == [False, True]


async def test_a_mode_that_waits_for_a_reset_is_pending_and_no_error() -> None:
    library = a_library()
    library.needs_reset = True
    nvml = Nvml(library)
    await nvml.set_mig(library.node.boards[0].uuid, True)
    (gpu, _) = (await nvml.read()).gpus
    assert (gpu.mig_enabled, gpu.mig_pending) == (False, True)


async def test_an_instance_that_gets_no_compute_instance_is_taken_back() -> None:
    library = a_library(mig=mig())
    library.trouble["nvmlGpuInstanceCreateComputeInstance"] = pynvml.NVML_ERROR_UNKNOWN
    nvml = Nvml(library)
    with pytest.raises(GpuError):
        await nvml.create(library.node.boards[0].uuid, 9, 0)
    assert (await nvml.read()).gpus[0].instances == ()


async def test_an_instance_left_without_compute_instance_takes_room_but_is_no_device() -> None:
    library = a_library(mig=mig())
    library.crash_in = "nvmlGpuInstanceCreateComputeInstance"
    with pytest.raises(Killed):
        await Nvml(library).create(library.node.boards[0].uuid, 9, 0)
    library.crash_in = ""
    nvml = Nvml(library)
    (bare,) = (await nvml.read()).gpus[0].instances
    assert (bare.uuid, bare.slices) == ("", range(4))
    await nvml.destroy(library.node.boards[0].uuid, bare.id)
    assert (await nvml.read()).gpus[0].instances == ()


async def test_an_instance_cut_into_several_shows_all_of_their_names() -> None:
    library = a_library(mig=mig())
    gi = library.nvmlDeviceCreateGpuInstanceWithPlacement(
        library.node.boards[0], 9, pynvml.byref(pynvml.c_nvmlGpuInstancePlacement_t(0, 4))
    )
    for _ in range(2):
        library.nvmlGpuInstanceCreateComputeInstance(gi, 0)
    (cut,) = (await boards(library))[0].instances
    assert (cut.uuid, len(cut.devices)) == ("", 2)
    await Nvml(library).destroy(library.node.boards[0].uuid, cut.id)
    assert (await boards(library))[0].instances == ()


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "runtimeClassName"),
        ("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver is not loaded"),
        ("nvmlInit", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart its pod"),
        ("nvmlDeviceGetHandleByIndex", pynvml.NVML_ERROR_GPU_IS_LOST, "reboot the node"),
        ("nvmlDeviceGetGpuInstances", pynvml.NVML_ERROR_NO_PERMISSION, "NVIDIA_MIG_CONFIG_DEVICES=all"),
        ("nvmlDeviceGetHandleByIndex", pynvml.NVML_ERROR_UNKNOWN, "NVML: code 999"),
    ],
)
async def test_every_refusal_is_told_with_what_to_do(function: str, error: int, remedy: str) -> None:
    library = a_library(mig=mig("3g.40gb@0"))
    library.trouble[function] = error
    with pytest.raises(GpuError, match=remedy):
        await boards(library)


@pytest.mark.parametrize("trouble", [{}, {"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_UNKNOWN}])
async def test_lets_the_boards_go_after_each_look_so_that_they_can_be_reset(trouble: dict[str, int]) -> None:
    library = a_library()
    library.trouble = trouble
    with suppress(GpuError):
        await boards(library)
    assert library.users == 0


READING = {  # each function, and what is absent where it gives nothing
    "nvmlDeviceGetPowerUsage": "watts",
    "nvmlDeviceGetTotalEnergyConsumption": "joules",
    "nvmlDeviceGetTemperature": "celsius",
    "nvmlDeviceGetTotalEccErrors": "ecc_corrected",
    "nvmlDeviceRegisterEvents": "xids",
    "nvmlEventSetCreate": "xids",
}


@pytest.mark.parametrize("function", READING)
async def test_a_value_that_a_board_lacks_is_absent_never_0_and_costs_no_other(function: str) -> None:
    library = a_library()
    whole = (await Nvml(library, listen=True).measure())[0]
    library.trouble[function] = pynvml.NVML_ERROR_NOT_SUPPORTED
    part = (await Nvml(library, listen=True).measure())[0]
    for name in set(READING.values()) - {"joules"}:
        assert getattr(part, name) == (None if name == READING[function] else getattr(whole, name))
    assert (part.joules is None) == (function == "nvmlDeviceGetTotalEnergyConsumption")


async def test_utilization_is_the_mean_between_two_looks_where_the_board_is_monitored() -> None:
    library = a_library(mig=mig("3g.40gb@0"))
    library.node.load = {"0@0": 0.25, "1": 0.5}
    nvml = Nvml(library, listen=True)
    first, _ = await nvml.measure()
    assert first.instances[1].utilization is None
    mig_board, whole = await nvml.measure()
    assert (mig_board.instances[1].utilization, mig_board.instances[1].sm_active) == (0.25, 0.2)
    assert (whole.load.utilization, whole.load.sm_active) == (0.5, 0.4)


async def test_a_board_without_monitoring_tells_its_utilization_and_nothing_of_its_instances() -> None:
    library = a_library(board="A100-80GB", mig=mig("3g.40gb@0"))
    library.node.load = {"0@0": 0.25, "1": 0.5}
    nvml = Nvml(library, listen=True)
    await nvml.measure()
    mig_board, whole = await nvml.measure()
    assert mig_board.instances[1].utilization is None
    assert mig_board.instances[1].memory_used is not None
    assert (whole.load.utilization, whole.load.sm_active) == (0.5, None)


async def test_counts_the_errors_that_come_while_it_listens_by_xid() -> None:
    library = a_library()
    board = library.node.boards[1]
    board.xids.append(31)  # before anybody listened
    nvml = Nvml(library, listen=True)
    await nvml.measure()
    board.xids += [79, 48, 79]
    _, reading = await nvml.measure()
    assert (reading.xids, reading.last_xid) == ({79: 2, 48: 1}, 79)
    await nvml.set_mig(library.node.boards[0].uuid, True)  # which lets NVML go
    board.xids.append(79)  # and so is missed
    await nvml.measure()
    board.xids.append(79)
    assert (await nvml.measure())[1].xids == {79: 3, 48: 1}


async def test_holds_the_boards_only_to_listen_and_not_while_one_waits_for_a_reset() -> None:
    library = a_library()
    silent, nvml = Nvml(library), Nvml(library, listen=True)
    await silent.measure()
    assert library.users == 0
    await nvml.measure()
    await nvml.measure()
    assert (library.users, library.samples) == (1, 2)
    library.needs_reset = True
    await nvml.set_mig(library.node.boards[0].uuid, True)
    assert (library.users, library.samples) == (0, 0)
    await nvml.read()
    await nvml.measure()
    assert library.users == 0


async def test_a_board_that_fell_off_the_bus_has_no_reading_and_the_others_have_theirs() -> None:
    library = a_library()
    nvml = Nvml(library, listen=True)
    await nvml.measure()
    library.lost = frozenset({0})
    assert [reading.uuid for reading in await nvml.measure()] == [library.node.boards[1].uuid]


async def test_begins_anew_when_the_driver_is_gone() -> None:
    library = a_library()
    nvml = Nvml(library, listen=True)
    await nvml.measure()
    library.trouble["nvmlDeviceGetCount"] = pynvml.NVML_ERROR_UNKNOWN
    with pytest.raises(GpuError):
        await nvml.measure()
    assert (library.users, library.samples) == (0, 0)
    library.trouble = {}
    assert len(await nvml.measure()) == 2
