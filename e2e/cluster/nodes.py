"""Nodes of a cluster: which are ready, and fake ones for KWOK to play."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from e2e.cluster.errors import ClusterError

FAKE = {"kwok.x-k8s.io/node": "fake"}
LABELS = {"type": "kwok", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
ALLOCATABLE = {"cpu": "128", "memory": "2Ti", "pods": "110", "ephemeral-storage": "1Ti"}
PARALLEL_WRITES = 16
REQUEST_SECONDS = 30


def connect(kubeconfig: Path) -> client.ApiClient:
    """A client of the kubeconfig's current context; it has a connection for each parallel write."""
    settings = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
    settings.connection_pool_maxsize = PARALLEL_WRITES
    return client.ApiClient(settings)


@dataclass(frozen=True)
class Node:
    """A node as the scheduler sees it: `ready` if no condition or taint of Kubernetes' own keeps pods off it."""

    name: str
    ready: bool
    fake: bool


def list_nodes(kubeconfig: Path) -> list[Node] | None:
    """The cluster's nodes; None if its API server does not answer."""
    try:
        with connect(kubeconfig) as api:
            answer: Any = client.CoreV1Api(api).list_node(_request_timeout=10, _preload_content=False)
            nodes = json.loads(answer.data)["items"]
    except (OSError, config.ConfigException, client.ApiException, HTTPError):
        return None
    return [_node(manifest) for manifest in nodes]


def create_fake_nodes(
    kubeconfig: Path,
    names: Iterable[str],
    labels: Mapping[str, str] | None = None,
    allocatable: Mapping[str, str] | None = None,
) -> None:
    """Create nodes that KWOK keeps ready; one that exists already stays as it is.

    `labels` and `allocatable` come on top of `LABELS` and `ALLOCATABLE`. About 250 nodes per second on 2 cores.
    """
    bodies = [fake_node(name, labels or {}, allocatable or {}) for name in names]
    with connect(kubeconfig) as api, ThreadPoolExecutor(PARALLEL_WRITES) as pool:
        list(pool.map(lambda body: _create(api, body), bodies))


def fake_node(name: str, labels: Mapping[str, str], allocatable: Mapping[str, str]) -> dict[str, Any]:
    """A Node manifest as a kubelet registers itself.

    KWOK makes it ready, once it plays it: pods that come earlier would never be started.
    """
    room = {**ALLOCATABLE, **allocatable}
    return {
        "metadata": {
            "name": name,
            "labels": {**LABELS, "kubernetes.io/hostname": name, **labels},
            "annotations": FAKE,
        },
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": _node_info(),
        },
    }


def delete_nodes(kubeconfig: Path, labels: Mapping[str, str]) -> None:
    """Delete every node that has all of these labels."""
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    with connect(kubeconfig) as api:
        client.CoreV1Api(api).delete_collection_node(label_selector=selector, _request_timeout=REQUEST_SECONDS)


def _node(manifest: Mapping[str, Any]) -> Node:
    metadata, taints = manifest["metadata"], manifest["spec"].get("taints", [])
    conditions = {(c["type"], c["status"]) for c in manifest["status"].get("conditions", [])}
    kept_off = any(taint["key"].startswith("node.kubernetes.io/") for taint in taints)
    fake = FAKE.items() <= metadata.get("annotations", {}).items()
    return Node(metadata["name"], ready=("Ready", "True") in conditions and not kept_off, fake=fake)


def _create(api: client.ApiClient, body: Mapping[str, Any]) -> None:
    """POST a node past the client's typed layers, which take 6 ms of Python for each."""
    _, address, headers, _, _ = api.param_serialize("POST", "/api/v1/nodes", auth_settings=["BearerToken"])
    answer = api.rest_client.pool_manager.request("POST", address, headers=headers, json=body, timeout=REQUEST_SECONDS)
    if answer.status not in {HTTPStatus.CREATED, HTTPStatus.CONFLICT}:
        raise ClusterError(f"node {body['metadata']['name']} was refused: {answer.data.decode(errors='replace')}")


def _node_info() -> dict[str, str]:
    known = {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "kwok"}
    unknown = ("bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion")
    return {**dict.fromkeys((*unknown, "machineID", "osImage", "systemUUID"), ""), **known}
