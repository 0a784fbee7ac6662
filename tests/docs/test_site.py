"""The site builds, needs nobody else, and its links lead somewhere; so do those of the pages outside it."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FETCHED = re.compile(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]*|<link[^>]+href="(?:https?:)?//[^"]*')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; what mkdocs warns of is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert [str(page) for page in pages if not (site / page).exists()] == []


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    assert [found for page in site.rglob("*.html") for found in FETCHED.findall(page.read_text())] == []


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: page.name)
def test_links_outside_the_site_lead_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(CODE.sub("", page.read_text())) if "://" not in link]
    assert [link for link in links if link and not (ROOT / link).exists()] == []


def test_the_diagrams_are_as_their_program_draws_them() -> None:
    diagrams = runpy.run_path(str(DOCS / ".site" / "diagrams.py"))["DIAGRAMS"]
    assert {f"{draw.__name__}.svg" for draw in diagrams} == {file.name for file in (DOCS / "img").glob("*.svg")}
    for draw in diagrams:
        stale = draw().svg() != (DOCS / "img" / f"{draw.__name__}.svg").read_text()
        assert not stale, "run make reference"
