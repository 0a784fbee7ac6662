"""Two small dynamic programs: the cheapest items that are enough, and the cheapest way to share a need among places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
INFINITE = float("inf")


def least(items: Sequence[tuple[int, float]], most: int) -> list[tuple[float, int]]:
    """For each amount up to `most`: the least that items of at least that amount cost together, and a bit for each.

    >>> least([(2, 5.0), (1, 1.0), (4, 5.5)], 3)
    [(0.0, 0), (1.0, 2), (5.0, 1), (5.5, 4)]
    """
    best = [(0.0, 0)] + [(INFINITE, 0)] * most
    for i, (amount, cost) in enumerate(items):
        for wanted in range(most, 0, -1) if amount > 0 else ():
            before, taken = best[max(0, wanted - amount)]
            if before + cost < best[wanted][0]:
                best[wanted] = before + cost, taken | 1 << i
    return best


def shared(costs: Floats, wanted: int) -> tuple[float, list[tuple[int, int]]] | None:
    """The cheapest way to get `wanted` from several places, and how many from which; None where there is none.

    `costs[i, k]` is what k + 1 cost together at place i. No more than `wanted` places are used, so of each column only
    so many of the cheapest need be looked at.

    >>> shared(np.array([[1.0, 9.0], [2.0, 3.0], [7.0, 7.5]]), 3)
    (4.0, [(0, 1), (1, 2)])
    """
    rows = _promising(costs, wanted)
    best = np.full(wanted + 1, INFINITE)
    best[0] = 0.0
    amounts = np.arange(wanted + 1)
    picks = np.zeros((len(rows), wanted + 1), dtype=np.int64)
    for at, row in enumerate(rows):
        found, before = best.copy(), best
        for k, cost in enumerate(costs[row], 1):
            if cost < INFINITE:
                tried = before[np.maximum(amounts - k, 0)] + cost
                better = tried < found
                found[better], picks[at, better] = tried[better], k
        best = found
    if best[wanted] == INFINITE:
        return None
    left, chosen = wanted, list[tuple[int, int]]()
    for at in reversed(range(len(rows))):
        if k := int(picks[at, left]):
            chosen.append((int(rows[at]), k))
            left = max(0, left - k)
    return float(best[wanted]), sorted(chosen)


def _promising(costs: Floats, wanted: int) -> NDArray[Any]:
    if len(costs) <= wanted:
        return np.arange(len(costs))
    cheapest = np.argsort(costs, axis=0, kind="stable")[:wanted]
    return np.unique(cheapest)
