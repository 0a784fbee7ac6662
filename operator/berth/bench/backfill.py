"""What passing is worth: saturated fleets under the operator's rule, in strict order, and with anybody passing.

`python -m berth.bench.backfill` prints the mean waiting of small jobs (up to 4 boards) and of gangs (8 boards and
more), and how they compare with strict order. All of it runs through the operator's planner in virtual time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from berth.planning.snapshot import Backfilling, Passing
from berth.simulation.case import Case, prepare
from berth.simulation.run import simulate

BOARDS = 8  # of a node
SMALL, GANGS = "small", "gangs"
LEAST_SAVED = 0.5  # of the mean waiting of small jobs
MOST_GROWTH = 0.05  # of the mean waiting of gangs
SMALL_SHARE = 0.3  # of the board-hours asked for
DAY = 24.0  # hours


@dataclass(frozen=True, slots=True)
class Trace:
    """A stream of small jobs beside a stream of gangs, for so long as work arrives; then the fleet runs empty."""

    nodes: int = 16
    days: float = 0.5
    load: float = 1.1  # board-hours asked for, of those there are while work arrives
    small_hours: float = 0.5  # median run time
    gang_hours: float = 2.0
    sigma: float = 1.0
    estimates: tuple[float, float] | None = (2.0, 0.7)  # what users say, as a multiple: its median, and its sigma
    seed: int = 0

    def case(self) -> Case:
        """The scenario."""
        small = [{"weight": w, "gpus": {"count": n}} for w, n in ((4, 1), (2, 2), (1, 4))]
        gangs = [
            {"weight": w, "workers": n, "gpus": {"count": BOARDS}}
            for w, n in ((6, 1), (4, 2), (3, 4), (1, 8))
            if n <= self.nodes // 2
        ]
        streams = [
            self._stream(SMALL, small, SMALL_SHARE, self.small_hours),
            self._stream(GANGS, gangs, 1 - SMALL_SHARE, self.gang_hours),
        ]
        fields = {
            "horizon": 3600 * DAY * (10 * self.days + 20),
            "seed": self.seed,
            "fleet": {"pools": [{"name": "dgx", "model": "H100-80GB", "nodes": self.nodes, "boards": BOARDS}]},
            "streams": streams,
        }
        return prepare("backfill", fields, Path())

    def _stream(self, name: str, mix: list[dict[str, Any]], share: float, hours: float) -> dict[str, Any]:
        weights = sum(shape["weight"] for shape in mix)
        boards = sum(s["weight"] * s.get("workers", 1) * s["gpus"]["count"] for s in mix) / weights
        mean_hours = hours * 2.718281828 ** (self.sigma**2 / 2)
        stream = {
            "name": name,
            "arrivals": {
                "perHour": share * self.load * self.nodes * BOARDS / (boards * mean_hours),
                "until": 3600 * DAY * self.days,
            },
            "duration": {"lognormal": 3600 * hours, "sigma": self.sigma},
            "mix": mix,
        }
        if self.estimates is not None:
            stream["estimates"] = {"times": self.estimates[0], "sigma": self.estimates[1]}
        return stream


@dataclass(frozen=True, slots=True)
class Waits:
    """Mean waiting of small jobs and of gangs, in seconds."""

    small: float
    gangs: float


def waits(trace: Trace, passing: Passing) -> Waits:
    """What a trace's work waits for its first place under one rule. Raises ValueError where some of it never ran."""
    case = trace.case()
    policy = replace(case.scenario.planner_policy(), backfill=Backfilling(passing))
    result = simulate(case, policy=policy)
    late = [told["name"] for told in result.workloads if told["outcome"] != "Succeeded"]
    if late:
        raise ValueError(f"{passing}: {len(late)} did not end, such as {late[0]}")
    by_stream: dict[str, list[float]] = {SMALL: [], GANGS: []}
    for told in result.workloads:
        by_stream[told["name"].partition("-")[0]].append(told["waitedSeconds"])
    return Waits(mean(by_stream[SMALL]), mean(by_stream[GANGS]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kind of trace under all three rules, the means of several seeds."""

    name: str
    by_rule: dict[Passing, Waits]

    @property
    def saved(self) -> float:
        """The share of the mean waiting of small jobs in strict order that they wait less."""
        return 1 - self.by_rule[Passing.WITHOUT_DELAY].small / self.by_rule[Passing.NOBODY].small

    @property
    def growth(self) -> float:
        """By what share of it the mean waiting of gangs grows over strict order; less than nothing where it falls."""
        return self.by_rule[Passing.WITHOUT_DELAY].gangs / self.by_rule[Passing.NOBODY].gangs - 1

    @property
    def kept(self) -> bool:
        """Whether it is as promised."""
        return self.saved >= LEAST_SAVED and self.growth < MOST_GROWTH


def compare(name: str, trace: Trace, seeds: int) -> Comparison:
    """Run a kind of trace with several seeds under each rule."""
    by_rule = {}
    for passing in Passing:
        found = [waits(replace(trace, seed=seed), passing) for seed in range(1, seeds + 1)]
        by_rule[passing] = Waits(mean(w.small for w in found), mean(w.gangs for w in found))
    return Comparison(name, by_rule)


def kinds() -> Iterator[tuple[str, Trace]]:
    """Traces that differ in one thing each."""
    yield "as given", Trace()
    yield "24 nodes", Trace(nodes=24)
    yield "32 nodes", Trace(nodes=32)
    yield "load 0.95", Trace(load=0.95)
    yield "load 1.5", Trace(load=1.5)
    yield "run times all alike", Trace(sigma=0.3)
    yield "estimates exact", Trace(estimates=(1.0, 0.0))
    yield "estimates half too low", Trace(estimates=(1.0, 0.7))
    yield "estimates five times too high", Trace(estimates=(5.0, 0.7))
    yield "no estimates", Trace(estimates=None)


def main(arguments: list[str]) -> int:
    """Print the table; with `--limits`, say by the exit status whether what is promised is kept."""
    seeds = next((int(a.partition("=")[2]) for a in arguments if a.startswith("--seeds=")), 7)
    print(f"mean waiting in minutes, {seeds} seeds: in strict order / ours / anybody passes")
    print(f"{'trace':<30} {'small jobs':>22} {'less':>7} {'gangs of 8 and more':>24} {'more':>7}")
    kept = True
    for name, trace in kinds():
        found = compare(name, trace, seeds)
        small, gangs = (
            " / ".join(f"{getattr(found.by_rule[rule], which) / 60:.0f}" for rule in Passing)
            for which in ("small", "gangs")
        )
        print(f"{name:<30} {small:>22} {found.saved:>7.0%} {gangs:>24} {found.growth:>7.0%}", flush=True)
        kept &= found.kept
    return 0 if kept or "--limits" not in arguments else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
