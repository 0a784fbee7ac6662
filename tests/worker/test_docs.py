"""The page with the contract: its programs can be read, its JSON is what the code reads and writes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from berth.adapters.progress import read_report
from berth.worker import EXIT_SAVED
from berth.worker.manifest import parse
from berth.worker.reports import request_id
from berth.worker.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MANIFEST, REPORT, ANSWER = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("number", range(3))
def test_its_programs_can_be_read(number: int) -> None:
    assert len(PROGRAMS) == 3
    ast.parse(PROGRAMS[number], feature_version=(3, 9))


def test_the_first_program_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program: dict[str, Any] = {}
    exec(PROGRAMS[0], program)
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "1"))
    monkeypatch.setenv("CHECKPOINT_INTERVAL", "1e-9")
    loaded: list[str] = []
    state = SimpleNamespace(dump=lambda: '"state"', load=loaded.append)
    done: list[int] = []
    program["main"](state, lambda step: done.append(step) or 0.5, 3)
    program["main"](state, lambda step: done.append(step) or 0.5, 5)
    assert done == [1, 2, 3, 4, 5]
    assert loaded == ['"state"']


def test_the_manifest_is_one() -> None:
    manifest = parse(MANIFEST)
    assert manifest.to_json() == MANIFEST


def test_the_report_is_one() -> None:
    report = read_report(json.dumps(REPORT).encode())
    assert (report.step, report.total, report.percent, report.remaining_seconds) == (450, 1000, 45, 120)
    assert report.checkpoint is not None
    assert (report.answers, report.problem) == (ANSWER["saveRequest"]["id"], "No space left on device")


def test_the_answer_is_one() -> None:
    assert request_id(ANSWER) == "3-1795744680000"


def test_every_variable_is_read_and_the_exit_code_is_the_one() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)`", PAGE, re.MULTILINE))
    settings = Settings.of(rows)
    assert settings.folder == Path("/checkpoints/llm/3")
    assert settings.resume_from == (Path("/checkpoints/llm/2"), Path("/checkpoints/llm/1"))
    assert (settings.interval_seconds, settings.mtbf_seconds, settings.grace_seconds) == (None, 43200, 120)
    assert None not in (settings.server_ca, settings.server_token)
    assert settings.server_url.startswith("https://")
    assert f"exit with {EXIT_SAVED}" in PAGE
