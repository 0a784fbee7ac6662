"""Processes are found again by pid and start time, and nobody else's is ever ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from e2e.cluster import processes
from e2e.cluster.processes import Process
from e2e.cluster.waiting import wait_until

SLEEP = ["/bin/sleep", "60"]
DEAF = ["/bin/sh", "-c", "trap '' TERM; echo deaf now; sleep 60 & wait; wait"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.stop(tmp_path, processes.recorded(tmp_path), grace_seconds=0)


def until_it_says(folder: Path, name: str, words: str) -> None:
    log = processes.log_of(folder, name)
    wait_until(lambda: words in log.read_text(), f"{name} says {words!r}", folder=folder, seconds=10)


def test_a_started_process_is_alive_in_a_session_of_its_own(folder: Path) -> None:
    process = processes.spawn(folder, "sleeper", SLEEP)

    assert process.alive
    assert os.getsid(process.pid) == process.pid
    assert processes.recorded(folder) == [process]


def test_stopping_ends_the_process_and_forgets_it(folder: Path) -> None:
    process = processes.spawn(folder, "sleeper", SLEEP)

    processes.stop(folder, [process])

    assert not process.alive
    assert processes.recorded(folder) == []


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(folder: Path) -> None:
    process = processes.spawn(folder, "deaf", DEAF)
    until_it_says(folder, "deaf", "deaf now")

    processes.stop(folder, [process], grace_seconds=0.1)

    assert not process.alive


def test_a_pid_that_went_to_another_program_is_left_alone(folder: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        started = processes.start_time(stranger.pid)
        assert started is not None
        stale = Process("sleeper", stranger.pid, started - 1)
        (folder / "sleeper.json").write_text(json.dumps(asdict(stale)))

        processes.stop(folder, [stale], grace_seconds=0)

        assert not stale.alive
        assert replace(stale, started=started).alive
        assert processes.recorded(folder) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_ended_by_itself_is_not_alive_though_nobody_reaped_it(folder: Path) -> None:
    process = processes.spawn(folder, "sleeper", SLEEP)
    handle = os.pidfd_open(process.pid)

    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    os.close(handle)

    assert not process.alive
    assert processes.recorded(folder) == [process]


def test_the_log_tail_holds_the_last_lines_of_both_outputs(folder: Path) -> None:
    processes.spawn(folder, "talker", ["/bin/sh", "-c", "seq 1 40; echo last >&2; exec sleep 60"])
    until_it_says(folder, "talker", "last")

    assert processes.log_tail(folder, "talker").splitlines()[-2:] == ["40", "last"]
