"""Workloads as people name them on a command line, and names that a shell completes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from berth.control.ports import INFERENCE_SERVICES, TRAINING_JOBS, Resource
from berth.model.workloads import Kind

COMPLETION_SECONDS = 2.0  # a shell that hangs is worse than one that completes nothing
RESOURCES = {Kind.TRAINING_JOB: TRAINING_JOBS, Kind.INFERENCE_SERVICE: INFERENCE_SERVICES}
SHORT = {Kind.TRAINING_JOB: "tj", Kind.INFERENCE_SERVICE: "infer"}
NAMES = {
    name: kind
    for kind, resource in RESOURCES.items()
    for plain in (SHORT[kind], kind.lower(), resource.plural)
    for name in (plain, f"{plain}.{resource.group}")
}


def workload_named(text: str) -> tuple[Kind, str]:
    """Kind and name of tj/NAME or infer/NAME. Raises typer.BadParameter."""
    word, _, name = text.partition("/")
    kind = NAMES.get(word.lower())
    if kind is None or not name or "/" in name:
        raise typer.BadParameter(f"{text!r} names no workload: write tj/NAME or infer/NAME")
    return kind, name


def job_named(text: str) -> str:
    """Name of a TrainingJob, written as NAME or tj/NAME. Raises typer.BadParameter."""
    if "/" not in text and text:
        return text
    kind, name = workload_named(text)
    if kind is not Kind.TRAINING_JOB:
        raise typer.BadParameter(f"{text!r} is no TrainingJob: an InferenceService is stopped by scaling it to 0")
    return name


def _completing(kinds: tuple[Kind, ...], prefixed: bool) -> Callable[[typer.Context, str], list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        told = context.params
        kubeconfig, namespace = told.get("kubeconfig"), str(told.get("namespace") or "")
        with suppress(Exception):  # without a cluster there is nothing to complete, and nobody to tell
            names = asyncio.run(_listed(kinds, str(kubeconfig) if kubeconfig else None, namespace))
            words = [f"{SHORT[kind]}/{name}" if prefixed else name for kind, name in names]
            return [word for word in words if word.startswith(incomplete)]
        return []

    return complete


async def _listed(kinds: tuple[Kind, ...], kubeconfig: str | None, namespace: str) -> list[tuple[Kind, str]]:
    from berth.adapters.kube import connect
    from berth.adapters.oneshot import namespace_of

    async with asyncio.timeout(COMPLETION_SECONDS), connect(kubeconfig) as api:
        where = namespace or namespace_of(kubeconfig)
        paths: list[tuple[Kind, Resource]] = [(kind, RESOURCES[kind]) for kind in kinds]
        lists = await asyncio.gather(*(api.request("GET", resource.path(where)) for _, resource in paths))
    return [
        (kind, raw["metadata"]["name"]) for (kind, _), found in zip(paths, lists, strict=True) for raw in found["items"]
    ]


WorkloadArgument = Annotated[
    str,
    typer.Argument(help="tj/NAME or infer/NAME.", metavar="KIND/NAME", autocompletion=_completing(tuple(Kind), True)),
]
JobArgument = Annotated[
    str,
    typer.Argument(
        help="A TrainingJob: NAME or tj/NAME.", metavar="NAME", autocompletion=_completing((Kind.TRAINING_JOB,), False)
    ),
]
