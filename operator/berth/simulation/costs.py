"""What a run's workloads used and cost, by the operator's own accounts, and which deadlines were missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.model.prices import Place, place_of
from berth.model.usage import NO_USAGE, Amounts, total
from berth.planning.metering import Tariff, holds, metered, useful_seconds, without_reruns
from berth.simulation.case import Case
from berth.simulation.life import Life
from berth.simulation.machines import EPOCH, Machine


@dataclass(frozen=True, slots=True)
class Costs:
    """Reckons what lives came to."""

    tariff: Tariff
    places: Mapping[str, Place]

    @classmethod
    def of(cls, case: Case, machines: Mapping[str, Machine]) -> Costs:
        """By the scenario's prices and carbon series."""
        intensity = case.sky.intensity if case.sky else lambda region, hour: None
        tariff = Tariff(case.scenario.planner_policy().prices, intensity)
        return cls(tariff, {name: place_of(machine.node.labels) for name, machine in machines.items()})

    def amounts(self, life: Life) -> Amounts:
        """What one workload used until its end, or that of the run."""
        usage, created = NO_USAGE, life.workload.created
        for spell in life.spells:
            w = spell.workload
            held = holds(w, lambda node, model: self.places[node], lambda node, pod: None, 0.0, spell.until)
            usage = metered(usage, held, self.tariff, spell.until, created if life.is_job else None)
            if spell.reason:
                usage = without_reruns(usage, held, self.tariff, spell.reason, useful_seconds(w), created)
        return usage.total


def summary(lives: Iterable[Life], used: Iterable[Amounts], horizon: float) -> dict[str, Any]:
    """What all of them came to."""
    due = [life for life in lives if 0 < (life.workload.deadline or 0) <= EPOCH + horizon]
    return as_data(total(used)) | {"deadlines": {"due": len(due), "missed": sum(missed(life) for life in due)}}


def as_data(used: Amounts) -> dict[str, float | None]:
    """Amounts for JSON."""
    return {
        "usd": round(used.usd, 6),
        "onDemandUsd": round(used.on_demand_usd, 6),
        "kWh": round(used.kwh, 6),
        "kgCO2e": None if used.unknown_kwh else round(used.kg, 6),
        "onDemandKgCO2e": None if used.on_demand_kg is None else round(used.on_demand_kg, 6),
    }


def missed(life: Life) -> bool:
    """Whether a job was not done at its deadline."""
    deadline = life.workload.deadline
    if deadline is None:
        return False
    return life.outcome != "Succeeded" or life.ended_at is None or EPOCH + life.ended_at > deadline
