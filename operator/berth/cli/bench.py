"""`berth bench`: public traces replayed under Berth's packer and under others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.bench.names import PolicyName
from berth.cli.bench_carbon import carbon
from berth.cli.bench_spot import joint, spot
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from rich.table import Table

    from berth.bench.openb import Result, Task

bench = typer.Typer(no_args_is_help=True, help="Replay public traces under Berth's packer, and under others.")


@bench.callback()
def _bench() -> None:
    """Replay public traces under Berth's packer, and under others."""


bench.command()(carbon)
bench.command()(spot)
bench.command()(joint)


@bench.command()
def openb(
    nodes: Annotated[Path, typer.Option(help="Node list (CSV), such as openb_node_list_gpu_node.csv.")],
    pods: Annotated[Path, typer.Option(help="Pod list (CSV), such as openb_pod_list_default.csv.")],
    orders: Annotated[Path, typer.Option(help="One JSON object a line: seed, node_perm, arrivals; may be .gz.")],
    policy: Annotated[PolicyName, typer.Option(help="Who chooses the nodes.")] = PolicyName.BERTH,
    seeds: Annotated[str, typer.Option(help="Which seeds of the orders, such as 42,43; if left out, all.")] = "",
    permute_nodes: Annotated[
        int | None, typer.Option(metavar="N", help="Shuffle the nodes once more, with this seed.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Place the pods of an openb trace one at a time, and say how full the fleet gets.

    A pod that fits nowhere is dropped; none is delayed, moved or ended.
    All see one pod at a time; fgd and berth know beforehand how frequent each kind is.

    alloc@100: percent of the boards allocated when as many have been asked for as there are.
    frag_ratio@80: of what is free at 80 %, the percent that a pod of the mix could not use.
    decisions_per_second: CPU time of choosing and placing alone, on one core.

    Example: berth bench openb --nodes openb_node_list_gpu_node.csv
    --pods openb_pod_list_default.csv --orders orders/default.jsonl.gz --policy fgd --seeds 42,43

    Exit status: 0, or 2 for files or seeds that can't be used.
    """
    from berth.bench.openb import Result, tasks
    from berth.bench.tables import TraceError
    from berth.bench.trace import load

    try:
        todo = tasks(load(nodes, pods, orders), policy, _numbers(seeds), permute_nodes)
    except TraceError as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    results = _watched(todo)
    mean = Result.mean(list(results.values()))
    put(
        output,
        lambda: _as_data(policy, mean, results),
        lambda: _print(_table(f"{policy.value} on {pods.name}", mean, results)),
    )


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")] if seeds else []
    except ValueError as error:
        raise typer.BadParameter(f"{seeds!r} is no list such as 42,43", param_hint="--seeds") from error


def _watched(todo: list[Task]) -> dict[int, Result]:
    """The results by seed, in order, with a bar on standard error while they come."""
    from rich.console import Console
    from rich.progress import track

    from berth.bench.openb import run_all

    console = Console(stderr=True)
    seeds = track(
        run_all(todo), "replaying", len(todo), console=console, transient=True, disable=not console.is_terminal
    )
    return dict(sorted(seeds))


def _as_data(policy: PolicyName, mean: Result, results: dict[int, Result]) -> dict[str, Any]:
    return {
        "policy": policy.value,
        "mean": mean.figures,
        "seeds": [{"seed": seed, **result.figures} for seed, result in results.items()],
    }


def _table(title: str, mean: Result, results: dict[int, Result]) -> Table:
    from rich.table import Table

    table = Table("seed", *(name.replace("_", " ") for name in mean.figures), title=title)
    for seed, result in results.items():
        table.add_row(str(seed), *map(_cell, result.figures.values()))
    table.add_section()
    table.add_row("mean", *map(_cell, mean.figures.values()))
    return table


def _cell(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:.2f}" if figure < 1000 else f"{figure:,.0f}"


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)
