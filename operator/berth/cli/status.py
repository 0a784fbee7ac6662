"""`berth status`"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from berth.cli.common import Kubeconfig, SnapshotFile, failing
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from berth.adapters.kube import KubeApi
    from berth.cli.fleet import Health
    from berth.cli.view import View


def status(output: OutputOption = Output.TABLE, kubeconfig: Kubeconfig = None, snapshot: SnapshotFile = None) -> None:
    """Show the fleet on one screen: boards by model, queues, workloads by state, who waits longest, the operator.

    It reads the cluster and runs the operator's own planner on what it sees; it changes nothing. Each board counts
    once: on nodes that go away, are cordoned or not ready as going away, whatever holds it.

    Exit status: 0; 1 where no operator acts, or the cluster can't be read; 2 for a wrong command line.
    """
    from berth.cli.fleet import as_data, fleet, write

    with failing():
        view, health = _seen(kubeconfig, snapshot)
    told = fleet(view.snapshot, view.config.policy(), view.now, health, view.notes)
    put(output, lambda: as_data(told), lambda: write(told, sys.stdout))
    if health.acting is False:
        raise typer.Exit(1)


def _seen(kubeconfig: Path | None, snapshot: Path | None) -> tuple[View, Health]:
    from berth.cli.fleet import NO_LEASE, Health
    from berth.cli.view import of_file

    if snapshot is not None:
        return of_file(snapshot), Health(None, problem=NO_LEASE)
    return asyncio.run(_live(str(kubeconfig) if kubeconfig else None))


async def _live(kubeconfig: str | None) -> tuple[View, Health]:
    from berth.adapters.kube import connect
    from berth.adapters.oneshot import namespace_of
    from berth.cli.view import read

    async with connect(kubeconfig) as api:
        view = await read(api, namespace_of(kubeconfig))
        return view, await _health(api, view)


async def _health(api: KubeApi, view: View) -> Health:
    """What the Lease tells, where it may be read."""
    import time

    from berth.adapters.oneshot import installed_in
    from berth.cli.fleet import Health, health_of
    from berth.control.ports import LEASES, ApiError, NotFound

    election = view.config.leader_election
    namespace = election.namespace or await installed_in(api)
    try:
        lease = await api.get(LEASES, namespace, election.name)
    except NotFound:
        return Health(False, problem=f"there is no Lease {namespace}/{election.name}: the operator never ran here")
    except ApiError as error:
        return Health(None, problem=f"not known, its Lease can't be read: {error}")
    return health_of(lease, time.time())
