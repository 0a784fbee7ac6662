"""How usage is written down and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.control.ports import Json
from berth.control.status import from_rfc3339, to_rfc3339
from berth.model.prices import CapacityType
from berth.model.usage import NO_USAGE, Amounts, Bought, Usage

DIGITS = 6  # of hours, kWh, kg and dollars: sums are written hundreds of times a day


def amounts_status(amounts: Amounts) -> Json:
    """Amounts as status states them; what a start on demand would have emitted is left out where nobody knows."""
    kg = amounts.on_demand_kg
    return {
        "gpuHours": round(amounts.gpu_hours, DIGITS),
        "kWh": round(amounts.kwh, DIGITS),
        "kgCO2e": round(amounts.kg, DIGITS),
        "usd": round(amounts.usd, DIGITS),
        "unknownCarbonKWh": round(amounts.unknown_kwh, DIGITS) or None,
        "onDemandUsd": round(amounts.on_demand_usd, DIGITS),
        "onDemandKgCO2e": None if kg is None else round(kg, DIGITS),
    }


def amounts_from(status: Mapping[str, Any]) -> Amounts:
    """The inverse of `amounts_status`."""
    kg = status.get("onDemandKgCO2e")
    return Amounts(
        float(status.get("gpuHours") or 0),
        float(status.get("kWh") or 0),
        float(status.get("kgCO2e") or 0),
        float(status.get("usd") or 0),
        float(status.get("unknownCarbonKWh") or 0),
        float(status.get("onDemandUsd") or 0),
        None if kg is None else float(kg),
    )


def usage_status(usage: Usage) -> Json:
    """Usage as status states it."""
    return {
        "until": to_rfc3339(usage.until),
        **amounts_status(usage.total),
        "ranSeconds": round(usage.ran_seconds),
        "byCapacity": [
            {"model": one.model, "capacityType": one.capacity.value, "region": one.region or None}
            | amounts_status(one.amounts)
            for one in usage.bought
        ],
        "weeks": [{"week": week} | amounts_status(amounts) for week, amounts in usage.weeks],
    }


def usage_from(status: Mapping[str, Any] | None) -> Usage:
    """The inverse of `usage_status`."""
    if not status:
        return NO_USAGE
    return Usage(
        from_rfc3339(status["until"]),
        float(status.get("ranSeconds") or 0),
        tuple(
            Bought(one["model"], CapacityType(one["capacityType"]), one.get("region") or "", amounts_from(one))
            for one in status.get("byCapacity") or ()
        ),
        tuple((one["week"], amounts_from(one)) for one in status.get("weeks") or ()),
    )
