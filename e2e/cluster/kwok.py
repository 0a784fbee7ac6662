"""Nodes without machines: KWOK plays their kubelets, against the API server of any provider.

What its nodes and pods do is written in `kwok-stages.yaml`: pods run until they are deleted or until an
annotation such as `kwok.berth.dev/run-seconds: "30"` ends them.
"""

from __future__ import annotations

from pathlib import Path

from e2e.cluster import processes
from e2e.cluster.binaries import ensure
from e2e.cluster.nodes import create_fake_nodes, list_nodes
from e2e.cluster.waiting import wait_until

STAGES = Path(__file__).with_name("kwok-stages.yaml")
LEASE_SECONDS = 40  # a kubelet's, renewed four times within it; nodes turn Unknown 50 s after their last sign of life
READY_SECONDS = 120  # 1,000 nodes take about 20 on 2 busy cores


def start(folder: Path, kubeconfig: Path, lease_seconds: int = LEASE_SECONDS) -> None:
    """Run KWOK against a cluster, unless it runs already; its record and log lie in `folder`."""
    running = processes.find(folder, "kwok")
    if running is not None and running.alive:
        return
    command: list[str | Path] = [ensure("kwok") / "kwok", "--kubeconfig", kubeconfig, "--config", STAGES]
    command += ["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]
    command += ["--cidr=10.64.0.1/10", f"--node-lease-duration-seconds={lease_seconds}", "--v=WARN"]
    processes.spawn(folder, "kwok", command, environment={"KWOK_WORKDIR": str(folder)})


def added_by(folder: Path) -> dict[str, str]:
    """The label of nodes that `add_nodes` made for this cluster, by which they are found again."""
    return {"e2e.berth.dev/cluster": folder.name}


def add_nodes(folder: Path, kubeconfig: Path, count: int, lease_seconds: int = LEASE_SECONDS) -> None:
    """Start KWOK and give it that many nodes `fake-0`, `fake-1`, ...; returns when they are ready.

    Raises:
        ClusterError: KWOK ended, or nodes are not ready in time.
    """
    start(folder, kubeconfig, lease_seconds)
    names = {f"fake-{number}" for number in range(count)}
    create_fake_nodes(kubeconfig, sorted(names), labels=added_by(folder))

    def ready() -> bool:
        return names <= {node.name for node in list_nodes(kubeconfig) or [] if node.ready}

    wait_until(ready, f"{count} fake nodes are ready", folder=folder, seconds=READY_SECONDS)
