"""How often nodes fail, by kind of capacity, from what the picture shows; and the checkpoint interval that follows.

A node fails when it stops being ready, or goes away: neither cordoned before, nor drained or under maintenance. Spot
capacity that is taken back has failed whoever cordoned it meanwhile. `control.keeping` keeps what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from berth.control.interruptions import SPOT as TAKEN_BACK
from berth.control.interruptions import TERMINATION, interruption_of
from berth.control.observe import board_of
from berth.control.picture import Picture
from berth.control.ports import Clock
from berth.control.progress import Saved
from berth.control.records import NodeRecord
from berth.control.status import placement_from
from berth.model.prices import CapacityType, capacity_of, region_of
from berth.model.workloads import Placement
from berth.planning.interval import SPOT, STEADY, Hazard, next_interval
from berth.planning.spells import Sightings, looked

LOOK_SECONDS = 60.0  # between two looks at all nodes
FORGOTTEN_HOURS = 24.0  # who has no spot nodes for so long may not want any
ZONE, PRODUCT = "topology.kubernetes.io/zone", "nvidia.com/gpu.product"

Pool = tuple[bool, str, str]  # spot, zone, product
Raw = Mapping[str, Any]


def pool_of(node: NodeRecord) -> Pool:
    """What a node shares its rate of failure with."""
    labels = node.meta.labels
    return capacity_of(labels) is CapacityType.SPOT, labels.get(ZONE, ""), labels.get(PRODUCT, "")


@dataclass(frozen=True, slots=True)
class _Run:
    """A node that runs."""

    node: NodeRecord  # as it was last seen
    began: float
    watched: float  # since when
    interruption: str  # the reason of what interrupts it; "": nothing does

    @property
    def fails(self) -> bool:
        """Whether it has failed if it is seen no more."""
        if self.interruption:
            return self.interruption in (TAKEN_BACK, TERMINATION)
        return not self.node.unschedulable


@dataclass
class Rates:
    """Looks at the nodes once a minute at most, when asked."""

    picture: Picture
    clock: Clock
    _ended: dict[Pool, Hazard] = field(default_factory=dict)  # from runs that are over
    _seen: dict[str, _Run] = field(default_factory=dict)  # by name
    _hazards: dict[Pool, Hazard] = field(default_factory=dict)  # with those that go on
    _sightings: Mapping[tuple[str, str], Sightings] = field(default_factory=dict)  # of spot capacity
    _given_up: set[tuple[str, str]] = field(default_factory=set)  # of which a node left though nobody took it
    _looked: float = 0.0
    _means: Mapping[tuple[str, str], float] = field(default_factory=dict)  # of spot nodes, at the last look
    _means_at: float = 0.0

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
        self.look()
        hazards = [self._hazards.get(pool_of(node), _prior(pool_of(node))) for node in nodes] or [Hazard(STEADY)]
        return max(hazards, key=lambda hazard: hazard.overall.per_second)

    def _since(self, node: NodeRecord) -> float:
        return self._seen[node.meta.name].began if node.meta.name in self._seen else self.clock()

    def taken_back(self) -> Mapping[tuple[str, str], float]:
        """How often a spot node fails, per second, by region and board model: the mean over its pools, by nodes."""
        self.look()
        if self._means_at != self._looked:
            rates: dict[tuple[str, str], list[float]] = {}
            for run in self._seen.values():
                pool, labels = pool_of(run.node), run.node.meta.labels
                if pool[0] and (board := board_of(labels)) is not None:
                    found = rates.setdefault((region_of(labels), board.name), [])
                    found.append(self._hazards[pool].overall.per_second)
            self._means, self._means_at = {key: fmean(found) for key, found in rates.items()}, self._looked
        return self._means

    def spot(self) -> Mapping[tuple[str, str], Sightings]:
        """How spot capacity came and went, by region and board model, at the last look.

        There is some where a node of it is ready, and nothing takes it away. What has left by itself, as where an
        autoscaler had no use for it any more, or has been away for FORGOTTEN_HOURS, is not known any more.
        """
        self.look()
        return self._sightings

    def evidence(self) -> dict[Pool, Hazard]:
        """What was seen so far of each pool."""
        self.look()
        return dict(self._hazards)

    def recall(self, evidence: Mapping[Pool, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Count what an operator before this one saw: failures and seconds by age."""
        for pool, (failures, seconds) in evidence.items():
            known = self._ended.get(pool, _prior(pool))
            self._ended[pool] = replace(
                known,
                failures=tuple(a + b for a, b in zip(known.failures, failures, strict=True)),
                seconds=tuple(a + b for a, b in zip(known.seconds, seconds, strict=True)),
            )
        self._hazards = self._going_on(self.clock())

    def look(self) -> None:
        """See which nodes run, and which do no more, unless that was just done."""
        now = self.clock()
        if not len(self.picture.nodes) or (self._seen and now - self._looked < LOOK_SECONDS):
            return
        last = self._looked
        again, self._looked = last > 0, now  # a node that comes back ready begins anew
        running = {node.meta.name: node for node in self.picture.nodes if node.ready}
        for name, run in list(self._seen.items()):
            node = running.get(name)
            if node is None or node.meta.uid != run.node.meta.uid:
                run = self._as_left(run, now)
                pool = pool_of(run.node)
                ended = self._ended.get(pool, _prior(pool))
                self._ended[pool] = ended.ran(now - run.began, run.fails, run.watched - run.began)
                if not run.fails and (board := board_of(run.node.meta.labels)) is not None:
                    self._given_up.add((region_of(run.node.meta.labels), board.name))
                del self._seen[name]
        for name, node in running.items():
            known = self._seen.get(name)
            began, watched = (
                (known.began, known.watched) if known else (now if again else node.meta.created or now, now)
            )
            self._seen[name] = _Run(node, min(began, now), watched, self._interruption(node, now))
        self._hazards = self._going_on(now)
        self._look_at_spot(now - last if again else 0.0)

    def _look_at_spot(self, seconds: float) -> None:
        """Note which spot capacity is there, so many seconds after the last look."""
        there = {key: False for key, seen in self._sightings.items() if seen.up or seen.age_hours < FORGOTTEN_HOURS}
        for key in self._given_up:
            there.pop(key, None)
        for run in self._seen.values():
            labels = run.node.meta.labels
            if capacity_of(labels) is CapacityType.SPOT and (board := board_of(labels)) is not None:
                key = region_of(labels), board.name
                there[key] = there.get(key, False) or not run.interruption
        self._given_up = set()
        self._sightings = looked(self._sightings, there, seconds)

    def _as_left(self, run: _Run, now: float) -> _Run:
        """A run that is over, with what is said of its node now where that is still there."""
        node = self.picture.nodes.get("", run.node.meta.name)
        if node is None or node.meta.uid != run.node.meta.uid:
            return run
        return replace(run, node=node, interruption=self._interruption(node, now) or run.interruption)

    def _interruption(self, node: NodeRecord, now: float) -> str:
        found = interruption_of(node, self.picture.gpu_nodes.get("", node.meta.name), now)
        return found.reason if found else ""

    def _going_on(self, now: float) -> dict[Pool, Hazard]:
        hazards = dict(self._ended)
        for run in self._seen.values():
            pool = pool_of(run.node)
            hazards[pool] = hazards.get(pool, _prior(pool)).ran(now - run.began, False, run.watched - run.began)
        return hazards


def _prior(pool: Pool) -> Hazard:
    return Hazard(SPOT if pool[0] else STEADY)
