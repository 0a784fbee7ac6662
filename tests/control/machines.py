"""A cluster in memory whose nodes have simulated boards, laid out by a simulated mig-manager.

Kubelets hand out devices and refuse pods that come when there are none; nodes report to GPUNodes who holds what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from berth.control.layouts import CONFIG_LABEL
from berth.control.ports import CONFIG_MAPS, GPU_NODES, NODES, PODS, Json
from berth.control.status import to_rfc3339
from e2e.fakegpu.fleet import parse_fleet
from e2e.fakegpu.hardware import Wanted
from e2e.fakegpu.labels import node_labels
from e2e.fakegpu.migmanager import DelayedConfig, MigManager
from e2e.fakegpu.node import Holder, Node, Refused
from e2e.fakegpu.status import gpu_node, gpu_node_status
from tests.control.builders import a_training_job
from tests.control.world import CONFIG_MAP, World

Layouts = list[list[str]]
"""The profiles of each board; an empty list: a whole board."""
HEARTBEAT_SECONDS = 60.0


@dataclass
class Machine:
    """One node: its boards, its mig-manager, and what was last reported."""

    node: Node
    manager: MigManager
    reported: Json = field(default_factory=dict)
    reported_at: float = 0.0
    served: set[str] = field(default_factory=set)  # uids of the pods that have devices


class MachineWorld(World):
    """Nodes "n0", "n1"... with boards laid out as given."""

    def __init__(
        self, *nodes: Layouts, apply_seconds: float = 0.0, delay_seconds: float = 0.0, agents: bool = False
    ) -> None:
        self.agents = agents
        pools = [_pool(i, boards) for i, boards in enumerate(nodes)]
        fleet = parse_fleet({"pools": pools})
        self.config = DelayedConfig(delay_seconds)
        boards = {member.name: Node.of(fleet, member) for member in fleet.fake_nodes()}
        self.machines = {name: Machine(node, MigManager(node, apply_seconds)) for name, node in boards.items()}
        super().__init__()
        namespace, name = CONFIG_MAP
        self.api.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": namespace}, "data": {"config.yaml": CONFIG}})
        for name, machine in self.machines.items():
            self.api.put(NODES, _node_object(machine))
            self.api.put(GPU_NODES, {**gpu_node(name, "u"), "status": {}})
        self.run_machines()

    async def until(self, check: Any, seconds: int = 600) -> None:
        """Let a second pass after the other until something holds."""
        for _ in range(seconds):
            if check():
                return
            await self.turn()
            self.run_controllers()
            self.clock.advance(1.0)
        raise AssertionError(f"not within {seconds} s: {self.api.said()[-12:]}")

    def run_controllers(self) -> None:
        """All others, and then the machines."""
        super().run_controllers()
        self.run_machines()

    def run_machines(self) -> None:
        """Every kubelet, mig-manager and agent does what there is to do."""
        now = self.clock()
        found = self.api.find(CONFIG_MAPS, CONFIG_MAP[1], CONFIG_MAP[0])
        self.config.write(now, (found or {}).get("data", {}).get("config.yaml", ""))
        for name, machine in self.machines.items():
            raw = self.api.find(NODES, name)
            assert raw is not None
            self._admit(name, machine)
            if self.agents:
                self._carry_out(name, machine)
            else:
                machine.manager.label(raw["metadata"]["labels"].get(CONFIG_LABEL, ""))
                machine.manager.step(now, self.config.read(now))
            self._check(machine)
            self._report(name, machine)

    def layout(self, node: str) -> list[list[str]]:
        """The profiles of each board."""
        return [sorted(board.profiles().elements()) for board in self.machines[node].node.boards]

    def run_pod(self, name: str, node: str, **devices: int) -> None:
        """A pod that Berth has nothing to do with."""
        limits = {"nvidia.com/" + key.replace("mig_", "mig-").replace("_", "."): str(n) for key, n in devices.items()}
        self.api.put(
            PODS,
            {
                "metadata": {"name": name, "namespace": "other"},
                "spec": {"nodeName": node, "containers": [{"name": "main", "resources": {"limits": limits}}]},
                "status": {"phase": "Running"},
            },
        )
        self.clock.advance(1.0)  # what is reported in the second that a pod was made may be of before
        self.run_machines()

    def _admit(self, name: str, machine: Machine) -> None:
        bound = [p for p in self.api.all(PODS) if p["spec"].get("nodeName") == name]
        alive = {p["metadata"]["uid"]: p for p in bound if p["status"]["phase"] not in ("Succeeded", "Failed")}
        there = {Holder(p["metadata"]["namespace"], p["metadata"]["name"]) for p in alive.values()}
        for holder in set(machine.node.holders.values()) - there:
            machine.node.release(holder)
        machine.served &= alive.keys()
        for uid in alive.keys() - machine.served:
            pod = alive[uid]
            wants = devices_of(pod)
            try:
                machine.node.admit(Holder(pod["metadata"]["namespace"], pod["metadata"]["name"]), wants)
                machine.served.add(uid)
            except Refused as refusal:
                self.broken.append(f"{pod['metadata']['name']} refused by {name}: {refusal}")
                status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": str(refusal)}
                self._set_status(PODS, pod, status)

    def _carry_out(self, name: str, machine: Machine) -> None:
        """The node's agent lays out what its GPUNode wants; it is trusted to look who holds what."""
        raw = self.api.find(GPU_NODES, name)
        assert raw is not None
        for wanted in (raw.get("spec") or {}).get("boards", ()):
            board = machine.node.boards[wanted["index"]]
            board.lay(wanted["migEnabled"], [Wanted(i["profile"], i["start"]) for i in wanted["instances"]])

    def _check(self, machine: Machine) -> None:
        """No device may go from under a pod."""
        exist = {i.uuid for b in machine.node.boards for i in b.instances} | {
            b.uuid for b in machine.node.boards if not b.mig_enabled
        }
        lost = [device for device in machine.node.holders if device not in exist]
        self.broken += [f"{device} went while {machine.node.holders[device]} held it" for device in lost]

    def _report(self, name: str, machine: Machine) -> None:
        labels = node_labels(machine.node, machine.manager.labels())
        allocatable = {resource: str(n) for resource, n in machine.node.allocatable().items()}
        self.api.edit(NODES, "", name, metadata={"labels": labels}, status={"allocatable": allocatable})
        status = gpu_node_status(machine.node)
        if self.agents:
            seen = self.api.objects[GPU_NODES, "", name]["metadata"]["generation"]
            done = {"type": "LaidOut", "status": "True", "reason": "AsWanted"}
            status |= {"layouts": "Agent", "observedGeneration": seen, "conditions": [done]}
        now = self.clock()
        if status != machine.reported or now >= machine.reported_at + HEARTBEAT_SECONDS:
            machine.reported, machine.reported_at = status, now
            self.api.edit(GPU_NODES, "", name, status={"observedTime": to_rfc3339(now), **status})

    def _has_room(self, node: str, pod: Json) -> bool:
        machine = self.machines[node].node
        free = {r: n - _held(machine, r) for r, n in machine.allocatable().items()}
        return all(free.get(r, 0) >= n for r, n in devices_of(pod).items())

    def _witness(self, call: Any) -> None:
        """The machines see what is broken."""


