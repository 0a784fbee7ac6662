"""How commands print: for people, or for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml


class Output(StrEnum):
    """A form of what a command prints."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]
Data = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def put(output: Output, data: Callable[[], Data], table: Callable[[], None]) -> None:
    """Print what `data` gives for programs, or what `table` prints for people."""
    if output is Output.TABLE:
        table()
    elif output is Output.JSON:
        typer.echo(json.dumps(data(), indent=2))
    else:
        typer.echo(yaml.safe_dump(data(), sort_keys=False, allow_unicode=True), nl=False)
