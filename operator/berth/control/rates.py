"""How often nodes fail, by kind of capacity, from what the picture shows; and the checkpoint interval that follows.

A node fails when it stops being ready, or goes away without having been cordoned: who drains a node first does not
count. What was seen is lost with the process; how long each node has run is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.control.picture import Picture
from berth.control.ports import Clock
from berth.control.progress import Saved
from berth.control.records import NodeRecord
from berth.control.status import placement_from
from berth.model.workloads import Placement
from berth.planning.interval import SPOT, STEADY, Hazard, next_interval

LOOK_SECONDS = 60.0  # between two looks at all nodes
SPOT_LABELS = (  # what spot nodes are labelled with (docs of Karpenter, EKS, GKE and AKS)
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
ZONE, PRODUCT = "topology.kubernetes.io/zone", "nvidia.com/gpu.product"

Pool = tuple[bool, str, str]  # spot, zone, product
Raw = Mapping[str, Any]


def pool_of(node: NodeRecord) -> Pool:
    """What a node shares its rate of failure with."""
    labels = node.meta.labels
    spot = any(labels.get(key) == value for key, value in SPOT_LABELS)
    return spot, labels.get(ZONE, ""), labels.get(PRODUCT, "")


@dataclass
class Rates:
    """Looks at the nodes once a minute at most, when asked."""

    picture: Picture
    clock: Clock
    _ended: dict[Pool, Hazard] = field(default_factory=dict)  # from runs that are over
    _seen: dict[str, tuple[NodeRecord, float, float]] = field(default_factory=dict)  # that run: since when, seen since
    _hazards: dict[Pool, Hazard] = field(default_factory=dict)  # with those that go on
    _looked: float = 0.0

    def interval(self, raw: Raw, saved: Saved | None) -> float | None:
        """Seconds until the next save of a running job; None where its user fixed them, or no save was measured."""
        checkpoint = (raw.get("spec") or {}).get("checkpoint") or {}
        placement = (raw.get("status") or {}).get("placement")
        if not checkpoint or checkpoint.get("interval", "auto") != "auto" or saved is None or not placement:
            return None
        try:
            nodes = self._nodes(placement_from(placement))
        except (KeyError, ValueError):
            return None  # not as Berth wrote it; the plan says so
        hazard = self._worst(nodes)
        age = min((self.clock() - self._since(node) for node in nodes), default=0.0)
        return next_interval(hazard, saved.seconds, max(age, 0.0), members=max(1, len(nodes)))

    def mtbf(self, placement: Placement) -> float:
        """Expected seconds between failures of any node of a gang."""
        nodes = self._nodes(placement)
        return self._worst(nodes).overall.mtbf / max(1, len(nodes))

    def _nodes(self, placement: Placement) -> list[NodeRecord]:
        found = (self.picture.nodes.get("", name) for name in dict.fromkeys(placement.nodes))
        return [node for node in found if node is not None]

    def _worst(self, nodes: list[NodeRecord]) -> Hazard:
        """The hazard of the pool that fails most often; of steady capacity where nothing is known."""
        self._look()
        hazards = [self._hazards.get(pool_of(node), _prior(pool_of(node))) for node in nodes] or [Hazard(STEADY)]
        return max(hazards, key=lambda hazard: hazard.overall.per_second)

    def _since(self, node: NodeRecord) -> float:
        return self._seen[node.meta.name][1] if node.meta.name in self._seen else self.clock()

    def _look(self) -> None:
        now = self.clock()
        if self._seen and now - self._looked < LOOK_SECONDS:
            return
        again, self._looked = self._looked > 0, now  # a node that comes back ready begins anew
        running = {node.meta.name: node for node in self.picture.nodes if node.ready}
        for name, (known, began, watched) in list(self._seen.items()):
            node = running.get(name)
            if node is None or node.meta.uid != known.meta.uid:
                pool = pool_of(known)
                ended = self._ended.get(pool, _prior(pool))
                self._ended[pool] = ended.ran(now - began, not known.unschedulable, watched - began)
                del self._seen[name]
        for name, node in running.items():
            _, began, watched = self._seen.get(name, (node, now if again else node.meta.created or now, now))
            self._seen[name] = (node, min(began, now), watched)
        self._hazards = self._going_on(now)

    def _going_on(self, now: float) -> dict[Pool, Hazard]:
        hazards = dict(self._ended)
        for node, began, watched in self._seen.values():
            pool = pool_of(node)
            hazards[pool] = hazards.get(pool, _prior(pool)).ran(now - began, False, watched - began)
        return hazards


def _prior(pool: Pool) -> Hazard:
    return Hazard(SPOT if pool[0] else STEADY)
