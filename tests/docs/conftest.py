"""What the pages run on: a cluster with the fleet that docs/howto/index.md tells of, and a shell with the commands."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.adapters.kube import connect
from berth.control.ports import CONFIG_MAPS, VOLUMES
from e2e.cluster.binaries import ensure
from e2e.cluster.provider import Cluster, Provider, running
from e2e.harness import ROOT, an_operator, install, playing_fleet

FLEET: tuple[dict[str, Any], ...] = (
    {"name": "gpu", "count": 4, "board": "H100-80GB", "boardsPerNode": 8, "racks": {"nodesPerRack": 2}},
    {"name": "spot", "count": 2, "board": "L40S", "boardsPerNode": 4, "capacityType": "spot"},
    {"name": "mig", "count": 1, "board": "A100-80GB", "boardsPerNode": 2, "mig": [{"layout": "all-2g.20gb"}]},
)
DIRTY_HOURS, DIRTY, CLEAN = 3, 420, 60  # from now on, and g/kWh then and afterwards


class Shell:
    """A shell in a folder of its own, as a reader has it."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        programs = folder / "programs"
        programs.mkdir()
        berth = programs / "berth"
        berth.write_text(f'#!/bin/sh\nexec {sys.executable} -m berth.cli.main "$@"\n')
        berth.chmod(0o755)
        (programs / "kubectl-berth").symlink_to(berth)
        path = os.pathsep.join(map(str, (programs, ensure("kubectl"), os.environ["PATH"])))
        self.folder, self._environment = folder, {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)}
        (folder / "docs").symlink_to(ROOT / "docs")

    def __call__(self, line: str) -> str:
        """Run a line; what it printed. Raises AssertionError where it fails."""
        command = ["bash", "-o", "pipefail", "-c", line]
        done = subprocess.run(command, cwd=self.folder, env=self._environment, text=True, capture_output=True)
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the fleet, on which the operator acts and knows when the grid is clean."""
    folder = tmp_path_factory.mktemp("carbon")
    hours = folder / "hours.csv"
    hours.write_text(forecast(datetime.now(UTC)))
    zones = [{"zone": "DE", "regions": ["local"]}]
    carbon = {"source": "file", "file": str(hours), "keptFolder": str(folder), "zones": zones}
    settings = {"carbon": carbon, "preemption": {"minRuntimeSeconds": 1}}
    with running(Provider.LOCAL, name=f"docs-{uuid.uuid4().hex[:8]}") as cluster:
        asyncio.run(_install(cluster, settings))
        with a_fleet(cluster.kubeconfig), an_operator(cluster.kubeconfig, **settings):
            yield cluster


@pytest.fixture
def shell(world: Cluster, tmp_path: Path) -> Iterator[Shell]:
    """A shell on that cluster, which is empty again afterwards."""
    run = Shell(tmp_path, world.kubeconfig)
    yield run
    run("kubectl delete trainingjobs,inferenceservices --all --all-namespaces --wait")
    run("kubectl delete queues --all --wait")
    run('kubectl get nodes -o name | xargs -I NODE kubectl patch NODE --patch \'{"spec": {"taints": null}}\'')
    run("kubectl wait pods --all --all-namespaces --for=delete --timeout=60s")


def forecast(now: datetime) -> str:
    """Hours as the source `file` has them: dirty ones, then clean ones."""
    first = now.replace(minute=0, second=0, microsecond=0)
    rows = (f"{first + timedelta(hours=i):%Y-%m-%d %H:%M:%S},{DIRTY if i < DIRTY_HOURS else CLEAN}" for i in range(48))
    return "\n".join(["datetime_utc,DE", *rows]) + "\n"


async def _install(cluster: Cluster, settings: Mapping[str, Any]) -> None:
    """What the chart brings and the operator reads, and a volume for who claims one."""
    metadata = {"name": "berth", "namespace": "berth-system", "labels": {"app.kubernetes.io/name": "berth"}}
    config = {"metadata": metadata, "data": {"config.yaml": yaml.safe_dump(dict(settings))}}
    storage = {"capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "hostPath": {"path": "/checkpoints"}}
    async with connect(str(cluster.kubeconfig)) as api:
        await install(api)
        await api.create(CONFIG_MAPS, "berth-system", {"apiVersion": "v1", "kind": "ConfigMap", **config})
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "shared"}, "spec": storage}
        await api.create(VOLUMES, "", volume)


@contextmanager
def a_fleet(kubeconfig: Path) -> Iterator[None]:
    """The fleet, played by a thread."""
    loop, made = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def play() -> None:
        async with playing_fleet(kubeconfig, *FLEET):
            made.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(play(),))
    thread.start()
    assert made.wait(120), "the fleet was not made"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
