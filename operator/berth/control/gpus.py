"""What a node agent needs of its node: the GPUs, the pods that hold them, and a device plugin that looks again.

GpuError           the driver did not do what was asked; the text says what to do
 +- GpuInUse       something still runs on the board or instance
HoldersUnknown     nobody can say which pod holds which device
PluginError        the device plugin can't be told to look again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from berth.model.gpus import BoardModel, Profile, model_of_product


class GpuError(Exception):
    """The driver did not do what was asked."""


class GpuInUse(GpuError):
    """Something runs on it: the same request may succeed later."""


class HoldersUnknown(Exception):
    """No answer to the question who holds what: nothing may be removed."""


class PluginError(Exception):
    """The device plugin still shows the devices of before."""


@dataclass(frozen=True, slots=True, order=True)
class Pod:
    """A pod, by name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class GpuInstance:
    """A GPU instance, with the devices (compute instances) on it."""

    id: int  # the driver's, valid while the instance exists
    profile_id: int  # the GPU-instance profile, which is the same for every driver
    profile_name: str  # what this driver calls it
    start: int  # its first memory slice
    size: int  # memory slices
    devices: tuple[str, ...] = ()  # UUIDs, as a device plugin names them
    whole: bool = True  # one compute instance has all of it, as pods expect

    @property
    def uuid(self) -> str:
        """The one device that it is; "" for one that is half made, or cut into several."""
        return self.devices[0] if self.whole and len(self.devices) == 1 else ""

    @property
    def slices(self) -> range:
        """The memory slices that it occupies."""
        return range(self.start, self.start + self.size)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A board as its driver shows it."""

    index: int
    uuid: str
    product: str  # as GPU feature discovery's label has it, such as NVIDIA-H100-80GB-HBM3
    memory_mib: int
    healthy: bool = True
    mig_capable: bool = False
    mig_enabled: bool = False
    mig_pending: bool = False  # the mode after the next reset
    instances: tuple[GpuInstance, ...] = ()  # by start

    @property
    def model(self) -> BoardModel:
        """Its row in the table of models."""
        return model_of_product(self.product, self.memory_mib)

    def profile_of(self, instance: GpuInstance) -> Profile | None:
        """The table's profile of an instance, None for one that the table lacks."""
        return next((p for p in self.model.profiles if p.gi_profile_id == instance.profile_id), None)

    @property
    def devices(self) -> tuple[str, ...]:
        """Everything of it that a pod can hold: the board, and the devices on its instances."""
        return (self.uuid, *(device for instance in self.instances for device in instance.devices))


@dataclass(frozen=True, slots=True)
class Inventory:
    """All boards of a node at one moment."""

    gpus: tuple[Gpu, ...]  # by index
    links: tuple[tuple[int, ...], ...] | None = None  # NVLinks between boards i and j; None: NVSwitch or no NVLink


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a board or a MIG instance was since the last look, and its memory. None: nobody can say."""

    utilization: float | None = None  # share of the time in which anything ran on it, 0 to 1
    sm_active: float | None = None  # share of its SMs that were busy, on average, 0 to 1
    memory_used: int | None = None  # bytes
    memory_total: int | None = None  # bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What a board's sensors and counters say. None: it has none such, or it can't be read; never 0 instead."""

    uuid: str
    load: Load = field(default_factory=Load)  # of the whole board; in MIG mode drivers give no utilization
    instances: Mapping[int, Load] = field(default_factory=dict)  # by the id of the GPU instance
    watts: float | None = None
    joules: float | None = None  # used since the driver was loaded
    celsius: float | None = None
    ecc_corrected: int | None = None  # memory errors since the driver was loaded
    ecc_uncorrected: int | None = None
    xids: Mapping[int, int] | None = None  # errors that the driver told of since somebody listens, by their Xid
    last_xid: int | None = None


class Meters(Protocol):
    """What the boards of a node do."""

    async def measure(self) -> tuple[Reading, ...]:
        """A reading of each board that answers. Raises a GpuError that a person can act on."""
        ...


class Gpus(Protocol):
    """The boards of a node. Every method raises a GpuError that a person can act on."""

    async def read(self) -> Inventory:
        """What is there now."""
        ...

    async def set_mig(self, gpu: str, enabled: bool) -> None:
        """Switch a board, by UUID, in or out of MIG mode; it must be idle. It may only happen at its next reset."""
        ...

    async def create(self, gpu: str, profile_id: int, start: int) -> None:
        """Make one instance with one compute instance on it, beside whatever else the board has."""
        ...

    async def destroy(self, gpu: str, instance_id: int) -> None:
        """Remove one instance and its compute instances. GpuInUse while a process uses it."""
        ...


class Holders(Protocol):
    """Who holds what."""

    async def __call__(self) -> Mapping[str, Pod]:
        """The pod behind each device id of an NVIDIA resource. Raises HoldersUnknown."""
        ...


class DevicePlugin(Protocol):
    """The program that offers devices to the kubelet."""

    async def relist(self) -> None:
        """Have it look at the boards again. Raises PluginError."""
        ...


def device_of(device_id: str) -> str:
    """The UUID behind a device id: shared devices are numbered.

    >>> device_of("GPU-7fca::3")
    'GPU-7fca'
    """
    return device_id.split("::")[0]
