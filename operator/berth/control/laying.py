"""Laying out a node's boards: what is wrong with a wish, and which single step comes next.

Everything here is a function of what was just seen, so that an agent that crashed goes on where it was. Order of work
on a node, one step at a time: boards by index; on each board first removals, then the MIG mode, then new instances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from berth.control.gpus import Gpu, GpuInstance, Inventory, Pod, device_of
from berth.model.gpus import Profile

AS_WANTED, IN_PROGRESS, BUSY, FAILED, INVALID = "AsWanted", "InProgress", "BoardBusy", "Failed", "Invalid"


@dataclass(frozen=True, slots=True)
class Place:
    """An instance that should exist."""

    profile: str
    start: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a board should be laid out, whole."""

    index: int
    instances: tuple[Place, ...] = ()
    mig_enabled: bool | None = None  # None: as it is, or on where instances are wanted


@dataclass(frozen=True, slots=True)
class SetMig:
    """Switch a board in or out of MIG mode."""

    gpu: Gpu
    enabled: bool

    def __str__(self) -> str:
        return f"board {self.gpu.index}: {'enable' if self.enabled else 'disable'} MIG"


@dataclass(frozen=True, slots=True)
class Create:
    """Make an instance."""

    gpu: Gpu
    profile: Profile
    start: int

    def __str__(self) -> str:
        return f"board {self.gpu.index}: create {self.profile.name} at {self.start}"


@dataclass(frozen=True, slots=True)
class Destroy:
    """Remove an instance."""

    gpu: Gpu
    instance: GpuInstance

    def __str__(self) -> str:
        return f"board {self.gpu.index}: destroy {self.instance.profile_name} at {self.instance.start}"


Step = SetMig | Create | Destroy


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far the boards are, in the words of the condition LaidOut, and the step that comes next."""

    reason: str
    message: str
    step: Step | None = None


def outlook(inventory: Inventory, holders: Mapping[str, Pod], wanted: Sequence[Layout]) -> Outlook:
    """Where the boards stand against the wish. A wish with a mistake in it is not begun."""
    problem = first_problem(inventory, wanted)
    if problem:
        return Outlook(INVALID, problem)
    gpus = {gpu.index: gpu for gpu in inventory.gpus}
    nexts = [(w.index, _next(gpus[w.index], w, inventory, holders)) for w in sorted(wanted, key=lambda w: w.index)]
    unfinished = [index for index, step in nexts if step is not None and not isinstance(step, Outlook)]
    for _, step in nexts:
        if step is not None and not isinstance(step, Outlook):
            return Outlook(IN_PROGRESS, f"laying out board {', '.join(map(str, unfinished))}", step)
    stopped = [step for _, step in nexts if isinstance(step, Outlook)]
    if stopped:
        return min(stopped, key=lambda outlook: outlook.reason != FAILED)
    return Outlook(AS_WANTED, "every board is as spec.boards wants it")


def _next(gpu: Gpu, layout: Layout, inventory: Inventory, holders: Mapping[str, Pod]) -> Step | Outlook | None:
    """The board's next step, or what keeps it from one; None: it is as wanted."""
    wanted = {(profile.gi_profile_id, place.start): profile for profile, place in _profiles(gpu, layout)}
    surplus = [i for i in gpu.instances if not i.uuid or (i.profile_id, i.start) not in wanted]
    missing = wanted.keys() - {(i.profile_id, i.start) for i in gpu.instances if i.uuid}
    enabled = _mode(gpu, layout)
    if not surplus and not missing and enabled == gpu.mig_enabled:
        return None
    obstacle = _obstacle(gpu, surplus, inventory, holders) if surplus or enabled != gpu.mig_enabled else ""
    if surplus and not obstacle:
        return Destroy(gpu, surplus[0])
    if enabled != gpu.mig_enabled:
        if obstacle:
            return Outlook(BUSY, obstacle)
        return _reset_needed(gpu, enabled) if gpu.mig_pending == enabled else SetMig(gpu, enabled)
    taken = {piece for instance in gpu.instances for piece in instance.slices}
    for (_, start), profile in sorted(((key, wanted[key]) for key in missing), key=lambda item: item[0][1]):
        if taken.isdisjoint(range(start, start + profile.memory_slices)):
            return Create(gpu, profile, start)
    return Outlook(BUSY, obstacle)


