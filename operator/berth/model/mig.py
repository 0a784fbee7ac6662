"""What fits on a board beside what it holds: MIG geometry as bit masks.

What is taken of a board is one integer: bit i for memory slice i, and `MEDIA` for the media engines, which a board has
once. Two instances may coexist if and only if their masks are disjoint; that alone keeps every profile within its
number per board (`tests/model/test_mig.py`), and compute slices within the board's.

Sources: those of `berth.model.gpus`; the media engines are one set per board, since every "+me" profile owns the
board's only JPEG and optical-flow engines (NVIDIA MIG user guide, "Supported MIG profiles").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

from berth.model.boards import Instance
from berth.model.gpus import BoardModel, Profile

MEDIA = 1 << 32  # beyond the memory slices of any board: the most known has 12

Counts = tuple[int, ...]
"""How many instances of each profile, in the order of `BoardModel.profiles`."""


@cache
def mask_of(profile: Profile, start: int) -> int:
    """What an instance of the profile takes when it begins at that memory slice."""
    slices = ((1 << profile.memory_slices) - 1) << start
    return slices | MEDIA if profile.media else slices


def taken_by(instances: Iterable[Instance]) -> int:
    """What these instances take of their board together."""
    taken = 0
    for instance in instances:
        taken |= mask_of(instance.profile, instance.start)
    return taken


def legal(model: BoardModel, instances: Iterable[Instance]) -> bool:
    """Whether one board can hold these instances at these starts."""
    taken = 0
    for instance in instances:
        mask = mask_of(instance.profile, instance.start)
        if instance.profile not in model.profiles or instance.start not in instance.profile.starts or taken & mask:
            return False
        taken |= mask
    return True


def free_starts(taken: int, profile: Profile) -> tuple[int, ...]:
    """Where an instance of the profile can be created beside what is taken, lowest start first."""
    return tuple(start for start in profile.starts if not taken & mask_of(profile, start))


def free_slices(model: BoardModel, taken: int) -> int:
    """How many memory slices of a board are not taken, whether or not an instance can still begin there."""
    return model.memory_slices - (taken & ~MEDIA).bit_count()


@cache
def room(model: BoardModel, taken: int) -> int:
    """How much could be created beside what is taken: memory slices of every instance that fits, each counted alone."""
    return sum(profile.memory_slices * len(free_starts(taken, profile)) for profile in model.profiles)


@cache
def layouts(model: BoardModel, taken: int = 0) -> tuple[tuple[Instance, ...], ...]:
    """Every set of instances that a board can hold beside what is taken, none included; each once, in order of start.

    >>> from berth.model.gpus import model_of_product
    >>> a30 = model_of_product("NVIDIA-A30")
    >>> [[(i.profile.name, i.start) for i in layout] for layout in layouts(a30, taken=0b1101 | MEDIA)]
    [[('1g.6gb', 1)], []]
    """
    return tuple(_layouts_from(model, taken, 0))


def maximal_layouts(model: BoardModel) -> tuple[tuple[Instance, ...], ...]:
    """The layouts of a whole board that no further instance fits beside."""
    return tuple(
        layout
        for layout in layouts(model)
        if not any(free_starts(taken_by(layout), profile) for profile in model.profiles)
    )


def counts_of(model: BoardModel, instances: Iterable[Instance]) -> Counts:
    """How many instances of each profile these are."""
    names = [instance.profile.name for instance in instances]
    return tuple(names.count(profile.name) for profile in model.profiles)


@cache
def multisets(model: BoardModel, taken: int = 0) -> Mapping[Counts, tuple[Instance, ...]]:
    """Every multiset of profiles that fits beside what is taken, with starts that leave the most room for more.

    This is all that mig-manager can be told: how many of which profile, and no starts.
    """
    best: dict[Counts, tuple[int, tuple[Instance, ...]]] = {}
    for layout in layouts(model, taken):
        counts = counts_of(model, layout)
        left = room(model, taken | taken_by(layout))
        if counts not in best or left > best[counts][0]:
            best[counts] = (left, layout)
    return MappingProxyType({counts: layout for counts, (_, layout) in sorted(best.items())})


def _layouts_from(model: BoardModel, taken: int, at: int) -> Iterator[tuple[Instance, ...]]:
    if at == model.memory_slices:
        yield ()
        return
    for profile in model.profiles:
        if at in profile.starts and not taken & mask_of(profile, at):
            for rest in _layouts_from(model, taken | mask_of(profile, at), at + 1):
                yield (Instance(profile, at), *rest)
    yield from _layouts_from(model, taken, at + 1)
