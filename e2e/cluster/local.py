"""The provider `local`: Kubernetes' own control plane as plain processes, with KWOK for nodes. No root, no Docker."""

from __future__ import annotations

import shutil
import ssl
import sys
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from e2e.cluster import kwok, processes
from e2e.cluster.binaries import ensure
from e2e.cluster.control_plane import NODE_LEASE_SECONDS, prepare
from e2e.cluster.engine_lock import locked
from e2e.cluster.nodes import list_nodes
from e2e.cluster.provider import Part, Provider, Status, note, state_folder
from e2e.cluster.waiting import wait_until

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm", "kwok")
START_SECONDS = 120  # 5 on idle cores, 25 with four busy programs for each core
LAST_TO_STOP = ("kube-apiserver", "etcd")  # so that the others don't spend their end on lost connections


class LocalCluster:
    """A control plane on loopback; everything it writes lies in `state_folder(name)`."""

    def __init__(self, name: str, *, fake_nodes: int = 0, audit: bool = False) -> None:
        """With `audit`, `audit.log` in its folder gets a JSON line (metadata only) for each request."""
        self.name = name
        self.folder = state_folder(name)
        self.kubeconfig = self.folder / "kubeconfig"
        self._fake_nodes = fake_nodes
        self._audit = audit

    def up(self) -> None:
        binaries = ensure(*PROGRAMS)
        note(self.folder, Provider.LOCAL)
        with locked(self.folder / ".lock"):
            note(self.folder, Provider.LOCAL)  # again: a `down` that held the lock has deleted it
            if self.status().healthy:
                print(f"cluster {self.name} is already running", file=sys.stderr)
            else:
                processes.forget_ended(self.folder)
                self._start(binaries)
            kwok.add_nodes(self.folder, self.folder / "kwok.kubeconfig", self._fake_nodes, NODE_LEASE_SECONDS)

    def down(self) -> None:
        if not self.folder.exists():
            return
        with locked(self.folder / ".lock"):
            started = processes.recorded(self.folder)
            processes.stop(self.folder, [process for process in started if process.name not in LAST_TO_STOP])
            for name in LAST_TO_STOP:
                processes.stop(self.folder, [process for process in started if process.name == name])
            shutil.rmtree(self.folder)

    def status(self) -> Status:
        parts = [Part(p.name, p.alive, f"pid {p.pid}") for p in processes.recorded(self.folder)]
        nodes = list_nodes(self.kubeconfig)
        return Status(parts=parts, nodes=nodes or [], reachable=nodes is not None)

    def load_image(self, *tags: str) -> None:
        """Nothing to do: fake nodes pull no images."""

    def _start(self, binaries: Path) -> None:
        plane = prepare(self.folder, self.name, binaries / "kubeadm")
        self._run(binaries / "etcd", plane.etcd_flags())
        self._run(binaries / "kube-apiserver", plane.apiserver_flags(audit=self._audit))
        token = plane.tokens["admin"]

        def answers(path: str) -> bool:
            return plane.certificate.exists() and _answers(plane.server + path, plane.certificate, token)

        wait_until(lambda: answers("/readyz"), "the API server is ready", folder=self.folder, seconds=START_SECONDS)
        plane.write_kubeconfigs()
        self._run(binaries / "kube-controller-manager", plane.controller_manager_flags())
        self._run(binaries / "kube-scheduler", plane.scheduler_flags())
        account = "/api/v1/namespaces/default/serviceaccounts/default"  # pods are refused before it exists
        wait_until(lambda: answers(account), "the controllers work", folder=self.folder, seconds=START_SECONDS)

    def _run(self, program: Path, flags: Sequence[str]) -> None:
        if processes.find(self.folder, program.name) is None:
            processes.spawn(self.folder, program.name, [program, *flags])


def _answers(url: str, authority: Path, token: str) -> bool:
    """Whether the API server has the object, or is well, at this address."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # refused, not there yet, or a certificate half written
        return False
