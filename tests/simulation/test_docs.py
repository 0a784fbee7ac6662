"""docs/simulate.md: its example prints what it says, about, and no field of a scenario is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from berth.cli.main import app
from berth.simulation import pools, scenario

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
NUMBER = re.compile(r" *\d[\d,.]*")  # with the blanks that right-align it


def fields() -> Iterator[str]:
    """Every field of a scenario, as it is written."""
    ours = (scenario.__name__, pools.__name__)
    for model in [*vars(scenario).values(), *vars(pools).values()]:
        own = isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ in ours
        if own and model is not scenario.PolicySettings:
            yield from (field.alias or name for name, field in model.model_fields.items())


def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "racks.yaml"
    file.write_text(text)
    told = CliRunner().invoke(app, ["simulate", str(file)])
    assert told.exit_code == 0, told.stderr
    lines = [line.rstrip() for line in told.stdout.splitlines()]
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in shown.splitlines()]
    printed = [float(n.replace(",", "")) for n in NUMBER.findall("".join(lines))]
    assert printed == pytest.approx([float(n.replace(",", "")) for n in NUMBER.findall(shown)], rel=0.2, abs=2)


@pytest.mark.parametrize("name", sorted(set(fields())))
def test_the_page_names_the_field(name: str) -> None:
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((\S+?)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / link).exists(), link
