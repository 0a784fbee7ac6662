"""`berth top`: what runs, sorted, with what programs and agents tell of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from berth.cli.running import Order, ordered, running
from berth.cli.top import look, watch
from berth.control.ports import GPU_NODES, INFERENCE_SERVICES, TRAINING_JOBS, Unavailable
from berth.control.status import to_rfc3339
from tests.adapters.servers import serving
from tests.cli.clusters import Lists
from tests.cli.live import Live, living
from tests.control.builders import a_node, a_service, a_training_job
from tests.control.world import World


def a_report(*boards: tuple[str, int, int]) -> dict[str, Any]:
    """A node's report: who holds each board, its use in percent and its power in W."""
    told = [
        {"index": i, "model": "H100-80GB", "pod": {"namespace": "team", "name": pod}, "utilization": u, "watts": w}
        for i, (pod, u, w) in enumerate(boards)
    ]
    return {"metadata": {"name": "n1"}, "status": {"boards": told}}


def a_running_job(name: str = "llm", attempt: int = 1, **status: Any) -> dict[str, Any]:
    """A job of two workers on one node."""
    device = {"model": "H100-80GB", "resource": "nvidia.com/gpu", "count": 4}
    placement = {"device": device, "assignments": [{"node": "n1", "ranks": "0-1"}]}
    known = {"state": "Running", "attempt": attempt, "placement": placement, "ready": "2/2", "device": "4 x H100-80GB"}
    return {**a_training_job(name), "status": {**known, **status}}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Two jobs that run, one that waits, and a service."""
    world = World(a_node("n1", boards=8), a_node("n2", boards=8))
    for name, boards in (("small", 1), ("llm", 4)):
        world.api.put(TRAINING_JOBS, a_training_job(name, boards=boards))
    world.api.put(TRAINING_JOBS, a_training_job("big", workers=9))
    world.api.put(INFERENCE_SERVICES, a_service("chat", replicas=2))
    await world.settle()
    async with living(world, tmp_path) as cluster:
        yield cluster


async def test_what_runs_is_printed_once(live: Live) -> None:
    saved = {"attempt": 1, "step": 7, "time": to_rfc3339(1.0), "bytes": 1, "seconds": 1.0}
    progress = {"percent": 45, "attempt": 1, "time": to_rfc3339(1.0), "estimatedEnd": "2999-01-01T00:00:00Z"}
    live.world.api.edit(TRAINING_JOBS, "team", "llm", status={"checkpoint": saved, "progress": progress})
    live.world.api.put(GPU_NODES, a_report(("llm-1-0-abcde", 90, 600), ("llm-1-1-abcde", 70, 500)))
    result = await live("top", "--once")
    assert result.exit_code == 0, result.output
    heading, *lines = result.output.splitlines()
    assert heading.split()[:3] == ["workload", "queue", "state"]
    names = [line.split()[0] for line in lines if line[0] != " "]  # a line may be folded
    assert names == ["team/llm", "infer/team/chat", "team/small"]
    told = json.loads((await live("top", "-ojson")).output)["workloads"]
    llm = told[0]
    assert (llm["percent"], llm["utilizationPercent"], llm["watts"]) == (45, 80, 1100)
    assert llm["checkpointAgeSeconds"] > 1e9
    assert [one["workload"]["name"] for one in told] == ["llm", "chat", "small"]
    assert (told[1]["ready"], told[1]["members"]) == (2, 2)


async def test_of_an_empty_namespace_nothing_runs(live: Live) -> None:
    assert (await live("top", "-n", "other")).output == "Nothing runs here.\n"
    assert "team/llm" in (await live("top", "-A")).output


async def test_boards_of_a_job_whose_name_begins_alike_are_not_its_own() -> None:
    report = a_report(("llm-1-0-abcde", 10, 100), ("llm-1-1-0-abcde", 90, 700), ("llm-2-0-abcde", 90, 700))
    rows = running([a_running_job("llm"), a_running_job("llm-1")], [], [report])
    assert [(row.name, row.used, row.watts) for row in rows] == [("llm", 10, 100), ("llm-1", 90, 700)]


async def test_progress_of_an_attempt_that_is_over_is_not_that_of_the_next() -> None:
    told = {"percent": 45, "attempt": 1, "estimatedEnd": "2026-01-01T00:00:00Z"}
    (row,) = running([a_running_job(attempt=2, progress=told)], [], [])
    assert (row.percent, row.ends) == (None, None)


async def test_a_job_that_stops_says_why() -> None:
    (row,) = running([a_running_job(stopping="Drain")], [], [])
    assert (row.state, row.note) == ("Stopping", "Drain")


@pytest.mark.parametrize(
    ("by", "first"), [(Order.PROGRESS, "far"), (Order.ETA, "far"), (Order.SAVED, "near"), (Order.USED, "far")]
)
def test_rows_are_sorted_by_what_is_asked_for(by: Order, first: str) -> None:
    def told(percent: int, end: str, **more: Any) -> dict[str, Any]:
        return {"progress": {"percent": percent, "estimatedEnd": end}, **more}

    near = a_running_job("near", **told(5, "2026-01-03T00:00:00Z"))
    far = a_running_job("far", **told(95, "2026-01-02T00:00:00Z", checkpoint={"time": "2026-01-01T00:00:00Z"}))
    report = a_report(("near-1-0-abcde", 90, 700), ("far-1-0-abcde", 3, 100))
    assert ordered(running([near, far], [], [report]), by)[0].name == first


async def test_who_may_not_see_gpu_nodes_sees_the_rest() -> None:
    lists = Lists(forbidden=("gpunodes",))
    lists.put("trainingjobs", a_running_job())
    async with serving(lists.answer) as api:
        (row,) = await look(api, "team")
    assert (row.name, row.used) == ("llm", None)


async def test_it_goes_on_to_look_and_says_when_nobody_answers(live: Live) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    watching = asyncio.create_task(watch(console, str(live.kubeconfig), "team", False, Order.BOARDS, 0.05))

    async def shows(text: str) -> None:
        while text not in screen.getvalue():
            assert not watching.done()
            await asyncio.sleep(0.02)
        screen.truncate(0)

    async with asyncio.timeout(30):
        await shows("team/llm")
        live.world.api.fail("list trainingjobs", Unavailable("too busy"))
        await shows("no answer, shown is what was: too busy")
        live.world.api.remove(TRAINING_JOBS, "team", "llm")
        await shows("team/small")
    watching.cancel()
