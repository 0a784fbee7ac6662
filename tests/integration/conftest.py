"""One real API server for all integration tests; each test has nodes, a namespace and workloads of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from berth.adapters.kube import KubeApi, connect
from berth.control.ports import INFERENCE_SERVICES, PODS, TRAINING_JOBS
from e2e.cluster.provider import Cluster, Provider, running
from e2e.harness import install, make_namespace
from e2e.kubectl import Kubectl


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that failed what its namespace has to say: it is cleared when somebody reads it."""
    report = yield
    given = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and "namespace" in given:
        report.sections += Kubectl(given["cluster"].kubeconfig, given["namespace"]).testimony()
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """API server, controllers, scheduler and KWOK as processes, with the custom resources installed."""
    with running(Provider.LOCAL, name=f"test-{uuid.uuid4().hex[:8]}", fake_nodes=0) as cluster:
        asyncio.run(_install(cluster))
        yield cluster


async def _install(cluster: Cluster) -> None:
    async with connect(str(cluster.kubeconfig)) as api:
        await install(api)


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubeApi]:
    """A client with every permission."""
    async with connect(str(cluster.kubeconfig)) as api:
        yield api


@pytest.fixture
async def namespace(api: KubeApi) -> AsyncIterator[str]:
    """A namespace of the test's own; what runs or waits there does so no longer than the test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await make_namespace(api, name)
    yield name
    for resource in (TRAINING_JOBS, INFERENCE_SERVICES, PODS):
        await api.request("DELETE", resource.path(name), query={"gracePeriodSeconds": "0"})
