"""An exact solver (HiGHS) for small packings, to judge ours by."""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np


def least_bins(patterns: Sequence[Sequence[int]], pieces: Sequence[int]) -> int:
    """The fewest bins, each with at most the pieces of one pattern, that hold all pieces."""
    return round(_minimum([1.0] * len(patterns), [(patterns, None)], pieces))


def least_begun(states: Sequence[tuple[int, bool, Sequence[Sequence[int]]]], pieces: Sequence[int]) -> int:
    """The fewest idle boards begun so that all pieces fit, on boards in given states; -1 where they don't fit.

    A state is: how many boards are in it, whether they are idle, and what patterns of pieces each can take.
    """
    costs = [float(idle) for _, idle, patterns in states for _ in patterns]
    found = _minimum(costs, [(patterns, number) for number, _, patterns in states], pieces)
    return round(found) if np.isfinite(found) else -1


def _minimum(
    costs: Sequence[float], groups: Sequence[tuple[Sequence[Sequence[int]], int | None]], pieces: Sequence[int]
) -> float:
    """Least cost of patterns, chosen whole times and at most so often for each group, that hold all pieces."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    infinity = highspy.kHighsInf
    for column, cost in enumerate(costs):
        solver.addVar(0.0, infinity)
        solver.changeColCost(column, cost)
        solver.changeColIntegrality(column, highspy.HighsVarType.kInteger)
    columns = [pattern for patterns, _ in groups for pattern in patterns]
    for kind, n in enumerate(pieces):
        of = [c for c, pattern in enumerate(columns) if pattern[kind]]
        solver.addRow(
            float(n), infinity, len(of), np.array(of, np.int32), np.array([columns[c][kind] for c in of], float)
        )
    first = 0
    for patterns, most in groups:
        of = list(range(first, first + len(patterns)))
        first += len(patterns)
        if most is not None:
            solver.addRow(-infinity, float(most), len(of), np.array(of, np.int32), np.ones(len(of)))
    solver.run()
    optimal = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(solver.getInfo().objective_function_value) if optimal else float("inf")
