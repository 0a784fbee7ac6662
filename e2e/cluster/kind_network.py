"""The pod network of nodes made by `node_image`: static routes between nodes that are all known from the start.

Where kind's own node image is used, its kindnet and kube-proxy DaemonSets do this work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from e2e.cluster.engine import Engine

SCRIPT = "/kind/bin/pod-network.sh"
INSTALL = f'printf %s "$1" > {SCRIPT} && chmod 755 {SCRIPT} && systemctl enable --quiet --now pod-network kube-proxy'


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node's name, its own address, and the subnet of its pods."""

    name: str
    address: str
    pod_subnet: str


def nodes_of(listed: str) -> list[Node]:
    """The nodes in the JSON that `kubectl get nodes` prints, each with its pod subnet assigned."""
    return [
        Node(
            name=item["metadata"]["name"],
            address=next(a["address"] for a in item["status"]["addresses"] if a["type"] == "InternalIP"),
            pod_subnet=item["spec"]["podCIDR"],
        )
        for item in json.loads(listed)["items"]
    ]


def connect(engine: Engine, nodes: Sequence[Node], *, pod_network: str) -> None:
    """Give every node its CNI configuration, routes to the others' pods, and a running kube-proxy."""

    def install(node: Node) -> None:
        script = setup_script(node, nodes, pod_network=pod_network)
        engine.docker("exec", node.name, "sh", "-c", INSTALL, "sh", script)

    with ThreadPoolExecutor() as pool:
        list(pool.map(install, nodes))


def setup_script(node: Node, nodes: Sequence[Node], *, pod_network: str) -> str:
    """What the node runs now and whenever it starts. Traffic that leaves the pod network takes the node's address."""
    rule = f"POSTROUTING -s {pod_network} ! -d {pod_network} -j MASQUERADE"
    routes = [f"ip route replace {other.pod_subnet} via {other.address}" for other in nodes if other != node]
    lines = [
        "#!/bin/sh",
        "set -eu",
        f"cat > /etc/cni/net.d/10-pods.conflist <<'END'\n{cni_configuration(node)}\nEND",
        f"iptables -w -t nat -C {rule} 2>/dev/null || iptables -w -t nat -A {rule}",
        *routes,
    ]
    return "\n".join(lines) + "\n"


def cni_configuration(node: Node) -> str:
    """Pods hang off their node by a pair of virtual interfaces each, with addresses from its subnet."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": node.pod_subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})
