"""What a run comes to: integrals over time, a series to draw, and how long everybody waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from berth.model.reasons import Verdict
from berth.planning.cohorts import Cohorts
from berth.simulation.case import Case
from berth.simulation.cluster import Cluster
from berth.simulation.costs import Costs, as_data, summary
from berth.simulation.life import Life
from berth.simulation.machines import EPOCH, Machine
from berth.simulation.usable import Fragmentation

BUCKETS = 480  # points of a series: more would not show in a plot
HOUR = 3600.0
LEAST = 1e-9  # of a board: less is what sums of shares leave behind

# What is followed over time. Counts of boards count an instance as its share of its board.
WHOLE, WHOLE_HELD = "boards", "boardsHeld"  # boards outside MIG mode
SLICES, SLICES_HELD = "slices", "slicesHeld"  # memory slices of boards in MIG mode
HELD = "allocated"  # boards and instances, in boards
USD, USD_IDLE = "usdPerHour", "usdPerHourIdle"  # list price of what is held, and of the rest
FREE = "free"  # boards on nodes that take pods
USELESS, USELESS_TO_MEAN = "useless", "uselessToMean"  # free boards that no workload of the mix, or its mean, could use
PENDING, RUNNING = "pending", "running"  # workloads
CHANNELS = (
    WHOLE,
    WHOLE_HELD,
    SLICES,
    SLICES_HELD,
    HELD,
    USD,
    USD_IDLE,
    FREE,
    USELESS,
    USELESS_TO_MEAN,
    PENDING,
    RUNNING,
)
OF_NODES = CHANNELS[:7]

Series = dict[str, list[float | None]]
"""Means over equal parts of the horizon, by name; None for a share of nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to, ready for JSON. Percentages and shares are 0 to 1."""

    name: str
    seed: int
    horizon_seconds: float
    summary: dict[str, Any]
    series: Series
    workloads: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The whole of it."""
        return {
            "scenario": self.name,
            "seed": self.seed,
            "horizonSeconds": self.horizon_seconds,
            "summary": self.summary,
            "series": self.series,
            "workloads": self.workloads,
        }


class Meter:
    """Follows a cluster: between two events everything stays as it is, so that sums over time are exact."""

    def __init__(self, cluster: Cluster, case: Case) -> None:
        """Nothing has happened yet."""
        self._cluster = cluster
        self._case = case
        self._width = case.scenario.horizon / BUCKETS
        self._sums = np.zeros((BUCKETS, len(CHANNELS)))
        self._now = 0.0
        self._values = np.zeros(len(CHANNELS))
        self._most_pending = 0
        self._of_queues: dict[str, float] = {}  # board-seconds charged to each
        self._nodes: dict[str, tuple[float, ...]] = {}
        levels = case.scenario.planner_policy().levels
        self._fragmentation = Fragmentation(cluster.machines, levels, (a.request for a in case.arrivals))

    def advance(self, moment: float) -> None:
        """Add up what has been the case since the last event, until this moment."""
        self._look()
        for queue, boards in self._cluster.charged.items():
            self._of_queues[queue] = self._of_queues.get(queue, 0.0) + boards * (moment - self._now)
        while self._now < moment:
            bucket = min(int(self._now / self._width), BUCKETS - 1)
            end = moment if bucket == BUCKETS - 1 else min(moment, (bucket + 1) * self._width)
            end = max(end, np.nextafter(self._now, np.inf))  # the last bit of a product may round the wrong way
            self._sums[bucket] += self._values * (end - self._now)
            self._now = float(end)

    def _look(self) -> None:
        cluster = self._cluster
        if cluster.touched:
            names, cluster.touched = sorted(cluster.touched), set()
            self._fragmentation.measure(names)
            for name in names:
                counts = _counts(cluster.machines[name])
                before = self._nodes.get(name, (0.0,) * len(OF_NODES))
                self._values[: len(OF_NODES)] += np.subtract(counts, before)
                self._nodes[name] = counts
            free = self._fragmentation.free()
            self._set(FREE, free)
            self._set(USELESS, self._fragmentation.useless())
            self._set(USELESS_TO_MEAN, self._fragmentation.useless_share() * free)
        self._set(PENDING, len(cluster.waiting))
        self._set(RUNNING, len(cluster.lives) - len(cluster.waiting))
        self._most_pending = max(self._most_pending, len(cluster.waiting))

    def _set(self, channel: str, value: float) -> None:
        self._values[CHANNELS.index(channel)] = value

    def result(self, cycles: int, verdicts: Mapping[str, Verdict]) -> Result:
        """What it came to, at the horizon."""
        scenario = self._case.scenario
        lives = sorted([*self._cluster.over, *self._cluster.lives.values()], key=lambda life: life.arrival.at)
        totals = dict(zip(CHANNELS, self._sums.sum(axis=0).tolist(), strict=True))
        reckoner = Costs.of(self._case, self._cluster.machines)
        used = [reckoner.amounts(life) for life in lives]
        return Result(
            name=self._case.name,
            seed=scenario.seed,
            horizon_seconds=scenario.horizon,
            summary=self._summary(lives, totals, cycles) | {"cost": summary(lives, used, scenario.horizon)},
            series=self._series(),
            workloads=[
                _told(life, scenario.horizon, verdicts) | as_data(amounts)
                for life, amounts in zip(lives, used, strict=True)
            ],
        )

    def _summary(self, lives: Sequence[Life], totals: Mapping[str, float], cycles: int) -> dict[str, Any]:
        cluster, horizon = self._cluster, self._case.scenario.horizon
        installed = sum(float(len(machine.boards)) for machine in cluster.machines.values()) * horizon
        waits = [_wait(life, horizon) for life in lives]
        useful = cluster.useful_board_seconds
        return {
            "workloads": {
                "arrived": len(lives),
                "placed": sum(life.placed_at is not None for life in lives),
                "succeeded": sum(life.outcome == "Succeeded" for life in lives),
                "failed": sum(life.outcome == "Failed" for life in lives),
                "neverPlaced": sum(life.placed_at is None for life in lives),
            },
            "waitingSeconds": {
                "p50": _percentile(waits, 50),
                "p90": _percentile(waits, 90),
                "p99": _percentile(waits, 99),
                "max": _round(max(waits, default=0.0)),
                "mean": _round(sum(waits) / len(waits)) if waits else 0.0,
            },
            "pending": {"mean": _round(totals[PENDING] / horizon), "max": self._most_pending},
            "utilisation": {
                "all": _share(totals[HELD], installed),
                "boards": _share(totals[WHOLE_HELD], totals[WHOLE]),
                "slices": _share(totals[SLICES_HELD], totals[SLICES]),
            },
            "fragmentation": {
                "toAll": _share(totals[USELESS], totals[FREE]),
                "toMean": _share(totals[USELESS_TO_MEAN], totals[FREE]),
            },
            "boardHours": {
                "installed": _round(installed / HOUR),
                "held": _round(totals[HELD] / HOUR),
                "useful": _round(useful / HOUR),
            },
            "queues": self._queues(),
            "goodput": _share(useful, totals[HELD]),
            "usd": {"held": _round(totals[USD] / HOUR), "idle": _round(totals[USD_IDLE] / HOUR)},
            "evictions": dict(sorted(cluster.evictions.items())),
            "repartitions": cluster.repartitions,
            "cycles": cycles,
        }

    def _queues(self) -> dict[str, dict[str, float | None]]:
        """What the work of each queue held, and of what its siblings and it held its part and what its weight gives."""
        cluster, cohorts = self._cluster, Cohorts(self._cluster.queues)
        whole: dict[str, float] = {}  # by queue, with those under it
        for queue, seconds in self._of_queues.items():
            for name in cohorts.path(queue):
                whole[name] = whole.get(name, 0.0) + seconds
        found = {}
        for queue in sorted(cluster.queues):
            above = cohorts.path(queue)[1:2]
            siblings = sum(n for name, n in whole.items() if cohorts.path(name)[1:2] == above)
            part = _share(whole.get(queue, 0.0), siblings)
            hours = _round(whole.get(queue, 0.0) / HOUR)
            found[queue] = {"boardHours": hours, "part": part, "due": _round(cluster.due.get(queue, 0.0))}
        return found

    def _series(self) -> Series:
        mean = dict(zip(CHANNELS, (self._sums / self._width).T, strict=True))
        installed = sum(len(machine.boards) for machine in self._cluster.machines.values())
        found = {
            "atSeconds": (np.arange(BUCKETS) + 0.5) * self._width,
            "pending": mean[PENDING],
            "running": mean[RUNNING],
        }
        series: Series = {name: [_round(value) for value in values.tolist()] for name, values in found.items()}
        shares = {
            "allocated": (HELD, np.full(BUCKETS, installed)),
            "boardsAllocated": (WHOLE_HELD, mean[WHOLE]),
            "slicesAllocated": (SLICES_HELD, mean[SLICES]),
            "uselessToAll": (USELESS, mean[FREE]),
            "uselessToMean": (USELESS_TO_MEAN, mean[FREE]),
        }
        for name, (channel, whole) in shares.items():
            series[name] = [_share(part, of) for part, of in zip(mean[channel].tolist(), whole.tolist(), strict=True)]
        return series


