"""`berth bench carbon`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from berth.bench.carbon import Figures

WIDTH = 100  # columns: no name is shortened, on any terminal


def carbon(
    carbon: Annotated[Path, typer.Option(help="Hourly intensities (CSV): datetime_utc, then one column a zone.")],
    jobs: Annotated[Path, typer.Option(help="Jobs (CSV): arrival_time and length in seconds, cpus.")],
    zones: Annotated[str, typer.Option(help="Which zones, such as AU-SA,DE.")] = "AU-SA",
    first_hour: Annotated[int, typer.Option(min=0, help="The hour of the file at which the jobs begin.")] = 7000,
    hours: Annotated[int, typer.Option(min=1, help="How many hours of it are used.")] = 720,
    short_wait_hours: Annotated[float, typer.Option(min=0, help="How long jobs under 2 h may wait.")] = 6.0,
    long_wait_hours: Annotated[float, typer.Option(min=0, help="How long longer jobs may wait.")] = 24.0,
    restart_overhead_hours: Annotated[float, typer.Option(min=0, help="That a pause costs, running.")] = 0.0,
    noise: Annotated[float, typer.Option(min=0, help="Error of forecasts for berth_noisy, of the mean.")] = 0.05,
    seeds: Annotated[int, typer.Option(min=0, help="How many such forecasts.")] = 3,
    usd_per_cpu_hour: Annotated[float, typer.Option(min=0, help="Price of an hour of a CPU.")] = 0.0624,
    watts_per_cpu: Annotated[float, typer.Option(min=0, help="What a CPU in use draws.")] = 1.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let jobs wait for cleaner hours, under our schedule and the rules of others.

    no_wait: at once. lowest_slot, lowest_window, carbon_time: GAIA's; ecovisor; wait_awhile: the cleanest hours,
    wait_awhile_window: the cleanest in one piece. clairvoyant: the least possible, were pauses free.
    berth: ours, in pieces; berth_window: in one piece; berth_usual_length: knowing no job's length, only the mean of
    its kind, as GAIA's; berth_prompt: waiting no longer in the mean than ecovisor; berth_noisy: by forecasts that err.

    carbon_ratio: emitted, of what no_wait emits. mean_wait_hours: by which the end of a job is put off.
    With several zones, "policies" are the means over them, and "zones" has each.

    Example: berth bench carbon --carbon carbon/2022-hourly.csv.gz --jobs jobs/gaia-pai-1k.csv

    Exit status: 0, or 2 for files or zones that can't be used.
    """
    from rich.console import Console

    from berth.bench.carbon import Setting, compare_all, over_zones
    from berth.bench.carbon_data import load_hours, load_jobs
    from berth.bench.tables import TraceError

    setting = Setting(
        short_wait_hours=short_wait_hours,
        long_wait_hours=long_wait_hours,
        restart_overhead_hours=restart_overhead_hours,
        noise=noise,
        seeds=seeds,
        usd_per_cpu_hour=usd_per_cpu_hour,
        watts_per_cpu=watts_per_cpu,
    )
    try:
        table, trace = load_hours(carbon), load_jobs(jobs)
        wanted = {zone: table.span(zone, first_hour, hours) for zone in dict.fromkeys(zones.split(","))}
    except TraceError as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    found = _watched(compare_all(wanted, trace, setting), len(wanted))

    def table_of_each() -> None:
        means = {f"mean of {len(found)} zones": over_zones(found)} if len(found) > 1 else {}
        for title, figures in {**found, **means}.items():
            Console(width=WIDTH).print(_table(title, figures))

    put(output, lambda: {"policies": _as_data(over_zones(found)), "zones": _each(found)}, table_of_each)


def _watched(comparing: Iterator[tuple[str, dict[str, Figures]]], zones: int) -> dict[str, dict[str, Figures]]:
    """What comes zone by zone, with a bar on standard error meanwhile."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    bar = track(comparing, "comparing", zones, console=console, transient=True, disable=not console.is_terminal)
    return dict(bar)


def _each(zones: dict[str, dict[str, Figures]]) -> dict[str, Any]:
    return {zone: {"policies": _as_data(figures)} for zone, figures in zones.items()}


def _as_data(figures: dict[str, Figures]) -> dict[str, dict[str, float]]:
    return {policy: asdict(each) for policy, each in figures.items()}


def _table(title: str, figures: dict[str, Figures]) -> Table:
    from rich.table import Table

    table = Table("policy", "carbon ratio", "mean wait h", "kg/job", "$/job", "missed", "restarts", title=title)
    for policy, each in figures.items():
        table.add_row(
            policy,
            f"{each.carbon_ratio:.4f}",
            f"{each.mean_wait_hours:.2f}",
            f"{each.mean_kg:.4g}",
            f"{each.mean_dollars:.4g}",
            str(each.missed_deadlines),
            str(each.restarts),
        )
    return table
