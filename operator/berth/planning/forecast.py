"""What will be asked for next, by what is asked for now and was asked for lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.workloads import Demand, Workload
from berth.planning.options import MIB

HALF_LIFE_SECONDS = 6 * 3600.0  # a demand of this morning says half as much about the next hour as one of now
RUNNING = 0.5  # what runs is served: it counts for what may come after it


def demands(workloads: Iterable[Workload], now: float) -> dict[Demand, float]:
    """How many members ask for what: those that wait count whole, those served the less the longer ago they came."""
    found: dict[Demand, float] = {}
    for w in workloads:
        if w.request is not None and not w.deleting:
            demand = w.request.demand
            found[demand] = found.get(demand, 0.0) + w.request.workers * _weight(w, now)
    return found


def mix_of(model: BoardModel, wanted: Mapping[Demand, float]) -> dict[str, float]:
    """How often each profile of the model, or a whole board of it, is asked for."""
    mix: dict[str, float] = {}
    for demand, weight in wanted.items():
        name = smallest(model, demand)
        if name and weight > 0:
            mix[name] = mix.get(name, 0.0) + weight * (demand.count or 1)
    return mix


def smallest(model: BoardModel, demand: Demand) -> str:
    """The least of the model that satisfies a demand: a profile's name, or WHOLE_BOARD; "" where nothing does."""
    if demand.models and not any(map(model.answers_to, demand.models)):
        return ""
    if demand.count is not None:
        return WHOLE_BOARD
    if demand.profile is not None:
        profile = model.profile(demand.profile)
        return profile.name if profile else ""
    mib = (demand.memory_bytes or 0) / MIB
    able = [p for p in model.profiles if p.usable_mib >= mib]
    if able:
        return min(able, key=lambda p: (p.memory_slices, p.compute_slices, p.media, p.name)).name
    return WHOLE_BOARD if model.memory_mib >= mib else ""


def _weight(w: Workload, now: float) -> float:
    if w.attempt is None and not w.finished and not w.suspend:
        return 1.0
    age = max(0.0, now - (w.finished_at or w.created))
    return RUNNING * float(0.5 ** (age / HALF_LIFE_SECONDS))
