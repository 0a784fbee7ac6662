"""`berth checkpoint`"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from berth.cli.common import Kubeconfig, Namespace, Timeout, failing, seconds_of
from berth.cli.names import JobArgument, job_named
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from berth.adapters.kube import KubeApi

Raw = Mapping[str, Any]


def checkpoint(
    name: JobArgument,
    namespace: Namespace = "",
    timeout: Timeout = "10m",
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have a running TrainingJob save now, and run on; wait until the checkpoint is durable.

    It marks the job with the annotation berth.dev/checkpoint; the operator asks the workers. They save after the step
    under way, so this takes as long as a step and a save. It works where the program polls for save requests, as
    docs/checkpoints.md has it.

    Exit status: 0 once the checkpoint is durable; 1 when the job does not run, its program takes no requests, the save
    failed, the time is over (the request stands), or the cluster can't be read or written; 2 for a wrong command line.
    """
    job, seconds = job_named(name), seconds_of(timeout)
    with failing():
        where, saved = asyncio.run(_saved(job, namespace, seconds, str(kubeconfig) if kubeconfig else None))
    size = f"{saved['bytes'] / 2**30:.2f} GiB in {saved['seconds']:g} s"
    told = f"TrainingJob {where}/{job}: saved step {saved['step']} at {saved['time']} ({size})"
    keys = ("attempt", "step", "time", "bytes", "seconds")
    put(output, lambda: {key: saved[key] for key in keys}, lambda: typer.echo(told))


async def _saved(name: str, namespace: str, seconds: float | None, kubeconfig: str | None) -> tuple[str, Raw]:
    from berth.adapters.kube import connect
    from berth.adapters.oneshot import namespace_of

    async with connect(kubeconfig) as api:
        where = namespace or namespace_of(kubeconfig)
        return where, await save(api, where, name, time.time(), seconds)


async def save(api: KubeApi, namespace: str, name: str, now: float, seconds: float | None) -> Raw:
    """What the status says of the checkpoint that a job makes because it is asked now.

    Raises NotAsWanted or ApiError.
    """
    from berth.cli.following import NotAsWanted, follow, found
    from berth.control.checkpoints import CHECKPOINT_ANNOTATION
    from berth.control.interruptions import moment
    from berth.control.ports import TRAINING_JOBS
    from berth.control.status import from_rfc3339, to_rfc3339

    raw = await found(api, TRAINING_JOBS, namespace, name)
    attempt = _asking(raw)
    status = raw["status"]
    last = (from_rfc3339(status.get(key)) for key in ("admittedAt", "startedAt"))
    asked = from_rfc3339((status.get("saveRequest") or {}).get("time"))
    before = moment((raw["metadata"].get("annotations") or {}).get(CHECKPOINT_ANNOTATION, ""))
    wanted = int(max(now, *last, asked, before)) + 1  # later than all that was, whatever this clock says
    mark = {"metadata": {"annotations": {CHECKPOINT_ANNOTATION: to_rfc3339(wanted)}}}
    problem = status.get("checkpointProblem")
    await api.merge(TRAINING_JOBS, namespace, name, mark)

    def done(raw: Raw) -> bool:
        status = raw.get("status") or {}
        if _live(raw) != attempt:
            raise NotAsWanted(f"attempt {attempt} ended before it had saved: see berth explain tj/{name}")
        failed = status.get("checkpointProblem")
        if failed and failed != problem:
            raise NotAsWanted(f"the save failed: {failed}")
        return _answered(status, attempt, wanted)

    try:
        raw = await follow(api, TRAINING_JOBS, namespace, name, done, lambda text: None, seconds)
    except NotAsWanted as error:
        raise NotAsWanted(f"TrainingJob {namespace}/{name}: {error}") from error
    saved: Raw = raw["status"]["checkpoint"]
    return saved


def _answered(status: Raw, attempt: int, wanted: float) -> bool:
    """Whether a request that was made for this wish, or after it for another reason, has its checkpoint."""
    from berth.control.status import from_rfc3339
    from berth.planning.saving import request_id

    asked = status.get("saveRequest") or {}
    ours = asked.get("id") == request_id(attempt, wanted) or from_rfc3339(asked.get("time")) >= wanted
    return bool(ours and (status.get("checkpoint") or {}).get("answers") == asked["id"])


def _asking(raw: Raw) -> int:
    """The number of the attempt that can be asked. Raises NotAsWanted."""
    from berth.cli.following import NotAsWanted, summary

    status, name = raw.get("status") or {}, f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
    attempt = _live(raw)
    if not attempt or status.get("stopping"):
        raise NotAsWanted(f"TrainingJob {name} does not run, so it has nothing to save: {summary(raw) or 'no verdict'}")
    if status.get("listens") != attempt:
        raise NotAsWanted(
            f"the workers of TrainingJob {name} ask for no save requests, so only SIGTERM reaches them: use "
            "berth.worker in the program (docs/checkpoints.md), or berth suspend and berth resume"
        )
    return attempt


def _live(raw: Raw) -> int:
    from berth.control.progress import live_attempt

    return live_attempt(raw)
