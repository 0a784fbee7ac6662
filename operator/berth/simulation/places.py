"""Where pods are pinned or bound, and what they take there: what the planner is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from berth.model.resources import Resources, add


@dataclass(frozen=True, slots=True)
class Place:
    """A pod's node, and what it takes from it."""

    node: str
    needs: Resources
    resource: str  # the extended resource among them


@dataclass
class Places:
    """The places of all pods, by "namespace/name". What a node has is replaced, never changed: a plan may keep it."""

    used: dict[str, Resources] = field(default_factory=dict)  # by node
    holding: dict[str, Mapping[str, float]] = field(default_factory=dict)  # by node: pods, and when each was made
    _of: dict[str, Place] = field(default_factory=dict)

    def take(self, pod: str, created: float, place: Place) -> None:
        """A pod is pinned."""
        self._of[pod] = place
        self.used[place.node] = add(self.used.get(place.node, {}), place.needs)
        self.holding[place.node] = {**self.holding.get(place.node, {}), pod: created}

    def of(self, pod: str) -> Place:
        """The place of a pinned or bound pod."""
        return self._of[pod]

    def leave(self, pod: str) -> Place | None:
        """A pod is gone; the place that it had."""
        place = self._of.pop(pod, None)
        if place is not None:
            used = self.used[place.node]
            self.used[place.node] = {name: n - place.needs.get(name, 0) for name, n in used.items()}
            kept = {name: created for name, created in self.holding[place.node].items() if name != pod}
            self.holding[place.node] = kept
        return place
