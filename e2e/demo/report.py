"""What became of each workload: where it is, on which boards or MIG instances, and why."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from berth.control.records import ATTEMPT_LABEL, KIND_LABEL, NAME_LABEL
from berth.control.status import is_true, ranks_text
from e2e.demo.install import kubectl

RACK_LABEL = "berth.dev/rack"
RUNNING = ("Running", "Succeeded", "Ready")
COLOURS = {"Running": "green", "Ready": "green", "Succeeded": "green", "Admitted": "cyan", "Failed": "red"}
KINDS = "trainingjobs.berth.dev,inferenceservices.berth.dev,gpunodes.berth.dev,nodes,pods"

Json = Mapping[str, Any]
Pod = tuple[str, str]  # namespace and name


@dataclass(frozen=True)
class Device:
    """A board, or a MIG instance on one, that a pod holds."""

    board: int
    model: str
    profile: str = ""  # "": the whole board
    start: int = 0  # memory slice where the instance begins


@dataclass(frozen=True)
class Member:
    """A pod on its node, with what it holds there as far as the node has reported."""

    node: str
    rack: str
    devices: tuple[Device, ...]

    @property
    def holding(self) -> str:
        """The devices in words."""
        whole = sorted(device.board for device in self.devices if not device.profile)
        words = [f"{d.profile} at slice {d.start} of board {d.board}, {d.model}" for d in self.devices if d.profile]
        if whole:
            words.append(f"board{'s' if len(whole) > 1 else ''} {ranks_text(whole)}, {self.devices[0].model}")
        return "; ".join(words)


@dataclass(frozen=True)
class Row:
    """One workload."""

    name: str
    kind: str
    state: str
    reason: str
    message: str
    members: tuple[Member, ...]

    @property
    def placed(self) -> bool:
        """Whether it has run, or runs on devices that are known."""
        known = bool(self.members) and all(member.devices for member in self.members)
        return self.state == "Succeeded" or (self.state in ("Running", "Ready") and known)

    @property
    def explained(self) -> bool:
        """Whether it waits and is told why."""
        return bool(self.reason) and not self.members


def read(kubeconfig: Path) -> list[Row]:
    """All workloads of the cluster, the running ones first."""
    objects: dict[str, list[Json]] = defaultdict(list)
    for item in json.loads(kubectl(kubeconfig, "get", KINDS, "--all-namespaces", "--output=json"))["items"]:
        objects[item["kind"]].append(item)
    racks = {n["metadata"]["name"]: n["metadata"]["labels"].get(RACK_LABEL, "") for n in objects["Node"]}
    devices = _holders(objects["GPUNode"])
    rows = [_row(w, objects["Pod"], racks, devices) for w in objects["TrainingJob"] + objects["InferenceService"]]
    return sorted(rows, key=lambda row: (row.state not in RUNNING, row.kind != "TrainingJob", row.name))


def table(rows: Iterable[Row]) -> Table:
    """The rows for people."""
    drawn = Table(title="Where every workload landed, and why", title_justify="left", show_lines=True, expand=True)
    for heading, share in (("workload", 10), ("state", 7), ("node (rack)", 14), ("holds", 15), ("why", 24)):
        drawn.add_column(heading, ratio=share)
    for row in rows:
        workload = Text.assemble((row.name, "bold"), "\n", (row.kind, "dim"))
        state = Text(row.state, COLOURS.get(row.state, "yellow"))
        nodes = Text("\n").join(_place(member) for member in row.members)
        holds = Text("\n".join(member.holding for member in row.members))
        why = Text.assemble((row.reason, "bold"), "\n", row.message)
        drawn.add_row(workload, state, nodes, holds, why)
    return drawn


def _place(member: Member) -> Text:
    return Text.assemble(member.node, (f" ({member.rack})" if member.rack else "", "dim"))


def _holders(gpu_nodes: Iterable[Json]) -> dict[Pod, list[Device]]:
    """What each pod holds, as the nodes report it."""
    held: dict[Pod, list[Device]] = defaultdict(list)
    for gpu_node in gpu_nodes:
        for board in gpu_node.get("status", {}).get("boards", ()):
            if pod := board.get("pod"):
                held[pod["namespace"], pod["name"]].append(Device(board["index"], board["model"]))
            for instance in board.get("instances", ()):
                if pod := instance.get("pod"):
                    device = Device(board["index"], board["model"], instance["profile"], instance["start"])
                    held[pod["namespace"], pod["name"]].append(device)
    return held


def _row(workload: Json, pods: Iterable[Json], racks: Mapping[str, str], devices: Mapping[Pod, list[Device]]) -> Row:
    metadata, status = workload["metadata"], workload.get("status", {})
    verdict = status.get("verdict", {})
    if workload["kind"] == "TrainingJob":
        state = status.get("state", "")
    else:
        state = "Ready" if is_true(status.get("conditions"), "Ready") else "Pending"
    members = []
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if _belongs(pod, workload):
            node, key = pod["spec"]["nodeName"], (pod["metadata"]["namespace"], pod["metadata"]["name"])
            members.append(Member(node, racks.get(node, ""), tuple(devices.get(key, ()))))
    return Row(
        metadata["name"], workload["kind"], state, verdict.get("reason", ""), verdict.get("message", ""), tuple(members)
    )


def _belongs(pod: Json, workload: Json) -> bool:
    """Whether it is a bound pod of the workload's latest attempt."""
    labels, metadata = pod["metadata"].get("labels", {}), workload["metadata"]
    attempt = workload.get("status", {}).get("attempt")
    return (
        "nodeName" in pod["spec"]
        and pod["metadata"]["namespace"] == metadata["namespace"]
        and labels.get(KIND_LABEL) == workload["kind"]
        and labels.get(NAME_LABEL) == metadata["name"]
        and (attempt is None or labels.get(ATTEMPT_LABEL) == str(attempt))
    )
