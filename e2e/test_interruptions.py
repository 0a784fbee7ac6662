"""Story: nodes and boards go away, with and without a word, and a job that trains there loses no step that it saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.chaos import killed, operator_killed
from e2e.cluster.engine import lease
from e2e.cluster.kind import SHARED_PATH, KindCluster
from e2e.conftest import a_saving_job
from e2e.fakegpu.metadata import tell
from e2e.fakegpu.objects import UNHEALTHY
from e2e.kubectl import Json, Kubectl
from e2e.test_checkpoints import epochs, following, status

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]


@killed
def test_a_spot_notice_moves_a_gang_that_loses_no_step(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    first = a_running_job(kubectl, workers=2)
    with operator_killed(kubectl, kill_after), following(kubectl, first.pod) as log:
        try:
            tell(kind_cluster.kubeconfig, first.node, kind="spot", seconds=120)
            told = log.communicate(timeout=120)[0]
            again = goes_on(kubectl, first)
            assert first.node not in nodes_of(again)
        finally:
            tell(kind_cluster.kubeconfig, first.node)
    assert "asked to save: SpotInterruption" in told
    assert epochs(again.log)[0] == epochs(told)[-1] + 1, "no step is lost, and none computed twice"
    assert status(kubectl)["saveRequest"]["reason"] == "SpotInterruption"


@killed
def test_a_drain_takes_the_whole_gang_along(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    first = a_running_job(kubectl, workers=2)
    with operator_killed(kubectl, kill_after), following(kubectl, first.pod) as log:
        try:
            options = ("--delete-emptydir-data", "--force", "--pod-selector=berth.dev/name=one-gpu", "--timeout=100s")
            kubectl("drain", first.node, *options)
            told = log.communicate(timeout=120)[0]
            again = goes_on(kubectl, first)
            assert first.node not in nodes_of(again)
        finally:
            kubectl("uncordon", first.node)
    assert f"saved epoch {epochs(told)[-1]}" in told
    assert epochs(again.log)[0] == epochs(told)[-1] + 1


@killed
def test_a_board_that_breaks_is_left(kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None) -> None:
    first = a_running_job(kubectl)
    kubectl.wait("it is known which board it has", lambda: board_of(kubectl, first) is not None)
    index, device = board_of(kubectl, first) or (0, "")
    with operator_killed(kubectl, kill_after), following(kubectl, first.pod) as log:
        try:
            kubectl("annotate", "node", first.node, f"{UNHEALTHY}={index}")
            told = log.communicate(timeout=120)[0]
            again = goes_on(kubectl, first)
        finally:
            kubectl("annotate", "node", first.node, f"{UNHEALTHY}-")
    assert "asked to save: BoardUnhealthy" in told
    assert epochs(again.log)[0] == epochs(told)[-1] + 1
    assert device not in again.log


@killed
def test_a_kubelet_that_dies_costs_no_more_than_what_was_not_saved(
    kubectl: Kubectl, kind_cluster: KindCluster, kill_after: float | None
) -> None:
    first = a_running_job(kubectl, interval="2s")
    kubectl.wait("it has saved", lambda: (status(kubectl).get("checkpoint") or {}).get("step", 0) > 2)
    (folder,) = (kind_cluster.shared / kubectl.namespace).iterdir()
    old, new = folder / str(first.attempt), folder / str(first.attempt + 1)
    with kubelet_dead(first.node), operator_killed(kubectl, kill_after):
        known = status(kubectl)["checkpoint"]["step"]
        again = goes_on(kubectl, first)
        assert f"resumed after epoch {epochs(again.log)[0] - 1} from /checkpoints/{folder.name}/{old.name}" in again.log
        assert epochs(again.log)[0] > known
        kubectl.wait("the new attempt saves", lambda: status(kubectl)["checkpoint"]["attempt"] == again.attempt)
        before = latest(old)
        kubectl.wait("the old process lives and saves on", lambda: latest(old) > before)
        assert latest(new) > known
        assert status(kubectl)["checkpoint"]["attempt"] == again.attempt, "what the old one saves does not count"


@dataclass(frozen=True)
class Running:
    """An attempt that trains: its number, its pods, and what worker 0 said so far."""

    attempt: int
    pods: list[Json]
    log: str

    @property
    def pod(self) -> str:
        """The name of worker 0's pod."""
        return name_of(self.pods[0])

    @property
    def node(self) -> str:
        """The one node that all workers are on."""
        (node,) = nodes_of(self)
        return node


def a_running_job(kubectl: Kubectl, *, workers: int = 1, interval: str = "1h") -> Running:
    """A job that never ends and saves where every node can read it, once it trains and listens."""
    folder = f"{SHARED_PATH}/{kubectl.namespace}"
    kubectl.apply(a_saving_job(folder, interval=interval, grace_seconds=20, workers=workers))
    return goes_on(kubectl, None)


def goes_on(kubectl: Kubectl, before: Running | None) -> Running:
    """The gang after that one, once it trains and listens.

    Its attempt may be the same: while no operator acts, the Job replaces pods that were evicted.
    """
    found: list[Running] = []

    def look() -> bool:
        told = status(kubectl)
        number = told.get("attempt", 0)
        if told.get("state") != "Running" or told.get("listens") != number:
            return False
        there = (p for p in kubectl.pods("one-gpu") if "deletionTimestamp" not in p["metadata"])
        pods = [p for p in there if p["metadata"]["labels"]["berth.dev/attempt"] == str(number)]
        pods.sort(key=lambda p: str(p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))
        if not pods or (before and name_of(pods[0]) == before.pod):
            return False
        log = kubectl("logs", name_of(pods[0]))
        found[:] = [Running(number, pods, log)]
        return len(epochs(log)) > 2

    kubectl.wait("it trains", look, 240)
    return found[0]


def name_of(pod: Json) -> str:
    """A pod's name."""
    return str(pod["metadata"]["name"])


def nodes_of(running: Running) -> set[str]:
    """Where its workers are."""
    return {str(pod["spec"]["nodeName"]) for pod in running.pods}


def latest(folder: Path) -> int:
    """The step of the last durable checkpoint in an attempt's folder; 0: there is none yet."""
    file = folder / "latest.json"
    return int(json.loads(file.read_text())["step"]) if file.exists() else 0


def board_of(kubectl: Kubectl, running: Running) -> tuple[int, str] | None:
    """Index and UUID of the board that worker 0 holds, as its node reports."""
    boards: list[Json] = kubectl.get("gpunode", running.node).get("status", {}).get("boards") or []
    return next(((b["index"], b["uuid"]) for b in boards if (b.get("pod") or {}).get("name") == running.pod), None)


@contextmanager
def kubelet_dead(node: str) -> Iterator[None]:
    """A node whose kubelet was killed and can't be started; what it had started lives."""
    with lease() as engine:
        engine.docker("exec", node, "mv", "/usr/bin/kubelet", "/usr/bin/kubelet.away")
        engine.docker("exec", node, "pkill", "-KILL", "-x", "kubelet")
        try:
            yield
        finally:
            engine.docker("exec", node, "mv", "/usr/bin/kubelet.away", "/usr/bin/kubelet")
            engine.docker("exec", node, "systemctl", "restart", "kubelet")
