"""Fields that several of our objects share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from berth.api.schema import Embedded, Fields, Reported, Text, Timestamp, list_map, rule, rules
from berth.model.resources import parse_quantity

DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_NAME = "must be a lower-case name of letters, digits and '-', such as team-a"

QueueName = Annotated[str, Text((DNS_LABEL,), _NAME, 63)]
ContainerName = Annotated[str, Text((DNS_LABEL,), _NAME, 63)]
PriorityClassName = Annotated[
    str,
    Text(
        (r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",),
        "must be the name of a PriorityClass: lower-case letters, digits, '-' and '.'",
        253,
    ),
]
ClaimName = Annotated[
    str,
    Text(
        (r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",),
        "must be the name of a PersistentVolumeClaim: lower-case letters, digits, '-' and '.'",
        253,
    ),
]
StorageClassName = Annotated[
    str,
    Text(
        (r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",),
        "must be the name of a StorageClass: lower-case letters, digits, '-' and '.'",
        253,
    ),
]
Profile = Annotated[
    str,
    Text(
        (r"^[1-7]g\.[0-9]+gb(\+me(\.all)?|\+gfx|-me)?$",),
        "must be the name of a MIG profile, such as 1g.10gb, 3g.40gb or 1g.10gb+me",
        16,
    ),
]
LevelName = Annotated[
    str,
    Text((r"^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$",), "must name a topology level, such as rack", 63),
]
Duration = Annotated[
    str,
    Text(
        ("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "[1-9]"),
        "must be a duration in days, hours, minutes and seconds, such as 90m, 1h30m or 2d",
        16,
    ),
]

_MEMORY_HELP = "must be a positive amount of memory, such as 18Gi, 40G or 19327352832"
_STORAGE_HELP = "must be a positive amount of storage, such as 500Gi or 2Ti"
_PERCENT = r"^([0-9]|[1-9][0-9]|100)%$"
_PERCENT_HELP = "must be a whole number, at least 0, or a percentage such as 25%"


def _positive(help: str) -> AfterValidator:
    def check(value: int | str) -> int | str:
        try:
            amount = parse_quantity(value)
        except ValueError as error:
            raise ValueError(help) from error
        if amount <= 0:
            raise ValueError(help)
        return value

    return AfterValidator(check)


def _quantity_schema(help: str) -> WithJsonSchema:
    positive = "type(self) == int ? self > 0 : isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))"
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, **rules(rule(positive, help))})


MemoryQuantity = Annotated[int | str, _positive(_MEMORY_HELP), _quantity_schema(_MEMORY_HELP)]
StorageQuantity = Annotated[int | str, _positive(_STORAGE_HELP), _quantity_schema(_STORAGE_HELP)]


def _count_or_percent(value: int | str) -> int | str:
    whole = int(value.removesuffix("%")) if isinstance(value, str) and value[:-1].isdigit() else value
    limit = 100 if isinstance(value, str) else 10**9
    if not isinstance(whole, int) or not 0 <= whole <= limit:
        raise ValueError(_PERCENT_HELP)
    return value


CountOrPercent = Annotated[
    int | str,
    AfterValidator(_count_or_percent),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 4,
            **rules(rule(f"type(self) == int ? self >= 0 : self.matches('{_PERCENT}')", _PERCENT_HELP)),
        }
    ),
]

_ONE_OF = (
    "set exactly one of count (whole boards), profile (a MIG instance) and memory (the smallest of either that fits)"
)


class Gpus(Fields):
    """What each pod gets: whole boards by count, one MIG instance by profile, or the smallest of either by memory."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("[has(self.count), has(self.profile), has(self.memory)].filter(given, given).size() == 1", _ONE_OF)
        )
    )

    count: int | None = Field(None, ge=1, le=72)
    """Whole boards for each pod, all on one node."""
    profile: Profile | None = None
    """MIG profile of the one instance that each pod gets, such as 1g.10gb."""
    memory: MemoryQuantity | None = None
    """GPU memory that each pod needs, in bytes or with a suffix (18Gi): the smallest MIG instance or board whose
    usable memory suffices is taken."""
    models: list[Annotated[str, Field(min_length=1, max_length=63)]] | None = Field(
        None, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """GPU models or families that will do, such as H100-80GB or A100. Absent: any."""
    container: ContainerName | None = None
    """Container of the template that gets the devices. Absent: the first."""

    @model_validator(mode="after")
    def _one_of(self) -> Gpus:
        if sum(given is not None for given in (self.count, self.profile, self.memory)) != 1:
            raise ValueError(_ONE_OF)
        return self


class Parallelism(Fields):
    """How the program splits its work, as far as placement depends on it."""

    tensor: int = Field(1, ge=1, le=10_000)
    """Boards of one tensor-parallel group; they are placed inside one NVLink domain."""


class Container(Embedded):
    """A container, as Kubernetes defines it."""

    name: ContainerName
    """Name of the container, unique in the pod."""


class PodMetadata(Embedded):
    """Labels and annotations of the pods."""

    labels: dict[str, str] | None = None
    """Labels added to each pod. Those under berth.dev/ and batch.kubernetes.io/ are Berth's and Kubernetes's own."""
    annotations: dict[str, str] | None = None
    """Annotations added to each pod."""


class PodSpec(Embedded):
    """A pod's spec, as Kubernetes defines it, without GPUs."""

    containers: list[Container] = Field(min_length=1, max_length=64, json_schema_extra=list_map("name"))
    """Containers of each pod. They name no GPU resources: Berth adds these from spec.gpus."""


class PodTemplate(Embedded):
    """A pod template, as Kubernetes defines it, without GPUs: Berth adds devices, node and environment."""

    metadata: PodMetadata | None = None
    """Labels and annotations of the pods."""
    spec: PodSpec
    """The pods' spec."""


class Condition(Reported):
    """A condition, as Kubernetes defines it."""

    type: Annotated[str, Field(max_length=316)]
    """Name of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = None
    """metadata.generation that the condition was set for."""
    last_transition_time: Timestamp
    """When the status last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word for why."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for why."""


class NodeCause(Reported):
    """How many nodes fail for one cause."""

    cause: str
    """Why these nodes can't take a member."""
    count: int
    """Number of nodes."""


class VerdictStatus(Reported):
    """Why the workload is where it is."""

    reason: str
    """One word: why it waits, or what became of it."""
    message: str
    """A sentence with numbers and the nearest thing that would change it."""
    fits: int | None = None
    """Members that would fit now, while it waits."""
    wanted: int | None = None
    """Members asked for."""
    nodes: list[NodeCause] | None = Field(None, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Nodes that can't take a member, by cause, most first."""
    until: Timestamp | None = None
    """When it begins at the earliest, where it waits for cleaner hours."""
    position: int | None = None
    """Position among the jobs that wait in its queue, from 1. Brought up to date every few seconds, or less often where
    thousands wait."""


class ClaimStatus(Reported):
    """Another workload that room is made for."""

    kind: str
    """TrainingJob or InferenceService."""
    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    uid: str
    """Its uid: one of the same name that is made later is another workload."""
    attempt: int
    """Number of its attempt that is to have the room: what it had once, it may not claim again."""


class DeviceStatus(Reported):
    """What each member's container requests."""

    model: str
    """GPU model, such as H100-80GB."""
    resource: str
    """Extended resource, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb."""
    count: int
    """Pieces of the resource for each member."""


def conditions_field() -> Any:
    """A status's list of conditions."""
    return Field(default_factory=list, max_length=16, json_schema_extra=list_map("type"))
