"""A scenario made ready: its file read and checked, its work drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from berth.api.config import line_of
from berth.api.problems import Misconfigured, first_problem, path
from berth.planning.cohorts import Cohorts
from berth.planning.fleet import Fleet
from berth.simulation.conditions import Away, Sky, absences, sky_of
from berth.simulation.machines import EPOCH, machines_of
from berth.simulation.scenario import Scenario
from berth.simulation.work import Arrival, Drawing


class ScenarioError(ValueError):
    """A scenario that can't be used; the message names the file, the line, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario and its work. Everything that chance decides about arrivals is decided."""

    name: str
    scenario: Scenario
    arrivals: tuple[Arrival, ...]
    sky: Sky | None = None  # carbon intensity, where the scenario has it
    away: Mapping[str, tuple[Away, ...]] = field(default_factory=dict)  # when spot capacity is not there, by pool


def load(file: Path) -> Case:
    """The case of a scenario's file. Raises ScenarioError."""
    try:
        text = file.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        fields = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(fields, dict):
        raise ScenarioError(f"{file}: must hold fields and their values, such as horizon: 7d")
    try:
        return prepare(file.stem, fields, file.parent)
    except ValidationError as error:
        problem, location = first_problem(error), _written(error)
        given = "" if problem.message.startswith(("required", "unknown")) else _given(error)
        at = f"{file}:{line_of(root, [*location, *_parts(problem.message.partition(':')[0])])}"
        raise ScenarioError(": ".join(filter(None, (at, path(*location), problem.message + given)))) from error
    except Misconfigured as error:
        raise ScenarioError(f"{file}:{line_of(root, _parts(error.field))}: {error}") from error


def prepare(name: str, fields: Any, folder: Path) -> Case:
    """The case of a scenario's fields. Raises pydantic's ValidationError, and Misconfigured."""
    scenario = Scenario.model_validate(fields)
    nodes = {name: machine.node for name, machine in machines_of(scenario).items()}
    fleet, cohorts = Fleet(nodes, scenario.planner_policy().levels), Cohorts(scenario.planner_queues())
    drawing = Drawing(scenario, fleet, folder, cohorts)
    sky = sky_of(scenario, folder, EPOCH)
    away = {
        pool.name: absences(pool.spot, folder, f"fleet.pools[{i}].spot")
        for i, pool in enumerate(scenario.fleet.pools)
        if pool.spot
    }
    return Case(name, scenario, drawing.arrivals(), sky, away)


def _written(error: ValidationError) -> list[str | int]:
    """The path of the first field at fault, as the file writes it."""
    parts = error.errors(include_url=False)[0]["loc"]
    return [part if isinstance(part, int) else to_camel(part) for part in parts if not _is_inner(part)]


def _parts(field: str) -> list[str | int]:
    """The parts of a field's path."""
    return [int(number) if number else name for number, name in re.findall(r"\[(\d+)\]|(\w+)", field)]


def _is_inner(part: str | int) -> bool:
    """Whether pydantic added a part of the path for a union's member or a function."""
    return isinstance(part, str) and ("[" in part or part in ("int", "str", "float"))


def _given(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return "" if first["type"] == "value_error" else f", got {first['input']!r}"
