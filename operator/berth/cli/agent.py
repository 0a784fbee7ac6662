"""`berth agent`"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from berth.cli.logs import configure

POD_RESOURCES = Path("/var/lib/kubelet/pod-resources/kubelet.sock")


def agent(
    node: Annotated[str, typer.Option(envvar="NODE_NAME", help="The node that this runs on.")],
    pod_resources: Annotated[Path, typer.Option(help="The kubelet's PodResources socket.")] = POD_RESOURCES,
    report_only: Annotated[bool, typer.Option("--report-only", help="Leave the boards as they are.")] = False,
    health_port: Annotated[int, typer.Option(help="Port of /healthz and /metrics.")] = 8082,
    interruptions: Annotated[
        str,
        typer.Option(help="Who says when the node goes: auto (by its providerID), aws, gce, azure or none."),
    ] = "auto",
    metadata_endpoint: Annotated[
        str, typer.Option(help="Address of that cloud's metadata service.")
    ] = "http://169.254.169.254",
    dcgm_url: Annotated[
        str, typer.Option(help="/metrics of this node's dcgm-exporter, which then measures instead of NVML.")
    ] = "",
    log_format: Annotated[str, typer.Option(help="json or text")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Run a node's agent: report its GPUs and who holds them, and lay them out as its GPUNode wants.

    Exit status: 0 after SIGTERM or SIGINT, 2 where it can't begin.
    """
    from kubernetes.config import ConfigException

    from berth.agent.program import Interruptions, Settings, run
    from berth.control.gpus import GpuError

    if interruptions not in list(Interruptions):
        raise typer.BadParameter(
            f"{interruptions!r} is none of {', '.join(Interruptions)}", param_hint="--interruptions"
        )
    settings = Settings(
        node,
        pod_resources,
        health_port,
        may_lay_out=not report_only,
        interruptions=Interruptions(interruptions),
        metadata_address=metadata_endpoint,
        dcgm_url=dcgm_url,
    )
    configure(log_format, log_level)
    try:
        sys.exit(asyncio.run(run(settings)))
    except (GpuError, ConfigException) as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
