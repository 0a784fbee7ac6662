"""`berth queue`"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from berth.cli.common import Kubeconfig, SnapshotFile, failing
from berth.cli.output import Output, OutputOption, put


def queue(
    name: Annotated[str, typer.Argument(help="A Queue. Absent: all of them.")] = "",
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    snapshot: SnapshotFile = None,
) -> None:
    """Show the queues as a tree: what they hold, own, borrow and lend, their shares; of one queue also who waits.

    It reads the cluster and runs the operator's own planner on what it sees; it changes nothing. Exit status: 0; 1 when
    there is no such Queue or the cluster can't be read; 2 for a wrong command line.
    """
    from berth.cli.queues import UnknownQueue, as_data, report, write
    from berth.cli.view import live, of_file

    with failing():
        view = of_file(snapshot) if snapshot else asyncio.run(live(str(kubeconfig) if kubeconfig else None))
    try:
        told = report(view.snapshot, view.config.policy(), view.now, name)
    except UnknownQueue as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(1) from error
    put(output, lambda: as_data(told), lambda: write(told, sys.stdout))
