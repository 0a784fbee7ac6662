"""The fleet of a scenario: pools of nodes, their layouts, where they stand, and when spot capacity is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from berth.api.schema import Fields
from berth.model.gpus import MODELS, BoardModel
from berth.model.resources import duration_seconds, parse_quantity
from berth.planning.layouts import layout_for

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str) and value and re.fullmatch(r"(\d+d)?(\d+h)?(\d+m)?(\d+s)?", value):
        return float(duration_seconds(value))
    raise ValueError("must be seconds, or a duration in days, hours, minutes and seconds such as 90m, 1h30m or 2d")


def _quantity(value: Any) -> str:
    try:
        amount = parse_quantity(value)
    except ValueError:
        amount = parse_quantity(-1)
    if amount < 0 or isinstance(value, bool):
        raise ValueError("must be an amount such as 8, 500m or 64Gi")
    return str(value)


Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": ["number", "string"]})]
Quantity = Annotated[str, BeforeValidator(_quantity), WithJsonSchema({"type": ["number", "string"]})]
Name = Annotated[str, Field(pattern=NAME, max_length=50)]


class Mig(Fields):
    """A MIG layout, and the boards of each node of the pool that have it."""

    boards: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    """Numbers of the boards on their node, from 0."""
    layout: dict[str, Annotated[int, Field(ge=1)]]
    """How many instances of each profile, such as {1g.10gb: 3, 3g.40gb: 1}. {}: MIG enabled, and nothing cut yet."""


class Place(Fields):
    """Where a pool's nodes stand: what their topology labels say. Racks are filled in the order of the nodes."""

    region: str = ""
    """Region of all nodes."""
    zone: str = ""
    """Zone of all nodes."""
    nodes_per_rack: int | None = Field(None, ge=1)
    """Nodes in one rack. Absent: no racks are known."""
    racks_per_leaf: int | None = Field(None, ge=1)
    """Racks under one leaf switch. Absent: no leaves are known."""
    leaves_per_block: int | None = Field(None, ge=1)
    """Leaves in one block. Absent: no blocks are known."""
    clique: Literal["rack"] | None = None
    """rack: the boards of a rack share NVLink, as in an NVL72. Absent: only the boards of a node do."""

    @model_validator(mode="after")
    def _ladder(self) -> Place:
        if (self.racks_per_leaf or self.clique) and not self.nodes_per_rack:
            raise ValueError("racksPerLeaf and clique need racks: set nodesPerRack")
        if self.leaves_per_block and not self.racks_per_leaf:
            raise ValueError("leavesPerBlock needs leaves: set racksPerLeaf")
        return self


class Away(Fields):
    """A time in which a pool's capacity is not there."""

    at: Seconds
    """When it is taken back."""
    lasting: Seconds = Field(alias="for")
    """For how long."""


class SpotWindows(Fields):
    """When spot capacity is there: exactly one of away and trace. All nodes of the pool come and go together."""

    away: list[Away] | None = None
    """When it is not. Else it is."""
    trace: str | None = None
    """File beside the scenario, gzipped where its name ends in .gz: lines of JSON with `pool`, `window`, `gap_seconds`
    and `available`, a list of 0 and 1. After its end the capacity stays as it was seen last."""
    pool: str | None = None
    """Which pool of the file. Absent: the first that has the window."""
    window: int = Field(0, ge=0)
    """Which window of the file."""
    notice: Seconds = 120.0
    """How long before nodes are taken back they say so."""

    @model_validator(mode="after")
    def _one_of(self) -> SpotWindows:
        if (self.away is None) == (self.trace is None):
            raise ValueError("set exactly one of away (a list of times) and trace (a file)")
        return self


class Pool(Fields):
    """Nodes that are alike, named `<name>-0`, `<name>-1` and so on."""

    name: Name
    """Name of the pool."""
    model: str
    """GPU model of their boards, such as H100-80GB."""
    nodes: int = Field(ge=1, le=100_000)
    """Number of nodes."""
    boards: int = Field(8, ge=1, le=16)
    """Boards of each node."""
    cpu: Quantity = "128"
    """CPU of each node that pods can have."""
    memory: Quantity = "1Ti"
    """Memory of each node that pods can have."""
    pods: int = Field(110, ge=1)
    """Pods that each node takes."""
    mig: list[Mig] = Field(default_factory=list)
    """Layouts of the boards that are in MIG mode."""
    layouts_by: Literal["agent", "mig-manager"] | None = None
    """Who can lay out boards anew when the plan wants it. Absent: nobody, the layouts stay as they are."""
    topology: Place = Place()
    """Where the nodes stand."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Further labels of each node."""
    spot: SpotWindows | None = None
    """That its nodes are spot capacity, and when they are there. Absent: they are on demand, or as labels say."""

    @property
    def board(self) -> BoardModel:
        """The model's row of the table."""
        return next(m for m in MODELS if m.name == self.model)

    @model_validator(mode="after")
    def _consistent(self) -> Pool:
        known = [m.name for m in MODELS]
        if self.model not in known:
            raise ValueError(f"model {self.model!r} is not known: {suggestion(self.model, known)}")
        seen: set[int] = set()
        for i, entry in enumerate(self.mig):
            boards = self.boards_of(entry)
            if max(boards, default=0) >= self.boards:
                raise ValueError(f"mig[{i}].boards: board {max(boards)} of nodes with boards 0 to {self.boards - 1}")
            if twice := seen.intersection(boards):
                raise ValueError(f"mig[{i}].boards: board {min(twice)} has a layout already: give each board one")
            if layout_for(self.board, entry.layout, {}) is None:
                profiles = ", ".join(p.name for p in self.board.profiles) or "none: it has no MIG"
                raise ValueError(f"mig[{i}].layout: one {self.model} can't hold it (its profiles: {profiles})")
            seen.update(boards)
        return self

    def boards_of(self, entry: Mig) -> list[int]:
        """The boards that an entry of `mig` speaks of."""
        return list(range(self.boards)) if entry.boards == "all" else entry.boards

    def node_names(self) -> list[str]:
        """The names of its nodes."""
        return [f"{self.name}-{i}" for i in range(self.nodes)]


class Fleet(Fields):
    """The nodes."""

    pools: list[Pool] = Field(min_length=1)
    """Pools of nodes."""


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known."""
    names = sorted(known)
    close = get_close_matches(wrong, names, n=4, cutoff=0.55)
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"did you mean {' or '.join(close)}?" if close else f"use one of {shown}"
