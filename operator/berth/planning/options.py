"""From a demand to devices: which boards and instances of this fleet can serve it, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.workloads import Demand, Device
from berth.planning.fleet import Fleet, Pool

MIB = 2**20

# A demand that leaves the board open may fall on to dearer ones, so that it waits only when it must. Twice the price
# is as far as that goes: beyond, each hour of running there costs more than two hours where it belongs, and small
# work would fill the boards that large work has no substitute for.
MOST_TIMES_CHEAPEST = 2.0
NOTHING: Mapping[str, Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Option:
    """A demand settled on one device, with what one member of it costs."""

    device: Device
    boards: Fraction  # charged to quota for each member
    usd_per_hour: float  # list price for each member
    memory_mib: int  # usable, for each member


def options_for(
    demand: Demand, fleet: Fleet, tensor: int = 1, beyond: Mapping[str, Mapping[str, int]] = NOTHING
) -> tuple[Option, ...]:
    """Every device of the fleet that satisfies a demand: by list price, then least memory, then name.

    Only resources that some node offers count, and those `beyond`: the most that one node could offer of each, by
    model. A tensor-parallel group needs NVLink, and no MIG instance has it.
    """
    found = [
        option
        for pool in fleet.pools.values()
        if not demand.models or any(pool.model.answers_to(name) for name in demand.models)
        if tensor == 1 or pool.has_nvlink
        for option in _of_pool(demand, pool, beyond.get(pool.model.name, {}))
        if tensor == 1 or option.device.resource == WHOLE_BOARD
    ]
    return tuple(sorted(found, key=lambda o: (o.usd_per_hour, o.memory_mib, o.device.model, o.device.resource)))


def bounded(demand: Demand) -> bool:
    """Whether the demand leaves the kind of board open, so that a limit on price protects the dear ones."""
    return demand.memory_bytes is not None or not demand.models


def boards_of(device: Device, model: BoardModel) -> Fraction:
    """What one member with this device takes of quota, in boards; exact.

    An instance counts as its memory slices over those of its board.
    """
    profile = model.profile_of(device.resource)
    return Fraction(profile.memory_slices, model.memory_slices) if profile else Fraction(device.count)


def demand_for(device: Device) -> Demand:
    """The demand that this device satisfies, and no other.

    >>> demand_for(Device("H100-80GB", "nvidia.com/mig-1g.10gb.me", 1)).profile
    '1g.10gb+me'
    """
    profile = device.resource.partition("mig-")[2].replace(".me", "+me") or None
    return Demand(device.count if profile is None else None, profile, None, (device.model,))


def name_of(device: Device) -> str:
    """A device in words, such as "8 x H100-80GB" or "1g.10gb of A100-80GB"."""
    if device.resource == WHOLE_BOARD:
        return f"{device.count} x {device.model}"
    return f"{device.resource.removeprefix('nvidia.com/mig-')} of {device.model}"


def _of_pool(demand: Demand, pool: Pool, beyond: Mapping[str, int]) -> Iterator[Option]:
    model = pool.model
    wanted = (demand.memory_bytes or 0) / MIB
    for resource, most in {**beyond, **{r: max(n, beyond.get(r, 0)) for r, n in pool.stock.items()}}.items():
        profile = model.profile_of(resource)
        if demand.profile is not None and (profile is None or profile != model.profile(demand.profile)):
            continue
        if profile is None and demand.count is not None and demand.count <= most:
            yield _option(pool, Device(model.name, resource, demand.count), model.memory_mib * demand.count)
        elif profile is None and demand.memory_bytes is not None and model.memory_mib >= wanted:
            yield _option(pool, Device(model.name, resource, 1), model.memory_mib)
        elif profile is not None and demand.count is None and profile.usable_mib >= wanted:
            yield _option(pool, Device(model.name, resource, 1), profile.usable_mib)


def _option(pool: Pool, device: Device, memory_mib: int) -> Option:
    boards = boards_of(device, pool.model)
    return Option(device, boards, float(boards) * pool.model.usd_per_hour, memory_mib)
