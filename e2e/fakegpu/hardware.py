"""Simulated boards: what they are, which MIG layouts they accept, and where the driver puts instances.

Names, slices, legal starts and memory come from `berth.model.gpus`; the rules that a board enforces are written here
once more, so that a planner with a wrong rule fails against this hardware.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from berth.model.gpus import MODELS, BoardModel, Profile

_NAMESPACE = uuid.UUID("6d1c2a5e-9f0b-5c3f-8a8e-2f6f3f1f7b11")


class LayoutError(ValueError):
    """A MIG layout that the board can't take; the message says why."""


@dataclass(frozen=True, slots=True)
class Silicon:
    """What GFD reads from a board beyond its name and memory."""

    family: str
    compute: tuple[int, int]
    multiprocessors: int  # streaming multiprocessors of the whole board
    nvlinks: int  # links per board; 0: none


# Compute capabilities and SM counts: NVIDIA's CUDA GPU list and architecture white papers.
_SILICON = {
    "A30": Silicon("ampere", (8, 0), 56, 4),
    "A100": Silicon("ampere", (8, 0), 108, 12),
    "L4": Silicon("ada-lovelace", (8, 9), 58, 0),
    "L40S": Silicon("ada-lovelace", (8, 9), 142, 0),
    "H100": Silicon("hopper", (9, 0), 132, 18),
    "H200": Silicon("hopper", (9, 0), 132, 18),
    "GH200": Silicon("hopper", (9, 0), 132, 18),
    "B200": Silicon("blackwell", (10, 0), 148, 18),
    "GB200": Silicon("blackwell", (10, 0), 152, 18),
    "B300": Silicon("blackwell", (10, 3), 160, 18),
    "GB300": Silicon("blackwell", (10, 3), 160, 18),
    "V100": Silicon("volta", (7, 0), 80, 6),
}


def board_model(name: str) -> BoardModel:
    """The board model of that name; ValueError names the known ones."""
    for model in MODELS:
        if model.name == name:
            return model
    raise ValueError(f"unknown board {name!r} (known: {', '.join(m.name for m in MODELS)})")


def silicon_of(model: BoardModel) -> Silicon:
    """What GFD reads from this model."""
    return _SILICON[model.family]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A MIG instance asked for; the driver chooses the start where it is None."""

    profile: str
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A profile at a memory slice."""

    profile: Profile
    start: int

    @property
    def slices(self) -> range:
        """The memory slices that it occupies."""
        return range(self.start, self.start + self.profile.memory_slices)


def place(model: BoardModel, wanted: Sequence[Wanted]) -> tuple[Placed, ...]:
    """The layout that results when the driver creates these instances on an empty board, by start.

    Given starts are kept. Others are chosen for the largest profiles first, each at its highest start that leaves the
    rest a place. Raises LayoutError where a profile or start is illegal, or where they don't fit together.
    """
    asked = [(_profile(model, want), want.start) for want in wanted]
    for (profile, start), want in zip(asked, wanted, strict=True):
        if start is not None and start not in profile.starts:
            legal = ", ".join(map(str, profile.starts))
            raise LayoutError(f"{want.profile} on {model.name} can't start at {start} (legal: {legal})")
    _check_counts(model, [profile for profile, _ in asked])
    asked.sort(key=lambda item: (item[1] is None, -item[0].memory_slices, -item[0].compute_slices))
    layout = next(_placements(asked, ()), None)
    if layout is None:
        raise LayoutError(f"{' + '.join(w.profile for w in wanted)} does not fit on one {model.name}")
    return tuple(sorted(layout, key=lambda placed: placed.start))


def _profile(model: BoardModel, want: Wanted) -> Profile:
    profile = model.profile(want.profile)
    if profile is None:
        known = ", ".join(p.name for p in model.profiles)
        raise LayoutError(f"{model.name} has no profile {want.profile!r} (known: {known})")
    return profile


def _check_counts(model: BoardModel, profiles: list[Profile]) -> None:
    for profile, count in Counter(profiles).items():
        if count > profile.max_instances:
            raise LayoutError(f"{count} x {profile.name} on one {model.name}, at most {profile.max_instances}")
    if sum(profile.media for profile in profiles) > 1:
        raise LayoutError(f"only one +me instance fits on one {model.name}")
    compute = sum(profile.compute_slices for profile in profiles)
    limit = max((profile.compute_slices for profile in model.profiles), default=0)
    if compute > limit:
        raise LayoutError(f"{compute} compute slices on one {model.name}, which has {limit}")


def _placements(asked: list[tuple[Profile, int | None]], done: tuple[Placed, ...]) -> Iterator[tuple[Placed, ...]]:
    if not asked:
        yield done
        return
    (profile, fixed), *rest = asked
    taken = {piece for placed in done for piece in placed.slices}
    for start in reversed(profile.starts) if fixed is None else (fixed,):
        trial = Placed(profile, start)
        if taken.isdisjoint(trial.slices):
            yield from _placements(rest, (*done, trial))


@dataclass(slots=True)
class Instance:
    """A MIG instance that exists."""

    uuid: str
    placed: Placed

    @property
    def id(self) -> int:
        """The driver's number for it."""
        return self.placed.start + 1


@dataclass(slots=True)
class Board:
    """One GPU of a node."""

    index: int
    uuid: str
    model: BoardModel
    healthy: bool = True
    mig_enabled: bool = False
    instances: list[Instance] = field(default_factory=list)
    ecc_corrected: int = 0  # memory errors so far
    ecc_uncorrected: int = 0
    xids: list[int] = field(default_factory=list)  # errors that the driver told of, in their order

    def lay(self, mig_enabled: bool, wanted: Sequence[Wanted] = ()) -> None:
        """Put the board in this mode with these instances; LayoutError leaves it as it was.

        Who uses the board must have been asked before: hardware would refuse here too, but holders are the node's.
        """
        if mig_enabled and not self.model.profiles:
            raise LayoutError(f"{self.model.name} has no MIG")
        if wanted and not mig_enabled:
            raise LayoutError(f"board {self.index} has MIG disabled and can't hold instances")
        placed = place(self.model, wanted)
        self.mig_enabled = mig_enabled
        self.instances = [Instance(_mig_uuid(self.uuid, each), each) for each in placed]

    def create(self, profile_id: int, start: int) -> None:
        """Make one more instance; LayoutError leaves the board as it was."""
        if not self.mig_enabled:
            raise LayoutError(f"board {self.index} has MIG disabled and can't hold instances")
        profile = next((p for p in self.model.profiles if p.gi_profile_id == profile_id), None)
        if profile is None:
            raise LayoutError(f"{self.model.name} has no GPU-instance profile {profile_id}")
        there = [Wanted(i.placed.profile.name, i.placed.start) for i in self.instances]
        place(self.model, [*there, Wanted(profile.name, start)])
        made = Placed(profile, start)
        self.instances.append(Instance(_mig_uuid(self.uuid, made), made))

    def instance(self, instance_id: int) -> Instance | None:
        """The instance of that number."""
        return next((each for each in self.instances if each.id == instance_id), None)

    def profiles(self) -> Counter[str]:
        """How many instances of each profile exist, by the current drivers' names."""
        return Counter(instance.placed.profile.name for instance in self.instances)


def board_uuid(node: str, index: int) -> str:
    """A stable id in the form of NVML's."""
    return f"GPU-{uuid.uuid5(_NAMESPACE, f'{node}/{index}')}"


def _mig_uuid(board: str, placed: Placed) -> str:
    return f"MIG-{uuid.uuid5(_NAMESPACE, f'{board}/{placed.profile.gi_profile_id}/{placed.start}')}"
