"""The operator runs with the chart's service account alone; the API server's audit log says what it used of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.local import LocalCluster
from e2e.cluster.waiting import wait_until
from e2e.demo import install
from tests.chart.helm import render
from tests.chart.test_templates import rules

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]  # API group, resource with its subresource, verb

SELDOM_USED = {
    # Server-side apply asks for these when the object is new, and the audit log knows it as a patch.
    ("apps", "deployments", "create"),
    ("policy", "poddisruptionbudgets", "create"),
    ("", "configmaps", "create"),
    ("discovery.k8s.io", "endpointslices", "create"),
    # Only when a job reports (tests/integration/test_progress.py), and when an authority is replaced.
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("", "secrets", "patch"),
    # Only to find out whether an object that refuses a write has been replaced.
    ("berth.dev", "trainingjobs", "get"),
    ("berth.dev", "inferenceservices", "get"),
    ("berth.dev", "queues", "get"),
    # Only of a job whose boards are idle, where its policy wants that.
    ("berth.dev", "trainingjobs", "patch"),
    # Only from the second attempt on.
    ("", "persistentvolumeclaims", "get"),
    # Only where the node's agent lays out boards (tests/integration/test_node_agent.py).
    ("berth.dev", "gpunodes", "patch"),
}
MIG_CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "default-mig-parted-config", "namespace": "gpu-operator"},
    "data": {"config.yaml": "version: v1\nmig-configs: {}\n"},
}
USER = f"system:serviceaccount:{install.NAMESPACE}:{install.RELEASE}"
# Long enough for a busy kube-scheduler: a pod that it has not bound by then is evicted and replaced, which takes half a
# minute, again and again. Only the job that nobody schedules is meant to go that way.
BIND_SECONDS = 15
SECONDS = 120  # 25 on idle cores


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster with an audit log, a fake fleet, and the operator as the chart's service account."""
    cluster = LocalCluster(f"test-{uuid.uuid4().hex[:8]}", audit=True)
    try:
        cluster.up()
        config = {"bindTimeoutSeconds": BIND_SECONDS}
        install.install_chart(cluster.kubeconfig, {"replicaCount": 0, "config": config})
        install.run_operator(cluster)
        install.run_fleet(cluster)
        yield cluster
    finally:
        cluster.down()


def a_job(
    name: str, *, annotations: dict[str, str] | None = None, pod: dict[str, Any] | None = None, **spec: Any
) -> Any:
    containers = [{"name": "train", "image": "berth/samples"}]
    template = {"metadata": {"annotations": annotations or {}}, "spec": {"containers": containers, **(pod or {})}}
    gpus = {"count": 1, "models": ["H100"]}  # of which the fleet has plenty
    return an_object("TrainingJob", name, **{"workers": 1, "gpus": gpus, "template": template, **spec})


def an_object(kind: str, name: str, **spec: Any) -> Any:
    return {"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def apply(kubeconfig: Path, *objects: Any) -> None:
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    install.kubectl(kubeconfig, "apply", "--filename=-", stdin=json.dumps(everything))


def granted() -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules(render(), "berth", "berth-lease", "berth-progress")
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(log: Path) -> list[dict[str, Any]]:
    """What the operator has asked of the API server so far; a line that is half written counts next time."""
    lines = (line for line in log.read_text().split("\n")[:-1] if USER in line)
    return [entry for entry in map(json.loads, lines) if entry["user"]["username"] == USER]


def used(log: Path) -> set[Right]:
    rights = set()
    for request in requests(log):
        if about := request.get("objectRef"):
            resource = "/".join(part for part in (about["resource"], about.get("subresource")) if part)
            rights.add((about.get("apiGroup", ""), resource, request["verb"]))
    return rights


def test_the_operator_needs_every_right_that_it_has_and_no_other(cluster: LocalCluster) -> None:
    log = cluster.folder / "audit.log"
    service = {"replicas": 1, "gpus": {"profile": "1g.10gb"}, "port": 80}
    service["template"] = {"spec": {"containers": [{"name": "serve", "image": "berth/samples"}]}}
    gpu_operator = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-operator"}}
    apply(
        cluster.kubeconfig,
        gpu_operator,
        MIG_CONFIG,
        an_object("Queue", "team"),
        a_job("parted", gpus={"profile": "4g.40gb"}),  # for which a board has to be laid out
        an_object("InferenceService", "served", **service),
        a_job("finishes", annotations={"kwok.berth.dev/run-seconds": "1"}, ttlSecondsAfterFinished=1),
        a_job("crashes", annotations={"kwok.berth.dev/exit-code": "1"}, restart={"maxRestarts": 0}),
        # Pinned, never bound: evicted.
        a_job("stuck", pod={"schedulerName": "nobody"}, checkpoint={"claimTemplate": {"size": "1Gi"}}),
        a_job("stopped"),
    )
    running = ("get", "trainingjob", "stopped", "--output=jsonpath={.status.state}")
    wait_until(
        lambda: install.kubectl(cluster.kubeconfig, *running) == "Running",
        "the job to be stopped runs",
        folder=cluster.folder,
        seconds=SECONDS,
    )
    suspension = '--patch={"spec": {"suspend": true}}'
    install.kubectl(cluster.kubeconfig, "patch", "trainingjob", "stopped", "--type=merge", suspension)
    wanted = granted() - SELDOM_USED
    try:
        wait_until(lambda: wanted <= used(log), "every right is used", folder=cluster.folder, seconds=SECONDS)
    finally:
        assert wanted - used(log) == set()
    refused = [r for r in requests(log) if r.get("responseStatus", {}).get("code") == 403]
    assert [(r["verb"], r["requestURI"]) for r in refused] == []
    assert used(log) <= granted()
