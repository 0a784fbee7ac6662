"""`berth explain`"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from berth.cli.common import Kubeconfig, Namespace, SnapshotFile, failing
from berth.cli.output import Output, OutputOption, put
from berth.control.ports import INFERENCE_SERVICES, TRAINING_JOBS
from berth.model.workloads import Kind

NAMES = {
    name: kind
    for kind, short, resource in (
        (Kind.TRAINING_JOB, "tj", TRAINING_JOBS),
        (Kind.INFERENCE_SERVICE, "infer", INFERENCE_SERVICES),
    )
    for plain in (short, kind.lower(), resource.plural)
    for name in (plain, f"{plain}.{resource.group}")
}


def explain(
    workload: Annotated[str, typer.Argument(help="tj/NAME or infer/NAME.", metavar="KIND/NAME")],
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    snapshot: SnapshotFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say why a workload is where it is: what it lacks on which nodes, what would make it fit, what it costs.

    It reads the cluster and runs the operator's own planner on what it sees; it changes nothing. Exit status: 0; 1 when
    there is no such workload or the cluster can't be read; 2 for a wrong command line.
    """
    from berth.cli.explanation import explained, explanation_in
    from berth.cli.told import as_data, write
    from berth.cli.view import of_file

    word, _, name = workload.partition("/")
    kind = NAMES.get(word.lower())
    if kind is None or not name or "/" in name:
        raise typer.BadParameter(f"{workload!r} names no workload: write tj/NAME or infer/NAME")
    with failing():
        if snapshot is not None:
            told = explanation_in(of_file(snapshot), namespace, kind, name)
        else:
            told = asyncio.run(explained(str(kubeconfig) if kubeconfig else None, namespace, kind, name))
    put(output, lambda: as_data(told), lambda: write(told, sys.stdout))
