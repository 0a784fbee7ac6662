"""What the automatic checkpoint interval loses, beside the best fixed one that a search in hindsight finds.

Runs end by failures that are exponential, come in bursts, or were recorded on spot markets. The automatic interval
begins each window from the shipped prior and learns only within it; the fixed one is chosen for all windows at once,
knowing all of them.

    python -m berth.bench.interval --spot FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from berth.planning.interval import DAY, HOUR, MINUTE, SPOT, Hazard, next_interval

SAVES = ((30.0, 120.0), (120.0, 180.0), (300.0, 360.0))  # seconds of a save and of a restart
TRIED = [20 * 1.04**i for i in range(220)]  # fixed intervals, 20 s to 30 h
LIMIT = 0.05  # how much more than the best fixed interval the automatic one may lose


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of time with a node."""

    seconds: float
    failed: bool  # else the window ended, and nothing is lost


Window = list[Run]


def lost_by_learning(windows: Iterable[Window], save: float, restart: float) -> float:
    """Seconds that saves, restarts and lost work take under the automatic interval."""
    return sum(_lost_in(window, save, restart) for window in windows)


def _lost_in(window: Window, save: float, restart: float) -> float:
    lost, seen = 0.0, Hazard(SPOT)
    for run in window:
        at = min(restart, run.seconds)
        lost += at
        while at < run.seconds:
            now = seen.ran(at, failed=False)
            interval = next_interval(now, save, at)
            if at + interval + save > run.seconds:
                rest = run.seconds - at
                lost += rest if run.failed else max(0.0, rest - interval)
                break
            at += interval + save
            lost += save
        seen = seen.ran(run.seconds, run.failed)
    return lost


def lost_by_fixed(windows: Iterable[Window], save: float, restart: float, interval: float) -> float:
    """Seconds that saves, restarts and lost work take under one interval."""
    runs = [run for window in windows for run in window]
    seconds, failed = np.array([r.seconds for r in runs]), np.array([r.failed for r in runs])
    working = np.maximum(seconds - restart, 0)
    saves = np.floor(working / (interval + save))
    rest = working - saves * (interval + save)
    lost = np.minimum(seconds, restart) + saves * save + np.where(failed, rest, np.maximum(0, rest - interval))
    return float(lost.sum())


def best_fixed(windows: Sequence[Window], save: float, restart: float) -> tuple[float, float]:
    """The least that one interval loses, and that interval, in seconds."""
    return min((lost_by_fixed(windows, save, restart, interval), interval) for interval in TRIED)


def drawn(chance: random.Random, mtbf: Sequence[float], stay: float = 0.0, windows: int = 40) -> list[Window]:
    """Windows of 14 days. After a failure the next run is of the second kind with probability `stay`, else the first.

    One `mtbf`: exponential. Two, the second much shorter: failures in bursts.
    """
    return [_drawn(chance, mtbf, stay) for _ in range(windows)]


def _drawn(chance: random.Random, mtbf: Sequence[float], stay: float) -> Window:
    window: Window = []
    left, kind = 14 * DAY, 0
    while left > 0:
        seconds = chance.expovariate(1 / mtbf[kind])
        window.append(Run(min(seconds, left), seconds < left))
        left -= seconds
        kind = int(chance.random() < stay)
    return window


def recorded(chance: random.Random, lines: Iterable[str]) -> list[Window]:
    """Spot windows. Where between two looks capacity went is not known: anywhere, with equal chance.

    Else an interval that divides the time between looks would save just before each failure.
    """
    return [window for window in (_recorded(chance, json.loads(line)) for line in lines) if window]


def _recorded(chance: random.Random, record: Mapping[str, object]) -> Window:
    gap, available = float(str(record["gap_seconds"])), record["available"]
    assert isinstance(available, list)
    window: Window = []
    length = 0
    for there in [*available, None]:
        if there:
            length += 1
        elif length:
            failed = there is not None
            window.append(Run(gap * (length - chance.random() * failed), failed))
            length = 0
    return window


def kinds(seed: int, spot: Path | None, windows: int = 40) -> dict[str, list[Window]]:
    """What is measured, by name."""
    chance = random.Random(seed)
    found = {
        "exponential, 1 h": drawn(chance, [HOUR], windows=windows),
        "exponential, 6 h": drawn(chance, [6 * HOUR], windows=windows),
        "exponential, 24 h": drawn(chance, [DAY], windows=windows),
        "bursts of 10 min, calm 12 h": drawn(chance, [12 * HOUR, 10 * MINUTE], 0.8, windows),
        "bursts of 15 min, calm 24 h": drawn(chance, [DAY, 15 * MINUTE], 0.7, windows),
    }
    for file in sorted(spot.glob("*.jsonl.gz")) if spot else ():
        with gzip.open(file, "rt") as lines:
            found[file.name.removesuffix(".jsonl.gz")] = recorded(chance, lines)
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """One kind of failure and one save time."""

    name: str
    save: float
    fixed: float  # seconds lost by the best fixed interval
    interval: float  # which is this
    learned: float  # seconds lost by the automatic one

    @property
    def excess(self) -> float:
        """How much more the automatic one loses."""
        return self.learned / self.fixed - 1


def outcomes(measured: Mapping[str, list[Window]]) -> list[Outcome]:
    """All kinds under all save times."""
    return [
        Outcome(name, save, *best_fixed(windows, save, restart), lost_by_learning(windows, save, restart))
        for name, windows in measured.items()
        for save, restart in SAVES
    ]


def family(name: str) -> str:
    """Kinds that are added up."""
    first = name.split()[0].rstrip(",")
    return first if first in ("exponential", "bursts") else "spot"


def excesses(found: Iterable[Outcome]) -> dict[str, float]:
    """By family and save time, how much more the automatic interval loses in all."""
    totals: dict[str, list[Outcome]] = {}
    for one in found:
        totals.setdefault(f"{family(one.name)}, save {one.save:.0f} s", []).append(one)
    return {name: sum(o.learned for o in all_) / sum(o.fixed for o in all_) - 1 for name, all_ in totals.items()}


def main() -> int:
    """Print the table; 1 where the automatic interval loses too much."""
    parser = argparse.ArgumentParser(description="The automatic checkpoint interval beside the best fixed one.")
    parser.add_argument("--spot", type=Path, help="folder of recorded windows, *.jsonl.gz")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = outcomes(kinds(options.seed, options.spot))
    for one in found:
        print(
            f"{one.name:30} save {one.save:4.0f} s   best fixed {one.interval:6.0f} s loses {one.fixed / HOUR:7.1f} h"
            f"   auto {one.learned / HOUR:7.1f} h {one.excess:+6.1%}"
        )
    totals = excesses(found)
    for name, excess in totals.items():
        print(f"{name:30} auto loses {excess:+.1%} in all")
    return int(max(totals.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
