"""Instances to pack: the pieces of boards that were cut up whole."""

from __future__ import annotations

import random
from functools import cache

from berth.model.gpus import BoardModel, Profile
from berth.model.mig import free_slices, multisets, taken_by


@cache
def full_multisets(model: BoardModel) -> tuple[tuple[str, ...], ...]:
    """The multisets of profiles, media engines aside, that use every memory slice of a board."""
    return tuple(
        tuple(instance.profile.name for instance in layout)
        for layout in multisets(model).values()
        if not free_slices(model, taken_by(layout)) and not any(i.profile.media for i in layout)
    )


def planted(model: BoardModel, boards: int, seed: int) -> list[str]:
    """The profiles of so many full boards, shuffled."""
    chance = random.Random(seed)
    pieces = [name for _ in range(boards) for name in chance.choice(full_multisets(model))]
    chance.shuffle(pieces)
    return pieces


@cache
def profile_named(model: BoardModel, name: str) -> Profile:
    """The profile of that name, which the model must have."""
    profile = model.profile(name)
    if profile is None:
        raise ValueError(f"{model.name} has no {name}")
    return profile
