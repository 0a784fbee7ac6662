"""Quantities as Kubernetes writes them, and what a pod asks of its node.

Resources are mappings of name to a whole number: CPU in millicores, all else in its base unit (bytes, pieces).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

Resources = Mapping[str, int]
MOST_EXPONENT = (
    100  # far beyond any amount of anything; the whole value of 1e999999999 would take minutes to write down
)

_SUFFIX = {
    "": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40),
    "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")

_DURATION = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def duration_seconds(text: str) -> int:
    """Seconds of a duration.

    >>> duration_seconds("1h30m")
    5400
    """
    return sum(int(number) * _DURATION[unit] for number, unit in re.findall("([0-9]+)([dhms])", text))


@lru_cache(maxsize=4096)
def parse_quantity(text: str | int | float) -> Fraction:
    """The exact value of a Kubernetes quantity. Raises ValueError on anything else.

    >>> parse_quantity("18Gi") == 18 * 2**30, parse_quantity("250m"), parse_quantity("1e3")
    (True, Fraction(1, 4), Fraction(1000, 1))
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text!r} (examples: 500m, 2, 18Gi)")
    number, exponent, suffix = match.groups()
    if exponent:
        return Fraction(number) * Fraction(10) ** max(-MOST_EXPONENT, min(MOST_EXPONENT, int(exponent[1:])))
    return Fraction(number) * _SUFFIX[suffix or ""]


def to_units(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """A Kubernetes resource list in our units, rounded up as the kubelet does.

    >>> to_units({"cpu": "1500m", "memory": "1Gi", "nvidia.com/gpu": 8})
    {'cpu': 1500, 'memory': 1073741824, 'nvidia.com/gpu': 8}
    """
    return {
        name: -int(-parse_quantity(value) * (1000 if name == "cpu" else 1) // 1)
        for name, value in (resources or {}).items()
    }


def add(left: Resources, right: Resources) -> dict[str, int]:
    """The sum of two resource lists."""
    total = dict(left)
    for name, value in right.items():
        total[name] = total.get(name, 0) + value
    return total


def most(left: Resources, right: Resources) -> dict[str, int]:
    """The larger of each resource."""
    total = dict(left)
    for name, value in right.items():
        total[name] = max(total.get(name, 0), value)
    return total


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """What a pod with this spec takes from its node, as kube-scheduler counts it.

    The sum over containers and restartable init containers (sidecars), or the largest moment of the start (an init
    container beside the sidecars before it), whichever is more; plus the pod's overhead. A limit stands in for a
    missing request. Pod-level resources win over the containers' where given.
    """
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        wants = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            running = add(running, wants)
            peak = most(peak, running)
        else:
            peak = most(peak, add(running, wants))
    for container in spec.get("containers") or ():
        running = add(running, _container_requests(container))
    total = most(running, peak)
    total.update(_container_requests(spec))
    return add(total, to_units(spec.get("overhead")))


def _container_requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    return {**to_units(resources.get("limits")), **to_units(resources.get("requests"))}
