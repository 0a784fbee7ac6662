"""Clusters of real nodes, each a container: kind, on whichever Docker engine can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from e2e.cluster import binaries, kind_network, kwok, node_image, processes
from e2e.cluster.engine import Engine, find, lease
from e2e.cluster.errors import ClusterError
from e2e.cluster.nodes import list_nodes
from e2e.cluster.provider import Part, Provider, Status, note, state_folder

NODE_IMAGE = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
POD_NETWORK = "10.128.0.0/10"  # a /24 for each of up to 16,384 nodes; kind's /16 would run out at 256 fake ones
SHARED_PATH = "/shared"
# The cluster's DNS, on the node that no test ends: both replicas may come to be on one worker, and die with it.
DNS_STAYS = '{"spec": {"template": {"spec": {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}}}}'
READY_TIMEOUT_SECONDS = 180  # 10 on idle cores, after the 25 that kind takes


class KindError(ClusterError):
    """kind or kubectl failed; the message ends with what it printed."""


class KindCluster:
    """A kind cluster with one control plane, `workers` and, played by KWOK, `fake_nodes`.

    Every real node mounts the same folder of this machine, `shared`, at /shared: storage that follows a pod.
    """

    def __init__(self, name: str, *, workers: int = 2, fake_nodes: int = 0) -> None:
        self.name = name
        self.folder = state_folder(name)
        self.kubeconfig = self.folder / "kubeconfig"
        self.shared = self.folder / "shared"
        self._workers = workers
        self._fake_nodes = fake_nodes

    def up(self) -> None:
        """Create the cluster unless it runs; returns with all nodes and the cluster's DNS ready.

        Raises:
            EngineError: no Docker engine can be had.
            ClusterError: a step failed; the cluster has been deleted again.
        """
        if self.status().healthy:
            print(f"cluster {self.name} is already running", file=sys.stderr)
            kwok.add_nodes(self.folder, self.kubeconfig, self._fake_nodes)
            return
        with lease() as engine:
            self._delete(engine)
            try:
                self._create(engine)
            except BaseException:
                self._delete(engine)
                raise

    def down(self) -> None:
        if self.folder.exists() or find():
            with lease() as engine:
                self._delete(engine)

    def status(self) -> Status:
        parts = [Part(p.name, p.alive, f"pid {p.pid}") for p in processes.recorded(self.folder)]
        if engine := find():
            states = engine.docker("ps", "--all", *self._filter(), "--format={{.Names}} {{.State}}")
            parts += [Part(line.split()[0], line.endswith(" running"), "container") for line in states.splitlines()]
        nodes = list_nodes(self.kubeconfig) if self.kubeconfig.exists() else None
        return Status(parts=parts, nodes=nodes or [], reachable=nodes is not None)

    def load_image(self, *tags: str) -> None:
        """Copy images of the engine to every node that takes pods, which then find them by the same tag."""
        with lease() as engine, tempfile.NamedTemporaryFile(prefix=".images-", dir=self.shared) as archive:
            engine.docker("save", "--output", archive.name, *tags)
            command = ("ctr", "--namespace=k8s.io", "images", "import", "--no-unpack")
            path = f"{SHARED_PATH}/{Path(archive.name).name}"  # a third faster than through `docker exec`

            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: engine.docker("exec", node, *command, path), self._workers_of(engine)))

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl against the cluster and return its output."""
        kubectl = binaries.ensure("kubectl") / "kubectl"
        return _run([kubectl, f"--kubeconfig={self.kubeconfig}", *arguments], os.environ)

    def _create(self, engine: Engine) -> None:
        image = node_image.ensure(engine) if engine.own else NODE_IMAGE
        note(self.folder, Provider.KIND)
        self.shared.mkdir()
        self.shared.chmod(0o1777)  # any user of any pod may write
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(configuration(workers=self._workers, shared=self.shared, own_image=engine.own), file)
            file.flush()
            command = ["create", "cluster", f"--name={self.name}", f"--image={image}", f"--config={file.name}"]
            _kind(engine, *command, f"--kubeconfig={self.kubeconfig}")
        if engine.own:
            self._connect(engine)
        self.kubectl("patch", "deployment/coredns", "--namespace=kube-system", f"--patch={DNS_STAYS}")
        timeout = f"--timeout={READY_TIMEOUT_SECONDS}s"
        self.kubectl("wait", "node", "--all", "--for=condition=Ready", timeout)
        self.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", timeout)
        kwok.add_nodes(self.folder, self.kubeconfig, self._fake_nodes)

    def _connect(self, engine: Engine) -> None:
        binding = ("create", "clusterrolebinding", "node-proxier", "--clusterrole=system:node-proxier")
        self.kubectl(*binding, "--group=system:nodes")
        self.kubectl("wait", "node", "--all", "--for=jsonpath={.spec.podCIDR}", "--timeout=60s")
        nodes = kind_network.nodes_of(self.kubectl("get", "nodes", "--output=json"))
        kind_network.connect(engine, nodes, pod_network=POD_NETWORK)

    def _delete(self, engine: Engine) -> None:
        processes.stop(self.folder, processes.recorded(self.folder))
        _kind(engine, "delete", "cluster", f"--name={self.name}", f"--kubeconfig={self.kubeconfig}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _workers_of(self, engine: Engine) -> list[str]:
        """The nodes that take pods: the control plane only where it is alone."""
        nodes = engine.docker("ps", *self._filter(), "--format={{.Names}}").split()
        return [node for node in nodes if not node.endswith("-control-plane")] or nodes

    def _filter(self) -> tuple[str, str]:
        return "--filter", f"label=io.x-k8s.kind.cluster={self.name}"


def configuration(*, workers: int, shared: Path, own_image: bool) -> dict[str, object]:
    """kind's configuration. The API server listens on a free port of loopback."""
    networking: dict[str, object] = {"ipFamily": "ipv4", "apiServerAddress": "127.0.0.1", "podSubnet": POD_NETWORK}
    if own_image:  # its pod network and kube-proxy are not kind's
        networking |= {"disableDefaultCNI": True, "kubeProxyMode": "none"}
    cgroup_v1 = yaml.safe_dump({"kind": "KubeletConfiguration", "failCgroupV1": False})
    mounts = [{"hostPath": str(shared), "containerPath": SHARED_PATH}]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": networking,
        "kubeadmConfigPatches": [cgroup_v1],
        "nodes": [{"role": role, "extraMounts": mounts} for role in ("control-plane", *["worker"] * workers)],
    }


def _kind(engine: Engine, *arguments: str) -> str:
    return _run([binaries.ensure("kind") / "kind", *arguments], engine.environment)


def _run(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise KindError(f"{' '.join(map(str, command))} failed:\n{done.stderr[-4000:]}")
    return done.stdout
