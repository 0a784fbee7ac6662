"""What simulated boards measure: load, memory, power, energy, temperature and errors.

A device does what the node's annotation says, else what fits its holder: nothing, or the curve of a training job. As
with NVML, a board in MIG mode has no utilization of its own, and boards before Hopper tell none of their instances.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from berth.control.gpus import Load, Reading
from e2e.fakegpu.hardware import Board, Instance, silicon_of
from e2e.fakegpu.node import Node

IDLE_POWER = 0.1  # of the board's limit: an idle H100 takes about 70 of 700 W
SM_OF_UTILIZATION = 0.8  # SMs are busy for less of the time than the board
MEMORY_IN_USE = 0.75  # of a device that does something
COOL, HOT = 30.0, 75.0  # degrees Celsius, idle and at full power
TELLS_MORE = ("hopper", "blackwell")  # families with GPU performance monitoring


def training(device: str, now: float) -> float:
    """The utilization of a training job: a plateau that breathes, and a dip every five minutes when it saves."""
    phase = zlib.crc32(device.encode()) % 300
    at = (now + phase) % 300
    return 0.15 if at < 12 else 0.92 + 0.04 * math.sin(now / 7 + phase)


@dataclass(slots=True)
class Sensors:
    """The sensors of a node's boards, which count energy from one look to the next."""

    node: Node
    clock: Callable[[], float] = time.time
    _joules: dict[str, float] = field(default_factory=dict)
    _looked: float | None = None

    def utilization(self, board: Board, instance: Instance | None = None) -> float:
        """How busy a board without MIG, or an instance, is: 0 to 1."""
        device = instance.uuid if instance else board.uuid
        told = self.node.load.get(f"{board.index}@{instance.placed.start}" if instance else str(board.index))
        if told is not None:
            return told
        return training(device, self.clock()) if self.node.holder_of(device) else 0.0

    def watts(self, board: Board) -> float:
        """What the board takes."""
        limit = board.model.power_watts
        return limit * (IDLE_POWER + (1 - IDLE_POWER) * self._busy(board))

    def joules(self, board: Board) -> float:
        """What it took so far."""
        return self._joules.get(board.uuid, 0.0)

    def celsius(self, board: Board) -> float:
        """How hot it is."""
        return COOL + (HOT - COOL) * self._busy(board)

    def load(self, board: Board, instance: Instance | None = None) -> Load:
        """What a driver tells of a board or an instance."""
        total = (instance.placed.profile.usable_mib if instance else board.model.memory_mib) * 2**20
        more = silicon_of(board.model).family in TELLS_MORE
        if instance is None:
            busy, known = self._busy(board), not board.mig_enabled
        else:
            busy, known = self.utilization(board, instance), more
        return Load(
            utilization=busy if known else None,
            sm_active=SM_OF_UTILIZATION * busy if more and known else None,
            memory_used=int(total * MEMORY_IN_USE) if busy else 0,
            memory_total=total,
        )

    def read(self) -> tuple[Reading, ...]:
        """All boards now."""
        self.tick()
        return tuple(self._reading(board) for board in self.node.boards)

    def tick(self) -> None:
        """Count the energy since the last look."""
        now = self.clock()
        seconds = 0.0 if self._looked is None else max(0.0, now - self._looked)
        for board in self.node.boards:
            self._joules[board.uuid] = self.joules(board) + self.watts(board) * seconds
        self._looked = now

    def _reading(self, board: Board) -> Reading:
        return Reading(
            uuid=board.uuid,
            load=self.load(board),
            instances={each.id: self.load(board, each) for each in board.instances},
            watts=self.watts(board),
            joules=self.joules(board),
            celsius=self.celsius(board),
            ecc_corrected=board.ecc_corrected,
            ecc_uncorrected=board.ecc_uncorrected,
            xids={xid: board.xids.count(xid) for xid in board.xids},
            last_xid=board.xids[-1] if board.xids else None,
        )

    def _busy(self, board: Board) -> float:
        """How busy all of the board is, from 0 to 1: its instances count by their slices."""
        if not board.mig_enabled:
            return self.utilization(board)
        slices = max(profile.compute_slices for profile in board.model.profiles)
        return sum(
            self.utilization(board, each) * each.placed.profile.compute_slices / slices for each in board.instances
        )
