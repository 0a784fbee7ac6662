"""Story: nodes and boards go away, with and without a word, and a job that trains there loses no step that it saved.

`BERTH_E2E_KILLS`, such as "0.5,2,8", has each story told once more for each of these moments, in seconds after the node
begins to go: the operator is killed then, and the end must be the same.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.engine import lease
from e2e.cluster.kind import SHARED_PATH, KindCluster
from e2e.conftest import Json, Kubectl, example, state
from e2e.fakegpu.metadata import tell
from e2e.fakegpu.objects import UNHEALTHY
from e2e.test_checkpoints import epochs, following, status

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

KILLS = [None, *(float(part) for part in os.environ.get("BERTH_E2E_KILLS", "").split(",") if part)]
ONE_BOARD = {"count": 1, "models": ["H100"]}
killed = pytest.mark.parametrize("kill_after", KILLS)


@killed
def test_a_spot_notice_moves_a_gang_that_loses_no_step(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    node, words = a_running_job(kubectl, workers=2)
    with operator_killed(kubectl, kind_cluster, kill_after), following(kubectl, words) as log:
        try:
            tell(kind_cluster.kubeconfig, node, kind="spot", seconds=120)
            told = log.communicate(timeout=120)[0]
            goes_on_elsewhere(kubectl, node)
        finally:
            tell(kind_cluster.kubeconfig, node)
    assert "asked to save: SpotInterruption" in told
    assert first_epoch(kubectl) == epochs(told)[-1] + 1, "no step is lost, and none computed twice"
    if kill_after is None:
        found = status(kubectl)
        assert found["saveRequest"]["reason"] == "SpotInterruption"
        assert found["attempt"] == 2


@killed
def test_a_drain_takes_the_whole_gang_along(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    node, words = a_running_job(kubectl, workers=2)
    with operator_killed(kubectl, kind_cluster, kill_after), following(kubectl, words) as log:
        try:
            options = ("--delete-emptydir-data", "--force", "--pod-selector=berth.dev/name=one-gpu", "--timeout=100s")
            kubectl("drain", node, *options)
            told = log.communicate(timeout=120)[0]
            goes_on_elsewhere(kubectl, node)
        finally:
            kubectl("uncordon", node)
    assert f"saved epoch {epochs(told)[-1]}" in told
    assert first_epoch(kubectl) == epochs(told)[-1] + 1


@killed
def test_a_board_that_breaks_is_left(kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None) -> None:
    node, words = a_running_job(kubectl)
    kubectl.wait("it is known which board it has", lambda: board_of(kubectl, node, words) is not None)
    index, device = board_of(kubectl, node, words) or (0, "")
    with operator_killed(kubectl, kind_cluster, kill_after), following(kubectl, words) as log:
        try:
            kubectl("annotate", "node", node, f"{UNHEALTHY}={index}")
            told = log.communicate(timeout=120)[0]
            kubectl.wait("it runs again", lambda: runs_again(kubectl), 180)
        finally:
            kubectl("annotate", "node", node, f"{UNHEALTHY}-")
    assert "asked to save: BoardUnhealthy" in told
    assert first_epoch(kubectl) == epochs(told)[-1] + 1
    assert device not in kubectl("logs", pod_of(kubectl, 2))


@killed
def test_a_kubelet_that_dies_costs_no_more_than_what_was_not_saved(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    node, _ = a_running_job(kubectl, interval="2s")
    kubectl.wait("it has saved", lambda: (status(kubectl).get("checkpoint") or {}).get("step", 0) > 2)
    (folder,) = (kind_cluster.shared / kubectl.namespace).iterdir()
    with kubelet_dead(kind_cluster, node), operator_killed(kubectl, kind_cluster, kill_after):
        known = status(kubectl)["checkpoint"]["step"]
        goes_on_elsewhere(kubectl, node)
        log = kubectl("logs", pod_of(kubectl, 2))
        assert f"resumed after epoch {epochs(log)[0] - 1} from /checkpoints/{folder.name}/1" in log
        assert epochs(log)[0] > known
        kubectl.wait("the new attempt saves", lambda: status(kubectl)["checkpoint"]["attempt"] == 2)
        before = latest(folder / "1")
        kubectl.wait("the old process lives and saves on", lambda: latest(folder / "1") > before)
        assert latest(folder / "2") > known
        assert status(kubectl)["checkpoint"]["attempt"] == 2, "what the old one saves does not count"


def a_running_job(kubectl: Kubectl, *, workers: int = 1, interval: str = "1h") -> tuple[str, str]:
    """A job that never ends and saves where every node can read it; the node of its workers, and worker 0's pod."""
    checkpoint = {"interval": interval, "graceSeconds": 20}
    job = example("one-gpu", workers=workers, gpus=ONE_BOARD, checkpoint=checkpoint)
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    shared = {"path": f"{SHARED_PATH}/{kubectl.namespace}", "type": "DirectoryOrCreate"}
    pod["volumes"] = [{"name": "saved", "hostPath": shared}]
    container = pod["containers"][0]
    container["command"] += ["--epochs", "100000"]
    container["volumeMounts"] = [{"name": "saved", "mountPath": "/checkpoints"}]
    container["securityContext"] = {"runAsUser": 0}  # who alone may write to a folder that the kubelet made
    kubectl.apply(job)
    kubectl.wait("it runs", lambda: state(kubectl, "one-gpu") == "Running")
    kubectl.wait("it listens", lambda: status(kubectl).get("listens") == 1)
    kubectl.wait("it trains", lambda: len(epochs(kubectl("logs", pod_of(kubectl, 1)))) > 2)
    (node,) = {p["spec"]["nodeName"] for p in kubectl.pods("one-gpu")}
    return node, pod_of(kubectl, 1)


