"""One run of a trace under one policy, and what is measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time

import numpy as np

from berth.bench.fleet import Fleet, Ints
from berth.bench.fragmentation import Floats, Fragmentation
from berth.bench.policies import Policy
from berth.bench.trace import Node
from berth.planning.scarcity import Demand


@dataclass(frozen=True, slots=True)
class Run:
    """Where each pod went (-1: nowhere), the fleet's state after each, and the CPU seconds of all decisions."""

    nodes: Sequence[Node]
    arrivals: Sequence[Demand]
    placed: Ints
    cpu_after: Ints  # of the node where the pod went
    free_after: Ints
    seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run is judged by. Shares are percents of the fleet's boards; arrived is likewise."""

    allocated: dict[int, float]  # by percent arrived
    fragmented: dict[int, float]  # the same: percent of the free shares that the mix can't use
    pods_placed: int
    decisions_per_second: float


def replay(nodes: Sequence[Node], arrivals: Sequence[Demand], policy: Policy) -> Run:
    """Place pods one at a time; one that fits nowhere is dropped, none ever leaves.

    Times the decisions alone, in CPU time, so that what else runs on the machine doesn't count.
    """
    fleet = Fleet(nodes)
    placed = np.full(len(arrivals), -1)
    cpu_after = np.zeros(len(arrivals), dtype=np.int64)
    free_after = np.zeros((len(arrivals), fleet.free.shape[1]), dtype=np.int64)
    seconds = 0.0
    for number, demand in enumerate(arrivals):
        started = process_time()
        choice = policy.choose(fleet, demand)
        if choice is not None:
            fleet.take(choice[0], demand, choice[1])
        seconds += process_time() - started
        if choice is not None:
            placed[number] = choice[0]
            cpu_after[number], free_after[number] = fleet.cpu[choice[0]], fleet.free[choice[0]]
    return Run(nodes, arrivals, placed, cpu_after, free_after, seconds)


def figures(run: Run, classes: dict[Demand, float]) -> Figures:
    """Allocation and fragmentation after every pod, averaged in buckets of one percent arrived."""
    fleet = Fleet(run.nodes)
    measure = Fragmentation(classes, fleet.models)
    amount = measure.of(fleet.cpu, fleet.model, fleet.free)
    asked = np.array([demand.milli for demand in run.arrivals])
    capacity = int(fleet.free.sum())
    allocated = np.cumsum(np.where(run.placed >= 0, asked, 0))
    after = measure.of(run.cpu_after, fleet.model[run.placed], run.free_after)
    fragmented = amount.sum() + np.cumsum(_growth(run.placed, amount, after))
    bucket = np.round(100 * np.cumsum(asked) / capacity).astype(int)
    free = np.maximum(capacity - allocated, 1)
    return Figures(
        allocated={int(b): float(100 * allocated[bucket == b].mean() / capacity) for b in np.unique(bucket)},
        fragmented={int(b): float(100 * (fragmented / free)[bucket == b].mean()) for b in np.unique(bucket)},
        pods_placed=int((run.placed >= 0).sum()),
        decisions_per_second=len(run.arrivals) / run.seconds if run.seconds else 0.0,
    )


def _growth(placed: Ints, amount: Floats, after: Floats) -> Floats:
    """By how much the fragmentation of the fleet grew with each placement. `amount` is that of each node at first."""
    now = amount.tolist()
    grown = np.zeros(len(placed))
    for number, (node, new) in enumerate(zip(placed.tolist(), after.tolist(), strict=True)):
        if node >= 0:
            grown[number], now[node] = new - now[node], new
    return grown
