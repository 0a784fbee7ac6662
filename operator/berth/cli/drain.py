"""`berth drain` and `berth undrain`"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import Annotated

import typer

from berth.cli.common import Kubeconfig, Timeout, failing, seconds_of

Nodes = Annotated[list[str], typer.Argument(help="Names of nodes, as `kubectl get nodes` lists them.")]


def drain(
    nodes: Nodes,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow until the nodes are safe.")] = True,
    timeout: Timeout = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Empty nodes of Berth's work without losing any: jobs save, stop, and go on elsewhere.

    It cordons each node and marks it with the annotation berth.dev/drain; from then on the operator does the rest,
    also if this command is stopped. Called again, it goes on to follow. Jobs that ask for save requests are asked and
    stopped once they have saved; others get SIGTERM. Those that find no room elsewhere wait for a place. Replicas of
    InferenceServices leave as far as others have room and their disruption budget spares them. Pods that Berth does
    not manage are named, not moved: `kubectl drain` evicts those. `berth undrain` takes it all back.

    Exit status: 0 once nothing of Berth's work is left on the nodes (with --no-wait, once they are marked); 1 when the
    time is over, a node is not there, or the cluster can't be read or written; 2 for a wrong command line.
    """
    seconds = seconds_of(timeout)
    with failing():
        left = not asyncio.run(_drain(nodes, wait, seconds, str(kubeconfig) if kubeconfig else None))
    if left:
        typer.echo(
            f"berth: not empty after {timeout}, see above for what holds it up; the operator goes on, and so does this "
            "command if called again; where nothing moves, see whether it runs: kubectl --namespace berth-system get "
            f"pods; to take it back: berth undrain {' '.join(nodes)}",
            err=True,
        )
        raise typer.Exit(1)


def undrain(nodes: Nodes, kubeconfig: Kubeconfig = None) -> None:
    """Take back what `berth drain` did: the mark and the cordon, so that the nodes take work again.

    What has left stays where it is; what has not been told to stop yet stays on the node. Nodes that are only cordoned
    are left as they are. Exit status: 0; 1 when a node is not there, or the cluster can't be read or written.
    """
    with failing():
        asyncio.run(_undrain(nodes, str(kubeconfig) if kubeconfig else None))


async def _drain(nodes: list[str], wait: bool, seconds: float | None, kubeconfig: str | None) -> bool:
    """Whether the nodes are marked and, if waited for, empty."""
    from rich.console import Console

    from berth.adapters.kube import connect
    from berth.cli.draining import Drain

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    waiting = console.status("") if wait and console.is_terminal else None
    async with connect(kubeconfig) as api:
        with waiting or nullcontext():
            busy = waiting.update if waiting else lambda text: None
            tell = partial(console.print, markup=False)
            drained = Drain(api, list(dict.fromkeys(nodes)), time.time, tell, busy)
            await drained.begin()
            return await drained.follow(seconds) if wait else True


async def _undrain(nodes: list[str], kubeconfig: str | None) -> None:
    from berth.adapters.kube import connect
    from berth.cli.draining import undo

    async with connect(kubeconfig) as api:
        await undo(api, list(dict.fromkeys(nodes)), typer.echo)
