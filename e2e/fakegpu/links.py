"""NVLink between the boards of a node, and the device plugin's preference that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Links = tuple[tuple[int, ...], ...]  # links[i][j]: NVLinks between boards i and j

# Scores of a pair, in the device plugin's order: an NVLink outweighs any PCIe path.
_NVLINK = 100
_SAME_SOCKET = 20
_CROSS_SOCKET = 10


def nvlinks(kind: str, boards: int, per_board: int) -> Links:
    """The matrix of `nvswitch` (every pair at full width), `pairs` (bridges 0-1, 2-3, ...) or `none`."""

    def between(i: int, j: int) -> int:
        joined = kind == "nvswitch" or (kind == "pairs" and i // 2 == j // 2)
        return per_board if joined and i != j else 0

    return tuple(tuple(between(i, j) for j in range(boards)) for i in range(boards))


def preferred(links: Links, available: Sequence[int], must: Sequence[int], size: int) -> tuple[int, ...]:
    """The boards that the plugin would rather hand out: best linked among each other, `must` included.

    Ties go to the choice that leaves the remaining boards best linked, then to the lowest indices.
    """
    free = sorted(set(available) - set(must))
    choices = (tuple(sorted({*must, *more})) for more in combinations(free, size - len(set(must))))

    def order(choice: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        rest = [board for board in available if board not in choice]
        return (-_score(links, choice), -_score(links, rest), choice)

    return min(choices, key=order)


def _score(links: Links, boards: Sequence[int]) -> int:
    half = max(1, len(links) // 2)
    return sum(
        _NVLINK * links[i][j] + (_SAME_SOCKET if i // half == j // half else _CROSS_SOCKET)
        for i, j in combinations(boards, 2)
    )
