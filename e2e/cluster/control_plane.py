"""How the control plane's processes are told of each other: ports, keys, tokens, kubeconfigs and flags."""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import yaml

from e2e.cluster.binaries import KUBERNETES_VERSION
from e2e.cluster.errors import ClusterError

NODE_LEASE_SECONDS = 300  # renewed four times within it: at 40, a thousand nodes made 100 requests a second of that
NODE_GRACE_SECONDS = 400  # nodes turn Unknown so long after their last sign of life
PORTS = range(20000, 32768)  # below those that Linux gives to outgoing connections
USERS = {  # name -> its group; told apart in the audit log
    "admin": "system:masters",
    "kwok": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
KUBECONFIGS = {  # file -> whose it is
    "kubeconfig": "admin",
    "kwok.kubeconfig": "kwok",
    "controller-manager.kubeconfig": "system:kube-controller-manager",
    "scheduler.kubeconfig": "system:kube-scheduler",
}
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
KUBEADM_CONFIGURATION = {  # for its key pair only; the version keeps it from asking the network for the newest
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "ClusterConfiguration",
    "kubernetesVersion": KUBERNETES_VERSION,
}


@dataclass(frozen=True)
class ControlPlane:
    """One control plane's ports and tokens; its files lie in `folder`."""

    folder: Path
    name: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    tokens: dict[str, str]

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def certificate(self) -> Path:
        """Signed by the API server itself when it starts first, with its authority appended."""
        return self.folder / "certs" / "apiserver.crt"

    def etcd_flags(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self.etcd_peer_port))
        return [
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # nobody needs this data after a power cut
            "--log-level=warn",
        ]

    def apiserver_flags(self, *, audit: bool) -> list[str]:
        flags = [
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # loopback addresses may not be Endpoints
            f"--secure-port={self.api_port}",
            f"--cert-dir={self.folder}/certs",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/certs/sa.pub",
            f"--service-account-signing-key-file={self.folder}/certs/sa.key",
            "--allow-privileged",
        ]
        if audit:
            flags += [
                f"--audit-policy-file={self.folder}/audit-policy.yaml",
                f"--audit-log-path={self.folder}/audit.log",
            ]
        return flags

    def controller_manager_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.folder}/controller-manager.kubeconfig",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self.folder}/certs/sa.key",
            f"--root-ca-file={self.certificate}",
            "--leader-elect=false",
            "--secure-port=0",
            "--concurrent-job-syncs=20",
            "--kube-api-qps=300",
            "--kube-api-burst=500",
            f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
        ]

    def scheduler_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.folder}/scheduler.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]

    def write_kubeconfigs(self) -> None:
        """For the administrator and for each component; needs the certificate that the API server has made."""
        authority = base64.b64encode(self.certificate.read_bytes()).decode()
        cluster = {"server": self.server, "certificate-authority-data": authority}
        for file, user in KUBECONFIGS.items():
            content = kubeconfig(f"berth-{self.name}", user, cluster, {"token": self.tokens[user]})
            _write(self.folder / file, yaml.safe_dump(content))


def kubeconfig(context: str, user: str, cluster: dict[str, str], credentials: dict[str, str]) -> dict[str, Any]:
    """A kubeconfig with one context."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
    }


def prepare(folder: Path, name: str, kubeadm: Path) -> ControlPlane:
    """The control plane of this folder: as it was settled before, else with free ports and new keys and tokens.

    Raises:
        ClusterError: kubeadm made no key pair.
    """
    settled = folder / "control-plane.yaml"
    if settled.exists():
        return ControlPlane(folder=folder, **yaml.safe_load(settled.read_text()))
    api, etcd, peer = free_ports(3)
    tokens = {user: secrets.token_hex(16) for user in USERS}
    plane = ControlPlane(folder, name, api_port=api, etcd_port=etcd, etcd_peer_port=peer, tokens=tokens)
    _write(folder / "tokens.csv", "".join(f'{tokens[u]},{u},{u},"{group}"\n' for u, group in USERS.items()))
    _write(folder / "audit-policy.yaml", yaml.safe_dump(AUDIT_POLICY))
    _make_service_account_keys(folder, kubeadm)
    written = {key: value for key, value in asdict(plane).items() if key != "folder"}
    _write(settled, yaml.safe_dump(written))
    return plane


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, chosen at random so that clusters started together differ."""
    free: list[int] = []
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                free.append(port)
        if len(free) == count:
            return free
    raise ClusterError(f"no {count} ports of {PORTS} are free")


def _make_service_account_keys(folder: Path, kubeadm: Path) -> None:
    configuration = folder / "kubeadm.yaml"
    _write(configuration, yaml.safe_dump(KUBEADM_CONFIGURATION | {"certificatesDir": f"{folder}/certs"}))
    command = ("init", "phase", "certs", "sa", f"--config={configuration}")
    done = subprocess.run([kubeadm, *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"kubeadm made no service account keys: {done.stderr}")


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
