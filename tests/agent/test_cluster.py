"""Agents with the tokens and rights of the chart's pods, and a real API server; boards and kubelets are simulated."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from berth.adapters import kube as berth_kube
from berth.agent.agent import Agent
from berth.agent.program import follow
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Cluster, Provider, running
from e2e.demo import install
from e2e.fakegpu.agent import GPUS_SOCKET
from e2e.fakegpu.agents import driver_of
from e2e.fakegpu.driver import Driver, serving
from e2e.fakegpu.kube import ApiError, Kube, connect
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.node import Holder
from tests.agent.nodes import mig, wanted
from tests.fakegpu.api import holders, until
from tests.fakegpu.kubelet import FakeKubelet
from tests.fakegpu.machines import a_fleet

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PODS = "/api/v1/namespaces/default/pods"
AGENTS = f"/api/v1/namespaces/{install.NAMESPACE}/pods"
GPUNODES = "/apis/berth.dev/v1alpha1/gpunodes"
ACCOUNT = "berth-agent"
SECONDS = 120


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with the chart's agents: KWOK runs their pods, and nothing is in them."""
    with running(Provider.LOCAL) as cluster:
        values = {"replicaCount": 0, "agent": {"enabled": True, "runtimeClassName": ""}}
        install.install_chart(cluster.kubeconfig, values)
        yield cluster


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    """An administrator's client; nodes, pods and GPUNodes are gone afterwards."""
    async with connect(str(cluster.kubeconfig)) as kube:
        yield kube
        for path in (PODS, "/api/v1/nodes", GPUNODES):
            await kube.request("DELETE", path, gracePeriodSeconds="0")


def token(cluster: Cluster, *bound: str) -> str:
    """A token of the agents' service account, bound to an object."""
    return install.kubectl(
        cluster.kubeconfig, "create", "token", ACCOUNT, f"--namespace={install.NAMESPACE}", *bound
    ).strip()


async def token_of(cluster: Cluster, kube: Kube, node: str) -> str:
    """What the kubelet would give to the agent's pod on that node."""

    def there(pods: Any) -> bool:
        return any(pod["spec"].get("nodeName") == node for pod in pods["items"])

    pods = await until(kube, AGENTS, there, SECONDS)
    name = next(pod["metadata"]["name"] for pod in pods["items"] if pod["spec"].get("nodeName") == node)
    return await asyncio.to_thread(token, cluster, "--bound-object-kind=Pod", f"--bound-object-name={name}")


