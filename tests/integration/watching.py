"""An independent witness: follows every pod, and notes at each event whether a promise was broken."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from berth.adapters.kube import KubeApi
from berth.control.ports import NODES, PODS
from e2e.harness import watch

Json = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"


@dataclass
class Witness:
    """All pods as of the last event, and what was wrong at any event so far."""

    capacity: Mapping[str, Mapping[str, int]]  # GPUs by node and resource, of the nodes that were there at first
    pods: dict[str, Json] = field(default_factory=dict)  # by uid
    broken: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, kind: str, pod: Json) -> None:
        """Take in an event."""
        if kind == "DELETED":
            self.pods.pop(pod["metadata"]["uid"], None)
        else:
            self.pods[pod["metadata"]["uid"]] = pod
        self.broken += [f"{text} (at {pod['metadata']['name']})" for text in self._promised_twice()]
        self.changed.set()

    def members(self, job: str, attempt: int | None = None) -> list[Json]:
        """The pods of a TrainingJob (of that attempt, if given), ended ones included."""
        wanted = {"berth.dev/name": job} | ({"berth.dev/attempt": str(attempt)} if attempt else {})
        return [p for p in self.pods.values() if wanted.items() <= p["metadata"].get("labels", {}).items()]

    def _promised_twice(self) -> list[str]:
        promised: dict[tuple[str, str], int] = defaultdict(int)
        for pod in self.pods.values():
            node = node_of(pod)
            if node and not ended(pod):
                for resource, count in gpus_of(pod).items():
                    promised[node, resource] += count
        return [
            f"{count} of {resource} promised on {node}, which has {self.capacity[node].get(resource, 0)}"
            for (node, resource), count in promised.items()
            if node in self.capacity and count > self.capacity[node].get(resource, 0)
        ]


@asynccontextmanager
async def a_witness(api: KubeApi) -> AsyncIterator[Witness]:
    """Follow the pods while the context lasts."""
    nodes = await api.list(NODES)
    capacity = {n["metadata"]["name"]: _gpus(n["status"].get("allocatable", {})) for n in nodes["items"]}
    listed = await api.list(PODS)
    witness = Witness(capacity, {p["metadata"]["uid"]: p for p in listed["items"]})

    async def follow() -> None:
        async for kind, pod in watch(api, PODS, listed["metadata"]["resourceVersion"]):
            witness.see(kind, pod)

    task = asyncio.create_task(follow())
    try:
        yield witness
    finally:
        if task.done():
            task.result()
        task.cancel()


def node_of(pod: Json) -> str:
    """Where a pod is bound, or, once its gate is gone, pinned to; "" for neither."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    return "" if spec.get("schedulingGates") else str((spec.get("nodeSelector") or {}).get(HOSTNAME, ""))


def ended(pod: Json) -> bool:
    """Whether a pod holds nothing any more."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def gpus_of(pod: Json) -> dict[str, int]:
    """GPUs and instances that a pod asks for."""
    total: dict[str, int] = defaultdict(int)
    for container in pod["spec"]["containers"]:
        for resource, count in _gpus(container.get("resources", {}).get("limits", {})).items():
            total[resource] += count
    return total


def _gpus(resources: Mapping[str, str]) -> dict[str, int]:
    return {name: int(count) for name, count in resources.items() if name.startswith("nvidia.com/")}