def _counts(machine: Machine) -> tuple[float, ...]:
    """A node's part of the channels `OF_NODES`."""
    whole = [board for board in machine.boards if not board.mig_enabled]
    cut = [board for board in machine.boards if board.mig_enabled]
    held = sum(bool(board.holder) for board in whole)
    slices = sum(board.model.memory_slices for board in cut)
    slices_held = sum(i.profile.memory_slices for board in cut for i in board.instances if i.holder)
    boards_held = held + (slices_held / machine.board.memory_slices if cut else 0.0)
    price = machine.board.usd_per_hour
    idle = price * (len(machine.boards) - boards_held)
    return len(whole), held, slices, slices_held, boards_held, price * boards_held, idle


def _wait(life: Life, horizon: float) -> float:
    """From its arrival until all its members had a place; of one that still waits, until the end."""
    return (horizon if life.placed_at is None else life.placed_at) - life.arrival.at


def _told(life: Life, horizon: float, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """One workload's record."""
    arrival, verdict = life.arrival, verdicts.get(life.workload.ref.uid)
    times = {"placedAt": life.placed_at, "startedAt": life.started_at, "endedAt": life.ended_at}
    told: dict[str, Any] = {"name": arrival.name, "kind": arrival.kind.value, "arrivedAt": _round(arrival.at)}
    told |= {key: None if at is None else _round(at) for key, at in times.items()}
    if life.workload.deadline is not None:
        told["deadlineAt"] = _round(life.workload.deadline - EPOCH)
    told |= {"waitedSeconds": _round(_wait(life, horizon)), "evictions": life.evictions, "outcome": life.outcome}
    if life.placed_at is None and verdict is not None:
        told |= {"reason": verdict.reason, "message": verdict.message}
    return told


def _percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of all do not exceed: one that occurs, not one between two."""
    if not values:
        return 0.0
    return _round(sorted(values)[max(0, -(-len(values) * percent // 100) - 1)])


def _share(part: float, whole: float) -> float | None:
    return _round(part / whole) if whole > LEAST else None


def _round(value: float) -> float:
    """To six digits behind the point: what lies beyond is not exact."""
    return round(float(value), 6)
