"""What runs: its boards and nodes, how far it is, how old its last checkpoint is, and what its boards do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from berth.cli.told import table
from berth.control.status import from_rfc3339, to_rfc3339
from berth.planning.trials import duration

Raw = Mapping[str, Any]
HEADINGS = ("workload", "queue", "state", "each has", "ready", "nodes", "progress", "ETA", "saved", "used", "power", "")
MOST_NODES = 3  # named in a row
SUFFIX = "[a-z0-9]+"  # that controllers give to names of pods


class Order(StrEnum):
    """By what rows are sorted."""

    BOARDS = "boards"
    NAME = "name"
    PROGRESS = "progress"
    ETA = "eta"
    SAVED = "saved"
    USED = "used"


@dataclass(frozen=True, slots=True)
class Running:
    """One workload that holds boards."""

    kind: str
    namespace: str
    name: str
    queue: str
    state: str
    device: str  # what each member has, such as 8 x H100-80GB
    members: int
    ready: int
    boards: float  # devices of all members: boards or MIG instances
    nodes: tuple[str, ...]  # of a service: none are known
    percent: int | None = None
    ends: float | None = None  # in seconds since the epoch, as the program expects
    saved: float | None = None  # when the last durable checkpoint was made
    used: float | None = None  # percent, the mean of its boards; None: no agent tells
    watts: float | None = None  # of all its boards
    note: str = ""  # why it is not simply running


@dataclass(frozen=True, slots=True)
class Held:
    """A board or MIG instance that a pod holds, and what it does."""

    namespace: str
    pod: str
    used: float | None
    watts: float | None


def running(jobs: Iterable[Raw], services: Iterable[Raw], gpu_nodes: Iterable[Raw]) -> list[Running]:
    """What runs, of objects as the API server lists them."""
    held = [one for raw in gpu_nodes for one in _held(raw)]
    found = [_job(raw, held) for raw in jobs if _is_live(raw)]
    return found + [_service(raw, held) for raw in services if (raw.get("status") or {}).get("readyReplicas")]


def ordered(rows: Sequence[Running], by: Order) -> list[Running]:
    """The rows, those first that are most worth a look; those of which nothing is known last."""
    keys: dict[Order, Callable[[Running], float]] = {
        Order.BOARDS: lambda r: -r.boards,
        Order.NAME: lambda r: 0,
        Order.PROGRESS: lambda r: inf if r.percent is None else -r.percent,
        Order.ETA: lambda r: r.ends or inf,
        Order.SAVED: lambda r: r.saved or (inf if r.kind != "TrainingJob" else 0),
        Order.USED: lambda r: inf if r.used is None else r.used,
    }
    return sorted(rows, key=lambda r: (keys[by](r), r.namespace, r.name, r.kind))


def draw(rows: Sequence[Running], now: float) -> RenderableType:
    """The rows as a table."""
    if not rows:
        return Text("Nothing runs here.")
    return table([_line(row, now) for row in rows], HEADINGS)


def as_data(rows: Sequence[Running], now: float) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    about = {"apiVersion": "berth.dev/v1alpha1", "kind": "RunningWorkloads", "time": to_rfc3339(now)}
    return {**about, "workloads": [_data(row, now) for row in rows]}


def _is_live(raw: Raw) -> bool:
    status = raw.get("status") or {}
    return bool(status.get("placement")) and not status.get("finishedAt")


def _job(raw: Raw, held: Sequence[Held]) -> Running:
    status, metadata = raw["status"], raw["metadata"]
    placement = status["placement"]
    device, nodes = placement["device"], tuple(one["node"] for one in placement["assignments"])
    ready, _, members = str(status.get("ready") or "0/0").partition("/")
    progress = status.get("progress") or {}
    percent = progress.get("percent") if progress.get("attempt") in (None, status.get("attempt")) else None
    own = f"{re.escape(metadata['name'])}-{status.get('attempt')}-[0-9]+-{SUFFIX}"
    used, watts = _use(own, metadata["namespace"], held)
    state = "Stopping" if status.get("stopping") else str(status.get("state") or "Admitted")
    return Running(
        kind="TrainingJob",
        namespace=metadata["namespace"],
        name=metadata["name"],
        queue=str(status.get("queue") or ""),
        state=state,
        device=str(status.get("device") or device["resource"]),
        members=int(members or 0),
        ready=int(ready),
        boards=device["count"] * int(members or 0),
        nodes=nodes,
        percent=percent,
        ends=from_rfc3339(progress.get("estimatedEnd")) or None if percent is not None else None,
        saved=from_rfc3339((status.get("checkpoint") or {}).get("time")) or None,
        used=used,
        watts=watts,
        note="" if state == "Running" else str(status.get("stopping") or _reason(status)),
    )


def _service(raw: Raw, held: Sequence[Held]) -> Running:
    status, metadata = raw["status"], raw["metadata"]
    device = status.get("device") or {"resource": "", "count": 0, "model": ""}
    wanted, ready = int(raw["spec"].get("replicas", 1)), int(status["readyReplicas"])
    used, watts = _use(f"{re.escape(metadata['name'])}-{SUFFIX}-{SUFFIX}", metadata["namespace"], held)
    what = device["resource"].rpartition("mig-")[2] if "mig-" in device["resource"] else str(device["count"])
    joined = "of" if "mig-" in device["resource"] else "x"
    return Running(
        kind="InferenceService",
        namespace=metadata["namespace"],
        name=metadata["name"],
        queue=str(status.get("queue") or ""),
        state="Serving",
        device=f"{what} {joined} {device['model']}",
        members=wanted,
        ready=ready,
        boards=device["count"] * ready,
        nodes=(),
        used=used,
        watts=watts,
        note="" if ready >= wanted else _reason(status),
    )


def _held(gpu_node: Raw) -> list[Held]:
    return [
        Held(pod["namespace"], pod["name"], part.get("utilization"), part.get("watts"))
        for board in (gpu_node.get("status") or {}).get("boards") or ()
        for part in (board, *(board.get("instances") or ()))
        if (pod := part.get("pod"))
    ]


def _reason(status: Raw) -> str:
    return str((status.get("verdict") or {}).get("reason") or "")


def _use(pods: str, namespace: str, held: Sequence[Held]) -> tuple[float | None, float | None]:
    """Use in percent and power in W of the boards of the pods whose names match; None where nobody tells."""
    own = [one for one in held if one.namespace == namespace and re.fullmatch(pods, one.pod)]
    used = [one.used for one in own if one.used is not None]
    watts = [one.watts for one in own if one.watts is not None]
    return (sum(used) / len(used) if used else None), (sum(watts) if watts else None)


def _line(row: Running, now: float) -> tuple[str, ...]:
    more = f" and {len(row.nodes) - MOST_NODES} more" if len(row.nodes) > MOST_NODES else ""
    return (
        f"{'' if row.kind == 'TrainingJob' else 'infer/'}{row.namespace}/{row.name}",
        row.queue,
        row.state,
        row.device,
        f"{row.ready}/{row.members}",
        ", ".join(row.nodes[:MOST_NODES]) + more,
        "" if row.percent is None else f"{row.percent}%",
        "" if row.ends is None else ("now" if row.ends <= now else duration(row.ends - now)),
        "" if row.saved is None else f"{duration(now - row.saved)} ago",
        "" if row.used is None else f"{row.used:.0f}%",
        "" if row.watts is None else f"{row.watts:.0f} W",
        row.note,
    )


def _data(row: Running, now: float) -> dict[str, Any]:
    return {
        "workload": {"kind": row.kind, "namespace": row.namespace, "name": row.name},
        "queue": row.queue,
        "state": row.state,
        "device": row.device,
        "members": row.members,
        "ready": row.ready,
        "nodes": list(row.nodes),
        "percent": row.percent,
        "estimatedEnd": to_rfc3339(row.ends) if row.ends else None,
        "checkpointAgeSeconds": None if row.saved is None else round(now - row.saved),
        "utilizationPercent": row.used,
        "watts": row.watts,
        "reason": row.note or None,
    }
