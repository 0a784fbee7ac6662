"""InferenceService: replicas of a server, each on GPUs of its own, behind one Service."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from berth.api.common import (
    ClaimStatus,
    Condition,
    CountOrPercent,
    DeviceStatus,
    Gpus,
    Parallelism,
    PodTemplate,
    PriorityClassName,
    QueueName,
    VerdictStatus,
    conditions_field,
)
from berth.api.crd import Column, CustomResource
from berth.api.schema import Fields, Reported, rule, rules
from berth.api.terms import CarbonWorth, Spot
from berth.api.usage import UsageStatus

LONGEST_NAME = 63  # of a Service, and of a label's value

_CONTAINER = "names no container of spec.template: use the name of one of them, or leave it out for the first"
_TENSOR = "above 1 needs spec.gpus.count, and must divide it: lower it or ask for more boards"
_ROLLOUT = "maxSurge and maxUnavailable must not both be 0: with neither, no replica could ever be replaced"


class Availability(Fields):
    """How many replicas voluntary disruptions, such as drains, leave standing, and how many spot capacity may take."""

    min_available: CountOrPercent = 1
    """Replicas that stay available during voluntary disruptions: a number or a percentage."""
    on_demand_minimum: CountOrPercent = "50%"
    """Replicas that run on demand, where spec.spot is Allow: a number, or a percentage rounded up. They wait for such
    capacity while it is full; of capacity that does not exist, none is waited for."""
    max_per_spot_pool: CountOrPercent = "25%"
    """Replicas that run on one pool of spot capacity, which is that of one zone: a number, or a percentage rounded up,
    but at least one. So many may be gone at once. More run there only where no other capacity has room."""


class Rollout(Fields):
    """How a changed template reaches the replicas."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!((self.maxSurge == 0 || self.maxSurge == '0%') && "
                "(self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
                _ROLLOUT,
            )
        )
    )

    max_surge: CountOrPercent = "25%"
    """Replicas above the wanted number during a rollout, each with GPUs of its own: a number or a percentage."""
    max_unavailable: CountOrPercent = "25%"
    """Replicas that may be missing during a rollout: a number or a percentage."""

    @model_validator(mode="after")
    def _one_may_move(self) -> Rollout:
        if self.max_surge in (0, "0%") and self.max_unavailable in (0, "0%"):
            raise ValueError(_ROLLOUT)
        return self


class InferenceServiceSpec(Fields):
    """What serves, and what each replica needs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.gpus.container) || "
                "self.template.spec.containers.exists(container, container.name == self.gpus.container)",
                _CONTAINER,
                ".gpus.container",
            ),
            rule(
                "self.parallelism.tensor == 1 || "
                "has(self.gpus.count) && self.gpus.count % self.parallelism.tensor == 0",
                _TENSOR,
                ".parallelism.tensor",
            ),
        )
    )

    queue_name: QueueName | None = None
    """Queue whose quota the service is charged to. Absent: the label kueue.x-k8s.io/queue-name, else "default"."""
    priority_class_name: PriorityClassName | None = None
    """PriorityClass that orders the service among others in Berth. Its pods run under Berth's own class."""
    gpus: Gpus
    """GPUs of each replica."""
    parallelism: Parallelism = Parallelism()
    """How the server splits its model."""
    replicas: int = Field(1, ge=0, le=10_000)
    """Pods that serve. Autoscalers set it through the scale subresource."""
    port: int = Field(8080, ge=1, le=65_535)
    """TCP port that the container listens on, and that the Service offers."""
    availability: Availability = Availability()
    """How many replicas voluntary disruptions leave standing, and how many spot capacity may take."""
    spot: Spot = "Allow"
    """Never: no replica on spot nodes. Allow: those above availability.onDemandMinimum where they cost least,
    interruptions counted. Only: on nothing else. Replicas that run stay where they are."""
    carbon: CarbonWorth | None = None
    """What emitting less is worth: it decides in which region, and on which capacity, new replicas run. Absent: carbon
    plays no part."""
    rollout: Rollout = Rollout()
    """How a changed template reaches the replicas."""
    template: PodTemplate
    """Template of the replicas' pods."""


class InferenceServiceStatus(Reported):
    """What became of the service."""

    observed_generation: int | None = None
    """metadata.generation that this status answers."""
    queue: str | None = None
    """Queue that the service is charged to."""
    replicas: int | None = None
    """Pods that exist."""
    ready_replicas: int | None = None
    """Pods that are ready."""
    selector: str | None = None
    """Label selector of the pods, as autoscalers read it."""
    url: str | None = None
    """Address inside the cluster."""
    conditions: list[Condition] = conditions_field()
    """Ready, Admitted, Misconfigured."""
    verdict: VerdictStatus | None = None
    """Why the service is where it is."""
    gave_way_to: ClaimStatus | None = None
    """For whom replicas were stopped: their room is kept for that one until it has a place. Absent: for nobody."""
    shed: list[str] | None = Field(None, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Uids of the pods that are stopped for it."""
    device: DeviceStatus | None = None
    """What each replica's container requests."""
    usage: UsageStatus | None = None
    """What it used so far, brought up to date every few minutes. Absent: nothing yet."""


INFERENCE_SERVICE = CustomResource(
    kind="InferenceService",
    plural="inferenceservices",
    short_name="infer",
    about="Replicas of a server, each on GPUs of its own, behind one Service.",
    spec=InferenceServiceSpec,
    status=InferenceServiceStatus,
    longest_name=LONGEST_NAME,
    name_remedy=(
        f"metadata.name must be at most {LONGEST_NAME} lower-case letters, digits and '-', and begin with a letter: "
        "it becomes the name of a Service"
    ),
    columns=(
        Column("URL", ".status.url", "Address inside the cluster"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether it serves"),
        Column("Reason", ".status.verdict.reason", "Why"),
        Column("Replicas", ".status.readyReplicas", "Ready replicas", type="integer"),
        Column("GPU", ".status.device.resource", "What each replica has"),
        Column("Model", ".status.device.model", "GPU model", wide=True),
        Column("Queue", ".status.queue", "Queue that the service is charged to", wide=True),
    ),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)
