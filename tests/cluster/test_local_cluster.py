"""The local provider: a real control plane that comes up, works beside another, and goes away without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import processes
from e2e.cluster.binaries import ensure
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.nodes import create_fake_nodes, list_nodes
from e2e.cluster.provider import Provider, made_by, make, running
from e2e.cluster.waiting import wait_until

pytestmark = pytest.mark.cluster

PARTS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        local = LocalCluster(a_name(), fake_nodes=3, audit=True)
        try:
            local.up()
            yield local
        finally:
            local.down()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the state of clusters that the test makes itself."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def a_name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def a_job(name: str, *, restarts: int = 0, **annotations: str) -> dict[str, Any]:
    """A Job of one pod; `run_seconds="0"` becomes the annotation kwok.berth.dev/run-seconds."""
    asked = {f"kwok.berth.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
    spec = {"backoffLimit": restarts, "template": {"metadata": {"annotations": asked}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def kubectl(cluster: LocalCluster, *arguments: str, stdin: str = "") -> str:
    command = (f"--kubeconfig={cluster.kubeconfig}", *arguments)
    program = ensure("kubectl") / "kubectl"
    done = subprocess.run([program, *command], input=stdin, capture_output=True, text=True, check=True)
    return done.stdout


def apply(cluster: LocalCluster, manifest: dict[str, Any]) -> None:
    kubectl(cluster, "apply", "-f", "-", stdin=yaml.safe_dump(manifest))


def pods(cluster: LocalCluster, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl(cluster, "get", "pods", f"-ljob-name={job}", "-ojson"))["items"]
    return found


def until(cluster: LocalCluster, holds: Callable[[], bool], what: str) -> None:
    wait_until(holds, what, folder=cluster.folder, seconds=60)


def until_phase(cluster: LocalCluster, job: str, phase: str) -> dict[str, Any]:
    """The Job's pod, once it is in that phase."""
    until(cluster, lambda: [pod["status"]["phase"] for pod in pods(cluster, job)] == [phase], f"{job} is {phase}")
    return pods(cluster, job)[0]


def exit_code(pod: dict[str, Any]) -> int:
    code: int = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code


def test_all_parts_run_and_all_nodes_are_ready(cluster: LocalCluster) -> None:
    status = cluster.status()

    assert status.healthy
    assert {part.name for part in status.parts} == PARTS
    assert {node.name for node in status.nodes if node.ready and node.fake} >= {"fake-0", "fake-1", "fake-2"}


def test_the_server_says_which_kubernetes_it_is(cluster: LocalCluster) -> None:
    versions = yaml.safe_load(kubectl(cluster, "version", "-o", "yaml"))

    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"] == "v1.36.3"


def test_a_job_runs_on_a_fake_node_until_a_test_ends_it(cluster: LocalCluster) -> None:
    apply(cluster, a_job("until-told"))
    pod = until_phase(cluster, "until-told", "Running")
    assert pod["spec"]["nodeName"].startswith("fake-")
    assert pod["status"]["podIP"]

    kubectl(cluster, "annotate", "pod", pod["metadata"]["name"], "kwok.berth.dev/exit-code=0")

    kubectl(cluster, "wait", "job/until-told", "--for=condition=Complete", "--timeout=60s")


def test_a_pod_ends_after_the_seconds_and_with_the_code_it_asked_for(cluster: LocalCluster) -> None:
    apply(cluster, a_job("fails", run_seconds="1", exit_code="7"))

    assert exit_code(until_phase(cluster, "fails", "Failed")) == 7
    kubectl(cluster, "wait", "job/fails", "--for=condition=Failed", "--timeout=60s")


def test_a_deleted_pod_ends_as_if_by_sigterm_and_its_job_replaces_it(cluster: LocalCluster) -> None:
    apply(cluster, a_job("evicted", restarts=1))
    first = until_phase(cluster, "evicted", "Running")["metadata"]["name"]

    kubectl(cluster, "delete", "pod", first)

    replaced = until_phase(cluster, "evicted", "Running")
    assert replaced["metadata"]["name"] != first
    job = json.loads(kubectl(cluster, "get", "job", "evicted", "-o", "json"))
    assert job["status"]["failed"] == 1


def test_a_deleted_pod_takes_the_time_to_stop_that_it_asked_for(cluster: LocalCluster) -> None:
    apply(cluster, a_job("slow", stop_seconds="20"))
    name = until_phase(cluster, "slow", "Running")["metadata"]["name"]

    kubectl(cluster, "delete", "pod", name, "--wait=false")

    pod = json.loads(kubectl(cluster, "get", "pod", name, "-o", "json"))
    assert pod["metadata"]["deletionTimestamp"]
    assert pod["status"]["phase"] == "Running"
    kubectl(cluster, "delete", "pod", name, "--grace-period=0", "--force")


