"""The API objects that the fleet reads, cut down to the fields that it reads, and what follows from them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import msgspec

from e2e.fakegpu.fleet import MigManager as Settings
from e2e.fakegpu.kube import Kube, Meta
from e2e.fakegpu.migmanager import CONFIG_LABEL, DelayedConfig
from e2e.fakegpu.node import Holder

UNHEALTHY = "fakegpu.berth.dev/unhealthy"  # node annotation: comma-separated indices of broken boards
LOAD = "fakegpu.berth.dev/load"  # node annotation: utilization of boards and instances: 0=0.8,2@4=0.35
HOLD = "fakegpu.berth.dev/hold"  # node annotation: while it is there, a repartition that has begun does not end


class _NodeStatus(msgspec.Struct):
    allocatable: dict[str, str] = {}


class NodeObject(msgspec.Struct):
    """A Node."""

    metadata: Meta
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)

    @property
    def mig_config(self) -> str:
        """The entry of mig-manager's configuration that the node's label names; "" for none."""
        return self.metadata.labels.get(CONFIG_LABEL, "")

    @property
    def unhealthy(self) -> list[int]:
        """The boards that the node's annotation declares broken."""
        text = self.metadata.annotations.get(UNHEALTHY, "")
        return [int(part) for part in text.split(",") if part.strip().isdigit()]

    @property
    def load(self) -> dict[str, float]:
        """How busy the node's annotation has its boards and instances; what can't be read counts as not said."""
        parts = (part.strip().partition("=") for part in self.metadata.annotations.get(LOAD, "").split(","))
        found = {device: float(share) for device, _, share in parts if re.fullmatch(r"0(\.\d+)?|1(\.0+)?", share)}
        return {device: share for device, share in found.items() if device}

    @property
    def held(self) -> bool:
        """Whether the node's annotation keeps mig-manager from ending its work."""
        return HOLD in self.metadata.annotations


class _Resources(msgspec.Struct):
    limits: dict[str, str | int] = {}


class _Container(msgspec.Struct):
    resources: _Resources = msgspec.field(default_factory=_Resources)


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] = []


class _PodStatus(msgspec.Struct):
    phase: str = ""


class PodObject(msgspec.Struct):
    """A Pod."""

    metadata: Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def holder(self) -> Holder:
        """The pod as the holder of its devices."""
        return Holder(self.metadata.namespace, self.metadata.name)

    @property
    def ended(self) -> bool:
        """Whether its containers will never run again."""
        return self.status.phase in ("Succeeded", "Failed")

    def devices(self) -> dict[str, int]:
        """The GPU devices that the pod asks for: its containers' sum, or an init container's if larger."""
        running = _sum(self.spec.containers)
        for container in self.spec.init_containers:
            for resource, count in _sum([container]).items():
                running[resource] = max(running.get(resource, 0), count)
        return {resource: count for resource, count in running.items() if count}


def _sum(containers: Iterable[_Container]) -> dict[str, int]:
    total: dict[str, int] = {}
    for container in containers:
        for resource, count in container.resources.limits.items():
            if resource.startswith("nvidia.com/"):
                total[resource] = total.get(resource, 0) + int(count)
    return total


class _ConfigMap(msgspec.Struct):
    metadata: Meta
    data: dict[str, str] = {}


async def follow_config(kube: Kube, settings: Settings, config: DelayedConfig) -> None:
    """Keep `config` at what mig-manager's ConfigMap says, until cancelled; `config.mounted` says that it is read."""
    path = f"/api/v1/namespaces/{settings.namespace}/configmaps"
    listed = False
    async for _, item in kube.watch(path, _ConfigMap, fieldSelector=f"metadata.name={settings.config_map}"):
        if item is not None:  # what was there before us is in the mounted file already
            written = time.monotonic() - (0.0 if listed else settings.config_delay_seconds)
            config.write(written, item.data.get("config.yaml", ""))
        else:
            listed = True
            config.mounted.set()
