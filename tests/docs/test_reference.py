"""docs/reference says what the models are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.api.reference import configuration, pages
from berth.api.schema import Schema

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field of a schema, with those inside it."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}", field
        yield from fields(field, f"{path}{name}.")
        yield from fields(field.get("items", {}), f"{path}{name}.")


def test_there_is_a_page_for_each_kind_and_no_other() -> None:
    assert {file.name for file in FOLDER.glob("*.md")} == pages().keys()


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_reference_is_up_to_date(name: str) -> None:
    assert pages()[name] == (FOLDER / name).read_text(), "run make reference"


def test_every_field_of_the_configuration_is_explained_by_the_comment_beside_it() -> None:
    assert [name for name, field in fields(configuration()) if not field["description"]] == []
