"""What is resumed from: the newest whole checkpoint. What is bad is named, and left as it is."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berth.worker import Checkpoint, newest
from tests.worker.builders import everything, saved

Break = Callable[[Path], Any]


def _found(*folders: Path, now: float | None = None) -> Checkpoint:
    found = newest(folders, now)
    assert found is not None
    return found


def test_the_newest_step_is_resumed(tmp_path: Path) -> None:
    saved(tmp_path, 9, 10)
    assert _found(tmp_path).step == 10
    assert _found(tmp_path).path == tmp_path / "step-10"


def test_without_a_checkpoint_training_begins_anew(tmp_path: Path) -> None:
    assert newest([tmp_path, tmp_path / "never-made"]) is None


def test_the_latest_attempt_goes_before_a_higher_step_of_an_earlier_one(tmp_path: Path) -> None:
    """An old process that still runs somewhere may save on: its steps are on another branch of history."""
    saved(tmp_path / "1", 10, 20)
    saved(tmp_path / "2", 15)
    assert _found(tmp_path / "2", tmp_path / "1").step == 15


def test_an_attempt_that_saved_nothing_leaves_it_to_the_one_before(tmp_path: Path) -> None:
    saved(tmp_path / "1", 10)
    (tmp_path / "2").mkdir()
    assert _found(tmp_path / "3", tmp_path / "2", tmp_path / "1").step == 10


BAD: dict[str, tuple[Break, str]] = {
    "corrupted": (lambda d: (d / "step-2/model.bin").write_text("step X"), "model.bin is corrupted"),
    "truncated": (lambda d: os.truncate(d / "step-2/model.bin", 3), "model.bin is truncated: 3 of 6 bytes"),
    "too long": (lambda d: (d / "step-2/model.bin").write_text("step 2 and more"), "model.bin is too long: 15 of 6"),
    "a file missing": (lambda d: (d / "step-2/model.bin").unlink(), "model.bin is missing"),
    "all of it missing": (lambda d: shutil.rmtree(d / "step-2"), "step-2 is missing"),
    "its manifest cut off": (
        lambda d: [os.truncate(file, 20) for file in (d / "step-2/manifest.json", d / "latest.json")],
        "manifest.json is no manifest",
    ),
    "half renamed: under the old name": (
        lambda d: (d / "step-2").rename(d / "step-2.partial"),
        "step-2.partial is passed over: it was being written",
    ),
    "half renamed: without the manifest": (
        lambda d: [(d / "step-2/manifest.json").unlink(), (d / "latest.json").unlink()],
        "manifest.json can't be read: No such file",
    ),
    "half renamed: another's contents": (
        lambda d: [shutil.rmtree(d / "step-2"), shutil.copytree(d / "step-1", d / "step-2")],
        "its manifest is of step-1",
    ),
    "a file that is a folder": (
        lambda d: [(d / "step-2/model.bin").unlink(), (d / "step-2/model.bin").mkdir()],
        "model.bin is missing",
    ),
}


@pytest.mark.parametrize("bad", BAD, ids=lambda name: name.replace(" ", "-"))
def test_a_bad_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    spoil, message = BAD[bad]
    saved(tmp_path, 1, 2)
    spoil(tmp_path)
    before = everything(tmp_path)
    with caplog.at_level(logging.INFO, "berth.worker"):
        assert _found(tmp_path).step == 1
    assert message in caplog.text
    assert "resuming from step 1" in caplog.text
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"step": 2}',
        '{"step": -1, "time": "2026-01-01T00:00:00Z", "path": "step-2"}',
        '{"step": 2, "time": "yesterday", "path": "step-2"}',
        '{"step": 2, "time": "2026-01-01T00:00:00Z", "path": "../2/step-2"}',
        '{"step": 2, "time": "2026-01-01T00:00:00Z", "path": "/etc"}',
        '{"step": 1e999, "time": "2026-01-01T00:00:00Z", "path": "step-2"}',
        '{"step": 2, "time": "2026-01-01T00:00:00Z", "path": "step-2", "files": {"../x": {"bytes": 1, "sha256": ""}}}',
        '{"step": 2, "time": "2026-01-01T00:00:00Z", "path": "step-2", "files": [1]}',
    ],
)
def test_a_manifest_that_states_nonsense_is_passed_over(tmp_path: Path, text: str) -> None:
    saved(tmp_path, 1)
    (tmp_path / "latest.json").write_text(text)
    assert _found(tmp_path).step == 1


def test_what_is_dated_in_the_future_is_not_trusted_while_there_is_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2, clock=lambda: time.time() + 86400)
    assert _found(tmp_path).step == 1
    assert "step-2 is dated 86" in caplog.text


def test_where_all_are_dated_in_the_future_the_newest_is_better_than_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock that was set back must not throw a week of training away."""
    saved(tmp_path, 1, 2)
    assert _found(tmp_path, now=time.time() - 7 * 86400).step == 2
    assert "is the clock of this node right?" in caplog.text


def test_clocks_of_two_nodes_may_differ_by_minutes(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2, clock=lambda: time.time() + 300)
    assert _found(tmp_path).step == 2


def test_a_clock_that_jumps_back_between_saves_changes_nothing(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2, clock=lambda: time.time() - 365 * 86400)
    assert _found(tmp_path).step == 2
    assert json.loads((tmp_path / "latest.json").read_text())["step"] == 2


def test_a_manifest_of_another_program_needs_neither_files_nor_folders(tmp_path: Path) -> None:
    """The least that docs/checkpoints.md asks for."""
    (tmp_path / "epoch-3.pt").write_text("12345")
    (tmp_path / "latest.json").write_text(
        '{"step": 3, "time": "2026-01-01T00:00:00Z", "bytes": 5, "path": "epoch-3.pt"}'
    )
    assert _found(tmp_path).path == tmp_path / "epoch-3.pt"
    os.truncate(tmp_path / "epoch-3.pt", 4)
    assert newest([tmp_path]) is None


def test_a_file_in_place_of_a_folder_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path / "1", 1)
    (tmp_path / "2").write_text("")
    assert _found(tmp_path / "2", tmp_path / "1").step == 1
    assert "2 is passed over: Not a directory" in caplog.text
