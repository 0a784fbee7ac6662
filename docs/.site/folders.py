"""For mkdocs: an entry of `nav` that is a folder stands for all its pages; one of an empty folder is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Write out the folders of the navigation."""
    config.nav = _written_out(config.nav, Path(config.docs_dir))
    return config


def _written_out(nav: list[Any], docs: Path) -> list[Any]:
    found = []
    for entry in nav:
        if not isinstance(entry, dict):
            found.append(entry)
            continue
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = _written_out(target, docs)
        elif target.endswith("/"):
            target = [page.relative_to(docs).as_posix() for page in sorted((docs / target).glob("*.md"))]
        found += [{title: target}] if target else []
    return found
