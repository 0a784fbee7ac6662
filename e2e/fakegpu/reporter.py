"""Brings a simulated node's labels and GPUNode to the API server, each written only when it differs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from e2e.fakegpu.kube import ApiError, Kube
from e2e.fakegpu.labels import node_labels
from e2e.fakegpu.migmanager import MigManager
from e2e.fakegpu.node import Node
from e2e.fakegpu.status import API_VERSION, COLLECTION, gpu_node, gpu_node_status

log = logging.getLogger(__name__)

CRD_RETRY_SECONDS = 10.0  # the CRD may be installed after us
HEARTBEAT_SECONDS = 60.0  # between two writes of an unchanged status


@dataclass(slots=True)
class Gate:
    """Shared by all reporters of a program: until when GPUNodes can't be written, since their CRD is missing."""

    closed_until: float = 0.0

    def close(self, now: float) -> None:
        """Let nobody ask for a while."""
        if now >= self.closed_until:
            log.info("no GPUNode resource in this cluster yet; again in %.0f s", CRD_RETRY_SECONDS)
        self.closed_until = now + CRD_RETRY_SECONDS


@dataclass(slots=True)
class Reporter:
    """What was last written about one node."""

    node: Node
    manager: MigManager
    gate: Gate
    base: dict[str, Any] = field(default_factory=dict)  # what else of the Node is ours, as a part of its manifest
    labels: dict[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    uid: str = ""  # of the Node object
    _exists: bool = False  # the GPUNode, as far as we know
    _beat: float = 0.0  # when the status is due though nothing changed

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.member.name

    def forget(self) -> None:
        """The Node is gone, and what was written with it."""
        self.labels, self.status, self._exists = {}, {}, False

    async def write(self, kube: Kube, now: float) -> bool:
        """Write what changed since the last call; False if some of it has to wait. Raises ApiError."""
        if node_labels(self.node, self.manager.labels()) != self.labels:
            await self.apply_node(kube)
        if self.node.member.pool.agent:
            return True
        status = gpu_node_status(self.node)
        if (status != self.status or self.due(now)) and now >= self.gate.closed_until:
            await self._write_status(kube, now, status)
        return status == self.status

    def due(self, now: float) -> bool:
        """Whether the status must be written anew, to show that somebody still looks."""
        return bool(self.status) and now >= self._beat

    async def apply_node(self, kube: Kube) -> Any:
        """Set the node's labels, remove those that are no longer ours, and return the Node as it is then."""
        labels = node_labels(self.node, self.manager.labels())
        metadata = self.base.get("metadata", {})
        metadata = metadata | {"name": self.name, "labels": metadata.get("labels", {}) | labels}
        body = {"apiVersion": "v1", "kind": "Node", **self.base, "metadata": metadata}
        node = await kube.apply(f"/api/v1/nodes/{self.name}", body)
        self.uid, self.labels = node["metadata"]["uid"], labels
        return node

    async def _write_status(self, kube: Kube, now: float, status: dict[str, Any]) -> None:
        path = f"{COLLECTION}/{self.name}"
        observed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": API_VERSION,
            "kind": "GPUNode",
            "metadata": {"name": self.name},
            "status": {"observedTime": observed, **status},
        }
        try:
            if not self._exists:
                await kube.apply(path, gpu_node(self.name, self.uid))
                self._exists = True
            await kube.apply(f"{path}/status", body)
            self.status, self._beat = status, now + HEARTBEAT_SECONDS
        except ApiError as error:
            if error.status != 404:
                raise
            if not self._exists:
                self.gate.close(now)
            self._exists = False  # where someone deleted it, the next write makes it anew
