"""`berth explain`"""

from __future__ import annotations

import asyncio
import sys

from berth.cli.common import Kubeconfig, Namespace, SnapshotFile, failing
from berth.cli.names import WorkloadArgument, workload_named
from berth.cli.output import Output, OutputOption, put


def explain(
    workload: WorkloadArgument,
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

    kind, name = workload_named(workload)
    with failing():
        if snapshot is not None:
            told = explanation_in(of_file(snapshot), namespace, kind, name)
        else:
            told = asyncio.run(explained(str(kubeconfig) if kubeconfig else None, namespace, kind, name))
    put(output, lambda: as_data(told), lambda: write(told, sys.stdout))
