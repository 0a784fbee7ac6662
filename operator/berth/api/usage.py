"""What workloads used, as their statuses state it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from berth.api.schema import Reported, Timestamp, list_map


class AmountsStatus(Reported):
    """What was used, and what it came to."""

    gpu_hours: float
    """Hours of GPUs, from the admission of an attempt, or the binding of a replica, to the end of the pods. A MIG
    instance is a part of a GPU."""
    kwh: float = Field(alias="kWh")
    """Energy that the GPUs took, with the share of their hosts and of the building."""
    kg: float = Field(alias="kgCO2e")
    """What that emitted, as far as the carbon intensity of its hours is known."""
    usd: float
    """Dollars, by the operator's prices of these hours."""
    unknown_carbon_kwh: float | None = Field(None, alias="unknownCarbonKWh")
    """Energy that is not in kgCO2e, since nobody knows how it was made. Absent: none."""
    on_demand_usd: float
    """What it would have cost to start at once, on demand, in the same region: without the work that was done again."""
    on_demand_kg: float | None = Field(None, alias="onDemandKgCO2e")
    """What that would have emitted. Absent: of some of its hours nobody knows."""


class CapacityUsage(AmountsStatus):
    """What was used of one kind of capacity."""

    model: str
    """GPU model."""
    capacity_type: Literal["on-demand", "spot", "reserved"]
    """How its nodes are paid for."""
    region: str | None = None
    """Where it was used last. Absent: the nodes' labels do not say."""


class WeekUsage(AmountsStatus):
    """What was used in one week."""

    week: str
    """The week after ISO 8601, in UTC, such as 2026-W48."""


class UsageStatus(AmountsStatus):
    """What a workload used so far."""

    until: Timestamp
    """The moment that all this counts to."""
    ran_seconds: float
    """For how long a run that nothing interrupts would have held its GPUs until then."""
    by_capacity: list[CapacityUsage] = Field(json_schema_extra=list_map("model", "capacityType"))
    """The same by kind of capacity, that used last at the end."""
    weeks: list[WeekUsage] = Field(json_schema_extra=list_map("week"))
    """The same by week: the last five in which it used something."""
