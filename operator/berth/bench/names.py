"""The packers that a replay knows, in a module of its own so that the command line can list them without numpy."""

from __future__ import annotations

from enum import StrEnum


class PolicyName(StrEnum):
    """Ours, and those it is compared with."""

    BERTH = "berth"
    RANDOM = "random"
    BEST_FIT = "bestfit"
    PACKING = "packing"
    FGD = "fgd"