CONFIG = """version: v1
# what the administrator wrote
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-1g.10gb:
    - devices: all
      mig-enabled: true
      mig-devices:
        "1g.10gb": 7
"""


def a_profile_job(name: str = "llm", profile: str = "3g.40gb", **spec: Any) -> Json:
    """A TrainingJob of one worker on a MIG instance."""
    return a_training_job(name, workers=spec.pop("workers", 1), gpus={"profile": profile}, **spec)


def entries(world: World) -> dict[str, Any]:
    """The entries of mig-manager's configuration."""
    found = world.api.find(CONFIG_MAPS, CONFIG_MAP[1], CONFIG_MAP[0])
    assert found is not None
    parsed: dict[str, Any] = yaml.safe_load(found["data"]["config.yaml"])["mig-configs"]
    return parsed


def devices_of(pod: Json) -> dict[str, int]:
    """GPUs and instances that a pod asks for."""
    total: dict[str, int] = {}
    for container in pod["spec"]["containers"]:
        for name, n in container.get("resources", {}).get("limits", {}).items():
            if name.startswith("nvidia.com/"):
                total[name] = total.get(name, 0) + int(n)
    return total


def _held(node: Node, resource: str) -> int:
    return sum(1 for device in node.devices().get(resource, {}) if device in node.holders)


def _pool(index: int, boards: Layouts) -> Json:
    mig = [
        {"boards": [i], "layout": [{"profile": profile} for profile in profiles]}
        for i, profiles in enumerate(boards)
        if profiles
    ]
    return {"name": f"n{index}", "count": 1, "board": "H100-80GB", "boardsPerNode": len(boards), "mig": mig}


def _node_object(machine: Machine) -> Json:
    name = machine.node.member.name
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }
