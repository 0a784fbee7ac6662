"""A real Prometheus scrapes an operator and node agents while jobs run, wait, save and stop: every question has data.

The operator and Prometheus are processes; agents and boards live in the test.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from berth.adapters.kube import KubeApi
from berth.agent.agent import Agent
from berth.agent.program import follow, measurer_of, nothing, pages
from berth.control.ports import NODES, PODS, QUEUES, TRAINING_JOBS
from berth.control.records import ATTEMPT_LABEL, NAME_LABEL
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Cluster
from e2e.fakegpu.agents import driver_of
from e2e.fakegpu.kwok import KwokFleet
from e2e.harness import a_training_job, an_operator, playing_fleet, until
from e2e.monitoring.prometheus import Prometheus, running
from tests.integration.test_progress import reached
from tests.monitoring.questions import EMPTY_BY_DESIGN, Question, of_dashboards, of_rules

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MODEL, ZONE, QUEUE = "H100-PCIE-80GB", "SEEN", "seen"
SPOT = {
    "name": "seen-spot",
    "count": 1,
    "board": MODEL,
    "boardsPerNode": 3,
    "agent": True,
    "mig": [{"boards": [2], "layout": "all-1g.10gb"}],
    "capacityType": "spot",
    "region": "seen-west",
}
STEADY = {**SPOT, "name": "seen-steady", "capacityType": "on-demand"}
ON_SPOT, ON_STEADY = ({"kubernetes.io/hostname": f"{pool['name']}-0"} for pool in (SPOT, STEADY))
A_QUEUE = {
    "apiVersion": "berth.dev/v1alpha1",
    "kind": "Queue",
    "metadata": {"name": QUEUE},
    "spec": {"quotas": [{"model": MODEL, "nominal": 6}]},
}
PRICES = {"prices": [{"model": MODEL, "usdPerHour": 2.5}]}
JOBS = SHORT, SLICE, WIDE, SAVING, ELSEWHERE = "short", "slice", "wide", "llm", "elsewhere"
SECONDS = 60.0  # until all has data; about 20 on idle cores


@asynccontextmanager
async def watched(api: KubeApi, fleet: KwokFleet) -> AsyncIterator[list[str]]:
    """An agent for each node, whose pages are served; where."""
    async with AsyncExitStack() as stack:
        works, places = [], []
        for name, played in fleet.nodes.items():
            driver = driver_of(played)
            driver.node.boards[0].xids.append(31)
            agent = Agent(name, api, driver, driver.holders, driver, time.time)
            measurer = measurer_of(agent, driver)
            works.append(asyncio.create_task(follow(agent, api, time.time, nothing, measurer)))
            server = await stack.enter_async_context(TestServer(pages(agent, measurer, time.time)))
            places.append(f"127.0.0.1:{server.port}")
        try:
            yield places
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)


@asynccontextmanager
async def a_price_list() -> AsyncIterator[str]:
    """Where live prices are."""

    async def prices(_: web.Request) -> web.Response:
        return web.json_response(PRICES)

    application = web.Application()
    application.router.add_get("/prices", prices)
    async with TestServer(application) as server:
        yield str(server.make_url("/prices"))


def hours_of_carbon(folder: Path) -> dict[str, Any]:
    """A configuration whose carbon intensity comes from a file."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [f"{(now + timedelta(hours=hour)).isoformat()},{300 + hour}" for hour in range(-1, 48)]
    (folder / "hours.csv").write_text("\n".join([f"datetime_utc,{ZONE}", *rows]))
    zones = [{"zone": ZONE, "regions": ["seen-west"]}]
    return {"source": "file", "file": str(folder / "hours.csv"), "zones": zones, "keptFolder": str(folder / "carbon")}


async def live_through(api: KubeApi, namespace: str, folder: Path) -> None:
    """Jobs run on boards and an instance, wait for quota, save, are suspended twice, and go on from a checkpoint."""

    async def make(name: str, on: dict[str, str] | None = None, **spec: Any) -> None:
        job = a_training_job(name, namespace=namespace, queue=QUEUE, **spec)
        job["spec"]["template"]["spec"]["nodeSelector"] = on or {}
        await api.create(TRAINING_JOBS, namespace, job)

    async def states(name: str, state: str) -> bool:
        found = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
        return bool(found.get("state") == state)

    async def suspend(name: str, yes: bool) -> None:
        await api.merge(TRAINING_JOBS, namespace, name, {"spec": {"suspend": yes}})
        if yes:
            await until(lambda: states(name, "Suspended"), f"{name} is suspended")

    gpus = {"count": 1, "models": [MODEL]}
    await make(SHORT, ON_SPOT, gpus=gpus)
    await make(SLICE, gpus={"profile": "1g.10gb", "models": [MODEL]})
    await make(WIDE, gpus=gpus, workers=8)
    await make(SAVING, ON_SPOT, gpus=gpus, checkpoint={})
    await make(ELSEWHERE, ON_STEADY, gpus=gpus, checkpoint={})
    await until(lambda: states(SHORT, "Running"), "the short job runs")
    await suspend(SHORT, True)
    server = await reached(api, namespace, await member(api, namespace, 1), folder)
    saved = {"step": 40, "time": "2026-01-01T00:00:00Z", "bytes": 7, "seconds": 2.0}
    await asyncio.to_thread(server.post, {"berth": {"step": 45, "totalSteps": 90, "checkpoint": saved}})
    await until(lambda: has_saved(api, namespace), "the checkpoint is known")
    await suspend(SAVING, True)
    await suspend(SAVING, False)
    server = await reached(api, namespace, await member(api, namespace, 2), folder)
    await asyncio.to_thread(server.post, {"berth": {"step": 41}})
    for name in (SLICE, ELSEWHERE):
        await until(lambda name=name: states(name, "Running"), f"{name} runs")  # type: ignore[misc]


async def member(api: KubeApi, namespace: str, attempt: int) -> dict[str, Any]:
    """The pod of an attempt of the job that saves, once that runs."""
    marks = {NAME_LABEL: SAVING, ATTEMPT_LABEL: str(attempt)}

    async def find() -> dict[str, Any] | None:
        status = (await api.get(TRAINING_JOBS, namespace, SAVING)).get("status") or {}
        if (status.get("state"), status.get("attempt")) != ("Running", attempt):
            return None
        pods = (await api.request("GET", PODS.path(namespace)))["items"]
        return next((pod for pod in pods if marks.items() <= pod["metadata"]["labels"].items()), None)

    found: dict[str, Any] = await until(find, f"attempt {attempt} runs")
    return found


async def has_saved(api: KubeApi, namespace: str) -> bool:
    """Whether the status of the job that saves tells of it."""
    return "checkpoint" in ((await api.get(TRAINING_JOBS, namespace, SAVING)).get("status") or {})


async def all_up(prometheus: Prometheus) -> bool:
    """Whether the operator and both agents have been scraped."""
    return await asyncio.to_thread(prometheus.up) == 3


def unanswered(prometheus: Prometheus, questions: Iterable[Question]) -> list[Question]:
    """Those without a number."""

    def has_data(question: Question) -> bool:
        return any(not math.isnan(float(found["value"][1])) for found in prometheus.query(question.filled_in))

    return [question for question in questions if not has_data(question)]


async def test_every_question_of_dashboards_and_rules_has_data(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    questions = [*of_dashboards(), *of_rules()]
    assert {question.expression for question in questions} >= EMPTY_BY_DESIGN.keys()
    await api.create(QUEUES, "", A_QUEUE)
    (port,) = free_ports(1)
    async with (
        playing_fleet(cluster.kubeconfig, SPOT, STEADY) as fleet,
        watched(api, fleet) as agents,
        a_price_list() as prices,
    ):
        settings = {
            "progressHost": "localhost",
            "progressPort": port,
            "prices": {"source": "json", "url": prices, "keptFolder": str(tmp_path / "prices")},
            "carbon": hours_of_carbon(tmp_path),
        }
        with an_operator(cluster.kubeconfig, **settings) as operator:
            jobs = {"berth": [urlsplit(operator.metrics).netloc], "berth-agent": agents}
            with running(tmp_path, jobs) as prometheus:
                await until(lambda: all_up(prometheus), "all are scraped, so that no step of a counter is missed")
                await live_through(api, namespace, tmp_path)
                expected = [question for question in questions if question.expression not in EMPTY_BY_DESIGN]

                async def all_answered() -> bool:
                    return not await asyncio.to_thread(unanswered, prometheus, expected)

                with suppress(AssertionError):  # the next line says which
                    await until(all_answered, "all has data", SECONDS, every=1.0)
                assert [
                    f"{q.by}: {q.expression}" for q in await asyncio.to_thread(unanswered, prometheus, expected)
                ] == []
                rules = await asyncio.to_thread(prometheus.rules)
                assert {rule["health"] for rule in rules} == {"ok"}
                assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
            for name in JOBS:
                await api.delete(TRAINING_JOBS, namespace, name)
    for node in fleet.nodes:
        await api.delete(NODES, "", node)
    await api.delete(QUEUES, "", QUEUE)
