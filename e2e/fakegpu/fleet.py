"""The fleet file: pools of nodes, checked by pydantic, and the nodes that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from berth.model.gpus import BoardModel
from berth.model.resources import parse_quantity
from e2e.fakegpu.hardware import Board, LayoutError, Wanted, board_model, board_uuid

PRESETS = Path(__file__).parent / "presets"


class FleetError(ValueError):
    """A fleet file that can't be used; the message names file and field."""


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _board(name: str) -> str:
    board_model(name)
    return name


Quantity = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_quantity)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class WantedInstance(_Strict):
    """One MIG instance; the driver chooses the start where none is given."""

    profile: str
    start: int | None = None


class BoardLayout(_Strict):
    """A MIG layout and the boards of each node that have it; an empty layout means MIG enabled, nothing created."""

    boards: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    layout: str | list[WantedInstance]  # a name from `layouts`, "all-<profile>", or the instances


class Racks(_Strict):
    """The tree above the nodes, filled from the left."""

    nodes_per_rack: int = Field(ge=1)
    racks_per_leaf: int = Field(default=2, ge=1)
    leaves_per_block: int = Field(default=2, ge=1)


class Sharing(_Strict):
    """How the device plugin shares whole boards among pods."""

    strategy: Literal["time-slicing", "mps"]
    replicas: int = Field(ge=2)


class Pool(_Strict):
    """Nodes that are alike."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=50)
    count: int = Field(default=0, ge=0)  # fake nodes `<name>-<i>`
    nodes: list[str] = []  # instead of a count: one glob for the name of each real node
    board: Annotated[str, AfterValidator(_board)]
    boards_per_node: int = Field(ge=1, le=16)
    machine: str = "fake"
    mig: list[BoardLayout] = []
    mig_strategy: Literal["none", "single", "mixed"] = "mixed"
    nvlink: Literal["nvswitch", "pairs", "none"] = "none"
    sharing: Sharing | None = None
    dra: bool = False  # boards are handed out by a DRA driver, not by a device plugin
    agent: bool = False  # the real node agent reports these boards and lays them out; the fake does not write GPUNodes
    cpu: Quantity = "64"
    memory: Quantity = "512Gi"
    ephemeral_storage: Quantity = "1Ti"
    pods: int = Field(default=110, ge=1)
    region: str = "local"
    zone: str = "local-a"
    racks: Racks | None = None
    clique: Literal["rack"] | None = None  # the NVLink domain that spans nodes
    capacity_type: Literal["on-demand", "spot"] = "on-demand"
    labels: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Pool:
        if bool(self.count) == bool(self.nodes):
            raise ValueError("give either count (fake nodes) or nodes (names of real ones)")
        if self.mig and self.mig_strategy == "none":
            raise ValueError("mig needs migStrategy mixed or single")
        if self.mig and self.sharing:
            raise ValueError("sharing applies to whole boards, so it excludes mig")
        if self.clique and not self.racks:
            raise ValueError("clique: rack needs racks")
        self._check_boards()
        return self

    def _check_boards(self) -> None:
        seen: set[int] = set()
        for entry in self.mig:
            boards = self.boards_of(entry)
            if beyond := [b for b in boards if b >= self.boards_per_node]:
                raise ValueError(f"mig names board {beyond[0]}, but a node has {self.boards_per_node} boards")
            if twice := seen.intersection(boards):
                raise ValueError(f"mig gives board {min(twice)} two layouts")
            seen.update(boards)

    def boards_of(self, entry: BoardLayout) -> list[int]:
        """The board indices that an entry of `mig` speaks of."""
        return list(range(self.boards_per_node)) if entry.boards == "all" else entry.boards


class MigManager(_Strict):
    """The pace and the ConfigMap of the simulated mig-manager."""

    namespace: str = "gpu-operator"
    config_map: str = "default-mig-parted-config"
    config_delay_seconds: float = Field(default=5.0, ge=0)  # a mounted ConfigMap lags behind its object
    apply_seconds: float = Field(default=2.0, ge=0)


class Fleet(_Strict):
    """A whole fleet file."""

    layouts: dict[str, list[WantedInstance]] = {}
    mig_manager: MigManager = MigManager()
    pools: list[Pool] = Field(min_length=1)

    @model_validator(mode="after")
    def _layouts_are_legal(self) -> Fleet:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError("pools: two have the same name")
        for pool in self.pools:
            for index, entry in enumerate(pool.mig):
                try:
                    Board(0, pool.name, board_model(pool.board)).lay(True, self._wanted(pool, entry))
                except LayoutError as error:
                    raise ValueError(f"pools.{pool.name}.mig.{index}.layout: {error}") from None
        return self

    def _wanted(self, pool: Pool, entry: BoardLayout) -> list[Wanted]:
        layout = entry.layout
        if isinstance(layout, str):
            if layout not in self.layouts:
                return _all_of(board_model(pool.board), layout)
            layout = self.layouts[layout]
        return [Wanted(each.profile, each.start) for each in layout]

    def boards(self, pool: Pool, node: str) -> list[Board]:
        """New boards of one node of the pool, laid out as its file says."""
        model = board_model(pool.board)
        boards = [Board(i, board_uuid(node, i), model) for i in range(pool.boards_per_node)]
        for entry in pool.mig:
            for index in pool.boards_of(entry):
                boards[index].lay(True, self._wanted(pool, entry))
        return boards

    def fake_nodes(self) -> Iterator[Member]:
        """Every node that KWOK has to play."""
        for pool in self.pools:
            yield from (Member(pool, ordinal, f"{pool.name}-{ordinal}") for ordinal in range(pool.count))

    def real_node(self, name: str) -> Member:
        """The place in the fleet of a real node; FleetError where no pool's `nodes` match its name."""
        for pool in self.pools:
            for ordinal, pattern in enumerate(pool.nodes):
                if fnmatchcase(name, pattern):
                    return Member(pool, ordinal, name)
        raise FleetError(f"no pool's `nodes` match the node {name!r}")


def _all_of(model: BoardModel, name: str) -> list[Wanted]:
    profile = model.profile(name.removeprefix("all-"))
    if not name.startswith("all-") or profile is None:
        raise LayoutError(f"no layout {name!r}: not in layouts, and not all-<profile of {model.name}>")
    return [Wanted(profile.name)] * profile.max_instances


@dataclass(frozen=True, slots=True)
class Member:
    """One node's place in a pool."""

    pool: Pool
    ordinal: int
    name: str


def load_fleet(name: str) -> Fleet:
    """The fleet of a file, or of a preset by its name. Raises FleetError naming the field at fault."""
    path = Path(name)
    if not path.is_file():
        path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise FleetError(f"no file or preset {name!r} (presets: {', '.join(preset_names())})")
    try:
        return parse_fleet(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise FleetError(f"{name}: {_told(error)}") from None


def parse_fleet(data: Any) -> Fleet:
    """The fleet of parsed YAML; pydantic's ValidationError where it is wrong."""
    return Fleet.model_validate(data)


def preset_names() -> list[str]:
    """Names that `load_fleet` knows without a file."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _told(error: ValidationError | yaml.YAMLError) -> str:
    if isinstance(error, yaml.YAMLError):
        return f"not YAML: {error}"
    problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in error.errors())
    return "; ".join(problems)
