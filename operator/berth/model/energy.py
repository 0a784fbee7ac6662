"""What boards draw, what that emits, and what it costs: P = idle + utilisation x (most - idle), with host and building.

A measurement, where there is one, replaces `board_watts`.
"""

from __future__ import annotations

from berth.model.gpus import BoardModel

IDLE_SHARE = 0.115  # of the rated power: V100 35 of 306 W, A100 46 of 407 W
HOST_SHARE = 0.5  # CPUs, memory, fans and NICs: a DGX H100 peaks at 8.4 kW, of which its boards are rated at 5.6
PUE = {"aws": 1.135, "gcp": 1.10}  # what the building adds, by the clouds' own reports
USUAL_PUE = 1.2  # of a modern data centre; the mean over all is about 1.55


def board_watts(model: BoardModel, utilisation: float) -> float:
    """What one board draws at a utilisation from 0 to 1."""
    idle = IDLE_SHARE * model.power_watts
    return idle + min(max(utilisation, 0.0), 1.0) * (model.power_watts - idle)


def drawn_watts(boards: float, watts: float, *, pue: float = USUAL_PUE, host_share: float = HOST_SHARE) -> float:
    """What boards that draw `watts` each take from the grid, with their share of the host and of the building."""
    return boards * watts * (1 + host_share) * pue


def kilowatt_hours(watts: float, seconds: float) -> float:
    """Energy in kWh.

    >>> kilowatt_hours(500.0, 7200.0)
    1.0
    """
    return watts * seconds / 3.6e6


def kilograms(kwh: float, grams_per_kwh: float) -> float:
    """What this energy emits, in kg CO2e.

    >>> kilograms(2.0, 400.0)
    0.8
    """
    return kwh * grams_per_kwh / 1000
