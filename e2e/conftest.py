"""A kind cluster for the user stories: two real workers, KWOK nodes beside them, everything of ours as pods."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.provider import Cluster, Provider, make, running
from e2e.demo.install import install
from e2e.kubectl import Json, Kubectl

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
CONFIG = {"preemption": {"minRuntimeSeconds": 5}}  # of the operator: stories of giving way need not last for minutes
ONE_BOARD = {"count": 1, "models": ["H100"]}


@pytest.fixture(scope="session")
def kind_cluster() -> Iterator[Cluster]:
    """E2E_CLUSTER names a kind cluster to use, made if need be and kept, for those who work on a story."""
    if kept := os.environ.get("E2E_CLUSTER"):
        cluster = make(Provider.KIND, kept, workers=2)
        cluster.up()
        install(cluster, Provider.KIND, CONFIG)
        yield cluster
        return
    with running(Provider.KIND, name=f"e2e-{uuid.uuid4().hex[:6]}", workers=2) as cluster:
        install(cluster, Provider.KIND, CONFIG)
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a story that failed what the cluster has to say: it is gone when somebody reads it."""
    report = yield
    kubectl = getattr(item, "funcargs", {}).get("kubectl")
    if report.when == "call" and report.failed and kubectl is not None:
        report.sections += kubectl.testimony()
    return report


@pytest.fixture
def kubectl(kind_cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own."""
    namespace = f"story-{uuid.uuid4().hex[:6]}"
    run = Kubectl(kind_cluster.kubeconfig, namespace)
    run("create", "namespace", namespace)
    run.wait("the namespace has its service account", lambda: run("get", "serviceaccount", "default", check=False))
    yield run
    run("delete", "namespace", namespace, "--wait=true")


def real_nodes(template: Json) -> Json:
    """The pod template, kept on nodes that run real programs."""
    expression = {"key": "type", "operator": "NotIn", "values": ["kwok"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {**template, "spec": {**template["spec"], "affinity": affinity}}


def example(name: str, **spec: Any) -> Json:
    """A sample of docs/examples, kept on real nodes, with parts of its spec replaced."""
    body: Json = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    body["spec"] |= {"template": real_nodes(body["spec"]["template"]), **spec}
    return body


def a_saving_job(folder: str, *, interval: str, grace_seconds: int, **spec: Any) -> Json:
    """`one-gpu` on an H100 as a job that never ends, and saves into a folder of its node's file system."""
    checkpoint = {"interval": interval, "graceSeconds": grace_seconds}
    job = example("one-gpu", gpus=ONE_BOARD, checkpoint=checkpoint, **spec)
    pod = job["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "saved", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}]
    container = pod["containers"][0]
    container["command"] += ["--epochs", "100000"]
    container["volumeMounts"] = [{"name": "saved", "mountPath": "/checkpoints"}]
    container["securityContext"] = {"runAsUser": 0}  # who alone may write to a folder that the kubelet made
    return job


def state(kubectl: Kubectl, name: str) -> str:
    """The state that a TrainingJob prints; "" before it has one."""
    status: Json = kubectl.get("trainingjob", name).get("status", {})
    return str(status.get("state", ""))


def verdict(kubectl: Kubectl, name: str) -> Json:
    """The verdict of a TrainingJob; empty before it has one."""
    found: Json = kubectl.get("trainingjob", name).get("status", {}).get("verdict", {})
    return found
