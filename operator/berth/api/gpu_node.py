"""GPUNode: what a node's agent sees of its boards and who holds them, and how they should be laid out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from berth.api.common import Condition, Profile, conditions_field
from berth.api.crd import Column, CustomResource
from berth.api.schema import Fields, Reported, Schema, Timestamp, list_map, rule, rules

_ATOMIC: Schema = {"x-kubernetes-list-type": "atomic"}


class WantedInstance(Fields):
    """A MIG instance that should exist."""

    profile: Profile
    """MIG profile, such as 1g.10gb, by any name that drivers give it."""
    start: int = Field(ge=0, le=15)
    """Memory slice where it begins: one of the profile's legal ones."""


class WantedBoard(Fields):
    """The whole layout that a board should have."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.instances) || size(self.instances) == 0 || !has(self.migEnabled) || self.migEnabled",
                "instances exist in MIG mode only: set migEnabled to true, or leave instances out",
                ".migEnabled",
            )
        )
    )

    index: int = Field(ge=0, le=63)
    """The board's number on the node."""
    mig_enabled: bool | None = None
    """Whether it should be in MIG mode. Absent: as it is, or on where instances are wanted."""
    instances: list[WantedInstance] = Field(default_factory=list, max_length=16, json_schema_extra=_ATOMIC)
    """All MIG instances that should exist on it. One that exists already with that profile and start is left alone;
    others are removed, once no pod holds any of them."""


class GPUNodeSpec(Fields):
    """What the operator wants of the node's boards."""

    boards: list[WantedBoard] = Field(default_factory=list, max_length=64, json_schema_extra=list_map("index"))
    """Wanted layouts. Boards that are not named stay as they are."""


class Holder(Reported):
    """The pod that holds a device."""

    namespace: str
    """Its namespace."""
    name: str
    """Its name."""


class Instance(Reported):
    """A MIG instance."""

    uuid: str
    """Its UUID, as the device plugin names it. Empty: it takes up its slices, but no pod can have it."""
    profile: str
    """MIG profile, such as 1g.10gb."""
    gi_profile_id: Annotated[int, Field(alias="giProfileID")]
    """GPU-instance profile id, which is the same for every driver."""
    start: int
    """Memory slice where it begins."""
    size: int
    """Memory slices that it takes."""
    pod: Holder | None = None
    """The pod that holds it. Absent: none."""


class Board(Reported):
    """A GPU."""

    index: int
    """Its number on the node."""
    uuid: str
    """Its UUID, as the device plugin names it."""
    model: str
    """GPU model, such as H100-80GB."""
    memory_mib: Annotated[int, Field(alias="memoryMiB")]
    """Usable memory of the whole board, in MiB."""
    healthy: bool
    """Whether it can be used."""
    mig_enabled: bool
    """Whether it is in MIG mode."""
    watts: int | None = None
    """Power in W: the mean of the last five minutes, to 10 W. Renewed every two minutes or so, where it or utilization
    changed by more than a tenth of what is possible. Absent: nobody can say."""
    utilization: int | None = None
    """Percentage of the time in which anything ran on it, to 5 %: the mean of the last five minutes, renewed with
    watts. In MIG mode the sum of its instances by their compute slices. Absent: nobody can say."""
    pod: Holder | None = None
    """The pod that holds the whole board. Absent: none."""
    instances: list[Instance] | None = Field(None, json_schema_extra=_ATOMIC)
    """MIG instances on the board."""


class Driver(Reported):
    """What the report comes from."""

    name: str
    """Name of the driver's interface, such as nvidia.com/gpu."""


class Counts(Reported):
    """Totals, for printing."""

    boards: int
    """Boards."""
    instances: int
    """MIG instances."""
    held: int
    """Whole boards and MIG instances that a pod holds."""


class Interruption(Reported):
    """What the cloud's metadata service says is about to happen to the node."""

    reason: Literal["SpotInterruption", "NodeTermination", "Maintenance"]
    """What it is: SpotInterruption (the cloud takes a spot node back), NodeTermination (the machine is being deleted)
    or Maintenance (it is rebooted, moved or stopped)."""
    source: str
    """Who says so, such as EC2 instance metadata."""
    noticed_at: Timestamp
    """When the agent heard of it."""
    deadline: Timestamp | None = None
    """When it happens. Absent: nobody says."""


class GPUNodeStatus(Reported):
    """What the agent sees. The object has the node's name."""

    observed_time: Timestamp | None = None
    """When it was seen: renewed every minute, and with every change."""
    observed_generation: int | None = None
    """metadata.generation of the spec that conditions speak of."""
    layouts: Literal["Agent", "None"] | None = None
    """Who carries out spec.boards: Agent, or None where this agent only reports. Absent: no agent runs here."""
    conditions: list[Condition] = conditions_field()
    """LaidOut: whether the boards are as spec.boards wants them. While False, the reason is InProgress, BoardBusy (a
    pod holds what should go; the agent waits), Failed (the driver refused; the agent tries again), or Invalid (the
    spec can't be carried out, and nothing was touched)."""
    driver: Driver | None = None
    """What the report comes from."""
    boards: list[Board] | None = Field(None, json_schema_extra=list_map("index"))
    """The node's GPUs."""
    counts: Counts | None = None
    """Totals, for printing."""
    interruption: Interruption | None = None
    """What the agent heard of the node's end. Absent: nothing."""
    links: list[list[int]] | None = Field(None, json_schema_extra=_ATOMIC)
    """NVLinks between each two boards: row i, column j counts those between boards i and j. Absent: every board has
    all the others in reach, through NVSwitch, or none."""


GPU_NODE = CustomResource(
    kind="GPUNode",
    plural="gpunodes",
    short_name="gn",
    about="What a node's agent sees of its GPUs and MIG instances and which pods hold them, and the layouts wanted.",
    spec=GPUNodeSpec,
    spec_required=False,
    status=GPUNodeStatus,
    cluster_scoped=True,
    columns=(
        Column("Model", ".status.boards[0].model", "GPU model"),
        Column("Boards", ".status.counts.boards", "GPUs", type="integer"),
        Column("Instances", ".status.counts.instances", "MIG instances", type="integer"),
        Column("Held", ".status.counts.held", "Whole boards and MIG instances that a pod holds", type="integer"),
        Column("Laid-Out", ".status.conditions[?(@.type=='LaidOut')].reason", "How far the wanted layouts are"),
        Column("Interruption", ".status.interruption.reason", "Why the node is about to go, if it is"),
        Column("Observed", ".status.observedTime", "Time since the agent last looked", type="date", wide=True),
    ),
)