def pod_of(kubectl: Kubectl, attempt: int) -> str:
    """The pod of worker 0 in an attempt."""
    wanted = {"berth.dev/attempt": str(attempt), "batch.kubernetes.io/job-completion-index": "0"}
    pods = [p["metadata"] for p in kubectl.pods("one-gpu") if wanted.items() <= p["metadata"]["labels"].items()]
    return str(max(pods, key=lambda metadata: metadata["creationTimestamp"])["name"])


def runs_again(kubectl: Kubectl) -> bool:
    """Whether the second attempt runs, and has done a step."""
    found = status(kubectl)
    if (found.get("state"), found.get("attempt")) != ("Running", 2):
        return False
    return bool(epochs(kubectl("logs", pod_of(kubectl, 2))))


def goes_on_elsewhere(kubectl: Kubectl, node: str) -> None:
    """Return once the second attempt trains, on other nodes."""
    kubectl.wait("it runs again", lambda: runs_again(kubectl), 240)
    pods = [p for p in kubectl.pods("one-gpu") if p["metadata"]["labels"]["berth.dev/attempt"] == "2"]
    assert node not in {p["spec"].get("nodeName") for p in pods}


def first_epoch(kubectl: Kubectl) -> int:
    """The first epoch that the second attempt computed."""
    return epochs(kubectl("logs", pod_of(kubectl, 2)))[0]


def latest(folder: Path) -> int:
    """The step of the last durable checkpoint in an attempt's folder; 0: there is none yet."""
    file = folder / "latest.json"
    return int(json.loads(file.read_text())["step"]) if file.exists() else 0


def board_of(kubectl: Kubectl, node: str, pod: str) -> tuple[int, str] | None:
    """Index and UUID of the board that a pod holds, as its node reports."""
    boards: list[Json] = kubectl.get("gpunode", node).get("status", {}).get("boards") or []
    return next(((b["index"], b["uuid"]) for b in boards if (b.get("pod") or {}).get("name") == pod), None)


@contextmanager
def operator_killed(kubectl: Kubectl, cluster: KindCluster, after: float | None) -> Iterator[None]:
    """Have the operator killed so many seconds from now, and made anew; None: leave it alone."""
    if after is None:
        yield
        return
    killing = threading.Thread(target=_kill_operator, args=(kubectl, cluster, time.monotonic() + after))
    killing.start()
    try:
        yield
    finally:
        killing.join()


def _kill_operator(kubectl: Kubectl, cluster: KindCluster, at: float) -> None:
    """SIGKILL to its process; its pod is deleted, too, since the kubelet would restart it the later the oftener."""
    selector = (
        "--selector=app.kubernetes.io/name=berth,app.kubernetes.io/component!=agent",
        "--namespace=berth-system",
    )
    time.sleep(max(0.0, at - time.monotonic()))
    with lease() as engine:
        for node in nodes_of(kubectl):
            engine.docker("exec", node, "sh", "-c", "pkill -KILL -f 'berth operator --config' || true")
    kubectl("delete", "pod", *selector, "--force", "--grace-period=0")


def nodes_of(kubectl: Kubectl) -> list[str]:
    """The real nodes, by the names of their containers."""
    return [node["metadata"]["name"] for node in kubectl.get("nodes", selector="!type")["items"]]


@contextmanager
def kubelet_dead(cluster: KindCluster, node: str) -> Iterator[None]:
    """A node whose kubelet was killed and can't be started; what it had started lives."""
    with lease() as engine:
        engine.docker("exec", node, "mv", "/usr/bin/kubelet", "/usr/bin/kubelet.away")
        engine.docker("exec", node, "pkill", "-KILL", "-x", "kubelet")
        try:
            yield
        finally:
            engine.docker("exec", node, "mv", "/usr/bin/kubelet.away", "/usr/bin/kubelet")
            engine.docker("exec", node, "systemctl", "restart", "kubelet")
