"""`berth bench spot` and `berth bench joint`: jobs with a deadline on recorded spot windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from rich.table import Table

    from berth.bench.spot import Figures, Policy
    from berth.bench.spot_run import Outcome, Terms, Track

WIDTH = 100  # columns: no name is shortened, on any terminal
PRICES = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)  # dollars per kg: from none to one that outweighs any dollar

SpotFiles = Annotated[
    list[Path], typer.Option(help="Windows: lines of JSON with pool, window, gap_seconds, available; may be .gz.")
]
Hours = typer.Option(min=0, metavar="HOURS")
WorkHours = Annotated[float, typer.Option(min=0.01, metavar="HOURS", help="How long the job runs, undisturbed.")]
DeadlineHours = Annotated[float, typer.Option(min=0.01, metavar="HOURS", help="By when it has to end.")]
RestartHours = Annotated[float, typer.Option(min=0, metavar="HOURS", help="What each start costs, the first as well.")]
SpotPrice = Annotated[float, typer.Option(min=0, metavar="USD", help="Spot capacity, an hour.")]
OnDemandPrice = Annotated[float, typer.Option(min=0, metavar="USD", help="On-demand capacity, an hour.")]
ZoneNames = Annotated[str, typer.Option(help="Which pools, such as us-west-2a_v100_1,mine=DE; if left out, all.")]


def spot(
    spot: SpotFiles,
    work_hours: WorkHours = 48.0,
    deadline_hours: DeadlineHours = 52.0,
    restart_overhead_hours: RestartHours = 0.1,
    spot_price: SpotPrice = 0.9731,
    on_demand_price: OnDemandPrice = 3.06,
    zones: ZoneNames = "",
    live: Annotated[
        bool, typer.Option("--live", help="Run the operator's own plan too, in a simulated cluster.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a job with a deadline through recorded spot windows, each in its own pool, under our plan and others' rules.

    on_demand_now: at once, on on-demand capacity. greedy: spot capacity whenever it is there. uniform_progress: the
    rules of Can't Be Late. berth: ours, knowing no more than what it has seen in the window. clairvoyant: the least
    possible.

    With --live, operator: what the running operator does with such a job, in a cluster of one spot node that comes and
    goes as recorded and one node on demand.

    Whatever a window does not tell, after its end, counts as no spot capacity.

    Example: berth bench spot --spot us-west-2a_v100_1.jsonl.gz --deadline-hours 70 --restart-overhead-hours 0.2

    Exit status: 0, or 2 for files or terms that can't be used.
    """
    from berth.bench.joint import chosen
    from berth.bench.live import operator
    from berth.bench.spot import SPOT_POLICIES, figures, tracks
    from berth.bench.spot_data import load_windows
    from berth.bench.spot_run import Terms
    from berth.bench.tables import TraceError

    terms = Terms(
        work_hours, deadline_hours, restart_overhead_hours, restart_overhead_hours, spot_price, on_demand_price
    )
    _check(terms)
    try:
        todo = tracks(chosen(load_windows(spot), _zones(zones)))
    except TraceError as error:
        _fail(error)
    policies = {**SPOT_POLICIES, "operator": operator} if live else SPOT_POLICIES
    _report(f"{work_hours:g} h of work by {deadline_hours:g} h", figures(_watched(terms, todo, policies)), output)


