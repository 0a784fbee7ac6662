"""Has NVIDIA's device plugin look at the boards again.

It lists devices only when it starts, and it starts anew on SIGHUP; so a signal does, and takes no right in the API.
Seeing its process takes the host's process namespace (hostPID).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from berth.control.gpus import PluginError

PROGRAM = "nvidia-device-plugin"


@dataclass(frozen=True, slots=True)
class SignalledPlugin:
    """Implements `control.gpus.DevicePlugin`."""

    processes: Path = Path("/proc")

    async def relist(self) -> None:
        """Send SIGHUP to every device plugin on the node."""
        await asyncio.to_thread(self._signal)

    def _signal(self) -> None:
        found = list(self._plugins())
        if not found:
            raise PluginError(
                f"no process {PROGRAM} to tell of the new layout: is it down, or the agent without hostPID?"
            )
        for process in found:
            try:
                os.kill(process, signal.SIGHUP)
            except PermissionError as error:
                raise PluginError(f"may not signal {PROGRAM} (process {process}): run the agent as root") from error
            except ProcessLookupError:
                continue  # it restarts by itself

    def _plugins(self) -> Iterator[int]:
        for folder in self.processes.iterdir():
            if folder.name.isdigit():
                try:
                    program = (folder / "cmdline").read_bytes().split(b"\0")[0]
                except OSError:
                    continue  # it ended meanwhile
                if os.path.basename(program) == PROGRAM.encode():
                    yield int(folder.name)
