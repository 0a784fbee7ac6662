"""Answers like dcgm-exporter for simulated boards: its names, labels and units, and what it repeats for instances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from berth.control.gpus import Load, Reading
from e2e.fakegpu.hardware import Board
from e2e.fakegpu.sensors import Sensors

MIB = 2**20


@dataclass
class Exporter:
    """A local dcgm-exporter; `status` is what it answers with."""

    sensors: Sensors
    status: int = 200

    def app(self) -> web.Application:
        """Its server."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._metrics)])
        return app

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(status=self.status, text=self.page())

    def page(self) -> str:
        """Its page, grouped by metric as the format wants."""
        series: dict[str, list[str]] = {}
        for board, reading in zip(self.sensors.node.boards, self.sensors.read(), strict=True):
            for labels, load in self._entities(board, reading):
                for name, value in (*_of_board(reading), *_of_load(load, board)):
                    series.setdefault(name, []).append(f"{name}{{{labels}}} {value}")
            for xid, count in (reading.xids or {}).items():
                labels = f'{self._labels(board)},window_size_in_ms="300000",xid="{xid}"'
                series.setdefault("DCGM_EXP_XID_ERRORS_COUNT", []).append(
                    f"DCGM_EXP_XID_ERRORS_COUNT{{{labels}}} {count}"
                )
        heads = {name: f"# HELP {name} what it is\n# TYPE {name} gauge" for name in series}
        return "\n".join(line for name, found in series.items() for line in (heads[name], *found)) + "\n"

    def _entities(self, board: Board, reading: Reading) -> Iterator[tuple[str, Load]]:
        """The board, or in MIG mode its instances, of which it then has series instead."""
        if not board.mig_enabled:
            yield self._labels(board), reading.load
        for each in board.instances:
            of = f'GPU_I_PROFILE="{each.placed.profile.name}",GPU_I_ID="{each.id}"'
            yield f"{self._labels(board)},{of}", reading.instances[each.id]

    def _labels(self, board: Board) -> str:
        model = board.model.products[0].replace("-", " ")
        return (
            f'gpu="{board.index}",UUID="{board.uuid}",pci_bus_id="00000000:{board.index + 1:02X}:00.0",'
            f'device="nvidia{board.index}",modelName="{model}",Hostname="{self.sensors.node.member.name}"'
        )


def _of_board(reading: Reading) -> Iterator[tuple[str, float]]:
    yield "DCGM_FI_DEV_POWER_USAGE", reading.watts or 0.0
    yield "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1000 * (reading.joules or 0.0)
    yield "DCGM_FI_DEV_GPU_TEMP", reading.celsius or 0.0
    yield "DCGM_FI_DEV_XID_ERRORS", reading.last_xid or 0
    yield "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", reading.ecc_corrected or 0
    yield "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", reading.ecc_uncorrected or 0


def _of_load(load: Load, board: Board) -> Iterator[tuple[str, float]]:
    assert load.memory_used is not None
    assert load.memory_total is not None
    yield "DCGM_FI_DEV_FB_USED", load.memory_used / MIB
    yield "DCGM_FI_DEV_FB_FREE", (load.memory_total - load.memory_used) / MIB
    if not board.mig_enabled and load.utilization is not None:
        yield "DCGM_FI_DEV_GPU_UTIL", round(100 * load.utilization)
    if load.sm_active is not None and load.utilization is not None:
        yield "DCGM_FI_PROF_GR_ENGINE_ACTIVE", load.utilization
        yield "DCGM_FI_PROF_SM_ACTIVE", load.sm_active
