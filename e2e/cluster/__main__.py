"""Clusters for tests and the demo, by name: `python -m e2e.cluster up|down|status|env|prepare`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from e2e.cluster import images, node_image
from e2e.cluster.binaries import PROGRAMS, ensure
from e2e.cluster.engine import lease, why_unavailable
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import PROGRAMS as LOCAL_PROGRAMS
from e2e.cluster.provider import Cluster, Provider, Status, choose, made_by, make
from e2e.monitoring import prometheus

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

NAME = "berth"
Name = Annotated[str, typer.Option(help="The cluster's name.")]


@app.command()
def up(
    provider: Annotated[
        Provider, typer.Option(help="auto: kind where a Docker engine runs, else local.")
    ] = Provider.AUTO,
    name: Name = NAME,
    workers: Annotated[int, typer.Option(min=0, help="Real worker nodes (kind only).")] = 2,
    fake_nodes: Annotated[int, typer.Option(min=0, help="Nodes that KWOK plays.")] = 0,
    kubeconfig: Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="The cluster, for existing.")] = None,
    context: Annotated[str | None, typer.Option(help="A context of that kubeconfig.")] = None,
) -> None:
    """Start a cluster, or what is missing of it, and say how to use it."""
    chosen = choose(provider, name)
    cluster = make(chosen, name, workers=workers, fake_nodes=fake_nodes, source=kubeconfig, context=context)
    cluster.up()
    typer.echo(f"cluster {name} ({chosen}) is ready; to use it:", err=True)
    env(name)


@app.command()
def prepare() -> None:
    """Build all that clusters consist of into the cache, so that starting one takes seconds.

    That is the programs, Prometheus, and where kind can run, its node image and our own images. Where it can't, says
    why; on CI (the variable CI is set) that is an error.
    """
    prometheus.program("prometheus")
    if reason := why_unavailable():
        typer.echo(f"left out: everything on kind, with real kubelets: {reason}", err=True)
        if os.environ.get("CI"):
            raise typer.Exit(1)
        ensure(*LOCAL_PROGRAMS, "kubectl", "helm")
        return
    ensure(*PROGRAMS)
    with lease() as engine:
        if engine.own:
            node_image.ensure(engine)
        images.build(engine)


@app.command()
def down(name: Name = NAME) -> None:
    """End the cluster and delete all that it left."""
    cluster = _existing(name)
    if cluster is None:
        typer.echo(f"there is no cluster {name}", err=True)
    else:
        cluster.down()


@app.command()
def status(name: Name = NAME) -> None:
    """Show the cluster's parts and nodes; exits with 1 unless all is well."""
    cluster = _existing(name)
    found = cluster.status() if cluster else Status()
    Console().print(_table(found))
    if not found.healthy:
        raise typer.Exit(1)


@app.command()
def env(name: Name = NAME) -> None:
    """Print what a shell needs: `eval "$(python -m e2e.cluster env)"`."""
    cluster = _existing(name)
    if cluster is None:
        raise ClusterError(f"there is no cluster {name}; start one with: python -m e2e.cluster up --name {name}")
    typer.echo(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")


def _existing(name: str) -> Cluster | None:
    provider = made_by(name)
    return make(provider, name) if provider else None


def _table(status: Status) -> Table:
    table = Table("what", "name", "state", "detail")
    for part in status.parts:
        table.add_row("part", part.name, "running" if part.running else "ended", part.detail)
    for node in (node for node in status.nodes if not node.fake):
        table.add_row("node", node.name, "ready" if node.ready else "not ready", "")
    if fake := [node.ready for node in status.nodes if node.fake]:
        table.add_row("nodes", "played by KWOK", f"{sum(fake)} of {len(fake)} ready", "")
    if not status.reachable:
        table.add_row("API server", "", "does not answer", "")
    return table


def main() -> None:
    try:
        app()
    except ClusterError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
