"""The node's GPUs through NVIDIA's management library (NVML).

Written against NVIDIA's reference and nvidia-ml-py, and not yet run on hardware (docs/decisions/0011). Reading and
changing instances takes the capability mig-config, which root with CAP_SYS_ADMIN has; switching MIG mode takes root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from ctypes import byref, c_uint
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from berth.adapters.nvml_readings import Readings
from berth.control.gpus import Gpu, GpuError, GpuInstance, GpuInUse, Inventory, Reading

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Profile:
    """A GPU-instance profile of one board, as this driver has it."""

    id: int
    name: str
    compute_slices: int
    most: int  # instances of it that may exist at once


class Nvml:
    """Implements `control.gpus.Gpus` and `Meters`. `library` is the module pynvml, or what behaves like it.

    Calls run in threads, one at a time: a mode change takes seconds, and NVML keeps no promise about overlapping ones.
    The library is let go after each, since a board that anybody has open, if only to look, can't be reset. With
    `listen` it is kept open between measurements instead, which Xid errors and performance monitoring take, except
    while a board's MIG mode waits for a reset.
    """

    def __init__(self, library: Any, listen: bool = False) -> None:
        self._nvml = library
        self._readings = Readings(library)
        self._listen = listen
        self._awaits_reset = False
        self._turn = asyncio.Lock()
        self._last: dict[int, Gpu] = {}  # boards as they were last seen
        self._linked: tuple[tuple[int, ...], ...] | None = None

    async def read(self) -> Inventory:
        """What is there now."""
        return await self._call(self._read)

    async def measure(self) -> tuple[Reading, ...]:
        """What the boards do."""
        return await self._call(lambda: self._readings.read(self._listen and not self._awaits_reset))

    async def set_mig(self, gpu: str, enabled: bool) -> None:
        """Switch a board; it may only happen at its next reset."""
        await self._call(lambda: self._set_mig(gpu, enabled))

    async def create(self, gpu: str, profile_id: int, start: int) -> None:
        """Make an instance. One without its compute instance is removed again, or found as half made after a crash."""
        await self._call(lambda: self._create(gpu, profile_id, start))

    async def destroy(self, gpu: str, instance_id: int) -> None:
        """Remove an instance, its compute instances first."""
        await self._call(lambda: self._destroy(gpu, instance_id))

    async def _call(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(self._tried, work)

    def _tried(self, work: Callable[[], T]) -> T:
        try:
            self._nvml.nvmlInit()
            try:
                return work()
            finally:
                self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            self._readings.let_go()  # what is kept may be of a driver that is gone
            raise self._told(error) from error

    def _told(self, error: Any) -> GpuError:
        """The error in words, with a remedy where one is known."""
        nvml = self._nvml
        remedies = {
            nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no libnvidia-ml.so.1: run the agent with the NVIDIA container runtime "
            "(runtimeClassName) and NVIDIA_VISIBLE_DEVICES=all",
            nvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is not loaded on this node",
            nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was upgraded under the agent: restart its pod",
            nvml.NVML_ERROR_NO_PERMISSION: "no permission to read or change MIG: the agent needs root, CAP_SYS_ADMIN "
            "and NVIDIA_MIG_CONFIG_DEVICES=all",
            nvml.NVML_ERROR_GPU_IS_LOST: "a board fell off the bus: reboot the node",
            nvml.NVML_ERROR_INSUFFICIENT_RESOURCES: "no room for the instance: something else changed the board",
        }
        if error.value == nvml.NVML_ERROR_IN_USE:
            return GpuInUse("in use: a process, perhaps DCGM or another monitor, has it open; stop that first")
        return GpuError(remedies.get(error.value) or f"NVML: {error}")

    def _read(self) -> Inventory:
        count = self._nvml.nvmlDeviceGetCount()
        found = [self._board(index) for index in range(count)]
        handles = [handle for _, handle in found]
        self._last = {gpu.index: gpu for gpu, _ in found}
        self._awaits_reset = any(gpu.mig_enabled != gpu.mig_pending for gpu, _ in found)
        if self._awaits_reset:
            self._readings.let_go()
        if None not in handles:
            self._linked = self._links(handles)
        return Inventory(tuple(gpu for gpu, _ in found), self._linked)

    def _board(self, index: int) -> tuple[Gpu, Any]:
        """A board and its handle.

        One that fell off the bus has none, and is as it was last seen: pods may still believe that they hold it.
        """
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            return self._gpu(index, handle), handle
        except self._nvml.NVMLError as error:
            if error.value != self._nvml.NVML_ERROR_GPU_IS_LOST or index not in self._last:
                raise
            return replace(self._last[index], healthy=False), None

    def _gpu(self, index: int, handle: Any) -> Gpu:
        nvml = self._nvml
        mode = self._supported(nvml.nvmlDeviceGetMigMode, handle)
        current, pending = (bool(value) for value in mode or (0, 0))
        return Gpu(
            index=index,
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            product=_text(nvml.nvmlDeviceGetName(handle)).replace(" ", "-"),
            memory_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20,
            healthy=self._healthy(handle),
            mig_capable=mode is not None,
            mig_enabled=current,
            mig_pending=pending,
            instances=self._instances(handle) if current else (),
        )

    def _supported(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where the board or the driver has no such thing."""
        nvml = self._nvml
        try:
            return function(*arguments)
        except nvml.NVMLError as error:
            absent = (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_INVALID_ARGUMENT,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NOT_FOUND,
            )
            if error.value in absent:
                return None
            raise

    def _healthy(self, handle: Any) -> bool:
        """Whether memory rows could be remapped where they had to. Xid errors are the device plugin's to watch."""
        rows = self._supported(self._nvml.nvmlDeviceGetRemappedRows, handle)
        return rows is None or not rows[3]

    def _profiles(self, handle: Any) -> Iterator[_Profile]:
        nvml = self._nvml
        for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            info = self._supported(nvml.nvmlDeviceGetGpuInstanceProfileInfo, handle, number)
            if info is not None:
                yield _Profile(info.id, _text(info.name).removeprefix("MIG "), info.sliceCount, info.instanceCount)

    def _instances(self, handle: Any) -> tuple[GpuInstance, ...]:
        devices = self._devices(handle)
        found = [
            self._instance(profile, self._nvml.nvmlGpuInstanceGetInfo(instance), devices)
            for profile in self._profiles(handle)
            for instance in self._of_profile(handle, profile)
        ]
        return tuple(sorted(found, key=lambda instance: instance.start))

    def _of_profile(self, handle: Any, profile: _Profile) -> list[Any]:
        nvml = self._nvml
        room, count = (nvml.c_nvmlGpuInstance_t * profile.most)(), c_uint()
        nvml.nvmlDeviceGetGpuInstances(handle, profile.id, room, byref(count))
        return list(room[: count.value])

    @staticmethod
    def _instance(profile: _Profile, info: Any, devices: list[tuple[int, str, int]]) -> GpuInstance:
        mine = [(uuid, slices) for instance, uuid, slices in devices if instance == info.id]
        return GpuInstance(
            id=info.id,
            profile_id=info.profileId,
            profile_name=profile.name,
            start=info.placement.start,
            size=info.placement.size,
            devices=tuple(uuid for uuid, _ in mine),
            whole=[slices for _, slices in mine] == [profile.compute_slices],
        )

    def _devices(self, handle: Any) -> list[tuple[int, str, int]]:
        """The MIG devices: GPU instance, UUID and compute slices of each."""
        nvml, found = self._nvml, []
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            device = self._supported(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            if device is not None:
                slices = nvml.nvmlDeviceGetAttributes(device).computeInstanceSliceCount
                found.append((nvml.nvmlDeviceGetGpuInstanceId(device), _text(nvml.nvmlDeviceGetUUID(device)), slices))
        return found

    def _links(self, handles: list[Any]) -> tuple[tuple[int, ...], ...] | None:
        """NVLinks between each two boards, or None where a switch joins them or no link is up."""
        nvml = self._nvml
        addresses = {_address(nvml.nvmlDeviceGetPciInfo(handle)): i for i, handle in enumerate(handles)}
        matrix = [[0] * len(handles) for _ in handles]
        for i, handle in enumerate(handles):
            for link in range(nvml.NVML_NVLINK_MAX_LINKS):
                if not self._supported(nvml.nvmlDeviceGetNvLinkState, handle, link):
                    continue
                far_end = self._supported(nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
                if far_end == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                    return None
                j = addresses.get(_address(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)))
                if j is not None:
                    matrix[i][j] += 1
        return tuple(map(tuple, matrix)) if any(map(any, matrix)) else None

    def _set_mig(self, gpu: str, enabled: bool) -> None:
        nvml = self._nvml
        self._readings.let_go()
        status = nvml.nvmlDeviceSetMigMode(nvml.nvmlDeviceGetHandleByUUID(gpu), int(enabled))
        if status not in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_RESET_REQUIRED):
            raise nvml.NVMLError(status)

    def _create(self, gpu: str, profile_id: int, start: int) -> None:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByUUID(gpu)
        profile = next((p for p in self._profiles(handle) if p.id == profile_id), None)
        if profile is None:
            raise GpuError(f"this driver knows no GPU-instance profile {profile_id} on the board: upgrade it")
        placement = self._placement(handle, profile, start)
        instance = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, profile_id, byref(placement))
        try:
            nvml.nvmlGpuInstanceCreateComputeInstance(instance, self._compute_profile(instance, profile))
        except (nvml.NVMLError, GpuError):
            nvml.nvmlGpuInstanceDestroy(instance)
            raise

    def _placement(self, handle: Any, profile: _Profile, start: int) -> Any:
        nvml = self._nvml
        count = c_uint()
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile.id, None, byref(count))
        room = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile.id, room, byref(count))
        for placement in room[: count.value]:
            if placement.start == start:
                return placement
        legal = ", ".join(str(placement.start) for placement in room[: count.value])
        raise GpuError(f"this driver puts {profile.name} at {legal or 'no place'}, not at {start}")

    def _compute_profile(self, instance: Any, profile: _Profile) -> int:
        """The compute-instance profile that has all of the GPU instance."""
        for compute in self._compute_profiles(instance):
            if compute.sliceCount == profile.compute_slices:
                return int(compute.id)
        raise GpuError(f"this driver has no compute instance as large as a {profile.name}: upgrade it")

    def _compute_profiles(self, instance: Any) -> Iterator[Any]:
        nvml = self._nvml
        for number in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
            info = self._supported(
                nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo,
                instance,
                number,
                nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED,
            )
            if info is not None:
                yield info

    def _destroy(self, gpu: str, instance_id: int) -> None:
        nvml = self._nvml
        instance = nvml.nvmlDeviceGetGpuInstanceById(nvml.nvmlDeviceGetHandleByUUID(gpu), instance_id)
        for profile in self._compute_profiles(instance):
            for compute in self._compute_instances(instance, profile):
                nvml.nvmlComputeInstanceDestroy(compute)
        nvml.nvmlGpuInstanceDestroy(instance)

    def _compute_instances(self, instance: Any, profile: Any) -> list[Any]:
        nvml = self._nvml
        room, count = (nvml.c_nvmlComputeInstance_t * profile.instanceCount)(), c_uint()
        nvml.nvmlGpuInstanceGetComputeInstances(instance, profile.id, room, byref(count))
        return list(room[: count.value])


def connect(listen: bool = False) -> Nvml:
    """The node's NVML, kept open to `listen`. Raises GpuError where the package that speaks to it is not installed."""
    try:
        import pynvml
    except ImportError as error:
        raise GpuError("nvidia-ml-py is not installed: pip install berth[agent]") from error
    return Nvml(pynvml, listen)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _address(info: Any) -> str:
    """A PCI address in one spelling: domains have four or eight digits."""
    domain, _, rest = _text(info.busId).lower().partition(":")
    return f"{int(domain, 16):x}:{rest}"
