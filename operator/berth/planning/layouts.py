"""How to cut one board: what is wanted, beside what stays, and the rest after the forecast of demand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from math import erfc, exp, sqrt

from berth.model.boards import Instance
from berth.model.gpus import BoardModel
from berth.model.mig import Counts, counts_of, free_slices, legal, multisets, taken_by

# How far a layout looks ahead: to as many demands as its own room would serve, and so many for each instance that is
# free elsewhere. Under churn, 1 to 2 refuse alike and 3 a little more.
AHEAD_PER_FREE = 1.5
EXACT_MEAN = 50.0  # above, the Poisson distribution is as good as normal
NOTHING: Mapping[str, int] = {}


def layout_for(
    model: BoardModel,
    wanted: Mapping[str, int],
    mix: Mapping[str, float],
    kept: tuple[Instance, ...] = (),
    free: Mapping[str, int] = NOTHING,
) -> tuple[Instance, ...] | None:
    """A layout of one board with all `wanted` instances beside the `kept` ones; None where no layout has them.

    `wanted` counts instances by profile name, `mix` weighs profiles by how often they are asked for beyond that, and
    `free` counts the instances elsewhere in the fleet that serve the same demand; names may be those of older drivers.
    What is left of the board is cut so that the most memory slices find a taker among the demands to come, each for a
    profile by chance, beside what is free already: without that, boards that are laid out one after another would all
    get the same layout. Profiles that the mix lacks are never cut: room that nobody forecasts stays whole, and can
    become anything later. So an empty mix adds nothing.
    """
    needed = _counts(model, wanted)
    if needed is None or not legal(model, kept):
        return None
    taken = taken_by(kept)
    gains = _gains(model, mix, free_slices(model, taken) - _slices(model, needed), free)
    found = [
        (round(sum(g[n - least] for g, n, least in zip(gains, counts, needed, strict=True)), 9), -sum(counts), counts)
        for counts in multisets(model, taken)
        if all(0 <= n - least < len(g) for g, n, least in zip(gains, counts, needed, strict=True))
    ]
    if not found:
        return None
    layout = multisets(model, taken)[max(found)[2]]
    return tuple(sorted((*kept, *layout), key=lambda instance: instance.start))


def multiset_of(model: BoardModel, instances: tuple[Instance, ...]) -> dict[str, int]:
    """A layout as mig-manager is told it: how many instances of each profile, without their starts."""
    names = [profile.name for profile in model.profiles]
    return {name: n for name, n in zip(names, counts_of(model, instances), strict=True) if n}


def _counts(model: BoardModel, wanted: Mapping[str, int]) -> Counts | None:
    """The same by the model's own names; None where it has no such profile."""
    if any(n and model.profile(name) is None for name, n in wanted.items()):
        return None
    return tuple(sum(wanted.get(name, 0) for name in (p.name, *p.aliases)) for p in model.profiles)


def _slices(model: BoardModel, counts: Counts) -> int:
    return sum(n * profile.memory_slices for n, profile in zip(counts, model.profiles, strict=True))


def _gains(
    model: BoardModel, mix: Mapping[str, float], room: int, free: Mapping[str, int]
) -> tuple[tuple[float, ...], ...]:
    """By profile: how many memory slices of 0, 1, 2, ... further instances find a taker on average."""
    weights = [max(0.0, sum(mix.get(name, 0.0) for name in (p.name, *p.aliases))) for p in model.profiles]
    slices = sum(weight * profile.memory_slices for weight, profile in zip(weights, model.profiles, strict=True))
    there = [
        sum(free.get(name, 0) for name in (p.name, *p.aliases)) if weight else 0
        for p, weight in zip(model.profiles, weights, strict=True)
    ]
    if not slices:
        return ((0.0,),) * len(weights)
    ahead = room * sum(weights) / slices + AHEAD_PER_FREE * sum(there)
    found = []
    for profile, weight, n in zip(model.profiles, weights, there, strict=True):
        more = profile.max_instances if weight else 0
        chances = (_at_least(n + k, ahead * weight / sum(weights)) for k in range(1, more + 1))
        found.append((0.0, *accumulate(profile.memory_slices * chance for chance in chances)))
    return tuple(found)


def _at_least(arrivals: int, mean: float) -> float:
    """The chance of so many arrivals or more, when they come by chance (Poisson)."""
    if mean > EXACT_MEAN:
        return 0.5 * erfc((arrivals - 0.5 - mean) / sqrt(2.0 * mean))
    fewer, chance = 0.0, exp(-mean)
    for n in range(arrivals):
        fewer += chance
        chance *= mean / (n + 1)
    return max(0.0, 1.0 - fewer)
