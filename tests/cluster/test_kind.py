"""The kind provider: real nodes that run our images, beside another cluster, and go away without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import engine, images
from e2e.cluster.binaries import cache_folder
from e2e.cluster.errors import ClusterError
from e2e.cluster.kind import KindCluster, KindError
from e2e.cluster.provider import Provider, made_by
from e2e.cluster.waiting import wait_until

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]  # the first run on a machine builds the node image

WORKERS = ("worker", "worker2")
URL = "http://servers.default.svc.cluster.local/"
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["NODE"].encode())
print("serving on", os.environ["NODE"], flush=True)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


@pytest.fixture(scope="module")
def traces_before() -> set[str]:
    return traces()


@pytest.fixture(scope="module")
def cluster(traces_before: set[str]) -> Iterator[KindCluster]:
    kind = KindCluster(a_name(), workers=2, fake_nodes=2)
    try:
        kind.up()
        yield kind
    finally:
        kind.down()


@pytest.fixture(scope="module")
def servers(cluster: KindCluster) -> dict[str, str]:
    """A Service `servers` in front of a pod on each worker, which answers from each of them: pod by node."""
    with engine.lease() as running:
        image = images.build(running, "samples")["samples"]
    cluster.load_image(image)
    nodes = [f"{cluster.name}-{worker}" for worker in WORKERS]
    apply(cluster, *(a_server(f"server-on-{node}", node, image) for node in nodes), a_service())
    cluster.kubectl("wait", "pod", "--selector=app=server", "--for=condition=Ready", "--timeout=120s")
    pods = {node: f"server-on-{node}" for node in nodes}
    for pod in pods.values():  # kube-proxy and DNS learn of ready pods after everybody else
        wait_until(partial(reaches, cluster, pod, URL), f"{pod} reaches the Service", folder=cluster.folder, seconds=60)
    return pods


def a_name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def a_server(name: str, node: str, image: str) -> dict[str, Any]:
    """A pod as the `restricted` profile wants it, with a root it can't write to and the shared folder."""
    locked_down = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": locked_down,
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    shared = {"name": "shared", "hostPath": {"path": "/shared", "type": "Directory"}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [shared]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "server"}}, "spec": spec}


def a_service() -> dict[str, Any]:
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "servers"}, "spec": spec}


def apply(cluster: KindCluster, *manifests: dict[str, Any]) -> None:
    path = cluster.folder / "manifests"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    cluster.kubectl("apply", "--filename", str(path))


def ask(cluster: KindCluster, pod: str, url: str) -> str:
    """What a GET from inside the pod answers."""
    return cluster.kubectl("exec", pod, "--", "python3", "-c", ASK, url).strip()


def reaches(cluster: KindCluster, pod: str, url: str) -> bool:
    try:
        return bool(ask(cluster, pod, url))
    except KindError:
        return False


def traces() -> set[str]:
    """What clusters and our engine leave on a machine: processes, interfaces, mounts, rules of iptables, ..."""
    ours = ("/run/berth-engine-", str(cache_folder() / "engine"))
    processes = [" ".join(arguments) for arguments in command_lines() if any(o in " ".join(arguments) for o in ours)]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if any(o in line for o in ours)]
    links = [name for name in os.listdir("/sys/class/net") if name.startswith(("br-", "docker", "veth"))]
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout.splitlines()
    raised = int(engine.INOTIFY_LIMIT.read_text()) == engine.INOTIFY_INSTANCES
    kernel = ["a raised limit of inotify instances"] if raised else []
    return {*processes, *mounts, *links, *kernel, *(rule for rule in saved if rule.startswith("-A"))}


def command_lines() -> Iterator[list[str]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_real_and_fake_nodes_are_ready(cluster: KindCluster) -> None:
    status = cluster.status()
    real = {f"{cluster.name}-{role}" for role in ("control-plane", *WORKERS)}

    assert status.healthy
    assert {node.name for node in status.nodes if node.ready and not node.fake} == real
    assert {node.name for node in status.nodes if node.ready and node.fake} == {"fake-0", "fake-1"}
    assert made_by(cluster.name) is Provider.KIND


def test_a_pod_of_our_image_runs_on_each_worker(cluster: KindCluster, servers: dict[str, str]) -> None:
    for node, pod in servers.items():
        assert f"serving on {node}\n" in cluster.kubectl("logs", pod)
        assert cluster.kubectl("exec", pod, "--", "id", "--user").strip() == "65532"


def test_a_service_answers_by_name_from_every_pod_behind_it(cluster: KindCluster, servers: dict[str, str]) -> None:
    for pod in servers.values():
        answers = {ask(cluster, pod, URL) for _ in range(10)}  # all from one of two pods: 1 in 512
        while len(answers) < len(servers):
            answers.add(ask(cluster, pod, URL))
        assert answers == set(servers)


def test_a_service_answers_by_its_cluster_address(cluster: KindCluster, servers: dict[str, str]) -> None:
    address = cluster.kubectl("get", "service", "servers", "--output=jsonpath={.spec.clusterIP}")
    assert ask(cluster, next(iter(servers.values())), f"http://{address}/") in servers


def test_the_api_server_reaches_services_as_it_must_for_webhooks(cluster: KindCluster, servers: dict[str, str]) -> None:
    assert cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/services/servers:80/proxy/") in servers


def test_nodes_share_a_folder_of_this_machine(cluster: KindCluster, servers: dict[str, str]) -> None:
    writer, reader = servers.values()
    program = "import pathlib; pathlib.Path('/shared/step').write_text('7')"
    cluster.kubectl("exec", writer, "--", "python3", "-c", program)

    read = cluster.kubectl("exec", reader, "--", "python3", "-c", "print(open('/shared/step').read())")
    assert read.strip() == (cluster.shared / "step").read_text() == "7"


def test_a_memory_limit_is_enforced(cluster: KindCluster, servers: dict[str, str]) -> None:
    pod = next(iter(servers.values()))
    with pytest.raises(KindError, match="137"):
        cluster.kubectl("exec", pod, "--", "python3", "-c", "bytearray(256 << 20)")


def test_two_clusters_live_side_by_side(cluster: KindCluster, servers: dict[str, str]) -> None:
    other = KindCluster(a_name(), workers=0)
    try:
        other.up()
        assert [node.name for node in other.status().nodes] == [f"{other.name}-control-plane"]
        assert len(cluster.status().nodes) == 5
    finally:
        other.down()
    assert not other.folder.exists()
    assert ask(cluster, next(iter(servers.values())), "http://servers/") in servers


def test_down_leaves_nothing_behind(cluster: KindCluster, traces_before: set[str]) -> None:
    with engine.lease() as running:
        own = running.own
    cluster.down()

    assert not cluster.folder.exists()
    assert cluster.status().parts == []
    if own:  # a Docker engine that was there keeps kind's network, as kind always does
        with suppress(ClusterError):  # what ended leaves the process list a moment later
            wait_until(lambda: traces() <= traces_before, "all is gone", folder=cluster.folder, seconds=10)
        assert traces() - traces_before == set()