def joint(
    spot: SpotFiles,
    carbon: Annotated[Path, typer.Option(help="Hourly intensities (CSV): datetime_utc, then one column a zone.")],
    work_hours: WorkHours = 24.0,
    deadline_hours: DeadlineHours = 48.0,
    restart_overhead_hours: RestartHours = 0.1667,
    move: Annotated[
        bool, typer.Option("--move", help="Let the job move between pools, which must be aligned.")
    ] = False,
    move_overhead_hours: Annotated[
        float | None, typer.Option(min=0, metavar="HOURS", help="A start in another pool; if left out, as a restart.")
    ] = None,
    spot_price: SpotPrice = 0.9731,
    on_demand_price: OnDemandPrice = 3.06,
    carbon_price: Annotated[float, typer.Option(min=0, metavar="USD", help="A kilogram of CO2e.")] = 20.0,
    kilowatts: Annotated[float, typer.Option(min=0, help="What the job draws, cooling included.")] = 0.347,
    start_kilowatts: Annotated[float, typer.Option(min=0, help="What it draws while it starts.")] = 0.04,
    zones: ZoneNames = "",
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw dollars and CO2 by carbon price into a .png or .svg (needs berth\\[plots])."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a job with a deadline through recorded spot windows and the carbon of the same hours, in one objective.

    Beside the policies of `berth bench spot`: wait_awhile: on-demand capacity in the cleanest hours. naive: spot
    capacity in the cleanest hours. berth and clairvoyant weigh a kilogram at the carbon price.

    A pool's grid is that of the cloud region its name begins with, unless --zones says otherwise. Carbon is that of
    the same calendar hours in the year of the carbon file. 0.347 and 0.04 kW: a V100 at full load (306 W) and at rest
    (35 W), at a PUE of 1.135.

    Example: berth bench joint --spot aligned-nine-zones.jsonl.gz --carbon 2022-hourly.csv.gz --plot frontier.svg

    Exit status: 0, or 2 for files or terms that can't be used.
    """
    from berth.bench import joint_plot
    from berth.bench.carbon_data import load_hours
    from berth.bench.joint import chosen, free_tracks, settled_tracks
    from berth.bench.spot import JOINT_POLICIES, figures
    from berth.bench.spot_data import load_windows
    from berth.bench.spot_run import Terms
    from berth.bench.tables import TraceError
    from berth.simulation.plots import PlotError, check

    moving = restart_overhead_hours if move_overhead_hours is None else move_overhead_hours
    terms = Terms(
        work_hours,
        deadline_hours,
        restart_overhead_hours,
        moving,
        spot_price,
        on_demand_price,
        kilowatts,
        start_kilowatts,
        carbon_price,
    )
    _check(terms)
    named = _zones(zones)
    try:
        if plot is not None:
            check(plot)
        make = free_tracks if move else settled_tracks
        todo = make(chosen(load_windows(spot), named), load_hours(carbon), named, terms)
    except (TraceError, PlotError) as error:
        _fail(error)
    found = figures(_watched(terms, todo, JOINT_POLICIES))
    _report(f"{work_hours:g} h of work by {deadline_hours:g} h, ${carbon_price:g}/kg", found, output)
    if plot is not None:
        weighed = {name: JOINT_POLICIES[name] for name in ("berth", "clairvoyant")}
        curves = {price: figures(_watched(replace(terms, carbon_price=price), todo, weighed))[""] for price in PRICES}
        joint_plot.draw(found[""], curves, plot)


def _zones(text: str) -> dict[str, str]:
    """Pools by name, each with its carbon zone ("" where none is said)."""
    found = {}
    for part in filter(None, text.split(",")):
        pool, _, grid = part.partition("=")
        found[pool.strip()] = grid.strip()
    return found


def _check(terms: Terms) -> None:
    """No policy can keep a deadline that on-demand capacity can't."""
    needed = terms.work_hours + terms.restart_hours
    if terms.deadline_hours < needed:
        raise typer.BadParameter(
            f"{terms.deadline_hours:g} h are too few: on-demand capacity needs {needed:g} h, its start included",
            param_hint="--deadline-hours",
        )


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"berth: {error}", err=True)
    raise typer.Exit(2) from error


def _watched(terms: Terms, todo: Sequence[Track], policies: Mapping[str, Policy]) -> Iterable[tuple[str, str, Outcome]]:
    """What comes of each run, with a bar on standard error while they go on."""
    from rich.console import Console
    from rich.progress import track

    from berth.bench.spot import outcomes

    console = Console(stderr=True)
    found = outcomes(terms, todo, policies)
    total = len(todo) * len(policies)
    return track(found, "running", total, console=console, transient=True, disable=not console.is_terminal)


def _report(title: str, found: Mapping[str, Mapping[str, Figures]], output: Output) -> None:
    put(output, lambda: _as_data(found), lambda: _draw(title, found))


def _as_data(found: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    policies, *pools = ({name: asdict(row) for name, row in rows.items()} for rows in found.values())
    return {"policies": policies, "pools": dict(zip(list(found)[1:], pools, strict=True))}


def _draw(title: str, found: Mapping[str, Mapping[str, Figures]]) -> None:
    from rich.console import Console

    console = Console()
    console.width = max(console.width, WIDTH)
    pools_of = {"": f"{title}, all windows", **{pool: pool for pool in found if pool}}
    shown = [pool for pool in found if pool == "" or len(found) > 2]
    for pool in shown:
        console.print(_table(pools_of[pool], found[pool]))


def _table(title: str, rows: Mapping[str, Figures]) -> Table:
    from rich.table import Table

    columns = ("policy", "dollars", "% of on-demand", "kg", "% of on-demand", "wait hours", "missed", "restarts")
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=column == "policy")
    now = rows["on_demand_now"]
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.mean_dollars:.2f}",
            _percent(row.mean_dollars, now.mean_dollars),
            f"{row.mean_kg:.2f}",
            _percent(row.mean_kg, now.mean_kg),
            f"{row.mean_wait_hours:.2f}",
            str(row.missed_deadlines),
            f"{row.restarts:.1f}",
        )
    return table


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
