"""The demo: `python -m e2e.demo up|down`. Berth on a cluster of its own, with every sample placed and explained."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from e2e.cluster.errors import ClusterError
from e2e.cluster.provider import Provider, choose, made_by, make, state_folder
from e2e.cluster.waiting import wait_until
from e2e.demo import install, report

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

NAME = "berth-demo"
WAITING = Path(__file__).with_name("waiting.yaml")
SETTLE_SECONDS = 90  # 5 on the local provider; on kind pods start real programs
Name = Annotated[str, typer.Option(help="The cluster's name.")]


@app.command()
def up(
    provider: Annotated[
        Provider, typer.Option(help="auto: kind where a Docker engine runs, else local.")
    ] = Provider.AUTO,
    name: Name = NAME,
) -> None:
    """Start a cluster with a fake GPU fleet, install Berth, apply every sample, and say where each landed and why."""
    began = time.monotonic()
    chosen = choose(provider, name)
    if chosen is Provider.EXISTING:
        raise ClusterError("the demo makes nodes up and deletes what it ran on: give it a cluster of its own")
    cluster = make(chosen, name)
    with _step(f"a cluster of its own, made by {chosen}"):
        cluster.up()
    with _step(f"Berth by its chart, and the fake GPU fleet {install.FLEET}"):
        install.install(cluster, chosen)
    with _step("every sample of docs/examples, and two workloads that can't be placed"):
        for files in (install.EXAMPLES, WAITING):
            install.kubectl(cluster.kubeconfig, "apply", f"--filename={files}")
    try:
        with _step("each of them placed, or told why not"):
            settled = _settled(cluster.kubeconfig)
            wait_until(settled, "every sample is placed", folder=state_folder(name), seconds=SETTLE_SECONDS)
    finally:
        console.print("", report.table(report.read(cluster.kubeconfig)), "")
    _say_goodbye(cluster.kubeconfig, time.monotonic() - began)


@app.command()
def down(name: Name = NAME) -> None:
    """End the demo and delete all that it left."""
    provider = made_by(name)
    if provider is None:
        console.print("no demo is running")
        return
    with _step("ending the demo"):
        make(provider, name).down()


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Show what is being done, and then how long it took."""
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[green]{time.monotonic() - began:5.1f} s[/]  {what}", highlight=False)


def _say_goodbye(kubeconfig: Path, seconds: float) -> None:
    console.print(f"{seconds:.0f} s in all. Look around, then end it with [bold]make demo-down[/]:\n", highlight=False)
    console.print(f"  export KUBECONFIG={kubeconfig}", soft_wrap=True, highlight=False)
    console.print("  kubectl get berth --output wide\n  kubectl describe trainingjob beyond-node", highlight=False)


def _settled(kubeconfig: Path) -> Callable[[], bool]:
    """Whether every sample is placed, and what can't be placed is told why."""
    hopeless = {item["metadata"]["name"] for item in yaml.safe_load_all(WAITING.read_text())}

    def settled() -> bool:
        rows = report.read(kubeconfig)
        return bool(rows) and all(row.explained if row.name in hopeless else row.placed for row in rows)

    return settled


def main() -> None:
    try:
        app()
    except ClusterError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
