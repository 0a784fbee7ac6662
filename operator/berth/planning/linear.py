"""Linear programs in exact arithmetic: small ones, whose prices decide and so must not depend on rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Solution:
    """An optimum of a linear program, and its proof."""

    value: Fraction
    primal: tuple[Fraction, ...]  # by variable
    dual: tuple[Fraction, ...]  # by constraint: what one more unit of its limit is worth


def maximise(gains: Sequence[int], rows: Sequence[Sequence[int]], limits: Sequence[int]) -> Solution:
    """Maximise gains · x over x >= 0 with row · x <= limit for every row; all limits >= 0, and the optimum finite.

    The simplex method on a tableau of integers over one common denominator, which is the last pivot: every division
    is exact (Edmonds 1967, Bareiss 1968). Bland's rule (the first variable that helps enters, the first of equals
    leaves) makes it end.

    >>> maximise([3, 2], [[1, 1], [1, 0]], [4, 3])
    Solution(value=Fraction(11, 1), primal=(Fraction(3, 1), Fraction(1, 1)), dual=(Fraction(2, 1), Fraction(1, 1)))
    """
    n, m = len(gains), len(rows)
    table = [[*row, limit] for row, limit in zip(rows, limits, strict=True)]
    table.append([*(-gain for gain in gains), 0])
    outside = list(range(n))  # variable of each column; n + i is the slack of constraint i
    basis = list(range(n, n + m))  # variable of each row
    scale = 1
    while True:
        entering = min((v, c) for c, v in enumerate(outside) if table[m][c] < 0) if min(table[m][:n]) < 0 else None
        if entering is None:
            break
        column = entering[1]
        row = min(
            (r for r in range(m) if table[r][column] > 0),
            key=lambda r: (Fraction(table[r][n], table[r][column]), basis[r]),
        )
        scale = _pivot(table, row, column, scale)
        basis[row], outside[column] = outside[column], basis[row]
    level = {v: Fraction(table[r][n], scale) for r, v in enumerate(basis)}
    price = {v: Fraction(table[m][c], scale) for c, v in enumerate(outside)}
    zero = Fraction(0)
    return Solution(
        Fraction(table[m][n], scale),
        tuple(level.get(v, zero) for v in range(n)),
        tuple(price.get(n + i, zero) for i in range(m)),
    )


def _pivot(table: list[list[int]], row: int, column: int, scale: int) -> int:
    """Exchange a row's variable with a column's, in place; the new common denominator."""
    pivot, line = table[row][column], table[row]
    for other in table:
        if other is line:
            continue
        factor = other[column]
        if factor:
            other[:] = [(pivot * a - factor * b) // scale for a, b in zip(other, line, strict=True)]
        elif pivot != scale:
            other[:] = [pivot * a // scale for a in other]
        other[column] = -factor
    line[column] = scale
    return pivot
