"""The operator's own plan on recorded spot windows: a simulated cluster of one spot node and one on demand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

from berth.bench.spot_run import Outcome, Terms, Track
from berth.planning.estimates import STARTING_SECONDS
from berth.planning.markets import SAVING_SECONDS
from berth.simulation.case import prepare
from berth.simulation.run import simulate

HOUR = 3600.0
BOARD = "A30"  # any would do: its prices are those of the terms
SAVED_EVERY = 600.0  # seconds; who is told to stop saves as well


def operator(terms: Terms, track: Track) -> Outcome:
    """What comes of a job that the operator runs; nodes are warned of two minutes before they go.

    A start takes the terms' time, and the operator takes it for that, but for what it always allows a gang for saving
    and for its images.
    """
    result = simulate(prepare(track.name, _scenario(terms, track), Path()))
    (job,) = result.workloads
    ended = terms.deadline_hours if job["endedAt"] is None else job["endedAt"] / HOUR
    missed = job["outcome"] != "Succeeded" or ended > terms.deadline_hours
    return Outcome(job["usd"], 0.0, ended - terms.work_hours, missed, job["evictions"] + 1)


def _scenario(terms: Terms, track: Track) -> dict[str, Any]:
    start = terms.restart_hours * HOUR
    node = {"model": BOARD, "nodes": 1, "boards": 1}
    usd = {"model": BOARD, "usdPerHour": terms.on_demand_dollars}
    return {
        "horizon": (terms.deadline_hours + 1) * HOUR,
        "fleet": {
            "pools": [{"name": "spot", **node, "spot": {"away": list(_away(terms, track))}}, {"name": "steady", **node}]
        },
        "prices": {"prices": [usd, {**usd, "capacity": "spot", "usdPerHour": terms.spot_dollars}]},
        "delays": {"pods": 0, "binding": 0, "readiness": start, "termination": 0},
        "policy": {"consolidation": {"restartSeconds": max(1.0, start - STARTING_SECONDS - SAVING_SECONDS)}},
        "workloads": [
            {
                "name": "job",
                "at": 0,
                "duration": terms.work_hours * HOUR,
                "estimatedRuntime": terms.work_hours * HOUR,
                "deadline": terms.deadline_hours * HOUR,
                "gpus": {"count": 1},
                "checkpoint": {"every": SAVED_EVERY},
            }
        ],
    }


def _away(terms: Terms, track: Track) -> Iterator[dict[str, float]]:
    """When there is no spot capacity: where none was seen, and after the window's end."""
    step, at = track.step_hours * HOUR, 0
    after = [False] * ceil((terms.deadline_hours + 1) / track.step_hours)
    for there, looks in groupby([*track.available[0].tolist(), *after]):
        steps = len(list(looks))
        if not there:
            yield {"at": at * step, "for": steps * step}
        at += steps
