"""A stand-in for the module pynvml, on a simulated board: its functions, its arrays to fill in, its errors.

Behaviour as NVIDIA's reference says: profiles by number with gaps, instances listed by profile, compute instances on
GPU instances, MIG devices by index with gaps. Handles are Python objects here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import pynvml

from e2e.fakegpu.hardware import Board, Instance, LayoutError, silicon_of
from e2e.fakegpu.node import Node
from e2e.fakegpu.sensors import TELLS_MORE, Sensors


class Killed(BaseException):
    """The process dies here."""


class _Refused(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


@dataclass(eq=False)
class _Compute:
    """A compute instance."""

    on: _Gi
    slices: int


@dataclass(eq=False)
class _Gi:
    """A GPU instance, perhaps still without a compute instance."""

    board: Board
    instance: Instance
    compute: list[_Compute] = field(default_factory=list)


@dataclass(eq=False)
class Device:
    """A MIG device."""

    of: _Compute


class Info:
    """A structure that NVML fills in."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@dataclass
class Library:
    """Implements the part of pynvml that the adapter calls. `trouble` maps functions to the error they fail with."""

    node: Node
    trouble: dict[str, int] = field(default_factory=dict)
    crash_in: str = ""  # the function in which the process dies
    needs_reset: bool = False
    lost: frozenset[int] = frozenset()  # boards that fell off the bus
    users: int = 0  # who has the boards open

    c_nvmlGpuInstance_t = ctypes.py_object
    c_nvmlComputeInstance_t = ctypes.py_object
    c_nvmlGpuInstancePlacement_t = pynvml.c_nvmlGpuInstancePlacement_t
    NVMLError = _Refused

    def __post_init__(self) -> None:
        self.sensors = Sensors(self.node)
        self.samples = 0  # that somebody must still free
        self._pending: dict[str, bool] = {}
        self._gis = {b.uuid: [self._whole(b, i) for i in b.instances] for b in self.node.boards}

    def __getattr__(self, name: str) -> Any:
        """Constants are pynvml's own."""
        if name.startswith(("NVML_", "nvmlEventType", "nvmlMemory_")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def __getattribute__(self, name: str) -> Any:
        """Functions fail where a test has trouble with them."""
        found = object.__getattribute__(self, name)

        def entered(*arguments: Any) -> Any:
            self._enter(name)
            return found(*arguments)

        return entered if name.startswith("nvml") else found

    def _enter(self, function: str) -> None:
        if function == self.crash_in:
            raise Killed
        if function in self.trouble:
            raise _Refused(self.trouble[function])

    @staticmethod
    def _whole(board: Board, instance: Instance) -> _Gi:
        gi = _Gi(board, instance)
        gi.compute = [_Compute(gi, instance.placed.profile.compute_slices)]
        return gi

    # Boards

    def nvmlInit(self) -> None:
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlDeviceGetCount(self) -> int:
        if not self.users:
            raise _Refused(pynvml.NVML_ERROR_UNINITIALIZED)
        return len(self.node.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        if index in self.lost:
            raise _Refused(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.node.boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:
        for board in self.node.boards:
            if board.uuid == uuid:
                return board
        raise _Refused(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: Board | Device) -> str:
        return handle.uuid if isinstance(handle, Board) else handle.of.on.instance.uuid

    def nvmlDeviceGetName(self, board: Board) -> str:
        return board.model.products[0].replace("-", " ", 1)

    def nvmlDeviceGetMemoryInfo(self, device: Board | Device, version: int = 0) -> Info:
        board, instance = (device, None) if isinstance(device, Board) else (device.of.on.board, device.of.on.instance)
        load = self.sensors.load(board, instance)
        return Info(total=load.memory_total, used=load.memory_used)

    def nvmlDeviceGetRemappedRows(self, board: Board) -> tuple[int, int, int, int]:
        if not board.model.profiles:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return (0, 0, 0, int(not board.healthy))

    def nvmlDeviceGetPciInfo(self, board: Board) -> Info:
        return Info(busId=f"00000000:{board.index + 1:02X}:00.0")

    def nvmlDeviceGetNvLinkState(self, board: Board, link: int) -> int:
        if self.node.member.pool.nvlink == "none":
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(link < self._per_board(board))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, board: Board, link: int) -> int:
        switched = self.node.member.pool.nvlink == "nvswitch"
        return int(pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH if switched else pynvml.NVML_NVLINK_DEVICE_TYPE_GPU)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, board: Board, link: int) -> Info:
        return Info(busId=f"0000:{(board.index ^ 1) + 1:02x}:00.0")  # bridges join 0-1, 2-3; a shorter domain

    def _per_board(self, board: Board) -> int:
        return max(self.node.links[board.index])

    # MIG mode

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:
        if not board.model.profiles:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(board.mig_enabled), int(self._pending.get(board.uuid, board.mig_enabled))]

    def nvmlDeviceSetMigMode(self, board: Board, mode: int) -> int:
        if self._gis[board.uuid]:
            return int(pynvml.NVML_ERROR_IN_USE)
        if self.needs_reset:
            self._pending[board.uuid] = bool(mode)
            return int(pynvml.NVML_ERROR_RESET_REQUIRED)
        board.lay(bool(mode))
        return int(pynvml.NVML_SUCCESS)

    # GPU instances

    def nvmlDeviceGetGpuInstanceProfileInfo(self, board: Board, number: int) -> Info:
        """Number n is the n-th of the board's profiles, with gaps between, as in NVML."""
        if number % 2 or number // 2 >= len(board.model.profiles):
            error = pynvml.NVML_ERROR_INVALID_ARGUMENT if number > 15 else pynvml.NVML_ERROR_NOT_SUPPORTED
            raise _Refused(error)
        profile = board.model.profiles[number // 2]
        return Info(
            id=profile.gi_profile_id,
            sliceCount=profile.compute_slices,
            instanceCount=profile.max_instances,
            name=f"MIG {profile.name}",
        )

    def nvmlDeviceGetGpuInstances(self, board: Board, profile: int, room: Any, count: Any) -> None:
        found = [gi for gi in self._gis[board.uuid] if gi.instance.placed.profile.gi_profile_id == profile]
        _fill(room, count, found)

    def nvmlDeviceGetGpuInstanceById(self, board: Board, number: int) -> _Gi:
        for gi in self._gis[board.uuid]:
            if gi.instance.id == number:
                return gi
        raise _Refused(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlGpuInstanceGetInfo(self, gi: _Gi) -> Info:
        placed = gi.instance.placed
        place = Info(start=placed.start, size=placed.profile.memory_slices)
        return Info(id=gi.instance.id, profileId=placed.profile.gi_profile_id, placement=place)

    def nvmlDeviceGetGpuInstancePossiblePlacements(self, board: Board, number: int, room: Any, count: Any) -> None:
        profile = next(p for p in board.model.profiles if p.gi_profile_id == number)
        found = [(start, profile.memory_slices) for start in profile.starts]
        count._obj.value = len(found)
        for i, place in enumerate(found if room is not None else ()):
            room[i].start, room[i].size = place

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, board: Board, number: int, placement: Any) -> _Gi:
        try:
            board.create(number, placement._obj.start)
        except LayoutError as error:
            raise _Refused(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES) from error
        gi = _Gi(board, board.instances[-1])
        self._gis[board.uuid].append(gi)
        return gi

    def nvmlGpuInstanceDestroy(self, gi: _Gi) -> None:
        if gi.compute:
            raise _Refused(pynvml.NVML_ERROR_IN_USE)
        self._gis[gi.board.uuid].remove(gi)
        gi.board.instances.remove(gi.instance)

    # Compute instances and MIG devices

    def nvmlGpuInstanceGetComputeInstanceProfileInfo(self, gi: _Gi, number: int, engine: int) -> Info:
        slices = gi.instance.placed.profile.compute_slices
        sizes = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}
        if sizes.get(number, 99) > slices:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return Info(id=number, sliceCount=sizes[number], instanceCount=slices // sizes[number])

    def nvmlGpuInstanceCreateComputeInstance(self, gi: _Gi, number: int) -> _Compute:
        compute = _Compute(gi, {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}[number])
        gi.compute.append(compute)
        return compute

    def nvmlGpuInstanceGetComputeInstances(self, gi: _Gi, number: int, room: Any, count: Any) -> None:
        slices = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}[number]
        _fill(room, count, [each for each in gi.compute if each.slices == slices])

    def nvmlComputeInstanceDestroy(self, compute: _Compute) -> None:
        compute.on.compute.remove(compute)

    def nvmlDeviceGetMaxMigDeviceCount(self, board: Board) -> int:
        return 8

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Board, number: int) -> Device:
        found = [compute for gi in self._gis[board.uuid] for compute in gi.compute]
        if number == 0 or number > len(found):  # 0: a gap, as after a removal
            raise _Refused(pynvml.NVML_ERROR_NOT_FOUND)
        return Device(found[number - 1])

    def nvmlDeviceGetGpuInstanceId(self, device: Device) -> int:
        return device.of.on.instance.id

    def nvmlDeviceGetAttributes(self, device: Device) -> Info:
        return Info(computeInstanceSliceCount=device.of.slices)

    # What boards do

    def nvmlDeviceGetPowerUsage(self, board: Board) -> int:
        return round(self.sensors.watts(board) * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, board: Board) -> int:
        self.sensors.tick()
        return round(self.sensors.joules(board) * 1000)

    def nvmlDeviceGetTemperature(self, board: Board, sensor: int) -> int:
        return round(self.sensors.celsius(board))

    def nvmlDeviceGetTotalEccErrors(self, board: Board, kind: int, since: int) -> int:
        assert since == pynvml.NVML_VOLATILE_ECC
        corrected = kind == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        return board.ecc_corrected if corrected else board.ecc_uncorrected

    def nvmlDeviceGetUtilizationRates(self, board: Board) -> Info:
        if board.mig_enabled:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return Info(gpu=round(self.sensors.utilization(board) * 100))

    # Performance monitoring

    def nvmlGpmQueryDeviceSupport(self, board: Board) -> Info:
        return Info(isSupportedDevice=int(silicon_of(board.model).family in TELLS_MORE))

    def nvmlGpmSampleAlloc(self) -> Info:
        self.samples += 1
        return Info(load=None)

    def nvmlGpmSampleFree(self, sample: Info) -> None:
        self.samples -= 1
        sample.load = None

    def nvmlGpmSampleGet(self, board: Board, sample: Info) -> Info:
        if board.mig_enabled:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        sample.load = self.sensors.load(board)
        return sample

    def nvmlGpmMigSampleGet(self, board: Board, number: int, sample: Info) -> Info:
        sample.load = self.sensors.load(board, board.instance(number))
        return sample

    def c_nvmlGpmMetricsGet_t(self) -> Info:
        return Info(metrics=[Info(nvmlReturn=0, value=0.0) for _ in range(pynvml.NVML_GPM_METRIC_MAX)])

    def nvmlGpmMetricsGet(self, asked: Info) -> Info:
        assert asked.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        assert asked.sample1.load is not None, "it was freed"
        load = asked.sample2.load
        values = {
            pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: load.utilization,
            pynvml.NVML_GPM_METRIC_SM_UTIL: load.sm_active,
        }
        for metric in asked.metrics[: asked.numMetrics]:
            metric.value = 100 * values[metric.metricId]
        return asked

    # Events

    def nvmlEventSetCreate(self) -> dict[str, int]:
        """By the UUID of each board: how many of its errors were told of."""
        return {}

    def nvmlDeviceRegisterEvents(self, board: Board, kinds: int, events: dict[str, int]) -> None:
        events[board.uuid] = len(board.xids)

    def nvmlEventSetWait_v2(self, events: dict[str, int], milliseconds: int) -> Info:
        for board in self.node.boards:
            told = events.get(board.uuid, len(board.xids))
            if told < len(board.xids):
                events[board.uuid] += 1
                kind = pynvml.nvmlEventTypeXidCriticalError
                return Info(device=board, eventType=kind, eventData=board.xids[told])
        raise _Refused(pynvml.NVML_ERROR_TIMEOUT)

    def nvmlEventSetFree(self, events: dict[str, int]) -> None:
        events.clear()


def _fill(room: Any, count: Any, found: list[Any]) -> None:
    count._obj.value = len(found)
    for i, each in enumerate(found):
        room[i] = each
