"""Planted MIG layouts: boards cut up so that their pieces are known to fit back, and arrivals that come and go.

`python -m berth.bench.planted` prints how many boards we need beside best fit (the fullest board that has room, at its
first legal start), pieces given at once and one by one; what is refused under churn; and nodes for gangs of boards.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TypeVar

from berth.bench.churn import LOAD, BestFit, Churn, run_churn
from berth.bench.pieces import planted, profile_named
from berth.model.gpus import MODELS, BoardModel
from berth.planning.boards import Stock
from berth.planning.fewest import fewest_boards, fewest_nodes, node_patterns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Planted:
    """How many boards pieces of `boards` full ones needed, as a multiple of that, on average over all seeds."""

    model: str
    boards: int
    seeds: int
    at_once: float
    at_once_worst: float
    at_once_seconds: float  # the slowest
    one_by_one: float
    one_by_one_worst: float
    one_by_one_seconds: float  # the slowest
    best_fit: float
    best_fit_sorted: float  # the largest pieces first


@dataclass(frozen=True, slots=True)
class Nodes:
    """How many nodes gangs of whole boards and smaller demands needed, as a multiple of those they were cut from."""

    nodes: int
    seeds: int
    at_once: float
    at_once_worst: float
    at_once_seconds: float
    largest_first: float


def one_by_one(model: BoardModel, pieces: Iterable[str]) -> int:
    """Boards that we use when each piece is placed as it comes, with any number of idle boards at hand."""
    stock = Stock(model, [("", 0)])
    used = 0
    for name in pieces:
        placed = stock.place(profile_named(model, name), "pod")
        if placed is not None and placed[0] == ("", used):
            used += 1
            stock.add(("", used))
    return used


def best_fit(model: BoardModel, pieces: Iterable[str]) -> int:
    """Boards that best fit uses."""
    fleet = BestFit(model, 0)
    for name in pieces:
        if fleet.place(profile_named(model, name), 0.0) is None:
            fleet.add()
            fleet.place(profile_named(model, name), 0.0)
    return len(fleet.taken)


def run_planted(model: BoardModel, boards: int, seeds: int) -> Planted:
    """All ways to pack, over the seeds from 0."""
    inputs = [planted(model, boards, seed) for seed in range(seeds)]
    by_size = [sorted(pieces, key=lambda name: -profile_named(model, name).memory_slices) for pieces in inputs]
    at_once, at_once_seconds = _timed(lambda pieces: len(fewest_boards(model, Counter(pieces))), inputs)
    ours, ours_seconds = _timed(lambda pieces: one_by_one(model, pieces), inputs)
    return Planted(
        model=model.name,
        boards=boards,
        seeds=seeds,
        at_once=_mean(at_once) / boards,
        at_once_worst=max(at_once) / boards,
        at_once_seconds=max(at_once_seconds),
        one_by_one=_mean(ours) / boards,
        one_by_one_worst=max(ours) / boards,
        one_by_one_seconds=max(ours_seconds),
        best_fit=_mean([best_fit(model, pieces) for pieces in inputs]) / boards,
        best_fit_sorted=_mean([best_fit(model, pieces) for pieces in by_size]) / boards,
    )


# --- nodes of eight boards


def planted_gangs(nodes: int, seed: int) -> list[int]:
    """Sizes of gangs of whole nodes (8, 16 and 32 boards) and of demands of 1 to 7 boards that fill the other nodes."""
    chance = random.Random(seed)
    mixed = [pattern for pattern in node_patterns(8) if not pattern[0]]
    sizes: list[int] = []
    left = nodes
    while left:
        span = chance.choice([span for span in (0, 1, 2, 4) if span <= left])
        sizes += [8 * span] if span else [8 - i for i, n in enumerate(chance.choice(mixed)) for _ in range(n)]
        left -= span or 1
    chance.shuffle(sizes)
    return sizes


def largest_first(sizes: Iterable[int]) -> int:
    """Nodes that best fit uses, the largest demands first."""
    free: list[int] = []
    for size in sorted(sizes, reverse=True):
        if size >= 8:
            free += [0] * (size // 8)
        elif any(room >= size for room in free):
            free[free.index(min(room for room in free if room >= size))] -= size
        else:
            free.append(8 - size)
    return len(free)


def run_nodes(nodes: int, seeds: int) -> Nodes:
    """All demands given at once, over the seeds from 0."""
    inputs = [planted_gangs(nodes, seed) for seed in range(seeds)]
    ours, seconds = _timed(lambda sizes: len(fewest_nodes(8, Counter(sizes))), inputs)
    theirs = [largest_first(sizes) for sizes in inputs]
    return Nodes(nodes, seeds, _mean(ours) / nodes, max(ours) / nodes, max(seconds), _mean(theirs) / nodes)


# --- the program


def _timed(pack: Callable[[list[T]], int], inputs: Sequence[list[T]]) -> tuple[list[int], list[float]]:
    counts, seconds = [], []
    for pieces in inputs:
        started = perf_counter()
        counts.append(pack(pieces))
        seconds.append(perf_counter() - started)
    return counts, seconds


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    """Run all and print it."""
    parser = argparse.ArgumentParser(prog="python -m berth.bench.planted", description=main.__doc__)
    parser.add_argument(
        "--model", action="append", choices=[m.name for m in MODELS if m.profiles], help="may be repeated"
    )
    parser.add_argument("--boards", action="append", type=int, help="planted boards; may be repeated")
    parser.add_argument("--seeds", type=int, default=50, help="inputs of each kind")
    parser.add_argument("--churn-boards", type=int, default=200, help="boards under churn; 0: leave churn out")
    parser.add_argument("--churn-seeds", type=int, default=0, help="0: as many as it takes to tell a difference")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    asked = parser.parse_args()
    models = [m for m in MODELS if m.name in (asked.model or ["H100-80GB", "A30"])]
    sizes = asked.boards or [20, 50, 200]
    packed = [run_planted(model, n, asked.seeds) for model in models for n in sizes]
    nodes = [run_nodes(n, asked.seeds) for n in sizes]
    churned = [c for m in models if asked.churn_boards for c in run_churn(m, asked.churn_boards, asked.churn_seeds)]
    if asked.json:
        found: dict[str, Sequence[Planted | Nodes | Churn]] = {"planted": packed, "nodes": nodes, "churn": churned}
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in found.items()}, indent=1))
    else:
        tables = [_planted_table(packed), _nodes_table(nodes), *([_churn_table(churned)] if churned else [])]
        print("\n\n".join("\n".join(table) for table in tables))


def _planted_table(rows: Sequence[Planted]) -> Iterator[str]:
    yield "                    given at once            one by one                       best fit"
    yield "model      boards   mean   worst  slowest    mean   worst  slowest   as they come  largest first"
    for r in rows:
        yield (
            f"{r.model:<10} {r.boards:>6} {r.at_once:>6.4f} {r.at_once_worst:>7.4f} {r.at_once_seconds:>7.3f}s"
            f" {r.one_by_one:>7.4f} {r.one_by_one_worst:>7.4f} {r.one_by_one_seconds:>7.3f}s"
            f" {r.best_fit:>14.4f} {r.best_fit_sorted:>14.4f}"
        )


def _nodes_table(rows: Sequence[Nodes]) -> Iterator[str]:
    yield "gangs of 8, 16 and 32 boards and demands of 1 to 7, given at once"
    yield "             nodes   mean   worst  slowest   largest first"
    for r in rows:
        ours = f"{r.nodes:>18} {r.at_once:>6.4f} {r.at_once_worst:>7.4f} {r.at_once_seconds:>7.3f}s"
        yield f"{ours} {r.largest_first:>14.4f}"


def _churn_table(rows: Sequence[Churn]) -> Iterator[str]:
    yield f"churn at {LOAD:.0%} load: refused arrivals (and memory slices) of those counted, layouts of idle boards,"
    yield "ours less best fit's (mean a seed and its standard error), and what is refused were instances moved at will"
    yield (
        "model      boards  instances are made    seeds  arrivals      refused    layouts"
        "   best fit refused   layouts       difference   moved"
    )
    for r in rows:
        ours = f"{r.refused:>6} ({r.refused_slices:>5}) {r.layouts:>9}"
        theirs = f"{r.best_fit_refused:>10} ({r.best_fit_refused_slices:>5}) {r.best_fit_layouts:>9}"
        fewer = f"{r.difference:>+8.2f} ± {r.difference_error:.2f} {r.bound:>7}"
        yield f"{r.model:<10} {r.boards:>6}  {r.cut:<21} {r.seeds:>5} {r.arrivals:>9} {ours} {theirs}  {fewer}"


if __name__ == "__main__":
    main()
