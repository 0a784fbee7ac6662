"""`berth cost`: sums of statuses, by what makes a row, and what is not in them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.control.status import from_rfc3339
from berth.control.usages import usage_status
from berth.model.prices import CapacityType
from berth.model.usage import NO_USAGE, Amounts, Bought, Usage
from tests.cli.clusters import Cli, a_cluster
from tests.control.builders import a_service, a_training_job

UNTIL = from_rfc3339("2026-11-25T12:00:00Z")


def dollars(usd: float, *, known: bool = True) -> Amounts:
    """Boards at two dollars an hour, which are three on demand; each hour takes a kWh, at 500 g."""
    hours = usd / 2
    kg = hours / 2 if known else 0.0
    return Amounts(hours, hours, kg, usd, 0.0 if known else hours, 1.5 * usd, kg if known else None)


def a_usage(*, model: str = "H100-80GB", known: bool = True, **weeks: float) -> Usage:
    """Dollars by week, such as w48."""
    told = tuple((f"2026-W{week[1:]}", dollars(usd, known=known)) for week, usd in weeks.items())
    whole = sum((amounts for _, amounts in told), NO_USAGE.total)
    return Usage(UNTIL, 0.0, (Bought(model, CapacityType.SPOT, "", whole),), told)


def a_job(name: str, queue: str, usage: Usage | None, namespace: str = "team", **status: Any) -> dict[str, Any]:
    job = a_training_job(name, namespace=namespace)
    job["status"] = {"queue": queue, **({"usage": usage_status(usage)} if usage else {}), **status}
    return job


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """Two jobs of queue a, of which one has ended; a service of b; one that only waits."""
    async with a_cluster(tmp_path) as cluster:
        cluster.lists.put(
            "trainingjobs",
            a_job("ended", "a", a_usage(w47=40, w48=20), finishedAt="2026-11-24T12:00:00Z"),
            a_job("runs", "a", a_usage(w48=10), "other", placement={"assignments": []}),
            a_job("waits", "c", None),
        )
        service = a_service("chat")
        service["status"] = {"queue": "b", "readyReplicas": 1, "usage": usage_status(a_usage(w48=100))}
        cluster.lists.put("inferenceservices", service)
        yield cluster


def lines(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


async def test_queues_are_shown_dearest_first_with_what_on_demand_would_have_cost(cli: Cli) -> None:
    result = await cli("cost")
    assert result.exit_code == 0, result.output
    head, *rows = lines(result.output)[:4]
    assert head[0] == "queue"
    assert rows == [
        ["b", "50.0", "50.0", "25.00", "100.00", "150.00", "33%", "25.00"],
        ["a", "35.0", "35.0", "17.50", "70.00", "105.00", "33%", "17.50"],
        ["in", "all", "85.0", "85.0", "42.50", "170.00", "255.00", "33%", "42.50"],
    ]
    assert "what runs is counted until 2026-11-25T12:00:00Z" in result.output
    assert "workloads that are deleted" in result.output


async def test_namespaces_and_workloads_make_rows_too(cli: Cli) -> None:
    told = json.loads((await cli("cost", "--by", "namespace", "-o", "json")).output)
    assert [(row["name"], row["workloads"], row["usd"]) for row in told["rows"]] == [("team", 2, 160), ("other", 1, 10)]
    told = json.loads((await cli("cost", "--by=workload", "-n", "other", "-o", "json")).output)
    assert [(row["name"], row["usd"]) for row in told["rows"]] == [("TrainingJob other/runs", 10)]


@pytest.mark.parametrize(
    ("asked", "usd"), [(("--week", "2026-W47"), 40), (("--since", "2026-11-23"), 130), (("--since", "2026-11-22"), 170)]
)
async def test_weeks_can_be_asked_for(cli: Cli, asked: tuple[str, str], usd: float) -> None:
    told = yaml.safe_load((await cli("cost", *asked, "-o", "yaml")).output)
    assert (told["kind"], told["total"]["usd"]) == ("CostReport", usd)


async def test_a_week_in_which_nothing_was_used_is_told_so(cli: Cli) -> None:
    assert (await cli("cost", "--week", "2025-W01")).output.startswith("Nothing was used.")


async def test_what_is_missing_is_named(cli: Cli) -> None:
    cli.lists.put(
        "trainingjobs",
        a_job("odd", "a", a_usage(model="RTX-6000", w48=0.0)),
        a_job("old", "a", a_usage(w44=1, w45=1, w46=1, w47=1, w48=1)),
        a_job("dark", "a", a_usage(known=False, w48=8)),
        a_job("new", "a", None, placement={"assignments": []}),
    )
    job = a_job("unpriced", "a", a_usage(model="RTX-6000", w48=2))
    job["status"]["usage"]["byCapacity"][0]["usd"] = 0
    cli.lists.put("trainingjobs", job)
    told = json.loads((await cli("cost", "--since", "2026-10-05", "-o", "json")).output)
    missing = "\n".join(told["notCounted"])
    assert "1 workloads that hold boards, such as team/new" in missing
    assert "weeks before 2026-W44 of 1 workloads, such as team/old" in missing
    assert "dollars of RTX-6000" in missing
    assert "carbon of 4.0 kWh" in missing
    assert "onDemandKgCO2e" not in {k: v for k, v in told["total"].items() if v is not None}


@pytest.mark.parametrize(
    "asked", [("--week", "48"), ("--week=2026-W54",), ("--since=monday",), ("--week=this", "--since=2026-11-02")]
)
async def test_what_is_no_week_is_refused(cli: Cli, asked: tuple[str, ...]) -> None:
    assert (await cli("cost", *asked)).exit_code == 2


async def test_who_may_not_list_is_told_so_and_no_more_is_needed(cli: Cli) -> None:
    cli.lists.forbidden = ("nodes", "pods", "queues")
    assert (await cli("cost")).exit_code == 0
    cli.lists.forbidden = ("trainingjobs",)
    result = await cli("cost")
    assert (result.exit_code, "trainingjobs is forbidden" in result.output) == (1, True)


async def test_a_saved_cluster_tells_the_same(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    assert (await cli("snapshot", "-o", str(file))).exit_code == 0
    assert (await cli("cost", "--snapshot", str(file))).output == (await cli("cost")).output


async def test_a_status_that_is_not_berths_is_named(cli: Cli) -> None:
    job = a_job("odd", "a", a_usage(w48=1))
    job["status"]["usage"]["until"] = "soon"
    cli.lists.put("trainingjobs", job)
    result = await cli("cost")
    assert (result.exit_code, "did not write" in result.output) == (1, True)
