"""Fragmentation as FGD measures it: the free shares of boards that a demand drawn from the mix could not use.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent" (ATC '23).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from berth.bench.fleet import Ints
from berth.planning.scarcity import WHOLE, Demand

COVERED = 0.95  # share of the pods that the task classes of the measure stand for, as in the paper's artefact

Floats = NDArray[np.float64]


def task_classes(pods: Iterable[Demand]) -> dict[Demand, float]:
    """The most frequent demands, memory left aside, that cover 95 % of the pods; frequencies add up to 1."""
    counts = Counter(Demand(pod.cpu_milli, 0, pod.boards, pod.share, pod.models) for pod in pods)
    total, covered, chosen = sum(counts.values()), 0, {}
    for demand, count in sorted(counts.items(), key=lambda item: (-item[1], _rank(item[0]))):
        if covered >= COVERED * total:
            break
        chosen[demand] = count
        covered += count
    return {demand: count / covered for demand, count in chosen.items()}


def _rank(demand: Demand) -> tuple[int, int, int, list[str]]:
    return demand.cpu_milli, demand.boards, demand.share, sorted(demand.models)


class Fragmentation:
    """F of a node for a mix of task classes: what they can't use of its free shares, weighted by their frequency.

    Task classes of one shape (boards and share) differ in CPU and model only. So the measure needs, for each shape, how
    many boards have room for it and how much is free on those, and how frequent the classes are that fit otherwise.
    """

    def __init__(self, classes: dict[Demand, float], models: Sequence[str]) -> None:
        demands = [demand for demand in classes if demand.boards]
        shapes = sorted({(demand.boards, demand.share) for demand in demands})
        self.counts: Ints = np.array([boards for boards, _ in shapes], dtype=np.int64)
        self.cpus: Ints = np.array(sorted({demand.cpu_milli for demand in demands}), dtype=np.int64)
        roomy = np.arange(WHOLE + 1)[:, None] >= np.array([share for _, share in shapes], dtype=np.int64)
        self.roomy: Ints = roomy.astype(np.int64)  # by free share and shape: whether it has room
        self.usable: Ints = self.roomy * np.arange(WHOLE + 1)[:, None]  # the same: how much of it is of use
        self.weight: Floats = np.zeros((len(models), len(self.cpus) + 1, len(shapes)))
        for demand in demands:
            fitting = [number for number, model in enumerate(models) if demand.accepts(model)]
            first = int(np.searchsorted(self.cpus, demand.cpu_milli)) + 1
            self.weight[fitting, first:, shapes.index((demand.boards, demand.share))] += classes[demand]

    def sums(self, free: Ints) -> tuple[Ints, Ints]:
        """For nodes with these free shares: boards with room for each shape, and how much is free on them."""
        return self.roomy[free].sum(axis=-2), self.usable[free].sum(axis=-2)

    def amount(self, cpu: Ints, model: Ints, free_in_all: Ints, sums: tuple[Ints, Ints]) -> Floats:
        """F in thousandths of a board, of nodes with this free CPU, model, free shares in all and `sums`."""
        rooms, usable = sums
        weight = self.weight[model, np.searchsorted(self.cpus, cpu, side="right")]
        amount: Floats = free_in_all - (weight * np.where(rooms >= self.counts, usable, 0)).sum(axis=-1)
        return amount

    def of(self, cpu: Ints, model: Ints, free: Ints) -> Floats:
        """F of nodes with this free CPU, model and free shares."""
        return self.amount(cpu, model, free.sum(axis=-1), self.sums(free))
