"""The Kubernetes objects that run the device plugin on every real worker of a cluster."""

from __future__ import annotations

import copy
from typing import Any

NAMESPACE = "gpu-operator"
NAME = "berth-fakegpu"
KUBELET = "/var/lib/kubelet"
SHARED = "/run/berth-fakegpu"  # where the real node agent finds the simulated boards
METADATA_PORT = 8765  # of the fake metadata services, in the plugin's pod on each node

Manifest = dict[str, Any]


def plugin_manifests(image: str, fleet: str = "kind") -> list[Manifest]:
    """Namespace, least rights and DaemonSet, for `kubectl apply` in this order; `fleet` is a preset of the image."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata()},
        *_rights("ClusterRole", _CLUSTER_RULES),
        *_rights("Role", _NAMESPACE_RULES),
        _daemon_set(image, fleet),
    ]


def on_simulated_boards(agent: Manifest, image: str, cloud: str = "aws") -> Manifest:
    """The chart's DaemonSet of node agents, with the boards that our plugin serves in place of NVML.

    They listen to the plugin's fake metadata service of that cloud, aws, gce or azure.
    """
    changed = copy.deepcopy(agent)
    pod = changed["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = [option for option in container["args"] if option.startswith("--pod-resources=")]
    container |= {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "agent",
            "--node=$(NODE_NAME)",
            f"--shared={SHARED}",
            f"--interruptions={cloud}",
            f"--metadata-endpoint=http://$(HOST_IP):{METADATA_PORT}/machines/$(NODE_NAME)",
            *options,
        ],
    }
    container["env"].append({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
    container["volumeMounts"].append({"name": "shared", "mountPath": SHARED})
    pod["volumes"].append({"name": "shared", "hostPath": {"path": SHARED, "type": "DirectoryOrCreate"}})
    return changed


_CLUSTER_RULES = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": ["berth.dev"], "resources": ["gpunodes"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": ["berth.dev"], "resources": ["gpunodes/status"], "verbs": ["patch"]},
]
_NAMESPACE_RULES = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]


def _metadata() -> Manifest:
    return {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": NAME}}


def _rights(kind: str, rules: list[Manifest]) -> list[Manifest]:
    """A role and its binding to our service account."""
    metadata = {"name": NAME} if kind == "ClusterRole" else {"name": NAME, "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": kind, "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    ]


def _daemon_set(image: str, fleet: str) -> Manifest:
    labels = {"app.kubernetes.io/name": NAME}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _metadata(),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, fleet)},
        },
    }


def _pod(image: str, fleet: str) -> Manifest:
    folders = ("device-plugins", "pod-resources")
    return {
        "serviceAccountName": NAME,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _real_workers()}},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 5,
        "hostNetwork": True,  # so the fake metadata services are at the node's address
        "containers": [
            {
                "name": "plugin",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "plugin",
                    f"--fleet={fleet}",
                    "--node=$(NODE_NAME)",
                    f"--kubelet={KUBELET}",
                    f"--shared={SHARED}",
                    f"--metadata-port={METADATA_PORT}",
                ],
                "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "securityContext": {"runAsUser": 0},  # the kubelet's sockets are root's
                "volumeMounts": [
                    *({"name": name, "mountPath": f"{KUBELET}/{name}"} for name in folders),
                    {"name": "shared", "mountPath": SHARED},
                ],
            }
        ],
        "volumes": [
            *({"name": name, "hostPath": {"path": f"{KUBELET}/{name}"}} for name in folders),
            {"name": "shared", "hostPath": {"path": SHARED, "type": "DirectoryOrCreate"}},
        ],
    }


def _real_workers() -> Manifest:
    """Neither control planes nor KWOK's nodes."""
    expressions = [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"},
        {"key": "type", "operator": "NotIn", "values": ["kwok"]},
    ]
    return {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
