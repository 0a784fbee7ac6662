"""`berth carbon`"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.api.config import CarbonSetting, ConfigError, load
from berth.cli.output import Output, OutputOption, put

if TYPE_CHECKING:
    from berth.control.carbon_feed import Report

BARS = "▁▂▃▄▅▆▇█"
WINDOW_HOURS = 4  # of the cleanest time that is pointed out
MINUTE, HOUR = 60, 3600


def carbon(
    zone: Annotated[list[str] | None, typer.Option(help="A zone or region; else all of the configuration.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file: the source stands under `carbon`.", exists=True, dir_okay=False)
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=96, help="How far to look.")] = 24,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="For a source in the cluster.", exists=True, dir_okay=False)
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the carbon intensity to expect of each zone, in gCO2eq/kWh, and how that is known.

    Where the source can't be asked, what it told before serves, then the same hour of a day before, then the table in
    the configuration, then the world's mean; it says so.

    Example: berth carbon --zone GB --config berth.yaml

    Exit status: 0, whatever the source does; 2 for a bad configuration or no zone.
    """
    try:
        setting = load(config).carbon
    except ConfigError as error:
        typer.echo(f"berth: {error}", err=True)
        raise typer.Exit(2) from error
    zones = list(dict.fromkeys(map(setting.zone_of, zone or [z.zone for z in setting.zones])))
    if not zones:
        typer.echo("berth: no zone: name one with --zone, or under carbon.zones in the configuration", err=True)
        raise typer.Exit(2)
    reports = asyncio.run(_reports(setting, zones, hours, str(kubeconfig) if kubeconfig else None))
    put(
        output,
        lambda: {"zones": list(map(_as_data, reports))},
        lambda: typer.echo("\n\n".join("\n".join(_lines(report)) for report in reports)),
    )


async def _reports(setting: CarbonSetting, zones: list[str], hours: int, kubeconfig: str | None) -> list[Report]:
    from berth.sources import feed

    async with feed(setting, kubeconfig) as source:
        return [await source.report(zone, hours) for zone in zones]


def _as_data(report: Report) -> dict[str, Any]:
    outlook = report.outlook
    return {
        "zone": report.zone,
        "source": report.source,
        "ageSeconds": report.age_seconds,
        "problem": report.problem,
        "origins": {str(origin): count for origin, count in outlook.counts.items()},
        "hours": [
            {"time": f"{_time(outlook.start + n):%Y-%m-%dT%H:%MZ}", "gramsPerKwh": grams, "origin": str(origin)}
            for n, (grams, origin) in enumerate(zip(outlook.grams, outlook.origins, strict=True))
        ],
    }


def _lines(report: Report) -> list[str]:
    grams = report.outlook.grams
    told = ", ".join(f"{count} h {origin}" for origin, count in report.outlook.counts.items())
    source = f"{report.source}, told {_age(report.age_seconds or 0.0)} ago" if report.source else "no source"
    return [
        f"{report.zone}: {grams[0]:.0f} g/kWh now, {min(grams):.0f} to {max(grams):.0f} in {len(grams)} h",
        f"  {sparkline(grams)}  from {_time(report.outlook.start):%H:%M} UTC",
        *_cleanest(report),
        f"  {source}: {told}",
        *([f"  {report.problem}"] if report.problem else []),
    ]


def _cleanest(report: Report) -> list[str]:
    from berth.planning.deferral import Work, schedule

    curve, grams = report.outlook.curve, report.outlook.grams
    if len(grams) < WINDOW_HOURS or max(grams) == min(grams):
        return []
    found = schedule(curve, Work(curve.start, WINDOW_HOURS * HOUR, curve.end, pausable=False))
    begin, end = (datetime.fromtimestamp(time, UTC) for time in found.runs[0])
    return [f"  cleanest {WINDOW_HOURS} h: {begin:%a %H:%M} to {end:%H:%M} UTC, {found.grams / WINDOW_HOURS:.0f} g/kWh"]


def sparkline(values: tuple[float, ...]) -> str:
    """A bar for each value, the lowest at the bottom and the highest at the top.

    >>> sparkline((100.0, 300.0, 200.0))
    '▁█▄'
    """
    low, high = min(values), max(values)
    top = len(BARS) - 1
    return "".join(BARS[int(top * (value - low) / (high - low)) if high > low else 0] for value in values)


def _age(seconds: float) -> str:
    return f"{seconds / HOUR:.0f} h" if seconds >= 2 * HOUR else f"{seconds / MINUTE:.0f} min"


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR, UTC)
