"""What the boards of a node did of late: whose energy it was, and what of it the node's GPUNode is to say.

A MIG instance counts as its memory slices over those of its board where power and energy are shared out, as it does
wherever Berth counts boards. Its utilization counts by its compute slices: what runs on 1g can't keep more than a
seventh of the SMs busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from berth.control.gpus import Gpu, GpuInstance, Inventory, Pod, Reading

WINDOW_SECONDS = 300.0  # of the means in a GPUNode
TELL_SECONDS = 120.0  # between two changes of what a GPUNode says of it, at least
TELL_CHANGE = 0.1  # of the range, power limit or 100 %: less is not told
WATTS_STEP, PERCENT_STEP = 10, 5  # what is told is rounded to

Device = tuple[str, int]  # a board's UUID, and the id of a GPU instance on it or REST
REST = -1  # all of a board that no instance has


@dataclass(frozen=True, slots=True)
class Sample:
    """All boards at one moment."""

    at: float
    inventory: Inventory
    readings: Mapping[str, Reading]  # by the board's UUID
    holders: Mapping[str, Pod]  # who held what just then

    def boards(self) -> Iterator[tuple[Gpu, Reading]]:
        """The boards that have a reading."""
        return ((gpu, self.readings[gpu.uuid]) for gpu in self.inventory.gpus if gpu.uuid in self.readings)


@dataclass(frozen=True, slots=True)
class Use:
    """What a GPUNode says of a board: means, rounded coarsely. None: nobody can say."""

    watts: int | None = None
    utilization: int | None = None  # percent


@dataclass(slots=True)
class Usage:
    """What the samples of the last minutes come to."""

    last: Sample | None = None
    _past: deque[tuple[float, dict[str, tuple[float | None, float | None]]]] = field(default_factory=deque)
    _joules: dict[Device, float] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        """Take in a sample."""
        self._count(sample)
        seen = {gpu.uuid: (reading.watts, utilization_of(gpu, reading)) for gpu, reading in sample.boards()}
        self._past.append((sample.at, seen))
        while self._past[0][0] <= sample.at - WINDOW_SECONDS:
            self._past.popleft()
        self.last = sample

    def joules(self, gpu: Gpu, instance: GpuInstance | None = None) -> float | None:
        """What an instance, or all of a board that no instance has, used since this began; None: it can't be told.

        Never falls while the instance exists: shares of what came since the sample before are added up.
        """
        return self._joules.get((gpu.uuid, instance.id if instance else REST))

    def means(self, now: float) -> dict[str, Use]:
        """The means of each board over the window, by its UUID, as a GPUNode says them."""
        recent = [seen for at, seen in self._past if at > now - WINDOW_SECONDS]
        boards = {uuid for seen in recent for uuid in seen}
        return {uuid: _rounded(seen[uuid] for seen in recent if uuid in seen) for uuid in boards}

    def _count(self, sample: Sample) -> None:
        """Share out the energy since the sample before; who was made or removed meanwhile gets the whole step."""
        counted: dict[Device, float] = {}
        for gpu, reading in sample.boards():
            before = self.last.readings.get(gpu.uuid) if self.last else None
            if reading.joules is None:
                continue
            step = reading.joules - before.joules if before and before.joules is not None else 0.0
            if step < 0:
                step = reading.joules  # the driver was loaded anew
            for instance, share in shares(gpu):
                device = gpu.uuid, instance.id if instance else REST
                counted[device] = self._joules.get(device, 0.0) + step * share
        self._joules = counted


@dataclass(slots=True)
class Telling:
    """When a GPUNode is to say something else of its boards: seldom, and together with a write that is due anyway."""

    jitter: Callable[[float], float]
    _not_before: float = 0.0

    def due(self, told: Mapping[str, Use], found: Mapping[str, Use], inventory: Inventory, now: float) -> bool:
        """Whether it is to say what was found instead of what it was told."""
        if now < self._not_before:
            return False
        return any(_differ(told.get(g.uuid), found.get(g.uuid), g.model.power_watts) for g in inventory.gpus)

    def told(self, now: float) -> None:
        """It was told."""
        self._not_before = now + self.jitter(TELL_SECONDS)


def shares(gpu: Gpu) -> Iterator[tuple[GpuInstance | None, float]]:
    """Each instance with its share of the board, and None with the rest. They add up to 1."""
    slices = max(gpu.model.memory_slices, sum(instance.size for instance in gpu.instances), 1)
    rest = slices
    for instance in gpu.instances:
        rest -= instance.size
        yield instance, instance.size / slices
    yield None, rest / slices


def utilization_of(gpu: Gpu, reading: Reading) -> float | None:
    """How busy all of a board is, 0 to 1: in MIG mode the sum of its instances by their compute slices."""
    if not gpu.mig_enabled:
        return reading.load.utilization
    most = max((profile.compute_slices for profile in gpu.model.profiles), default=0)
    busy = 0.0
    for instance in gpu.instances:
        load, profile = reading.instances.get(instance.id), gpu.profile_of(instance)
        if load is None or load.utilization is None or profile is None:
            return None
        busy += load.utilization * profile.compute_slices / most
    return min(1.0, busy)


def _rounded(seen: Iterable[tuple[float | None, float | None]]) -> Use:
    watts, shares_ = zip(*seen, strict=True)
    power, busy = _mean(watts), _mean(shares_)
    return Use(
        None if power is None else WATTS_STEP * round(power / WATTS_STEP),
        None if busy is None else PERCENT_STEP * round(100 * busy / PERCENT_STEP),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _differ(told: Use | None, found: Use | None, limit_watts: int) -> bool:
    old, new = told or Use(), found or Use()
    if (old.utilization == 0) != (new.utilization == 0):
        return True  # idle, or no more: whoever looks for idle boards must not miss that
    pairs = ((old.watts, new.watts, limit_watts), (old.utilization, new.utilization, 100))
    return any(a != b if a is None or b is None else abs(a - b) > TELL_CHANGE * whole for a, b, whole in pairs)
