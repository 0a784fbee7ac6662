"""`berth bench openb`: the openb traces replayed seed by seed, and their figures as JSON and as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random
from statistics import fmean

from berth.bench.fleet import Fleet
from berth.bench.fragmentation import Fragmentation, task_classes
from berth.bench.names import PolicyName
from berth.bench.packer import LeastCost
from berth.bench.policies import HighestScore, Policy, RandomFit, best_fit, fgd, gpu_packing
from berth.bench.replay import Figures, figures, replay
from berth.bench.tables import TraceError
from berth.bench.trace import Node, Order, Trace
from berth.planning.scarcity import Demand

ALLOCATED_AT = (90, 100, 130)  # percent of the fleet's boards asked for so far
FRAGMENTED_AT = 80


@dataclass(frozen=True, slots=True)
class Task:
    """One run: the nodes in their order, the pods as they arrive, and the untuned pod list for its frequencies."""

    seed: int
    policy: PolicyName
    nodes: tuple[Node, ...]
    arrivals: tuple[Demand, ...]
    pods: tuple[Demand, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one run, or the mean of several, is reported by; a figure is None where the pods end before it."""

    figures: dict[str, float | None]

    @classmethod
    def of(cls, run: Figures) -> Result:
        """Of one run."""
        return cls(
            {
                **{f"alloc@{percent}": _at(run.allocated, percent) for percent in ALLOCATED_AT},
                f"frag_ratio@{FRAGMENTED_AT}": _at(run.fragmented, FRAGMENTED_AT),
                "pods_placed": run.pods_placed,
                "decisions_per_second": run.decisions_per_second,
            }
        )

    @classmethod
    def mean(cls, results: Sequence[Result]) -> Result:
        """Of several runs, figure by figure."""
        columns = {name: [result.figures[name] for result in results] for name in results[0].figures}
        return cls(
            {
                name: None if None in values else fmean(value for value in values if value is not None)
                for name, values in columns.items()
            }
        )


def tasks(trace: Trace, policy: PolicyName, seeds: Sequence[int], permute: int | None) -> list[Task]:
    """The runs of these seeds (all that the trace has, where none is named).

    `permute` is the seed of one more shuffle of the nodes, on top of each order's own.
    """
    orders = {order.seed: order for order in trace.orders}
    unknown = [str(seed) for seed in seeds if seed not in orders]
    if unknown:
        raise TraceError(f"the orders have seeds {', '.join(map(str, orders))}, not {', '.join(unknown)}")
    return [_task(trace, policy, orders[seed], permute) for seed in dict.fromkeys(seeds) or orders]


def _task(trace: Trace, policy: PolicyName, order: Order, permute: int | None) -> Task:
    nodes = [trace.nodes[node] for node in order.nodes]
    if permute is not None:
        Random(permute).shuffle(nodes)
    return Task(order.seed, policy, tuple(nodes), tuple(trace.pods[pod] for pod in order.arrivals), trace.pods)


def run(task: Task) -> Result:
    """Replay one seed."""
    classes = task_classes(task.pods)
    replayed = replay(task.nodes, task.arrivals, _policy(task, classes))
    return Result.of(figures(replayed, classes))


def run_all(todo: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    """Each seed with its result, as they come: side by side in processes of their own where there are several."""
    workers = min(len(todo), os.cpu_count() or 1)
    if workers < 2:
        yield from ((task.seed, run(task)) for task in todo)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        seeds = {pool.submit(run, task): task.seed for task in todo}
        for done in as_completed(seeds):
            yield seeds[done], done.result()


def _policy(task: Task, classes: dict[Demand, float]) -> Policy:
    fleet = Fleet(task.nodes)
    match task.policy:
        case PolicyName.BERTH:
            return LeastCost(Counter(task.pods), fleet)
        case PolicyName.RANDOM:
            return RandomFit(task.seed)
        case PolicyName.BEST_FIT:
            return HighestScore(best_fit)
        case PolicyName.PACKING:
            return HighestScore(gpu_packing)
        case PolicyName.FGD:
            return HighestScore(fgd(Fragmentation(classes, fleet.models)))


def _at(series: dict[int, float], percent: int) -> float | None:
    """The figure at this percent arrived: that of the last bucket up to it, None where the pods end before it."""
    if max(series) < percent:
        return None
    return series[max(bucket for bucket in series if bucket <= percent)]