def test_labels_and_allocatable_of_fake_nodes_come_on_top_of_defaults(cluster: LocalCluster) -> None:
    create_fake_nodes(cluster.kubeconfig, ["gpu-0"], labels={"rack": "r1"}, allocatable={"nvidia.com/gpu": "8"})

    def ready() -> bool:
        return any(node.name == "gpu-0" and node.ready for node in list_nodes(cluster.kubeconfig) or [])

    wait_until(ready, "the node is ready and has lost its taint", folder=cluster.folder, seconds=60)
    node = json.loads(kubectl(cluster, "get", "node", "gpu-0", "-o", "json"))
    assert node["metadata"]["labels"].items() >= {"rack": "r1", "kubernetes.io/hostname": "gpu-0"}.items()
    assert node["status"]["allocatable"].items() >= {"nvidia.com/gpu": "8", "cpu": "128", "memory": "2Ti"}.items()
    assert node["spec"].get("taints") is None
    create_fake_nodes(cluster.kubeconfig, ["gpu-0"], labels={"rack": "r2"})  # exists: stays as it is
    assert json.loads(kubectl(cluster, "get", "node", "gpu-0", "-o", "json"))["metadata"]["labels"]["rack"] == "r1"


def test_a_node_without_a_status_becomes_ready_too(cluster: LocalCluster) -> None:
    annotations = {"kwok.x-k8s.io/node": "fake"}
    apply(cluster, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare", "annotations": annotations}})

    kubectl(cluster, "wait", "node/bare", "--for=condition=Ready", "--timeout=60s")
    kubectl(cluster, "delete", "node", "bare")


def test_the_audit_log_tells_who_wrote_what(cluster: LocalCluster) -> None:
    kubectl(cluster, "create", "configmap", "audited")

    lines = (cluster.folder / "audit.log").read_text().splitlines()
    written = [json.loads(line) for line in lines if '"name":"audited"' in line]
    assert [(event["user"]["username"], event["verb"]) for event in written] == [("admin", "create")]


def test_a_second_up_changes_nothing(cluster: LocalCluster, capfd: pytest.CaptureFixture[str]) -> None:
    before = cluster.status().parts

    cluster.up()

    assert cluster.status().parts == before
    assert f"cluster {cluster.name} is already running" in capfd.readouterr().err


def test_state_is_readable_by_its_owner_only(cluster: LocalCluster) -> None:
    secrets = [cluster.kubeconfig, cluster.folder / "tokens.csv", cluster.folder / "control-plane.yaml"]

    assert [oct(path.stat().st_mode & 0o777) for path in secrets] == ["0o600"] * 3
    assert oct(cluster.folder.stat().st_mode & 0o777) == "0o700"


def test_two_clusters_live_side_by_side_and_leave_nothing(state: Path) -> None:
    with running(Provider.LOCAL, fake_nodes=1) as one, running(Provider.LOCAL, fake_nodes=2) as two:
        started = [p for cluster in (one, two) for p in processes.recorded(cluster.kubeconfig.parent)]
        assert all(process.alive for process in started)
        assert [len(list_nodes(cluster.kubeconfig) or []) for cluster in (one, two)] == [1, 2]

    assert not any(process.alive for process in started)
    assert list((state / "berth" / "clusters").iterdir()) == []


def test_a_killed_part_is_reported_and_started_again_by_up(state: Path) -> None:
    local = LocalCluster(a_name(), fake_nodes=1)
    try:
        local.up()
        scheduler = processes.find(local.folder, "kube-scheduler")
        assert scheduler is not None
        os.kill(scheduler.pid, signal.SIGKILL)
        while scheduler.alive:
            pass

        status = local.status()
        assert not status.healthy
        assert [part.name for part in status.parts if not part.running] == ["kube-scheduler"]

        local.up()
        assert local.status().healthy
        assert [node.name for node in list_nodes(local.kubeconfig) or []] == ["fake-0"]
    finally:
        local.down()


def test_a_part_that_dies_at_the_start_is_named_with_the_end_of_its_log(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e2e.cluster.control_plane.ControlPlane.etcd_flags", lambda self: ["--data-dir=/dev/null/etcd"])
    local = LocalCluster(a_name())
    try:
        with pytest.raises(ClusterError, match=r"(?s)etcd ended; the end of .*etcd\.log:.*not a directory"):
            local.up()
    finally:
        local.down()
    assert not local.folder.exists()


def test_a_name_belongs_to_the_provider_that_made_it(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(cluster.folder.parents[2]))

    assert made_by(cluster.name) is Provider.LOCAL
    assert isinstance(make(Provider.AUTO, cluster.name), LocalCluster)
    with pytest.raises(ClusterError, match="was made by provider local"):
        make(Provider.EXISTING, cluster.name)


def test_the_command_line_goes_from_up_to_down(state: Path) -> None:
    name = a_name()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "e2e.cluster", *arguments, "--name", name]
        return subprocess.run(command, capture_output=True, text=True)

    kubeconfig = state / "berth" / "clusters" / name / "kubeconfig"
    try:
        up = run("up", "--provider", "local", "--fake-nodes", "2")
        assert (up.returncode, up.stdout) == (0, f"export KUBECONFIG={kubeconfig}\n")
        assert run("env").stdout == up.stdout
        status = run("status")
        assert status.returncode == 0
        assert "2 of 2 ready" in status.stdout
    finally:
        down = run("down")
    assert down.returncode == 0
    assert not kubeconfig.parent.exists()
    assert run("status").returncode == 1
    assert "there is no cluster" in run("env").stderr
