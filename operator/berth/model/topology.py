"""The ladder of topology levels, from the broadest to the closest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NODE_LABEL = "kubernetes.io/hostname"
NVLINK_LEVEL = "nvlink"  # the level whose domains share NVLink; GB200 NVL72 cliques are such


@dataclass(frozen=True, slots=True)
class Level:
    """One level: its name in manifests, and the node labels that name a node's domain there, the first present wins."""

    name: str
    labels: tuple[str, ...]


DEFAULT_LEVELS: tuple[Level, ...] = (
    Level("region", ("topology.kubernetes.io/region",)),
    Level("zone", ("topology.kubernetes.io/zone",)),
    Level(
        "block",
        (
            "cloud.google.com/gce-topology-block",
            "topology.k8s.aws/network-node-layer-1",
            "oci.oraclecloud.com/host.network_block_id",
            "fabric.topograph.run/tier-1",
            "network.topology.nvidia.com/spine",
        ),
    ),
    Level(
        "leaf",
        (
            "topology.k8s.aws/network-node-layer-2",
            "fabric.topograph.run/tier-0",
            "network.topology.nvidia.com/leaf",
        ),
    ),
    Level(
        "rack",
        (
            "berth.dev/rack",
            "topology.k8s.aws/network-node-layer-3",
            "cloud.google.com/gce-topology-subblock",
            "oci.oraclecloud.com/host.rack_id",
        ),
    ),
    Level(
        NVLINK_LEVEL,
        (
            "nvidia.com/gpu.clique",
            "accelerator.topograph.run/domain",
            "network.topology.nvidia.com/accelerator",
        ),
    ),
    Level("node", (NODE_LABEL,)),
)


def domains_of(labels: Mapping[str, str], levels: tuple[Level, ...]) -> tuple[str, ...]:
    """The node's domain at each level, "" where no label names one."""
    found = []
    for level in levels:  # written out: fleets have thousands of nodes
        for key in level.labels:
            if name := labels.get(key):
                found.append(name)
                break
        else:
            found.append("")
    return tuple(found)


def islands_of(links: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """For each board of a node, the NVLink island it is in, from the number of links between each two boards.

    >>> islands_of(((0, 4, 0, 0), (4, 0, 0, 0), (0, 0, 0, 4), (0, 0, 4, 0)))
    (0, 0, 1, 1)
    """
    island: list[int] = [-1] * len(links)
    for board in range(len(links)):
        if island[board] >= 0:
            continue
        number = max(island, default=-1) + 1
        reached = [board]
        while reached:
            here = reached.pop()
            if island[here] < 0:
                island[here] = number
                reached += [other for other, count in enumerate(links[here][: len(links)]) if count]
    return tuple(island)
