"""What a GPUNode says: its status from what was seen, and the layouts that its spec wants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from berth.api.gpu_node import GPUNodeSpec
from berth.api.problems import first_problem
from berth.control.board_use import Use
from berth.control.gpus import Gpu, GpuInstance, Inventory, Pod, device_of
from berth.control.laying import AS_WANTED, Layout, Outlook, Place
from berth.control.ports import Json

CONDITION = "LaidOut"
DRIVER = "nvidia.com/gpu"
INTERRUPTION = "interruption"  # the field that what the cloud says of the node is written into, beside the rounds


def wanted_layouts(spec: Mapping[str, Any]) -> tuple[Layout, ...]:
    """What spec.boards wants. Raises Misconfigured for what this version does not understand."""
    try:
        boards = GPUNodeSpec.model_validate(dict(spec)).boards
    except ValidationError as error:
        raise first_problem(error, "spec") from None
    return tuple(Layout(b.index, tuple(Place(i.profile, i.start) for i in b.instances), b.mig_enabled) for b in boards)


def status_of(
    inventory: Inventory, holders: Mapping[str, Pod], may_lay_out: bool, uses: Mapping[str, Use] = MappingProxyType({})
) -> Json:
    """The status without times and conditions: what two looks at the same state have in common.

    `uses` is what it says of each board, by its UUID.
    """
    held = {device_of(device): pod for device, pod in sorted(holders.items(), reverse=True)}
    known = {device for gpu in inventory.gpus for device in gpu.devices}
    status: Json = {
        "layouts": "Agent" if may_lay_out else "None",
        "driver": {"name": DRIVER},
        "boards": [_board(gpu, held, uses.get(gpu.uuid, Use())) for gpu in inventory.gpus],
        "counts": {
            "boards": len(inventory.gpus),
            "instances": sum(len(gpu.instances) for gpu in inventory.gpus),
            "held": len(known & held.keys()),
        },
    }
    if inventory.links is not None:
        status["links"] = [list(row) for row in inventory.links]
    return status


def condition_of(outlook: Outlook, generation: int, recorded: Mapping[str, Any] | None, now: float) -> Json:
    """The condition LaidOut; the time of its last change is that of the recorded one while its status stays."""
    status = "True" if outlook.reason == AS_WANTED else "False"
    kept = recorded is not None and recorded.get("status") == status
    return {
        "type": CONDITION,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": recorded["lastTransitionTime"] if kept and recorded else timestamp(now),
        "reason": outlook.reason,
        "message": outlook.message,
    }


def recorded_condition(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition LaidOut of a status, or None."""
    return next((c for c in status.get("conditions") or () if c["type"] == CONDITION), None)


def timestamp(now: float) -> str:
    """A time as Kubernetes writes it.

    >>> timestamp(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def told_uses(status: Mapping[str, Any]) -> dict[str, Use]:
    """What a status says that its boards do, by UUID."""
    return {board["uuid"]: Use(board.get("watts"), board.get("utilization")) for board in status.get("boards") or ()}


def _board(gpu: Gpu, held: Mapping[str, Pod], use: Use) -> Json:
    done = {"watts": use.watts, "utilization": use.utilization}
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "model": gpu.model.name,
        "memoryMiB": gpu.memory_mib,
        "healthy": gpu.healthy,
        "migEnabled": gpu.mig_enabled,
        "instances": [_instance(gpu, instance, held) for instance in gpu.instances],
        **{name: value for name, value in done.items() if value is not None},
        **_pod(held, gpu.uuid),
    }


def _instance(gpu: Gpu, instance: GpuInstance, held: Mapping[str, Pod]) -> Json:
    profile = gpu.profile_of(instance)
    return {
        "uuid": instance.uuid,
        "profile": profile.name if profile else instance.profile_name,
        "giProfileID": instance.profile_id,
        "start": instance.start,
        "size": instance.size,
        **_pod(held, *instance.devices),
    }


def _pod(held: Mapping[str, Pod], *devices: str) -> Json:
    pod = next((held[device] for device in devices if device in held), None)
    return {"pod": {"namespace": pod.namespace, "name": pod.name}} if pod else {}
