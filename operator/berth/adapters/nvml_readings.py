"""What boards do, read through NVML: a value that a board, driver or right does not give is absent, and costs no other.

Utilization of MIG instances and SM activity come from GPU performance monitoring (GPM, since Hopper), as the mean over
the time between two samples, so from the second look on. Xid errors come from an event set, which is emptied at each
look. Both live only as long as NVML is held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from berth.control.gpus import Load, Reading

MOST_EVENTS = 1000  # taken from the event set at one look; a board in agony must not hold up the others

Key = tuple[str, int]  # a board's UUID, and a GPU instance's id or WHOLE
WHOLE = -1


class Readings:
    """Reads all boards; call it with NVML initialised. `library` is the module pynvml, or what behaves like it."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        self._held = False
        self._events: Any = None  # NVML's event set, while held
        self._samples: dict[Key, Any] = {}  # the last GPM sample of each device, while held
        self._xids: dict[str, Counter[int]] = {}  # by board that tells of them
        self._last_xid: dict[str, int] = {}

    def read(self, hold: bool) -> tuple[Reading, ...]:
        """A reading of each board that answers. `hold`: keep NVML open until the next one."""
        nvml = self._nvml
        if hold and not self._held:
            self._hold()
        elif not hold:
            self.let_go()
        self._hear()
        old, self._samples = self._samples, {}
        try:
            handles = [self._given(nvml.nvmlDeviceGetHandleByIndex, i) for i in range(nvml.nvmlDeviceGetCount())]
            return tuple(self._board(handle, old) for handle in handles if handle is not None)
        finally:
            self._free(old)

    def let_go(self) -> None:
        """Have no board open any more."""
        if not self._held:
            return
        self._held = False
        self._free(self._samples)
        if self._events is not None:
            self._given(self._nvml.nvmlEventSetFree, self._events)
        self._samples, self._events = {}, None
        self._given(self._nvml.nvmlShutdown)

    def _hold(self) -> None:
        """Keep NVML open, and listen for Xid errors from now on."""
        nvml = self._nvml
        nvml.nvmlInit()  # counted: NVML stays open when the current call lets it go
        self._held = True
        self._events = self._given(nvml.nvmlEventSetCreate)
        for index in range(nvml.nvmlDeviceGetCount()) if self._events is not None else ():
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._events)
                self._xids.setdefault(_text(nvml.nvmlDeviceGetUUID(handle)), Counter())
            except nvml.NVMLError:
                continue  # it tells nothing, or is lost

    def _hear(self) -> None:
        """Take in the errors since the last look."""
        for _ in range(MOST_EVENTS if self._events is not None else 0):
            event = self._given(self._nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:  # NVML_ERROR_TIMEOUT: no more
                return
            uuid = self._given(self._nvml.nvmlDeviceGetUUID, event.device)
            if uuid is not None and event.eventType == self._nvml.nvmlEventTypeXidCriticalError:
                self._last_xid[_text(uuid)] = int(event.eventData)
                self._xids.setdefault(_text(uuid), Counter())[int(event.eventData)] += 1

    def _board(self, handle: Any, old: Mapping[Key, Any]) -> Reading:
        nvml = self._nvml
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        mig = bool((self._given(nvml.nvmlDeviceGetMigMode, handle) or (0, 0))[0])
        milliwatts = self._given(nvml.nvmlDeviceGetPowerUsage, handle)
        millijoules = self._given(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return Reading(
            uuid=uuid,
            load=self._load(handle, handle, (uuid, WHOLE), old) if not mig else self._memory(handle),
            instances=self._instances(handle, uuid, old) if mig else {},
            watts=None if milliwatts is None else milliwatts / 1000,
            joules=None if millijoules is None else millijoules / 1000,
            celsius=self._given(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            ecc_corrected=self._errors(handle, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._errors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            xids=dict(self._xids[uuid]) if uuid in self._xids else None,
            last_xid=self._last_xid.get(uuid),
        )

    def _errors(self, handle: Any, kind: int) -> int | None:
        nvml = self._nvml
        found = self._given(nvml.nvmlDeviceGetTotalEccErrors, handle, kind, nvml.NVML_VOLATILE_ECC)
        return None if found is None else int(found)

    def _instances(self, handle: Any, uuid: str, old: Mapping[Key, Any]) -> dict[int, Load]:
        """The load of each GPU instance that has a device; several on one share its memory."""
        nvml, found = self._nvml, {}
        for number in range(self._given(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            device = self._given(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            instance = self._given(nvml.nvmlDeviceGetGpuInstanceId, device) if device is not None else None
            if instance is not None and instance not in found:
                found[instance] = self._load(handle, device, (uuid, instance), old)
        return found

    def _load(self, board: Any, device: Any, key: Key, old: Mapping[Key, Any]) -> Load:
        memory = self._memory(device)
        utilization, sm_active = self._monitored(board, key, old)
        if utilization is None and key[1] == WHOLE:
            rates = self._given(self._nvml.nvmlDeviceGetUtilizationRates, board)
            utilization = None if rates is None else rates.gpu / 100
        return Load(utilization, sm_active, memory.memory_used, memory.memory_total)

    def _memory(self, device: Any) -> Load:
        """Memory alone, without what the driver reserves for itself."""
        nvml = self._nvml
        info = self._given(nvml.nvmlDeviceGetMemoryInfo, device, nvml.nvmlMemory_v2)
        return Load() if info is None else Load(memory_used=int(info.used), memory_total=int(info.total))

    def _monitored(self, board: Any, key: Key, old: Mapping[Key, Any]) -> tuple[float | None, float | None]:
        """Utilization and SM activity since the last sample; None where there is no GPM, or no sample yet."""
        nvml = self._nvml
        support = self._given(nvml.nvmlGpmQueryDeviceSupport, board) if self._held else None
        if support is None or not support.isSupportedDevice:
            return None, None
        sample = self._given(nvml.nvmlGpmSampleAlloc)
        if sample is None:
            return None, None
        self._samples[key] = sample  # freed with the others, whatever happens
        get = nvml.nvmlGpmSampleGet if key[1] == WHOLE else nvml.nvmlGpmMigSampleGet
        if self._given(get, board, *([] if key[1] == WHOLE else [key[1]]), sample) is None:
            self._free({key: self._samples.pop(key)})
            return None, None
        return self._between(old[key], sample) if key in old else (None, None)

    def _between(self, before: Any, after: Any) -> tuple[float | None, float | None]:
        nvml = self._nvml
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, 2
        asked.sample1, asked.sample2 = before, after
        asked.metrics[0].metricId = nvml.NVML_GPM_METRIC_GRAPHICS_UTIL
        asked.metrics[1].metricId = nvml.NVML_GPM_METRIC_SM_UTIL
        if self._given(nvml.nvmlGpmMetricsGet, asked) is None:
            return None, None
        first, second = (asked.metrics[i] for i in range(2))
        return _share(first, nvml.NVML_SUCCESS), _share(second, nvml.NVML_SUCCESS)

    def _free(self, samples: Mapping[Key, Any]) -> None:
        for sample in samples.values():
            self._given(self._nvml.nvmlGpmSampleFree, sample)

    def _given(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None: one value that can't be read says nothing of the others."""
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None


def _share(metric: Any, success: int) -> float | None:
    """A percentage as a share; None where NVML could not compute it."""
    if metric.nvmlReturn != success or not isfinite(metric.value):
        return None
    return float(min(1.0, max(0.0, metric.value / 100)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
