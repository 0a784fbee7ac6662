"""Node pools: capacity that does not exist yet, which an autoscaler makes for pods that wait for it."""

from __future__ import annotations

from dataclasses import dataclass

from berth.model.prices import CapacityType


@dataclass(frozen=True, slots=True)
class NodePool:
    """Nodes alike that an autoscaler makes when pods ask for their labels."""

    name: str
    labels: tuple[tuple[str, str], ...]  # that all of its nodes have, and no others; sorted
    model: str  # BoardModel.name
    boards_per_node: int
    nodes_most: int
    zone: str = ""  # "": it is not known
    region: str = ""  # "": it is not known
    capacity: CapacityType = CapacityType.ON_DEMAND
    provision_seconds: float = 600.0  # who has no nodes of it by then goes elsewhere


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Nodes of a pool that a job asked for, and that did not come in time."""

    pool: str
    at: float  # when it was given up, in seconds since the epoch
