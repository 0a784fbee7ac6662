"""The generated CustomResourceDefinitions: fresh, small, structural, and each field described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.api import generate
from tests.api.cluster import CRDS

FILES = generate.manifests()
REFUSED_BY_CRDS = {"$ref", "$defs", "anyOf", "const", "title", "prefixItems", "uniqueItems", "exclusiveMinimum"}


def test_the_files_are_what_the_models_say() -> None:
    assert generate.stale(CRDS) == []


def test_all_together_stay_below_the_limit_of_an_applied_object() -> None:
    assert sum(map(len, FILES.values())) < 200_000


def test_check_fails_on_a_changed_a_missing_and_a_forgotten_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([str(tmp_path)]) == 0
    assert generate.main([str(tmp_path), "--check"]) == 0
    (tmp_path / "berth.dev_queues.yaml").unlink()
    (tmp_path / "berth.dev_gpunodes.yaml").write_text("changed: true\n")
    (tmp_path / "berth.dev_olds.yaml").write_text("")
    assert generate.main([str(tmp_path), "--check"]) == 1
    complaints = capsys.readouterr().err
    assert [name in complaints for name in ("queues", "gpunodes", "olds", "trainingjobs")] == [True, True, True, False]


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_described_and_in_words_that_crds_know(name: str) -> None:
    schema = yaml.safe_load(FILES[name])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in _schemas(schema, ""):
        assert not REFUSED_BY_CRDS & node.keys(), path
        assert node.get("description") or path.endswith((".metadata", "[]")), path


@pytest.mark.parametrize("name", FILES)
def test_status_has_no_defaults_that_would_undo_what_the_operator_clears(name: str) -> None:
    schema = yaml.safe_load(FILES[name])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [path for path, node in _schemas(schema["properties"]["status"], "status") if "default" in node] == []


def _schemas(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if path:
        yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from _schemas(inner, f"{path}.{name}")
    if "items" in node:
        yield from _schemas(node["items"], f"{path}[]")