def as_bearer(cluster: Cluster, folder: Path, bearer: str) -> Path:
    """A kubeconfig with that token instead of an administrator's certificate."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": bearer}} for user in config["users"]]
    path = folder / f"{abs(hash(bearer))}.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@asynccontextmanager
async def living(cluster: Cluster, kube: Kube, folder: Path, **pool: Any) -> AsyncIterator[dict[str, Driver]]:
    """Nodes n-0, n-1 with an agent each, while the block runs; their drivers."""
    fleet = KwokFleet(kube, a_fleet(agent=True, **pool))
    await fleet.create()
    drivers = {}
    async with AsyncExitStack() as stack:
        works = [asyncio.create_task(fleet.run())]
        for name, played in fleet.nodes.items():
            bearer = await token_of(cluster, kube, name)
            api = await stack.enter_async_context(berth_kube.connect(str(as_bearer(cluster, folder, bearer))))
            driver = drivers[name] = driver_of(played)
            agent = Agent(name, api, driver, driver.holders, driver, time.time)
            works.append(asyncio.create_task(follow(agent, api, time.time)))
        try:
            yield drivers
        finally:
            for work in works:
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work


async def run_pod(kube: Kube, name: str, resource: str) -> None:
    """Start a pod on n-0."""
    container = {"name": "main", "image": "none", "resources": {"limits": {f"nvidia.com/{resource}": "1"}}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "nodeName": "n-0"}
    await kube.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})


def laid_out(found: Any) -> bool:
    """Whether the agent has done all that is wanted now."""
    status = found.get("status", {})
    conditions = status.get("conditions") or [{}]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"] and conditions[0].get("status") == "True"
    )


async def test_an_agent_lays_a_board_out_beside_a_busy_instance(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    sevens = mig("1g.10gb@0", "1g.10gb@1", "2g.20gb@2", "3g.40gb@4")
    async with living(cluster, kube, tmp_path, count=1, mig=sevens) as drivers:
        await run_pod(kube, "busy", "mig-3g.40gb")
        path = f"{GPUNODES}/n-0"
        before = await until(kube, path, lambda found: list(holders(found).values()) == ["busy"], SECONDS)
        await kube.merge(path, {"spec": {"boards": [wanted("4g.40gb@0", "3g.40gb@4")]}})
        after = await until(kube, path, laid_out, SECONDS)
        assert [(i["profile"], i["start"]) for i in after["status"]["boards"][0]["instances"]] == [
            ("4g.40gb", 0),
            ("3g.40gb", 4),
        ]
        assert holders(after) == holders(before)
        assert drivers["n-0"].wrongs == []
        node = await until(
            kube,
            "/api/v1/nodes/n-0",
            lambda node: node["status"]["allocatable"].get("nvidia.com/mig-4g.40gb") == "1",
            SECONDS,
        )
        assert node["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] == "0"


async def test_a_wish_that_no_board_can_have_is_answered_not_tried(
    cluster: Cluster, kube: Kube, tmp_path: Path
) -> None:
    async with living(cluster, kube, tmp_path, count=1):
        path = f"{GPUNODES}/n-0"
        await until(kube, path, lambda found: found.get("status", {}).get("boards"), SECONDS)
        await kube.merge(path, {"spec": {"boards": [wanted("3g.40gb@2")]}})
        found = await until(kube, path, lambda found: found["status"].get("conditions"), SECONDS)
        (condition,) = found["status"]["conditions"]
        assert (condition["reason"], condition["observedGeneration"]) == ("Invalid", 2)
        with pytest.raises(ApiError, match="instances exist in MIG mode only"):
            await kube.merge(path, {"spec": {"boards": [wanted("3g.40gb@0", migEnabled=False)]}})


async def test_an_agent_may_write_the_gpunode_of_its_own_node_and_no_other(
    cluster: Cluster, kube: Kube, tmp_path: Path
) -> None:
    status = {"status": {"layouts": "None"}}
    async with living(cluster, kube, tmp_path, count=2):
        for name in ("n-0", "n-1"):
            await until(kube, f"{GPUNODES}/{name}", lambda found: "boards" in found.get("status", {}), SECONDS)
        bearer = await token_of(cluster, kube, "n-0")
    async with connect(str(as_bearer(cluster, tmp_path, bearer))) as agent:
        await agent.merge(f"{GPUNODES}/n-0/status", status)
        with pytest.raises(ApiError, match="the agent on node n-0 may not write GPUNode n-1"):
            await agent.merge(f"{GPUNODES}/n-1/status", status)
        with pytest.raises(ApiError, match="the agent on node n-0 may not write GPUNode n-2"):
            await agent.request("POST", GPUNODES, a_gpu_node("n-2"))
        with pytest.raises(ApiError, match="forbidden"):
            await agent.merge(f"{GPUNODES}/n-0", {"spec": {"boards": [wanted()]}})
        await kube.request("DELETE", f"{GPUNODES}/n-0")
        with pytest.raises(ApiError, match="spec is the operator's to write"):
            await agent.request("POST", GPUNODES, a_gpu_node("n-0", spec={"boards": [wanted()]}))
        await agent.request("POST", GPUNODES, a_gpu_node("n-0"))


async def test_a_token_that_names_no_node_may_write_none(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    bearer = await asyncio.to_thread(token, cluster)
    async with connect(str(as_bearer(cluster, tmp_path, bearer))) as stolen:
        with pytest.raises(ApiError, match="an agent must use the token of its own pod"):
            await stolen.request("POST", GPUNODES, a_gpu_node("n-0"))


async def test_the_program_lives_visibly_and_ends_when_told(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    kubelet = FakeKubelet(tmp_path)
    await kubelet.start()
    fleet = KwokFleet(kube, a_fleet(agent=True, count=1))
    await fleet.create()
    driver, (port,) = driver_of(fleet.nodes["n-0"]), free_ports(1)
    bearer = await token_of(cluster, kube, "n-0")
    options = ["--node=n-0", f"--pod-resources={tmp_path}/pod-resources/kubelet.sock", f"--shared={tmp_path}"]
    options += [f"--health-port={port}", f"--kubeconfig={as_bearer(cluster, tmp_path, bearer)}"]
    async with serving(driver, tmp_path / GPUS_SOCKET):
        program = await asyncio.create_subprocess_exec(sys.executable, "-m", "e2e.fakegpu", "agent", *options)
        try:
            await until(kube, f"{GPUNODES}/n-0", lambda found: "boards" in found.get("status", {}), SECONDS)
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}/healthz") as answer:
                assert answer.status == 200
            await kube.merge(f"{GPUNODES}/n-0", {"spec": {"boards": [wanted("7g.80gb@0")]}})
            await until(kube, f"{GPUNODES}/n-0", laid_out, SECONDS)
            program.terminate()
            assert await asyncio.wait_for(program.wait(), SECONDS) == 0
        finally:
            if program.returncode is None:
                program.kill()
            await kubelet.stop()


async def test_the_program_tells_prometheus_whose_work_its_boards_do(
    cluster: Cluster, kube: Kube, tmp_path: Path
) -> None:
    kubelet = FakeKubelet(tmp_path)
    await kubelet.start()
    fleet = KwokFleet(kube, a_fleet(agent=True, count=1))
    await fleet.create()
    driver, (port,) = driver_of(fleet.nodes["n-0"]), free_ports(1)
    board = driver.node.boards[1]
    driver.node.load = {"1": 0.65}
    kubelet.held[Holder("default", "llm-0")] = {"nvidia.com/gpu": [board.uuid]}
    marks = {"labels": {"berth.dev/name": "llm"}, "annotations": {"berth.dev/queue": "research"}}
    spec = {"containers": [{"name": "main", "image": "none"}], "nodeName": "n-0"}
    await kube.request("POST", PODS, {"metadata": {"name": "llm-0", **marks}, "spec": spec})
    options = ["--node=n-0", f"--pod-resources={tmp_path}/pod-resources/kubelet.sock", f"--shared={tmp_path}"]
    bearer = as_bearer(cluster, tmp_path, await token_of(cluster, kube, "n-0"))
    options += [f"--health-port={port}", f"--kubeconfig={bearer}"]
    wanted_labels = 'namespace="default",node="n-0",pod="llm-0",profile="",queue="research"'
    async with serving(driver, tmp_path / GPUS_SOCKET):
        program = await asyncio.create_subprocess_exec(sys.executable, "-m", "e2e.fakegpu", "agent", *options)
        try:
            line = await until_told(port, "berth_gpu_utilization_ratio", 'workload="llm"')
            assert wanted_labels in line
            assert line.endswith(" 0.65")
            kubelet.held.clear()
            assert 'pod="llm-0"' not in await page(port)
        finally:
            program.terminate()
            await program.wait()
            await kubelet.stop()


async def page(port: int) -> str:
    """What the agent serves; "" while it does not."""
    with suppress(aiohttp.ClientError):
        async with aiohttp.request("GET", f"http://127.0.0.1:{port}/metrics") as answer:
            return await answer.text()
    return ""


async def until_told(port: int, *parts: str) -> str:
    """The line of the page that has all of these, once there is one."""
    for _ in range(SECONDS * 5):
        for line in (await page(port)).splitlines():
            if all(part in line for part in parts):
                return line
        await asyncio.sleep(0.2)
    raise AssertionError(f"no line with {parts}: {await page(port)}")


def a_gpu_node(name: str, **more: Any) -> Any:
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}, **more}
