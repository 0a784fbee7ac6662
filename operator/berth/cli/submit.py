"""`berth submit`"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from berth.cli.common import Kubeconfig, Namespace, Timeout, failing, seconds_of
from berth.cli.output import Output, put


class KindName(StrEnum):
    """What is to be made."""

    JOB = "job"
    SERVICE = "service"


class Form(StrEnum):
    """A form of a manifest."""

    YAML = "yaml"
    JSON = "json"


class SpotName(StrEnum):
    """Whether spot capacity will do."""

    NEVER = "Never"
    ALLOW = "Allow"
    ONLY = "Only"


MANAGER = "berth-submit"  # what this command has set, in managedFields
Each, Where, When = "What each worker or replica gets", "Where and how", "When and at what price"


def submit(
    name: Annotated[str, typer.Argument(help="Name of the TrainingJob or InferenceService.", metavar="NAME")],
    image: Annotated[str, typer.Option(help="Image of the container.")],
    command: Annotated[list[str] | None, typer.Argument(help="What it runs, after --.", metavar="-- COMMAND")] = None,
    kind: Annotated[KindName, typer.Option(help="job: a TrainingJob; service: an InferenceService.")] = KindName.JOB,
    gpus: Annotated[int | None, typer.Option(min=1, help="Whole boards.", rich_help_panel=Each)] = None,
    profile: Annotated[str, typer.Option(help="One MIG instance, such as 1g.10gb.", rich_help_panel=Each)] = "",
    memory: Annotated[
        str, typer.Option(help="GPU memory, such as 18Gi: the smallest that has it.", rich_help_panel=Each)
    ] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="GPU model or family that will do; may be repeated.", rich_help_panel=Each)
    ] = None,
    cpu: Annotated[str, typer.Option(help="CPUs, such as 8 or 500m.", rich_help_panel=Each)] = "",
    ram: Annotated[str, typer.Option(help="Memory of the host, such as 64Gi.", rich_help_panel=Each)] = "",
    env: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.", rich_help_panel=Each)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of a job, or replicas.", rich_help_panel=Where)] = 1,
    tensor: Annotated[
        int | None, typer.Option(min=1, help="Boards that must share NVLink.", rich_help_panel=Where)
    ] = None,
    topology: Annotated[
        str, typer.Option(metavar="LEVEL[:Required]", help="All workers in one of these.", rich_help_panel=Where)
    ] = "",
    queue: Annotated[str, typer.Option(help="Queue that it is charged to.", rich_help_panel=Where)] = "",
    priority_class: Annotated[str, typer.Option(help="PriorityClass.", rich_help_panel=Where)] = "",
    port: Annotated[int | None, typer.Option(help="That a service listens on.", rich_help_panel=Where)] = None,
    checkpoint_claim: Annotated[
        str, typer.Option(help="PersistentVolumeClaim that it saves to.", rich_help_panel=Where)
    ] = "",
    checkpoint_size: Annotated[
        str, typer.Option(help="Makes such a claim, of this size, such as 500Gi.", rich_help_panel=Where)
    ] = "",
    spot: Annotated[
        SpotName | None, typer.Option(metavar="Never|Allow|Only", help="Spot capacity.", rich_help_panel=When)
    ] = None,
    deadline: Annotated[str, typer.Option(help="Such as 2026-03-02T06:00:00Z.", rich_help_panel=When)] = "",
    max_runtime: Annotated[str, typer.Option(help="Such as 90m; then it fails.", rich_help_panel=When)] = "",
    estimated_runtime: Annotated[str, typer.Option(help="Such as 40m; no limit.", rich_help_panel=When)] = "",
    max_price: Annotated[
        float | None, typer.Option(min=0, help="Dollars an hour for all boards.", rich_help_panel=When)
    ] = None,
    namespace: Namespace = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest, and do nothing else.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow until it runs, with its verdicts.")] = False,
    timeout: Timeout = "",
    output: Annotated[Form, typer.Option("--output", "-o", help="Of the manifest.")] = Form.YAML,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a TrainingJob or an InferenceService from flags, and print its manifest.

    It is applied as `kubectl apply --server-side` does: called again with other flags, it changes what is there. What
    flags don't cover, the manifest does: print it with --dry-run, add to it, and apply it.

    Example: berth submit llm --image train:1 --workers 4 --gpus 8 --model H100 --queue team-a --wait -- python train.py

    Exit status: 0; with --wait once it runs; 1 when the API server refuses it, it can't run as it is, the time is over,
    or the cluster can't be reached; 2 for flags that make no workload.
    """
    from berth.cli.manifest import Asked, WrongFlags, manifest
    from berth.model.workloads import Kind

    asked = Asked(
        kind=Kind.TRAINING_JOB if kind is KindName.JOB else Kind.INFERENCE_SERVICE,
        name=name,
        namespace=namespace,
        image=image,
        command=command or (),
        gpus=gpus,
        profile=profile,
        memory=memory,
        models=model or (),
        workers=workers,
        tensor=tensor,
        topology=topology,
        queue=queue,
        priority_class=priority_class,
        spot=str(spot or ""),
        deadline=deadline,
        max_runtime=max_runtime,
        estimated_runtime=estimated_runtime,
        max_price=max_price,
        checkpoint_claim=checkpoint_claim,
        checkpoint_size=checkpoint_size,
        port=port,
        cpu=cpu,
        ram=ram,
        env=env or (),
    )
    seconds = seconds_of(timeout)
    try:
        raw = manifest(asked)
    except WrongFlags as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    put(Output(output), lambda: raw, lambda: None)
    if not dry_run:
        with failing():
            asyncio.run(_apply(raw, wait, seconds, str(kubeconfig) if kubeconfig else None))


async def _apply(raw: Mapping[str, Any], wait: bool, seconds: float | None, kubeconfig: str | None) -> None:
    from berth.adapters.kube import APPLY, connect
    from berth.adapters.oneshot import namespace_of
    from berth.cli.following import follow, runs
    from berth.cli.manifest import as_applied, in_flags
    from berth.cli.names import RESOURCES, SHORT
    from berth.control.ports import Conflict, Refused
    from berth.model.workloads import Kind

    kind, name = Kind(raw["kind"]), raw["metadata"]["name"]
    async with connect(kubeconfig) as api:
        body = as_applied(raw, namespace_of(kubeconfig))
        namespace = body["metadata"]["namespace"]
        try:
            path, query = RESOURCES[kind].path(namespace, name), {"fieldManager": MANAGER}
            await api.request("PATCH", path, body, kind=APPLY, query=query)
        except Refused as error:
            raise Refused(in_flags(str(error))) from error
        except Conflict as error:
            remedy = "change it with the tool that made it, or take another name"
            raise Conflict(f"{in_flags(str(error))}: {remedy}") from error
        typer.echo(f"{kind} {namespace}/{name}: applied; see `berth explain {SHORT[kind]}/{name}`", err=True)
        if wait:
            await follow(api, RESOURCES[kind], namespace, name, runs, partial(typer.echo, err=True), seconds)
