"""What tests and the demo know of a cluster, whichever way it is made."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from e2e.cluster import engine
from e2e.cluster.errors import ClusterError
from e2e.cluster.nodes import Node


class Provider(StrEnum):
    """How a cluster is made; `auto` is kind where a Docker engine runs, else local."""

    AUTO = "auto"
    KIND = "kind"
    LOCAL = "local"
    EXISTING = "existing"


@dataclass(frozen=True)
class Part:
    """A process or container that the cluster consists of."""

    name: str
    running: bool
    detail: str = ""


@dataclass(frozen=True)
class Status:
    """What is there of a cluster: its parts, and its nodes (none if it can't be asked)."""

    parts: list[Part] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    reachable: bool = False

    @property
    def healthy(self) -> bool:
        return self.reachable and all(part.running for part in self.parts)


class Cluster(Protocol):
    """A Kubernetes cluster under a name; all its state lies in `state_folder(name)`."""

    name: str
    kubeconfig: Path

    def up(self) -> None:
        """Start what is not running yet, and return when pods can be created and nodes are ready.

        Raises:
            ClusterError: a part ended or the cluster did not become ready in time.
        """

    def down(self) -> None:
        """End and delete everything that `up` made; nothing to do is fine too."""

    def status(self) -> Status:
        """What is running; never raises for a cluster that is down."""

    def load_image(self, *tags: str) -> None:
        """Make container images of this machine's engine known to the nodes."""


def state_folder(name: str) -> Path:
    """`${XDG_STATE_HOME:-~/.local/state}/berth/clusters/<name>`.

    Raises:
        ClusterError: the name is no DNS label of at most 40 characters (it becomes part of host names).
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", name):
        raise ClusterError(f"cluster name {name!r}: at most 40 of a-z, 0-9 and -, starting and ending without -")
    root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return root / "berth" / "clusters" / name


def make(
    provider: Provider,
    name: str,
    *,
    workers: int = 2,
    fake_nodes: int = 0,
    source: Path | None = None,
    context: str | None = None,
) -> Cluster:
    """The cluster of that name, which may be up or not.

    `workers` are real nodes, which only kind has; `source` and `context` say which cluster `existing` means.

    Raises:
        ClusterError: a cluster of that name was made by another provider, or the name is none.
    """
    match choose(provider, name):
        case Provider.KIND:
            from e2e.cluster.kind import KindCluster

            return KindCluster(name, workers=workers, fake_nodes=fake_nodes)
        case Provider.LOCAL:
            from e2e.cluster.local import LocalCluster

            return LocalCluster(name, fake_nodes=fake_nodes)
        case _:
            from e2e.cluster.existing import ExistingCluster

            return ExistingCluster(name, fake_nodes=fake_nodes, source=source, context=context)


def note(folder: Path, provider: Provider) -> None:
    """Make a cluster's folder, and write into it how the cluster is made, for those who know only its name."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "provider").write_text(provider)


def choose(provider: Provider, name: str) -> Provider:
    """Replace `auto` by how the cluster was made, or else by what this machine can do."""
    made = made_by(name)
    if made is not None and provider not in {made, Provider.AUTO}:
        raise ClusterError(f"cluster {name} was made by provider {made}: take it down first, or choose another name")
    if provider is not Provider.AUTO:
        return provider
    return made or (Provider.KIND if engine.answers() else Provider.LOCAL)


def made_by(name: str) -> Provider | None:
    """The provider of the cluster of that name; None if there is no such cluster."""
    note = state_folder(name) / "provider"
    return Provider(note.read_text()) if note.exists() else None


@contextmanager
def running(
    provider: Provider = Provider.AUTO, name: str | None = None, *, workers: int = 2, fake_nodes: int = 0
) -> Iterator[Cluster]:
    """A cluster for the time of a `with` block, under a name of its own if none is given."""
    cluster = make(provider, name or f"test-{uuid.uuid4().hex[:8]}", workers=workers, fake_nodes=fake_nodes)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
