"""The `berth` command."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from berth import __version__
from berth.api.config import ConfigError, load
from berth.cli.agent import agent
from berth.cli.bench import bench
from berth.cli.carbon import carbon
from berth.cli.checkpoint import checkpoint
from berth.cli.cost import cost
from berth.cli.drain import drain, undrain
from berth.cli.explain import explain
from berth.cli.logs import configure
from berth.cli.queue import queue
from berth.cli.simulate import simulate
from berth.cli.snapshot import snapshot
from berth.cli.status import status
from berth.cli.submit import submit
from berth.cli.suspend import resume, suspend
from berth.cli.top import top
from berth.cli.whatif import what_if

app = typer.Typer(
    name="berth",
    help="Berth gives every GPU workload on a Kubernetes cluster its berth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def operator(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; every field may be left out.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Run the operator, in a cluster or against the current context of a kubeconfig.

    Exit status: 0 after SIGTERM or SIGINT, 1 when the lease was lost, 2 for a bad configuration or no cluster.
    """
    from kubernetes.config import ConfigException

    from berth.controller import run

    try:
        settings = load(config)
    except ConfigError as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    configure(settings.log_format, settings.log_level)
    try:
        sys.exit(asyncio.run(run(settings)))
    except ConfigException as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error


app.command()(agent)
app.command()(carbon)
app.command()(checkpoint)
app.command()(cost)
app.command()(drain)
app.command()(explain)
app.command()(queue)
app.command()(resume)
app.command()(simulate)
app.command()(snapshot)
app.command()(status)
app.command()(submit)
app.command()(suspend)
app.command()(top)
app.command()(undrain)
app.command(name="what-if")(what_if)
app.add_typer(bench, name="bench")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


if __name__ == "__main__":
    logging.captureWarnings(True)
    app()
