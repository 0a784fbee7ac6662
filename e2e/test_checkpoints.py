"""Story: a job that is stopped goes on where it was, and Berth knows how far it is."""

from __future__ import annotations

import re
import subprocess
import uuid
from typing import Any

import pytest

from e2e.cluster.binaries import ensure
from e2e.conftest import a_saving_job, state
from e2e.kubectl import Json, Kubectl
from e2e.test_training import suspend

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]


def test_a_job_that_is_suspended_and_resumed_loses_no_step(kubectl: Kubectl) -> None:
    kubectl.apply(on_one_node(kubectl))
    kubectl.wait("it runs", lambda: state(kubectl, "one-gpu") == "Running")
    kubectl.wait("it reports", lambda: (status(kubectl).get("progress") or {}).get("step", 0) > 2)
    (pod,) = kubectl.pods("one-gpu")
    with following(kubectl, pod["metadata"]["name"]) as log:
        suspend(kubectl, "one-gpu", True)
        told = log.communicate(timeout=90)[0]
    last = max(epochs(told))
    kubectl.wait("its last checkpoint is known", lambda: (status(kubectl).get("checkpoint") or {}).get("step") == last)
    assert f"saved epoch {last}" in told
    assert status(kubectl)["checkpoint"]["attempt"] == 1
    kubectl.wait("its pods are gone", lambda: not kubectl.pods("one-gpu"))

    suspend(kubectl, "one-gpu", False)
    kubectl.wait("it runs again", lambda: state(kubectl, "one-gpu") == "Running")
    (again,) = kubectl.pods("one-gpu")
    kubectl.wait("it goes on", lambda: epochs(kubectl("logs", again["metadata"]["name"])))
    assert epochs(kubectl("logs", again["metadata"]["name"]))[0] == last + 1


def on_one_node(kubectl: Kubectl, **spec: Any) -> Json:
    """A job that saves into a folder of the one node that it may run on."""
    job = a_saving_job(f"/var/lib/berth-e2e/{uuid.uuid4().hex}", interval="1h", grace_seconds=30, **spec)
    nodes = kubectl.get("nodes", selector="nvidia.com/gpu.product,!type")["items"]  # KWOK's have the label type
    node = min(node["metadata"]["name"] for node in nodes)
    job["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return job


def following(kubectl: Kubectl, pod: str) -> subprocess.Popen[str]:
    """The log of a pod up to its end."""
    command = [str(ensure("kubectl") / "kubectl"), f"--kubeconfig={kubectl.kubeconfig}", "-n", kubectl.namespace]
    return subprocess.Popen([*command, "logs", "--follow", pod], stdout=subprocess.PIPE, text=True)


def epochs(log: str) -> list[int]:
    """The epochs that a log tells of, in order."""
    return [int(number) for number in re.findall(r"^epoch (\d+) ", log, re.MULTILINE)]


def status(kubectl: Kubectl) -> Json:
    """The status of the job."""
    found: Json = kubectl.get("trainingjob", "one-gpu").get("status") or {}
    return found
