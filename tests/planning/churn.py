"""How much is refused while gangs and small work come and go, beside plain best fit: `python -m tests.planning.churn`.

20 racks of 8 nodes of 8 boards; gangs must share a rack. Arrivals at 92 % load, exponential lifetimes; what finds no
place is refused. Printed is the share of the boards asked for that was refused, and how it differs from best fit with
its standard error, seed by seed.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from statistics import mean, stdev

from berth.model.workloads import Device, PodShape
from berth.planning.field import Field
from berth.planning.fleet import Ints
from berth.planning.packing import Gang, pack
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Policy, Snapshot
from tests.planning.builders import NOW, racks

Mix = dict[tuple[int, int], int]
"""Workers and boards of each, and how often they are asked for."""

MIXES: dict[str, Mix] = {
    "1 to 8 boards, gangs of whole nodes": {
        (1, 1): 30, (1, 2): 15, (1, 4): 15, (1, 8): 20, (2, 8): 10, (4, 8): 6, (8, 8): 4,
    },
    "odd sizes, gangs of whole nodes": {
        (1, 1): 20, (1, 2): 15, (1, 3): 15, (1, 5): 10, (1, 6): 5, (1, 7): 5, (1, 8): 15, (2, 8): 8, (4, 8): 5,
        (8, 8): 2,
    },
    "1, 2 and 4 boards, few gangs": {(1, 1): 40, (1, 2): 20, (1, 4): 20, (2, 4): 10, (4, 4): 5, (8, 8): 3},
}  # fmt: skip
MODEL, NODES, RACKS = "H100-80GB", 8, 20
LIFETIME, LOAD, ARRIVALS, SEEDS = 100.0, 0.92, 2500, 16

Tightest = Callable[[Field, int, Ints, int], int]


def best_fit(field: Field, level: int, domains: Ints, members: int) -> int:
    """The domain with the least free boards, the first of equals."""
    return int(domains[field.room.slack(True, level)[domains].argmin()])


def refused(mix: Mix, seed: int) -> float:
    """The share of boards asked for that finds no place."""
    chance = random.Random(seed)
    nodes = {node.name: node for node in racks(count=RACKS, nodes=NODES)}
    s = Scratch(Snapshot(nodes, {}, ()), Policy(), NOW)
    rack = next(i for i, level in enumerate(s.fleet.levels) if level.name == "rack")
    sizes = Counter[int]()
    for (workers, gpus), n in mix.items():
        sizes[-(-workers * gpus // 8)] += n
    s.ledger.rooms[MODEL].gangs = tuple((size, n) for size, n in sorted(sizes.items()) if size > 1)
    boards = sum(workers * gpus * n for (workers, gpus), n in mix.items()) / sum(mix.values())
    rate = LOAD * RACKS * NODES * 8 / (boards * LIFETIME)
    now, ends, asked, lost = 0.0, [], 0, 0
    for arrival in range(ARRIVALS):
        now += chance.expovariate(rate)
        while ends and ends[0][0] <= now:
            _, _, held, gone = heapq.heappop(ends)
            for name in held:
                s.ledger.take(name, {"nvidia.com/gpu": -gone, "pods": -1})
        workers, gpus = chance.choices(list(mix), list(mix.values()))[0]
        lifetime = chance.expovariate(1 / LIFETIME)
        field = s.field(PodShape(), Device(MODEL, "nvidia.com/gpu", gpus))
        assert field is not None
        placed = pack(field, Gang(workers, within=rack if workers > 1 else None))
        asked += workers * gpus
        lost += 0 if placed else workers * gpus
        for name in placed or ():
            s.ledger.take(name, field.needs)
        if placed:
            heapq.heappush(ends, (now + lifetime, arrival, placed, gpus))
    return lost / asked


def main() -> None:
    """Print a line for each mix."""
    ours = Field.tightest
    print(f"{'boards refused, % of those asked for':<36} {'best fit':>8} {'ours':>6} {'difference':>16}")
    for name, mix in MIXES.items():
        Field.tightest = best_fit  # type: ignore[method-assign]
        plain = [100 * refused(mix, seed) for seed in range(SEEDS)]
        Field.tightest = ours  # type: ignore[method-assign]
        priced = [100 * refused(mix, seed) for seed in range(SEEDS)]
        by_seed = [b - a for a, b in zip(plain, priced, strict=True)]
        error = stdev(by_seed) / SEEDS**0.5
        print(f"{name:<36} {mean(plain):>8.2f} {mean(priced):>6.2f} {mean(by_seed):>+8.2f} ± {error:.2f}")


if __name__ == "__main__":
    main()
