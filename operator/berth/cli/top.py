"""`berth top`"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from berth.cli.common import Kubeconfig, Namespace, failing
from berth.cli.output import Output, OutputOption, put
from berth.cli.running import Order, Running, as_data, draw, ordered, running

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from berth.adapters.kube import KubeApi

LEAST_SECONDS = 1.0  # between two looks: each lists all workloads that it may see


def top(
    namespace: Namespace = "",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    sort: Annotated[Order, typer.Option(help="What comes first.")] = Order.BOARDS,
    every: Annotated[float, typer.Option(min=LEAST_SECONDS, metavar="SECONDS", help="Between two looks.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Print once, and end.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Watch what runs: boards, nodes, progress, time left, age of the last durable checkpoint, use and power.

    It lists workloads every few seconds until Ctrl-C; in a pipe, or with -o json or yaml, just once. Progress and time
    left are what programs tell, use and power what node agents do; both are empty where nobody tells. Used is the mean
    of the boards that the workload holds.

    Exit status: 0; 1 when the cluster can't be read; 2 for a wrong command line.
    """
    from rich.console import Console

    file = str(kubeconfig) if kubeconfig else None
    live = sys.stdout.isatty() and not once and output is Output.TABLE
    with failing():
        if live:
            with suppress(KeyboardInterrupt):
                asyncio.run(watch(Console(highlight=False), file, namespace, everywhere, sort, every))
            return
        rows = asyncio.run(_look_once(file, namespace, everywhere))
    now, rows = time.time(), ordered(rows, sort)
    put(output, lambda: as_data(rows, now), lambda: _print(draw(rows, now)))


async def _look_once(kubeconfig: str | None, namespace: str, everywhere: bool) -> list[Running]:
    from berth.adapters.kube import connect

    async with connect(kubeconfig) as api:
        return await look(api, _where(kubeconfig, namespace, everywhere))


async def watch(
    console: Console, kubeconfig: str | None, namespace: str, everywhere: bool, sort: Order, every: float
) -> None:
    """Draw until interrupted; a server that does not answer for a while is named, and asked again."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from berth.adapters.kube import connect
    from berth.control.ports import Unavailable

    where = _where(kubeconfig, namespace, everywhere)
    async with connect(kubeconfig) as api:
        shown = draw(ordered(await look(api, where), sort), time.time())
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Group(_title(where), shown), refresh=True)
                await asyncio.sleep(every)
                try:
                    shown = draw(ordered(await look(api, where), sort), time.time())
                except Unavailable as error:
                    shown = Group(Text(f"no answer, shown is what was: {error}", "red"), shown)


def _title(where: str) -> RenderableType:
    from rich.text import Text

    return Text(f"{time.strftime('%H:%M:%S')}  {where or 'all namespaces'}; Ctrl-C ends", "dim")


def _where(kubeconfig: str | None, namespace: str, everywhere: bool) -> str:
    from berth.adapters.oneshot import namespace_of

    return "" if everywhere else namespace or namespace_of(kubeconfig)


async def look(api: KubeApi, namespace: str) -> list[Running]:
    """What runs in a namespace ("": in all), without use and power where GPUNodes may not be listed.

    Raises ApiError.
    """
    from berth.control.ports import GPU_NODES, INFERENCE_SERVICES, TRAINING_JOBS, Json, NotFound, Refused, Resource

    async def listed(resource: Resource, where: str = "") -> list[Json]:
        found: list[Json] = (await api.request("GET", resource.path(where)))["items"]
        return found

    jobs, services = await listed(TRAINING_JOBS, namespace), await listed(INFERENCE_SERVICES, namespace)
    gpu_nodes: list[Json] = []
    with suppress(Refused, NotFound):
        gpu_nodes = await listed(GPU_NODES)
    return running(jobs, services, gpu_nodes)


def _print(drawn: RenderableType) -> None:
    from berth.cli.told import show

    show(lambda console: console.print(drawn), sys.stdout)
