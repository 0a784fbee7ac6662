"""The `GPUNode` object of a node: what a node agent reports, and what a restarted simulator reads back."""

from __future__ import annotations

from typing import Any

from e2e.fakegpu.hardware import Board, Instance, LayoutError, Wanted
from e2e.fakegpu.node import Holder, Node

API_VERSION = "berth.dev/v1alpha1"
COLLECTION = "/apis/berth.dev/v1alpha1/gpunodes"


def gpu_node(name: str, node_uid: str) -> dict[str, Any]:
    """The object without its status, owned by the Node so that it goes with it."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    metadata = {"name": name, "ownerReferences": [owner]}
    return {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata}


def gpu_node_status(node: Node) -> dict[str, Any]:
    """The status, apart from the time of observation."""
    status: dict[str, Any] = {
        "driver": {"name": "gpu.nvidia.com" if node.member.pool.dra else "nvidia.com/gpu"},
        "boards": [_board(node, board) for board in node.boards],
        "counts": {
            "boards": len(node.boards),
            "instances": sum(len(board.instances) for board in node.boards),
            "held": len({device.split("::")[0] for device in node.holders}),
        },
    }
    if node.member.pool.nvlink != "nvswitch":
        status["links"] = [list(row) for row in node.links]
    return status


def _board(node: Node, board: Board) -> dict[str, Any]:
    return {
        "index": board.index,
        "uuid": board.uuid,
        "model": board.model.name,
        "memoryMiB": board.model.memory_mib,
        "healthy": board.healthy,
        "migEnabled": board.mig_enabled,
        "instances": [_instance(node, instance) for instance in board.instances],
        **_pod(node, board.uuid),
    }


def _instance(node: Node, instance: Instance) -> dict[str, Any]:
    profile = instance.placed.profile
    return {
        "uuid": instance.uuid,
        "profile": profile.name,
        "giProfileID": profile.gi_profile_id,
        "start": instance.placed.start,
        "size": profile.memory_slices,
        **_pod(node, instance.uuid),
    }


def _pod(node: Node, uuid: str) -> dict[str, Any]:
    holder = node.holder_of(uuid)
    return {"pod": {"namespace": holder.namespace, "name": holder.name}} if holder else {}


def restore(node: Node, status: dict[str, Any]) -> dict[Holder, list[str]]:
    """Lay the boards as a recorded status says, and return who held what. Boards that don't match stay new."""
    held: dict[Holder, list[str]] = {}
    recorded = {board["uuid"]: board for board in status.get("boards") or ()}
    for board in node.boards:
        record = recorded.get(board.uuid)
        if record is None or record["model"] != board.model.name:
            continue
        instances = record.get("instances") or []
        try:
            board.lay(record["migEnabled"], [Wanted(i["profile"], i["start"]) for i in instances])
        except LayoutError:
            continue
        for device in (record, *instances):
            if pod := device.get("pod"):
                held.setdefault(Holder(pod["namespace"], pod["name"]), []).append(device["uuid"])
    node.relist()
    return held
