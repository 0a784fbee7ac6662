"""`berth what-if`"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from berth.cli.common import Kubeconfig, Namespace, SnapshotFile, failing
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from berth.cli.view import View


def what_if(
    file: Annotated[
        Path,
        typer.Option(
            "--filename", "-f", help="YAML of TrainingJobs or InferenceServices.", exists=True, dir_okay=False
        ),
    ],
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    snapshot: SnapshotFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say when and where a workload would run if it were applied now, and whom it would displace.

    Each workload of the file is asked by itself. The operator's own planner answers, on what the cluster holds now or
    held when `berth snapshot` saved it; nothing is changed. Exit status: 0, also where it would have to wait; 1 when
    the cluster can't be read; 2 for a wrong command line or manifest.
    """
    from berth.cli.answer import ManifestError, as_data, ask, manifests, write

    try:
        asked = manifests(file)
        with failing():
            view = _view(kubeconfig, snapshot)
            answers = [ask(view, namespace, raw) for raw in asked]
    except ManifestError as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error

    def table() -> None:
        for answer in answers:
            write(answer, sys.stdout)

    put(output, lambda: [as_data(answer) for answer in answers], table)


def _view(kubeconfig: Path | None, snapshot: Path | None) -> View:
    from berth.cli.view import live, of_file

    return of_file(snapshot) if snapshot else asyncio.run(live(str(kubeconfig) if kubeconfig else None))
