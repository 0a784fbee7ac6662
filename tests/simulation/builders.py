"""Keyword builders of small scenarios; a test names only what matters to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berth.simulation.case import Case, prepare
from berth.simulation.metrics import Result
from berth.simulation.run import simulate

SCENARIOS = Path(__file__).parents[2] / "docs" / "examples" / "simulations"
HOUR = 3600.0

# With the delays that scenarios have by default, a job that finds room is placed 0.05 s after it arrives (the
# operator's debounce), has its pods 2 s later, pins 0.05 s after that, is bound after 1 s more and ready after 30.
PLACED = 0.05
BOUND = PLACED + 2 + 0.05 + 1
READY = BOUND + 30


def a_pool(name: str = "dgx", *, model: str = "H100-80GB", nodes: int = 1, **more: Any) -> dict[str, Any]:
    """A pool of nodes with eight boards each."""
    return {"name": name, "model": model, "nodes": nodes, **more}


def a_job(name: str = "job", *, gpus: int = 8, at: float = 0, duration: float | None = HOUR, **more: Any) -> Any:
    """A TrainingJob of one worker with a whole node's boards, for an hour."""
    times = {"at": at} | ({} if duration is None else {"duration": duration})
    return {"name": name, "gpus": {"count": gpus}, **times, **more}


def a_service(name: str = "service", **more: Any) -> Any:
    """An InferenceService of one replica with one board, to the end."""
    return a_job(name, kind="InferenceService", **{"gpus": 1, "duration": None, **more})


def a_case(*work: Any, pools: tuple[Any, ...] = (), horizon: float = 10 * HOUR, **more: Any) -> Case:
    """A scenario on one node, unless said otherwise."""
    fields = {"horizon": horizon, "fleet": {"pools": list(pools or (a_pool(),))}, "workloads": list(work), **more}
    return prepare("case", fields, Path())


def run(*work: Any, **more: Any) -> Result:
    """What a small scenario comes to."""
    return simulate(a_case(*work, **more))


def record(result: Result, name: str) -> dict[str, Any]:
    """What became of one workload."""
    return next(told for told in result.workloads if told["name"] == name)
