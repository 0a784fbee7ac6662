"""`berth cost`"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.cli.common import Kubeconfig, SnapshotFile, failing
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from berth.cli.costs import Raw

WEEK = re.compile(r"\d{4}-W(0[1-9]|[1-4]\d|5[0-3])", re.ASCII)


class By(StrEnum):
    """What makes a row."""

    QUEUE = "queue"
    NAMESPACE = "namespace"
    WORKLOAD = "workload"


def cost(
    by: Annotated[By, typer.Option(help="What makes a row.")] = By.QUEUE,
    week: Annotated[str, typer.Option(help="Only of this ISO week, such as 2026-W48, or `this` or `last`.")] = "",
    since: Annotated[str, typer.Option(help="Only of the week of this day, such as 2026-11-02, and later ones.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only of it; else of all.")] = "",
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    snapshot: SnapshotFile = None,
) -> None:
    """Show what work used and cost: board-hours, energy, carbon, dollars, and what these had been on demand, at once.

    It adds up the statuses of the TrainingJobs and InferenceServices that are there, ended ones included, and says what
    is not counted. Exit status: 0; 1 when the cluster can't be read; 2 for a wrong command line.
    """
    from berth.cli.costs import as_data, of_objects, report, write
    from berth.cli.saved import Saved, SavedError

    if week and since:
        raise typer.BadParameter("--week and --since exclude each other")
    config = str(kubeconfig) if kubeconfig else None
    with failing():
        saved = Saved.load(snapshot) if snapshot else None
        now = saved.at if saved else time.time()
        weeks = _weeks(week, since, now)
        objects = _saved(saved.lists) if saved else asyncio.run(_live(config, namespace))
        mine = [raw for raw in objects if namespace in ("", raw["metadata"]["namespace"])]
        try:
            told = report(of_objects(mine), by.value, weeks, now)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SavedError(f"a status has a usage that Berth did not write: {error!r}") from error
    put(output, lambda: as_data(told), lambda: write(told, sys.stdout))


def _weeks(week: str, since: str, now: float) -> tuple[str, str] | None:
    """The first and the last week that are asked for; None: all time."""
    from berth.model.usage import week_of

    if since:
        try:
            day = date.fromisoformat(since)
        except ValueError as error:
            raise typer.BadParameter(f"--since: {since!r} is no day: write it as 2026-11-02") from error
        first = week_of(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        return first, max(first, week_of(now))
    named = {"this": week_of(now), "last": week_of(now - timedelta(weeks=1).total_seconds())}.get(week, week)
    if named and not WEEK.fullmatch(named):
        raise typer.BadParameter(f"--week: {week!r} is no ISO week: write it as 2026-W48, or `this` or `last`")
    return (named, named) if named else None


def _saved(lists: Mapping[str, Any]) -> list[Raw]:
    return [*lists.get("trainingjobs", ()), *lists.get("inferenceservices", ())]


async def _live(kubeconfig: str | None, namespace: str) -> list[Raw]:
    """All workloads of the cluster, or of a namespace. Raises ApiError."""
    from berth.adapters.kube import connect
    from berth.control.picture import KIND_OF
    from berth.control.ports import INFERENCE_SERVICES, TRAINING_JOBS

    found: list[Raw] = []
    async with connect(kubeconfig) as api:
        for resource in (TRAINING_JOBS, INFERENCE_SERVICES):
            listed = await api.request("GET", resource.path(namespace))
            found += [{"kind": KIND_OF[resource], **item} for item in listed["items"]]
    return found
