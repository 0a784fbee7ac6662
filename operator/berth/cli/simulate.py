"""`berth simulate`: scenarios in virtual time, as a table, JSON and plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from berth.simulation.case import Case
    from berth.simulation.metrics import Result
    from berth.simulation.run import Watch

REDRAWN_EVERY = 200  # events; a bar that moves more often costs more than the run


def simulate(
    scenarios: Annotated[
        list[Path] | None, typer.Argument(help="YAML files; of several the results stand side by side.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write summaries, series and workloads as JSON; - for stdout.")
    ] = None,
    plots: Annotated[
        list[Path] | None, typer.Option("--plot", help="Draw into a file.png or file.svg (needs berth\\[plots]).")
    ] = None,
    validate: Annotated[bool, typer.Option("--validate", help="Only check the scenarios.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of scenarios.")] = False,
) -> None:
    """Run a scenario (fleet, work, failures, policy) in virtual time through the operator's own planner.

    Exit status: 0, or 2 for a scenario that can't be used or a file that can't be written.
    """
    from berth.simulation import plots as drawing
    from berth.simulation.case import ScenarioError, load
    from berth.simulation.report import table
    from berth.simulation.scenario import schema as schema_of_scenarios

    if schema:
        typer.echo(json.dumps(schema_of_scenarios(), indent=2))
        return
    if not scenarios:
        raise typer.BadParameter("name at least one scenario file", param_hint="SCENARIOS")
    if json_file is not None and not json_file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.parent}", param_hint="--json")
    if json_file is not None and json_file.is_dir():
        raise typer.BadParameter(f"{json_file} is a folder", param_hint="--json")
    try:
        for file in plots or ():
            drawing.check(file)
        cases = [load(file) for file in scenarios]
    except (ScenarioError, drawing.PlotError) as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    if validate:
        for case in cases:
            typer.echo(f"{case.name}: good, {len(case.arrivals):,} workloads")
        return
    results = [_run(case) for case in cases]
    on_stdout = json_file == Path("-")
    _print(table(results), sys.stderr if on_stdout else sys.stdout)
    try:
        if json_file is not None:
            text = json.dumps({"runs": [result.as_json() for result in results]}, indent=1) + "\n"
            sys.stdout.write(text) if on_stdout else json_file.write_text(text)
        for file in plots or ():
            drawing.draw(results, file)
    except OSError as error:
        if error.filename is None:  # no file: whoever read stdout went away, which typer knows about
            raise
        typer.echo(f"berth: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(2) from error


def _run(case: Case) -> Result:
    from berth.simulation.run import simulate as run

    with _progress(case) as watch:
        return run(case, watch)


@contextmanager
def _progress(case: Case) -> Iterator[Watch]:
    """A bar on stderr while a run goes on, where somebody looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from berth.simulation.cluster import Cluster
    from berth.simulation.report import duration

    console, events = Console(stderr=True), 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(case.name, total=case.scenario.horizon, done="")

        def watch(cluster: Cluster) -> None:
            nonlocal events
            events += 1
            if events % REDRAWN_EVERY == 0:
                bar.update(task, completed=cluster.clock.now, done=duration(cluster.clock.now))

        yield watch


def _print(found: Table, stream: TextIO) -> None:
    """A table as wide as it has to be: lines that a narrow terminal would cut are worth more than its frame."""
    from rich.console import Console

    console = Console(file=stream)
    console.width = max(console.width, console.measure(found).maximum)
    console.print(found)
