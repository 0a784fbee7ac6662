"""What tests and benchmarks run Berth with: the operator as a process that can be killed, fake GPU nodes, watches."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
import msgspec
import yaml

from berth.adapters.kube import KubeApi
from berth.control.builders import PRIORITY_CLASS
from berth.control.ports import (
    CONFIG_MAPS,
    INFERENCE_SERVICES,
    PRIORITY_CLASSES,
    QUEUES,
    TRAINING_JOBS,
    ApiError,
    Conflict,
    Resource,
)
from e2e.cluster.control_plane import free_ports
from e2e.fakegpu.fleet import parse_fleet
from e2e.fakegpu.kube import connect as connect_fleet
from e2e.fakegpu.kwok import KwokFleet

ROOT = Path(__file__).resolve().parent.parent
NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)

Json = dict[str, Any]


@dataclass
class OperatorProcess:
    """The operator as a process of this machine. One identity, as a pod's containers share their pod's name."""

    kubeconfig: Path
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `wait_ready` says when it acts."""
        ports = dict(zip(("metricsPort", "healthPort"), free_ports(2), strict=True))
        settings = {"logFormat": "text", **ports, **self.settings}
        self.health = f"http://127.0.0.1:{settings['healthPort']}"
        self.metrics = f"http://127.0.0.1:{settings['metricsPort']}/metrics"
        file = self.folder / "operator.yaml"
        file.write_text(yaml.safe_dump(settings))
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "POD_NAME": "operator-under-test"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "berth.cli.main", "operator", "--config", str(file)],
                env=environment,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> Path:
        """Everything it ever said."""
        return self.folder / "operator.log"

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Return once it holds the Lease and has a whole picture."""
        until = monotonic() + seconds
        while monotonic() < until:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"the operator ended: {self.log.read_text()[-3000:]}")
            with suppress(URLError, OSError), urlopen(f"{self.health}/readyz", timeout=2) as answer:
                if answer.read() == b"acting\n":
                    return
            sleep(0.05)
        raise AssertionError(f"the operator did not become ready in {seconds} s: {self.log.read_text()[-3000:]}")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL: it gets no chance to finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, signum: int) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signum)
        status = self.process.wait(timeout=20)
        self.process = None
        return status


@contextmanager
def an_operator(kubeconfig: Path, **settings: Any) -> Iterator[OperatorProcess]:
    """A running operator that acts; its log is printed when the body fails."""
    with tempfile.TemporaryDirectory(prefix="berth-operator-") as folder:
        operator = OperatorProcess(kubeconfig, Path(folder), settings)
        try:
            operator.start()
            operator.wait_ready()
            yield operator
        except BaseException:
            if operator.log.exists():
                sys.stderr.write(operator.log.read_text()[-8000:])
            raise
        else:
            assert operator.stop() == 0, operator.log.read_text()[-3000:]
        finally:
            operator.stop()


async def install(api: KubeApi, namespace: str = "berth-system") -> None:
    """The custom resources, the pods' PriorityClass and the operator's namespace, as the chart installs them."""
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        await api.apply(CRDS, "", body["metadata"]["name"], body)
    for resource in (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES):
        await until(lambda r=resource: _served(api, r), f"{resource.plural} are served")  # type: ignore[misc]
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": PRIORITY_CLASS},
        "value": 0,
        "preemptionPolicy": "Never",
    }
    with suppress(Conflict):
        await api.create(PRIORITY_CLASSES, "", priority)
    await make_namespace(api, namespace)


async def make_namespace(api: KubeApi, name: str) -> None:
    """A namespace, with the service account that its pods need."""
    with suppress(Conflict):
        await api.create(NAMESPACES, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    accounts = Resource("", "v1", "serviceaccounts")
    await until(lambda: _exists(api, accounts, name, "default"), f"service account of namespace {name}")


async def make_fleet(kubeconfig: Path, *pools: Mapping[str, Any]) -> None:
    """KWOK nodes with GPUs. Nobody plays their device manager: pods run there all the same."""
    async with connect_fleet(str(kubeconfig)) as kube:
        await KwokFleet(kube, parse_fleet({"pools": list(pools)})).create()


MIG_CONFIG = """version: v1
mig-configs:
  # Written by the administrator.
  all-disabled:
    - devices: all
      mig-enabled: false
"""


async def make_mig_config(api: KubeApi, namespace: str = "gpu-operator") -> None:
    """The ConfigMap that mig-manager reads, with nothing of Berth's in it."""
    await make_namespace(api, namespace)
    metadata = {"name": "default-mig-parted-config", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.yaml": MIG_CONFIG}}
    with suppress(Conflict):
        await api.create(CONFIG_MAPS, namespace, body)


@asynccontextmanager
async def playing_fleet(kubeconfig: Path, *pools: Mapping[str, Any], **mig_manager: float) -> AsyncIterator[KwokFleet]:
    """KWOK nodes with GPUs, whose device managers, agents and mig-managers are played while the context lasts."""
    async with connect_fleet(str(kubeconfig)) as kube:
        fleet = KwokFleet(kube, parse_fleet({"pools": list(pools), "migManager": mig_manager}))
        await fleet.create()
        task = asyncio.create_task(fleet.run())
        try:
            yield fleet
        finally:
            if task.done():
                task.result()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(check: Callable[[], Any], what: str, seconds: float = 60.0, every: float = 0.1) -> Any:
    """Await a check's true answer; its last one. Raises AssertionError after the time."""
    ends = monotonic() + seconds
    while True:
        answer = await check()
        if answer:
            return answer
        if monotonic() > ends:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(every)


async def watch(api: KubeApi, resource: Resource, version: str) -> AsyncIterator[tuple[str, Json]]:
    """Every change after a resourceVersion, for ever: the server ends the watch of a slow reader, who then goes on."""
    timeout = aiohttp.ClientTimeout(total=None)
    while True:
        query = {"watch": "true", "resourceVersion": version}
        request = api.session.get(
            api.server + resource.path(), params=query, headers=api.authorization(), timeout=timeout
        )
        async with request as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk, _ in answer.content.iter_chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise AssertionError(f"the watch can't go on: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["object"]


async def _served(api: KubeApi, resource: Resource) -> bool:
    with suppress(ApiError):
        await api.list(resource)
        return True
    return False


async def _exists(api: KubeApi, resource: Resource, namespace: str, name: str) -> bool:
    with suppress(ApiError):
        await api.get(resource, namespace, name)
        return True
    return False


def a_training_job(
    name: str, *, namespace: str = "default", workers: int = 1, annotations: Json | None = None, **spec: Any
) -> Json:
    """A TrainingJob of small pods; `spec` adds to it or overrides it."""
    container = {
        "name": "train",
        "image": "berth/samples:latest",
        "command": ["python3", "/programs/train.py"],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    template = {"metadata": {"annotations": annotations or {}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workers": workers, "gpus": {"count": 1}, "template": template, **spec},
    }
