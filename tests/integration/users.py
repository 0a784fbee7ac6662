"""People who may do no more than a role of the chart's says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from berth.adapters.kube import KubeApi
from berth.control.ports import Resource
from e2e.cluster.provider import Cluster
from tests.chart.helm import render, the

ACCOUNTS = Resource("", "v1", "serviceaccounts")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", namespaced=False)
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", namespaced=False)


async def a_user(api: KubeApi, cluster: Cluster, namespace: str, folder: Path, name: str, role: str = "") -> Path:
    """The kubeconfig of a service account with a ClusterRole of the chart's; "": with none."""
    await api.create(ACCOUNTS, namespace, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    if role:
        await api.apply(ROLES, "", role, the("ClusterRole", render(), role))
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{role}-{namespace}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        await api.create(BINDINGS, "", binding)
    ask: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.request("POST", f"{ACCOUNTS.path(namespace, name)}/token", ask)
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": answer["status"]["token"]}
    file = folder / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file
