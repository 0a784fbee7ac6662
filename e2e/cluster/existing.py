"""The provider `existing`: any cluster that a kubeconfig reaches. Nothing of it is started or stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from e2e.cluster import kwok, processes
from e2e.cluster.binaries import ensure
from e2e.cluster.errors import ClusterError
from e2e.cluster.nodes import delete_nodes, list_nodes
from e2e.cluster.provider import Part, Provider, Status, note, state_folder


class ExistingCluster:
    """A cluster of somebody's; `state_folder(name)` gets a kubeconfig with only the chosen context."""

    def __init__(
        self, name: str, *, fake_nodes: int = 0, source: Path | None = None, context: str | None = None
    ) -> None:
        """`source` is a kubeconfig ($KUBECONFIG or ~/.kube/config if None), of which `context` (the current one)."""
        self.name = name
        self.folder = state_folder(name)
        self.kubeconfig = self.folder / "kubeconfig"
        self._fake_nodes = fake_nodes
        self._source = source
        self._context = context

    def up(self) -> None:
        note(self.folder, Provider.EXISTING)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(self._chosen_context())
        if list_nodes(self.kubeconfig) is None:
            raise ClusterError(f"the cluster of {self._source or 'your kubeconfig'} does not answer")
        if self._fake_nodes:
            kwok.add_nodes(self.folder, self.kubeconfig, self._fake_nodes)

    def down(self) -> None:
        """Remove the fake nodes that `up` added, if any, and forget the kubeconfig."""
        if not self.folder.exists():
            return
        added = kwok.added_by(self.folder) if processes.find(self.folder, "kwok") else None
        processes.stop(self.folder, processes.recorded(self.folder))
        if added and list_nodes(self.kubeconfig) is not None:
            delete_nodes(self.kubeconfig, added)
        shutil.rmtree(self.folder)

    def status(self) -> Status:
        parts = [Part(p.name, p.alive, f"pid {p.pid}") for p in processes.recorded(self.folder)]
        nodes = list_nodes(self.kubeconfig)
        return Status(parts=parts, nodes=nodes or [], reachable=nodes is not None)

    def load_image(self, *tags: str) -> None:
        raise ClusterError(f"push {', '.join(tags)} to a registry that the cluster's nodes can pull from")

    def _chosen_context(self) -> str:
        command: list[str | Path] = [
            ensure("kubectl") / "kubectl",
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
        ]
        if self._context is not None:
            command.append(f"--context={self._context}")
        environment = dict(os.environ)
        if self._source is not None:
            environment["KUBECONFIG"] = str(self._source)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"no usable kubeconfig: {done.stderr.strip()}")
        return done.stdout
