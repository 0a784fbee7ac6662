"""Queue: a share of the cluster's GPUs, and the work that waits for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from berth.api.common import DNS_LABEL, Condition, QueueName
from berth.api.crd import Column, CustomResource
from berth.api.schema import Fields, Reported, Text, Timestamp, list_map, rule, rules

MOST_BOARDS = 1_000_000
MOST_HOURS = 1e12
Namespace = Annotated[str, Text((DNS_LABEL,), "must be the name of a namespace, such as team-a", 63)]


_DEFAULT_OUTSIDE = "defaultOf names a namespace that namespaces leaves out: add it there, or drop it from defaultOf"


class Quota(Fields):
    """Boards of one model or family."""

    model: Annotated[str, Field(min_length=1, max_length=63)]
    """GPU model or family, such as H100-80GB or A100. Write it alike in all queues of a tree."""
    nominal: int = Field(ge=0, le=MOST_BOARDS)
    """Boards that the queue owns. A MIG instance counts as its memory slices of a board's."""
    borrowing_limit: Annotated[int, Field(ge=0, le=MOST_BOARDS)] | None = None
    """Boards that the queue's work may hold beyond those it owns, as far as others of its tree lend them. Absent: no
    limit. Of no use without a parent."""
    lending_limit: Annotated[int, Field(ge=0, le=MOST_BOARDS)] | None = None
    """Boards of those it owns that others of its tree may hold while they are not used here. Absent: all. Of no use
    without a parent."""


class Preemption(Fields):
    """Whom the queue's work may have evicted."""

    within_queue: Literal["LowerPriority", "Never"] = "LowerPriority"
    """LowerPriority: work of lower priority in the same queue. Never: none of the same queue."""
    reclaim: Literal["Any", "LowerPriority", "Never"] = "Any"
    """Work of other queues that holds what this one owns: any of it, only what has lower priority, or none."""


class QueueSpec(Fields):
    """What the queue's work may hold, and its place among other queues."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.namespaces) || !has(self.defaultOf) || self.defaultOf.all(n, n in self.namespaces)",
                _DEFAULT_OUTSIDE,
                ".defaultOf",
            )
        )
    )

    parent: QueueName | None = None
    """Queue that this one is under. Queues of one tree lend each other what they own and do not use. Absent: none."""
    quotas: list[Quota] | None = Field(None, max_length=64, json_schema_extra=list_map("model"))
    """Quota by model; models it leaves out are not the queue's to use. Absent: the queue owns nothing and may borrow
    without limit; where no queue of its tree states any, it is unlimited."""
    weight: int = Field(1, ge=1, le=1_000_000)
    """The queue's part of what it and the other queues under its parent compete for, relative to theirs."""
    max_price_per_hour: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = None
    """Dollars per hour, at list prices, that all boards held by the queue and the queues under it may cost. Absent: no
    limit."""
    namespaces: list[Namespace] | None = Field(
        None, max_length=128, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Namespaces whose work may use the queue. Absent: all."""
    default_of: list[Namespace] | None = Field(
        None, max_length=128, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Namespaces whose work comes here when it names no queue. Of several queues that name one, the oldest has it."""
    stop_policy: Literal["None", "Hold", "HoldAndDrain"] = "None"
    """Hold: nothing new is admitted to the queue and those under it. HoldAndDrain: jobs that run there are also
    stopped, to go on later; replicas of services stay."""
    preemption: Preemption = Preemption()
    """Whom the queue's work may have evicted when it has no room."""


class QuotaUsage(Reported):
    """What is used of one quota."""

    model: str
    """GPU model or family, as the quota names it."""
    used: str
    """Boards held by admitted work of the queue and those under it, as an exact fraction such as 9/4."""
    nominal: int | None = None
    """Boards that the queue owns. Absent: it states no quota for the model."""
    borrowed: str | None = None
    """Boards held, by the queue and those under it, beyond what is their own. Absent: none."""
    lent: str | None = None
    """Boards of their own that others of the tree hold. Absent: none."""


class PastUse(Reported):
    """Use of one GPU model by the queue's own work."""

    model: str
    """GPU model."""
    board_hours: float = Field(ge=0, le=MOST_HOURS)
    """Board-hours until countedAt, of which half is forgotten after each half-life."""
    boards: float = Field(ge=0, le=MOST_HOURS)
    """Boards held from then on."""


class FairShareStatus(Reported):
    """How the queue stands among those under the same parent, or among the roots of trees."""

    part: str | None = None
    """Its part of what all of them used lately and hold, such as 0.25."""
    due: str | None = None
    """The part that its weight gives it."""
    counted_at: Timestamp | None = None
    """Until when its use is counted below. It is written again when what is held changes."""
    use: list[PastUse] | None = Field(None, json_schema_extra=list_map("model"))
    """Use by model. Berth goes on from it after a restart."""


class QueueStatus(Reported):
    """What the queue has."""

    pending: int | None = None
    """Workloads that wait."""
    admitted: int | None = None
    """Workloads that hold room."""
    usage: list[QuotaUsage] | None = Field(None, json_schema_extra=list_map("model"))
    """What is used, by model."""
    fair_share: FairShareStatus | None = None
    """Whose turn it is when queues want the same boards."""
    conditions: list[Condition] | None = Field(None, json_schema_extra=list_map("type"))
    """Ready: whether work is admitted; DefaultTaken: whether another queue has a namespace that this one names."""


QUEUE = CustomResource(
    kind="Queue",
    plural="queues",
    short_name="bq",
    about="A share of the cluster's GPUs, and the work that waits for it.",
    spec=QueueSpec,
    status=QueueStatus,
    cluster_scoped=True,
    longest_name=63,
    name_remedy="metadata.name must be at most 63 lower-case letters, digits and '-', and begin with a letter",
    columns=(
        Column("Parent", ".spec.parent", "The queue that it is under"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status", "Whether work is admitted"),
        Column("Pending", ".status.pending", "Workloads that wait", type="integer"),
        Column("Admitted", ".status.admitted", "Workloads that hold room", type="integer"),
        Column("Part", ".status.fairShare.part", "Its part of what it and its siblings used lately"),
        Column("Due", ".status.fairShare.due", "The part that its weight gives it"),
        Column("Weight", ".spec.weight", "Its weight among its siblings", type="integer", wide=True),
    ),
)
