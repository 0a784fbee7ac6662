"""Saving on a real file system: durable or not there at all, whatever the disk does."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from berth.worker import SaveFailed, Store, newest
from tests.worker.builders import everything, saved, weights


def test_the_manifest_says_what_is_durable(tmp_path: Path) -> None:
    ticks = iter([10.0, 14.0])
    store = Store(tmp_path / "3", clock=lambda: 1_000_000.0, timer=lambda: next(ticks))
    store.save(120, weights("abc"))
    digests = [hashlib.sha256(text).hexdigest() for text in (b"abc", b"abcabc")]
    expected = {
        "step": 120,
        "time": "1970-01-12T13:46:40Z",
        "bytes": 9,
        "seconds": 4.0,
        "path": "step-120",
        "files": {
            "model.bin": {"bytes": 3, "sha256": digests[0]},
            "optimizer/state.bin": {"bytes": 6, "sha256": digests[1]},
        },
    }
    assert json.loads((tmp_path / "3" / "latest.json").read_text()) == expected
    assert json.loads((tmp_path / "3" / "step-120" / "manifest.json").read_text()) == expected


def test_only_the_newest_few_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        store.save(step, weights())
    assert sorted(os.listdir(tmp_path)) == ["latest.json", "step-3", "step-4"]


def test_what_another_process_saved_is_not_deleted(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    store = Store(tmp_path, keep=2)
    for step in (3, 4, 5):
        store.save(step, weights())
    assert sorted(os.listdir(tmp_path)) == ["latest.json", "step-1", "step-2", "step-4", "step-5"]


def test_a_bad_checkpoint_of_the_same_step_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-7" / "model.bin").write_text("half")
    saved(tmp_path, 7)
    assert (tmp_path / "step-7" / "model.bin").read_text() == "half"
    found = newest([tmp_path])
    assert found is not None
    assert found.path == tmp_path / "step-7-1"


def test_two_checkpoints_are_the_least_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Store(tmp_path, keep=1)


def test_a_mistake_in_the_program_is_no_failed_save(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).save(1, lambda folder: 1 / 0)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("PytorchStreamWriter failed")])
def test_a_write_that_fails_says_why_and_what_is_kept(tmp_path: Path, error: Exception) -> None:
    store = Store(tmp_path)
    store.save(1, weights())
    before = everything(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise error

    with pytest.raises(SaveFailed, match=r"step 2 was not saved in .*(output error|failed); step 1 stays the last"):
        store.save(2, fail)
    assert everything(tmp_path) == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    yield from _mounted(tmp_path / "disk", "size=64k")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_previous_checkpoint(full_disk: Path) -> None:
    store = Store(full_disk)
    store.save(1, weights())
    before = everything(full_disk)
    with pytest.raises(SaveFailed, match=r"No space left on device; step 1 stays the last checkpoint"):
        store.save(2, lambda folder: (folder / "model.bin").write_bytes(b"x" * 100_000))
    assert everything(full_disk) == before
    found = newest([full_disk])
    assert found is not None
    assert found.step == 1
    store.save(3, weights())  # there is room for a small one, since the half of the large one is gone


def test_a_limit_on_file_sizes_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    """As a full disk, where nothing can be mounted."""
    program = """
        import pathlib, resource, signal, sys
        from berth.worker import SaveFailed, Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store(pathlib.Path(sys.argv[1]))
        store.save(1, lambda folder: (folder / "model.bin").write_bytes(b"x"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            store.save(2, lambda folder: (folder / "model.bin").write_bytes(b"x" * 100_000))
        except SaveFailed as error:
            print(error)
    """
    told = _run(program, tmp_path).stdout
    assert "File too large; step 1 stays the last checkpoint" in told
    assert sorted(os.listdir(tmp_path)) == ["latest.json", "step-1"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only file system."""
    yield from _mounted(tmp_path / "disk", "ro")


def test_a_read_only_folder_is_named(read_only: Path) -> None:
    with pytest.raises(SaveFailed, match=r"step 1 was not saved in .*: Read-only file system; there is no checkpoint"):
        Store(read_only / "1").save(1, weights())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("")
    with pytest.raises(SaveFailed, match=r"step 1 was not saved in .*: (Not a directory|File exists)"):
        Store(tmp_path / "1").save(1, weights())


@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_killed_anywhere_in_a_save_what_is_found_is_whole(tmp_path: Path, call: str, nth: int) -> None:
    """The process ends at the n-th rename or fsync of the second save: step 1 or 2 is found, whole, and no other."""
    store = Store(tmp_path)
    store.save(1, weights("one"))
    child = os.fork()
    if not child:
        setattr(os, call, _mortal(getattr(os, call), nth))
        store.save(2, weights("two"))
        os._exit(0)
    killed = os.waitpid(child, 0)[1]
    found = newest([tmp_path])
    assert found is not None
    assert (found.path / "model.bin").read_text() == {1: "one", 2: "two"}[found.step]
    assert found.step == 2 or killed
    saved(tmp_path, 3)  # and the next attempt to save works


def _mortal(real: Callable[..., Any], nth: int) -> Callable[..., Any]:
    """The function, whose n-th call ends the process."""
    calls = itertools.count(1)

    def call(*arguments: Any, **more: Any) -> Any:
        if next(calls) == nth:
            os._exit(9)
        return real(*arguments, **more)

    return call


def _run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
