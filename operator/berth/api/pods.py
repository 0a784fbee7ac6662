"""What Berth reads of a pod template: as much as placement depends on, and what it must refuse.

The rest is the API server's to judge, by a dry run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from berth.api.schema import Reported
from berth.model.resources import parse_quantity


def _quantity(value: int | float | str) -> int | float | str:
    if parse_quantity(value) < 0:
        raise ValueError("must be at least 0")
    return value


Quantity = Annotated[int | float | str, AfterValidator(_quantity)]


class Metadata(Reported):
    """Labels and annotations of the pods."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class EnvVar(Reported):
    """A variable of a container's environment."""

    name: str
    value: str | None = None


class Resources(Reported):
    """What a container, or a pod as a whole, asks for."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None
    claims: list[Any] | None = None


class Container(Reported):
    """A container or init container."""

    name: str
    env: list[EnvVar] | None = None
    resources: Resources | None = None


class Expression(Reported):
    """One expression of a node selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] | None = None


class SelectorTerm(Reported):
    """A term of a node selector: all its expressions must hold."""

    match_expressions: list[Expression] | None = None
    match_fields: list[Expression] | None = None


class NodeSelector(Reported):
    """A node selector: any of its terms must hold."""

    node_selector_terms: list[SelectorTerm] = Field(min_length=1)


class NodeAffinity(Reported):
    """Which nodes a pod must have."""

    required: NodeSelector | None = Field(None, alias="requiredDuringSchedulingIgnoredDuringExecution")


class PodAffinity(Reported):
    """Which pods a pod must, or must not, be beside."""

    required: list[Any] | None = Field(None, alias="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(Reported):
    """Where a pod may go."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TolerationFields(Reported):
    """A toleration."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class VolumeClaim(Reported):
    """The claim that a volume comes from."""

    claim_name: str


class Volume(Reported):
    """A volume."""

    persistent_volume_claim: VolumeClaim | None = None


class SpreadConstraint(Reported):
    """A topology spread constraint."""

    when_unsatisfiable: str


class PodSpec(Reported):
    """A pod's spec."""

    containers: list[Container] = Field(min_length=1)
    init_containers: list[Container] | None = None
    resources: Resources | None = None
    overhead: dict[str, Quantity] | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[TolerationFields] | None = None
    volumes: list[Volume] | None = None
    topology_spread_constraints: list[SpreadConstraint] | None = None
    restart_policy: str | None = None
    resource_claims: list[Any] | None = None
    scheduling_gates: list[Any] | None = None
    node_name: str | None = None
    hostname: str | None = None
    subdomain: str | None = None
    priority_class_name: str | None = None
    priority: int | None = None
    preemption_policy: str | None = None

    def all_containers(self) -> list[tuple[str, int, Container]]:
        """Containers and init containers, each with the list it stands in and its place there."""
        lists = (("containers", self.containers), ("initContainers", self.init_containers or []))
        return [(name, index, container) for name, items in lists for index, container in enumerate(items)]


class Template(Reported):
    """A pod template."""

    model_config = ConfigDict(extra="forbid")

    metadata: Metadata | None = None
    spec: PodSpec
