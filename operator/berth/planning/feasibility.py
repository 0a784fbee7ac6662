"""Whether a node may hold a pod at all: what the kube-scheduler's filters say, room aside."""

from __future__ import annotations

from berth.model.nodes import Node, Taint
from berth.model.workloads import PodShape, Requirement, Spot, Toleration

BINDING_EFFECTS = ("NoSchedule", "NoExecute")


def why_not(node: Node, shape: PodShape) -> str:
    """The first cause that keeps new pods of this shape off the node; "" where none does.

    Worded to follow a number of nodes: "4 tainted".
    """
    if not node.ready:
        return "not ready"
    if node.unschedulable:
        return "cordoned"
    if node.interruption is not None:
        return f"about to go away ({node.interruption.reason})"
    if node.excluded:
        return f"left out ({node.excluded})"
    if node.relayout is not None:
        return "being laid out"
    if any(t.effect in BINDING_EFFECTS and not _tolerated(t, shape.tolerations) for t in node.taints):
        return "tainted"
    if shape.spot is not Spot.ALLOW and node.spot != (shape.spot is Spot.ONLY):
        return "on spot capacity (spec.spot is Never)" if node.spot else "on demand (spec.spot is Only)"
    if shape.markets and (node.spot, node.region) not in shape.markets:
        return "too dear (spec.maxPricePerHour)"
    if any(node.labels.get(key) != value for key, value in shape.node_selector):
        return "outside the node selector"
    if not _admits(shape.affinity, node):
        return "outside the node affinity"
    if not all(_admits(volume, node) for volume in shape.volume_affinity):
        return "out of reach of a bound volume"
    return ""


def unwelcome(node: Node, shape: PodShape) -> bool:
    """Whether the node has a PreferNoSchedule taint that the shape does not tolerate."""
    return any(t.effect == "PreferNoSchedule" and not _tolerated(t, shape.tolerations) for t in node.taints)


def _tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return toleration.key == taint.key and toleration.value == taint.value


def _admits(terms: tuple[tuple[Requirement, ...], ...], node: Node) -> bool:
    """Whether any term holds; no terms admit all, and an empty term admits nothing."""
    return not terms or any(term and all(_holds(r, node) for r in term) for term in terms)


def _holds(requirement: Requirement, node: Node) -> bool:
    name = requirement.key == "metadata.name"
    value = node.name if name else node.labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _number(value) is not None and _above(value, requirement.values)
        case "Lt":
            return _number(value) is not None and _above((requirement.values or ("",))[0], (value or "",))
    return False


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _above(left: str | None, right: tuple[str, ...]) -> bool:
    high, low = _number(left), _number(right[0] if right else None)
    return high is not None and low is not None and high > low
