"""Telling NVIDIA's device plugin to look again."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from berth.adapters.plugin import PROGRAM, SignalledPlugin
from berth.control.gpus import PluginError

LISTENS = "import signal; signal.signal(1, lambda *_: exit(7)); print('ready', flush=True); signal.pause()"


async def started(program: Path) -> asyncio.subprocess.Process:
    """A process of that name, which ends with 7 when it hears SIGHUP."""
    os.symlink(sys.executable, program)
    process = await asyncio.create_subprocess_exec(program, "-c", LISTENS, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_signals_the_process_of_that_name_and_no_other(tmp_path: Path) -> None:
    plugin, other = await started(tmp_path / PROGRAM), await started(tmp_path / "dcgm-exporter")
    processes = tmp_path / "proc"  # without a plugin that really runs on this machine
    os.mkdir(processes)
    for process in (plugin, other):
        os.symlink(f"/proc/{process.pid}", processes / str(process.pid))
    try:
        await SignalledPlugin(processes).relist()
        assert await asyncio.wait_for(plugin.wait(), 10) == 7
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_says_what_to_check_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid())).mkdir()
    (tmp_path / "meminfo").touch()
    with pytest.raises(PluginError, match="is it down, or the agent without hostPID"):
        await SignalledPlugin(tmp_path).relist()
