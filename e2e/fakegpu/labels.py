"""The labels of a node: what GFD, the GPU Operator, the cloud and Topograph would set.

Keys and meanings follow the outputs of NVIDIA's k8s-device-plugin (GFD) and the GPU Operator's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping

from berth.model.gpus import BoardModel
from e2e.fakegpu.fleet import Member
from e2e.fakegpu.hardware import Placed, silicon_of
from e2e.fakegpu.node import Node

DRIVER = "580.126.20"
CUDA = "13.0"
OPERANDS = ("device-plugin", "gpu-feature-discovery", "dcgm", "dcgm-exporter", "mig-manager")


def node_labels(node: Node, operator: Mapping[str, str]) -> dict[str, str]:
    """Every label of the node; `operator` are those that mig-manager keeps at the moment."""
    labels = {**_place(node.member), **_board(node), **_strategy(node), **operator, **node.member.pool.labels}
    return {key: value for key, value in labels.items() if value}


def _place(member: Member) -> dict[str, str]:
    pool = member.pool
    labels = {
        "topology.kubernetes.io/region": pool.region,
        "topology.kubernetes.io/zone": pool.zone,
        "karpenter.sh/capacity-type": pool.capacity_type,
    }
    if pool.racks is None:
        return labels
    rack = member.ordinal // pool.racks.nodes_per_rack
    leaf = rack // pool.racks.racks_per_leaf
    block = leaf // pool.racks.leaves_per_block
    return labels | {
        "network.topology.nvidia.com/spine": f"{pool.name}-block-{block}",
        "network.topology.nvidia.com/leaf": f"{pool.name}-leaf-{leaf}",
        "berth.dev/rack": f"{pool.name}-rack-{rack}",
        "nvidia.com/gpu.clique": f"{pool.name}-rack-{rack}.0" if pool.clique else "",
    }


def _board(node: Node) -> dict[str, str]:
    model, pool = node.boards[0].model, node.member.pool
    silicon = silicon_of(model)
    major, minor, revision = DRIVER.split(".")
    runtime = CUDA.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.machine": pool.machine,
        "nvidia.com/gpu.family": silicon.family,
        "nvidia.com/gpu.compute.major": str(silicon.compute[0]),
        "nvidia.com/gpu.compute.minor": str(silicon.compute[1]),
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/cuda.driver-version.major": major,
        "nvidia.com/cuda.driver-version.minor": minor,
        "nvidia.com/cuda.driver-version.revision": revision,
        "nvidia.com/cuda.driver-version.full": DRIVER,
        "nvidia.com/cuda.runtime-version.major": runtime[0],
        "nvidia.com/cuda.runtime-version.minor": runtime[1],
        "nvidia.com/cuda.runtime-version.full": CUDA,
        "nvidia.com/mig.capable": str(bool(model.profiles)).lower(),
        "nvidia.com/mps.capable": str(bool(pool.sharing and pool.sharing.strategy == "mps")).lower(),
        "nvidia.com/dra-kubelet-plugin": "true" if pool.dra else "",
        "nvidia.com/mig.strategy": "" if pool.mig_strategy == "none" else pool.mig_strategy,
    }


def _strategy(node: Node) -> dict[str, str]:
    model, pool = node.boards[0].model, node.member.pool
    whole = [board for board in node.boards if not board.mig_enabled]
    single = node.single_profile() if pool.mig_strategy == "single" else None
    if single is not None:
        return _single(node, single)
    replicas = pool.sharing.replicas if pool.sharing else 1
    labels = {
        "nvidia.com/gpu.product": model.products[0] + ("-SHARED" if pool.sharing else ""),
        "nvidia.com/gpu.count": str(len(node.boards)),
        "nvidia.com/gpu.memory": str(model.memory_mib),
        "nvidia.com/gpu.replicas": str(replicas if whole else 0),
        "nvidia.com/gpu.sharing-strategy": pool.sharing.strategy if pool.sharing else "none",
    }
    for placed, count in _instances(node).items():
        labels |= _slices(model, placed, placed.profile.resource, count)
    return labels


def _single(node: Node, profile: str) -> dict[str, str]:
    model = node.boards[0].model
    if profile != "INVALID":
        ((placed, count),) = _instances(node).items()
        return _slices(model, placed, "nvidia.com/gpu", count)
    return {
        "nvidia.com/gpu.product": f"{model.products[0]}-MIG-INVALID",
        "nvidia.com/gpu.count": "0",
        "nvidia.com/gpu.memory": "0",
        "nvidia.com/gpu.replicas": "0",
    }


def _instances(node: Node) -> dict[Placed, int]:
    """One instance of each profile that exists, with how many there are."""
    placed = [instance.placed for board in node.boards for instance in board.instances]
    first = {each.profile.name: each for each in reversed(placed)}
    return {each: sum(p.profile == each.profile for p in placed) for each in first.values()}


def _slices(model: BoardModel, placed: Placed, prefix: str, count: int) -> dict[str, str]:
    profile = placed.profile
    return {
        f"{prefix}.product": f"{model.products[0]}-MIG-{profile.name}".replace("+", "."),
        f"{prefix}.count": str(count),
        f"{prefix}.memory": str(profile.usable_mib),
        f"{prefix}.slices.gi": str(profile.compute_slices),
        f"{prefix}.slices.ci": str(profile.compute_slices),
        f"{prefix}.replicas": "1",
        f"{prefix}.sharing-strategy": "none",
    }
