"""`berth queue`: the tree with what it holds, and who waits in which order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.clusters import Cli, a_cluster
from tests.control.builders import a_queue, a_training_job


def a_part(name: str, parent: str, **boards: int) -> dict[str, Any]:
    """A Queue under another."""
    raw = a_queue(name, **boards)
    raw["spec"]["parent"] = parent
    return raw


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """Two queues of eight boards under one; b has two jobs of eight boards, and c under it none."""
    async with a_cluster(tmp_path) as cluster:
        tree = [a_part("a", "org", H100=8), a_part("b", "org", H100=8), a_part("c", "b")]
        cluster.lists.put("queues", a_queue("org"), *tree)
        for i in range(3):
            job = a_training_job(f"job-{i}", workers=1, gpus={"count": 8}, queueName="b")
            job["metadata"]["creationTimestamp"] = f"2026-01-01T00:0{i}:00Z"
            cluster.lists.put("trainingjobs", job)
        yield cluster


async def test_the_queues_are_shown_as_a_tree_with_what_they_hold(cli: Cli) -> None:
    result = await cli("queue")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[2][:4] == ["org", "H100", "16", "1"]
    assert next(line for line in lines if line[:1] == ["b"])[:6] == ["b", "H100", "16", "8", "8", "1"]
    assert next(line for line in lines if line[:1] == ["a"])[:6] == ["a", "H100", "0", "8", "8", "1"]
    assert "    c" in result.output


async def test_of_one_queue_it_says_who_waits_and_why(cli: Cli) -> None:
    result = await cli("queue", "b")
    (waiting,) = [line for line in result.output.splitlines() if "/job-2" in line]
    assert waiting.split()[:2] == ["1", "b"]
    assert "WaitingForQuota" in result.output


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_programs_get_the_same(cli: Cli, output: str, parse: Any) -> None:
    told = parse((await cli("queue", "b", "-o", output)).output)
    assert [queue["name"] for queue in told["queues"]] == ["b", "c"]
    assert told["queues"][0]["usage"] == [{"model": "H100", "used": "16", "nominal": 8, "borrowed": "8", "lent": "0"}]
    assert [(one["position"], one["name"]) for one in told["waiting"]] == [(1, "job-2")]


async def test_an_unknown_queue_is_told_with_the_closest_name(cli: Cli) -> None:
    result = await cli("queue", "orgg")
    assert result.exit_code == 1
    assert result.output == "berth: there is no Queue orgg: did you mean org?\n"
