"""Manifests that must fail, and how each says it must: `# expect: <field> | <part of message> | <outcome>`.

The outcome is `refused` (by the API server) or `misconfigured` (a condition); with a fourth word, `operator`, it takes
the running operator to find out: its dry run, or what else is in the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.api.builders import HERE, documents


@dataclass(frozen=True)
class BadManifest:
    """One bad object and what is to be said about it."""

    name: str
    manifest: dict[str, Any]
    field: str
    message: str
    outcome: str
    found_by: str


def bad_manifests(outcome: str, found_by: str = "") -> list[BadManifest]:
    """Those with this outcome."""
    files = sorted((HERE / "bad_manifests").glob("*.yaml"))
    return [bad for bad in map(_read, files) if (bad.outcome, bad.found_by) == (outcome, found_by)]


def _read(path: Path) -> BadManifest:
    first, _, _ = path.read_text().partition("\n")
    words = [word.strip() for word in first.removeprefix("# expect:").split("|")]
    field, message, outcome, found_by = [*words, ""][:4]
    return BadManifest(path.stem, documents(path)[0], field, message, outcome, found_by)
