"""`berth suspend` and `berth resume`"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from berth.cli.common import Kubeconfig, Namespace, Timeout, failing, seconds_of
from berth.cli.names import JobArgument, job_named

Wait = Annotated[bool, typer.Option("--wait", help="Follow until it has come about.")]


def suspend(
    name: JobArgument,
    namespace: Namespace = "",
    wait: Wait = False,
    timeout: Timeout = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop a TrainingJob, or keep one from starting, until it is resumed: it sets spec.suspend.

    Its workers get SIGTERM, save and stop, and its boards are free for others. It goes on from its last checkpoint.
    `berth checkpoint` beforehand makes sure that there is a recent one.

    Exit status: 0; with --wait once nothing of it runs any more; 1 when there is no such job, the time is over, or the
    cluster can't be read or written; 2 for a wrong command line.
    """
    _switch(True, name, namespace, wait, timeout, kubeconfig)


def resume(
    name: JobArgument,
    namespace: Namespace = "",
    wait: Wait = False,
    timeout: Timeout = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a suspended TrainingJob go on, as soon as it has a place: it takes spec.suspend back.

    Exit status: 0; with --wait once all its workers run; 1 when there is no such job, it can't run as it is, the time
    is over, or the cluster can't be read or written; 2 for a wrong command line.
    """
    _switch(False, name, namespace, wait, timeout, kubeconfig)


def _switch(off: bool, name: str, namespace: str, wait: bool, timeout: str, kubeconfig: Path | None) -> None:
    job, seconds = job_named(name), seconds_of(timeout)
    with failing():
        asyncio.run(_switched(off, job, namespace, wait, seconds, str(kubeconfig) if kubeconfig else None))


async def _switched(
    off: bool, name: str, namespace: str, wait: bool, seconds: float | None, kubeconfig: str | None
) -> None:
    from berth.adapters.kube import connect
    from berth.adapters.oneshot import namespace_of
    from berth.cli.following import follow, found, runs, stopped, stopped_words
    from berth.control.ports import TRAINING_JOBS

    async with connect(kubeconfig) as api:
        where = namespace or namespace_of(kubeconfig)
        raw = await found(api, TRAINING_JOBS, where, name)
        before = (raw.get("spec") or {}).get("suspend") is True
        if before is not off:
            await api.merge(TRAINING_JOBS, where, name, {"spec": {"suspend": off}})
        again = " already" if before is off else ""
        now = "is to be suspended" if off else "may go on"
        typer.echo(f"TrainingJob {where}/{name}: {now}{again}")
        if wait:
            raw = await follow(api, TRAINING_JOBS, where, name, stopped if off else runs, typer.echo, seconds)
            typer.echo(stopped_words(raw) if off else f"TrainingJob {where}/{name}: runs")
