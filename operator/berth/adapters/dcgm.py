"""What boards do, as NVIDIA's dcgm-exporter tells it: its series, brought to the readings of a node agent.

Fields are DCGM's; labels `UUID` and, of MIG instances, `GPU_I_ID`. Power, energy, temperature and errors are per board,
and repeated for each of its instances. DCGM_FI_DEV_GPU_UTIL does not exist in MIG mode, and the profiling fields exist
only where the exporter is told to collect them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from berth.control.gpus import GpuError, Load, Reading

ANSWER_SECONDS = 5.0
MIB = 2**20

Fields = dict[str, float]  # by DCGM's name, without the prefix
PREFIXES = ("DCGM_FI_DEV_", "DCGM_FI_PROF_")
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"


@dataclass(frozen=True, slots=True)
class Dcgm:
    """Implements `control.gpus.Meters` on an exporter's /metrics."""

    url: str
    session: aiohttp.ClientSession

    async def measure(self) -> tuple[Reading, ...]:
        """What the exporter collected last, which may be as old as its interval."""
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            async with self.session.get(self.url, timeout=timeout) as response:
                content = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise GpuError(f"dcgm-exporter does not answer at {self.url}: {error or type(error).__name__}") from error
        if status != 200:
            raise GpuError(f"dcgm-exporter at {self.url} answers {status}: is that its /metrics?")
        return readings(content)


def readings(exposition: str) -> tuple[Reading, ...]:
    """The readings of the boards in a page. Raises GpuError where it is none of dcgm-exporter's."""
    boards: dict[str, Fields] = defaultdict(dict)
    instances: dict[str, dict[int, Fields]] = defaultdict(lambda: defaultdict(dict))
    xids: dict[str, dict[int, int]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families(exposition):
            for name, labels, value, *_ in family.samples:
                uuid, prefix = labels.get("UUID", ""), next((p for p in PREFIXES if name.startswith(p)), "")
                if not uuid or not math.isfinite(value):
                    continue
                if name == XID_COUNT:
                    xids[uuid][int(labels["xid"])] = int(value)
                elif prefix and labels.get("GPU_I_ID"):
                    instances[uuid][int(labels["GPU_I_ID"])][name.removeprefix(prefix)] = value
                elif prefix:
                    boards[uuid][name.removeprefix(prefix)] = value
    except (ValueError, KeyError) as error:
        raise GpuError(f"dcgm-exporter's page can't be read: {error}") from error
    found = tuple(
        _reading(uuid, boards[uuid], instances[uuid], xids.get(uuid)) for uuid in sorted({*boards, *instances})
    )
    if not found:
        raise GpuError("the page has no series of dcgm-exporter: is that its /metrics?")
    return found


def _reading(uuid: str, board: Fields, instances: Mapping[int, Fields], xids: Mapping[int, int] | None) -> Reading:
    """Of what is per board, any instance's series says the same."""
    shared: Fields = {}
    for fields in (*instances.values(), board):
        shared |= fields
    milli, last = shared.get("TOTAL_ENERGY_CONSUMPTION"), shared.get("XID_ERRORS")
    return Reading(
        uuid=uuid,
        load=_load(board),
        instances={number: _load(fields) for number, fields in instances.items()},
        watts=shared.get("POWER_USAGE"),
        joules=None if milli is None else milli / 1000,
        celsius=shared.get("GPU_TEMP"),
        ecc_corrected=_whole(shared.get("ECC_SBE_VOL_TOTAL")),
        ecc_uncorrected=_whole(shared.get("ECC_DBE_VOL_TOTAL")),
        xids=xids,
        last_xid=_whole(last),
    )


def _load(fields: Fields) -> Load:
    percent, used, free = fields.get("GPU_UTIL"), fields.get("FB_USED"), fields.get("FB_FREE")
    busy = fields.get("GR_ENGINE_ACTIVE", None if percent is None else percent / 100)
    total = None if used is None or free is None else used + free + fields.get("FB_RESERVED", 0.0)
    return Load(
        utilization=busy,
        sm_active=fields.get("SM_ACTIVE"),
        memory_used=None if used is None else int(used * MIB),
        memory_total=None if total is None else int(total * MIB),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