def _mode(gpu: Gpu, layout: Layout) -> bool:
    if layout.mig_enabled is not None:
        return layout.mig_enabled
    return gpu.mig_enabled or bool(layout.instances)


def _reset_needed(gpu: Gpu, enabled: bool) -> Outlook:
    mode = "enters" if enabled else "leaves"
    return Outlook(
        FAILED,
        f"board {gpu.index} {mode} MIG mode at its next reset: drain the node, then reboot it or run "
        f"nvidia-smi --gpu-reset -i {gpu.index}",
    )


def _obstacle(gpu: Gpu, surplus: Sequence[GpuInstance], inventory: Inventory, holders: Mapping[str, Pod]) -> str:
    """Why nothing may be removed from the board now; "": it may.

    Where a pod holds any surplus instance, none is removed: half a change would cost room and gain none.
    """
    held = {device_of(device): pod for device, pod in holders.items()}
    known = {device for each in inventory.gpus for device in each.devices}
    for device in sorted(held.keys() - known):
        return (
            f"board {gpu.index} waits: pod {held[device]} holds {device}, which no board has, so what it uses is not "
            "known; delete the pod, or wait for its end"
        )
    if gpu.uuid in held:
        return f"board {gpu.index} waits: pod {held[gpu.uuid]} holds it whole; wait for its end, or stop it"
    for instance in surplus:
        for device in instance.devices:
            if device in held:
                return (
                    f"board {gpu.index} waits: pod {held[device]} holds the {instance.profile_name} at "
                    f"{instance.start}; wait for its end, stop it, or want that instance too"
                )
    return ""


def first_problem(inventory: Inventory, wanted: Sequence[Layout]) -> str:
    """The first thing in spec.boards that these boards can't do, with its field and a remedy; "" for none."""
    return next(_problems(inventory, wanted), "")


def _problems(inventory: Inventory, wanted: Sequence[Layout]) -> Iterator[str]:
    gpus = {gpu.index: gpu for gpu in inventory.gpus}
    for number, layout in enumerate(wanted):
        field, gpu = f"spec.boards[{number}]", gpus.get(layout.index)
        if gpu is None:
            known = f"boards 0 to {len(gpus) - 1}" if gpus else "no board"
            yield f"{field}.index: the node has no board {layout.index}: it has {known}"
        elif not gpu.mig_capable and (layout.instances or layout.mig_enabled):
            yield f"{field}: board {layout.index}, a {gpu.model.name}, has no MIG: leave it out"
        elif layout.instances and layout.mig_enabled is False:
            yield f"{field}.migEnabled: instances exist in MIG mode only: set it to true, or leave instances out"
        else:
            yield from _bad_places(gpu, layout, field)


def _bad_places(gpu: Gpu, layout: Layout, field: str) -> Iterator[str]:
    model, taken = gpu.model, dict[int, int]()
    media = -1  # the instance that has the board's media engines
    for number, place in enumerate(layout.instances):
        here, profile = f"{field}.instances[{number}]", model.profile(place.profile)
        if profile is None:
            known = ", ".join(p.name for p in model.profiles) or "none"
            yield f"{here}.profile: {model.name} has no {place.profile}: choose from {known}"
            continue
        if place.start not in profile.starts:
            starts = ", ".join(map(str, profile.starts))
            yield f"{here}.start: {profile.name} on {model.name} can't begin at {place.start}: choose from {starts}"
        slices = range(place.start, place.start + profile.memory_slices)
        for other in sorted({taken[piece] for piece in slices if piece in taken}):
            yield f"{here}.start: it overlaps instances[{other}]: begin it at a free memory slice, or leave one out"
        if profile.media and media >= 0:
            yield f"{here}.profile: a board has one +me instance, which is instances[{media}]: leave out +me"
        media = number if profile.media else media
        taken |= dict.fromkeys(slices, number)


def _profiles(gpu: Gpu, layout: Layout) -> Iterator[tuple[Profile, Place]]:
    for place in layout.instances:
        profile = gpu.model.profile(place.profile)
        if profile is not None:
            yield profile, place
