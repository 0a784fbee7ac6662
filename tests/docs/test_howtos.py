"""Every how-to does what it says, and so does the quick start."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.docs import transcripts
from tests.docs.conftest import Shell
from tests.docs.transcripts import File, steps

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["index.md", *sorted(f"howto/{page.name}" for page in (DOCS / "howto").glob("*.md") if page.stem != "index")]


@pytest.mark.cluster
@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(page: str, shell: Shell) -> None:
    for step in steps((DOCS / page).read_text()):
        if isinstance(step, File):
            (shell.folder / step.name).write_text(step.text)
        else:
            printed = shell(step.line)
            assert step.printed(printed), f"$ {step.line}\n{printed}\nis not\n{step.output}"


def test_the_examples_of_how_pages_are_read() -> None:
    assert doctest.testmod(transcripts).failed == 0
