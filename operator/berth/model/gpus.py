"""GPU boards and their MIG geometry, as a table with its sources.

A GPU instance occupies the memory slices `[start, start + memory_slices)` of its board; two may coexist if and
only if these are disjoint, and only some starts are legal. Profile names differ between drivers
(7g.79gb / 7g.80gb), so the key of a profile is its GPU-instance profile id.

Sources: NVIDIA MIG user guide (supported profiles); `nvidia-smi mig -lgip` and `-lgipp` listings of A30, A100, H100
and H100 NVL; the GPU Operator's default mig-manager ConfigMap for Blackwell names; usable MiB from nvidia-smi, None
where no listing was found. Power and list prices are orders of magnitude from vendors' and clouds' public pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

WHOLE_BOARD = "nvidia.com/gpu"  # the extended resource of boards that are not partitioned
NOMINAL_TO_USABLE = 0.97  # usable share of nominal GB x 10^9 bytes where no listing gives MiB


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of MIG instance on one board model."""

    name: str  # the name of current drivers, such as "2g.20gb"
    gi_profile_id: int
    compute_slices: int
    memory_slices: int
    starts: tuple[int, ...]  # legal first memory slices
    max_instances: int  # per board
    memory_mib: int | None = None  # usable, as nvidia-smi reports; None: not known
    aliases: tuple[str, ...] = ()  # names that other drivers give it

    @property
    def media(self) -> bool:
        """Whether the instance owns media engines that a base profile of its size lacks."""
        return self.name.endswith("+me")

    @property
    def resource(self) -> str:
        """The extended resource of the device plugin under the `mixed` strategy."""
        return resource_of(self.name)

    @property
    def resources(self) -> tuple[str, ...]:
        """The extended resources that drivers of any age give it, the current one first."""
        return tuple(resource_of(name) for name in (self.name, *self.aliases))

    @property
    def usable_mib(self) -> int:
        """Usable MiB, from the name's nominal GB where no listing is known."""
        return self.memory_mib or nominal_mib(_nominal_gb(self.name))


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A GPU product, whole."""

    name: str  # the name used in `gpus.models`, quotas and messages
    family: str  # a shorter name that matches several models, such as "A100"
    products: tuple[str, ...]  # values of the product label that mean this model
    memory_gb: int  # nominal
    memory_mib: int  # usable
    memory_slices: int  # 0: no MIG
    nvlink_gb_per_s: int  # per board; 0: none
    power_watts: int
    usd_per_hour: float  # on demand, order of magnitude; orders equal choices
    profiles: tuple[Profile, ...] = ()

    def profile(self, name: str) -> Profile | None:
        """The profile of that name or alias, or None where the model has none such."""
        return next((p for p in self.profiles if name == p.name or name in p.aliases), None)

    def profile_of(self, resource: str) -> Profile | None:
        """The profile behind an extended resource, however the node's driver spells it; None for whole boards."""
        return next((p for p in self.profiles if resource in p.resources), None)

    def answers_to(self, name: str) -> bool:
        """Whether a user who writes `name` in `gpus.models` means this model."""
        wanted = name.lower()
        return wanted in (self.name.lower(), self.family.lower(), *(p.lower() for p in self.products))


def nominal_mib(gigabytes: int) -> int:
    """Usable MiB assumed for a nominal size in GB (10^9 bytes)."""
    return int(gigabytes * 10**9 * NOMINAL_TO_USABLE) // 2**20


def resource_of(profile_name: str) -> str:
    """The extended resource name of a profile; "+me" becomes ".me", since "+" is not legal there."""
    return "nvidia.com/mig-" + profile_name.replace("+", ".")


def _nominal_gb(profile_name: str) -> int:
    match = re.match(r"\d+g\.(\d+)gb", profile_name)
    if match is None:
        raise ValueError(f"not a MIG profile name: {profile_name!r}")
    return int(match.group(1))


# GPU-instance profile id, compute slices, memory slices, starts, most per board: all 8-slice boards share it.
_EIGHT_SLICES = (
    (19, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7),
    (20, 1, 1, (0, 1, 2, 3, 4, 5, 6), 1),
    (15, 1, 2, (0, 2, 4, 6), 4),
    (14, 2, 2, (0, 2, 4), 3),
    (9, 3, 4, (0, 4), 2),
    (5, 4, 4, (0,), 1),
    (0, 7, 8, (0,), 1),
)


def _eight(
    gigabytes: str, mib: tuple[int | None, ...] = (), aliases: dict[int, str] | None = None
) -> tuple[Profile, ...]:
    """Profiles of an 8-slice board: nominal GB of 1, 2, 4 and 8 slices, and the usable MiB of the same."""
    one, two, four, eight = gigabytes.split("/")
    memory = dict(zip((1, 2, 4, 8), mib or (None,) * 4, strict=True))
    size = {1: one, 2: two, 4: four, 8: eight}
    also = aliases or {}
    return tuple(
        Profile(
            name=f"{compute}g.{size[slices]}gb" + ("+me" if gi == 20 else ""),
            gi_profile_id=gi,
            compute_slices=compute,
            memory_slices=slices,
            starts=starts,
            max_instances=most,
            memory_mib=memory[slices],
            aliases=tuple(also.get(gi, "").split()),
        )
        for gi, compute, slices, starts, most in _EIGHT_SLICES
    )


_A30 = (
    Profile("1g.6gb", 14, 1, 1, (0, 1, 2, 3), 4, 5952),
    Profile("1g.6gb+me", 21, 1, 1, (0, 1, 2, 3), 1, 5952),
    Profile("2g.12gb", 5, 2, 2, (0, 2), 2, 11968),
    Profile("2g.12gb+me", 6, 2, 2, (0, 2), 1, 11968),
    Profile("4g.24gb", 0, 4, 4, (0,), 1, 24064),
)
_A100_40 = _eight("5/10/20/40", (4864, 9856, 19968, 40192))
_A100_80 = _eight("10/20/40/80", (9728, 19968, 40192, 80384), {0: "7g.79gb"})
_H100_80 = _eight("10/20/40/80", (9984, 20096, 40448, 81152), {0: "7g.79gb"})
_H100_94 = _eight(
    "12/24/47/94", (11008, 22144, 47488, 95360), {19: "1g.11gb", 15: "1g.22gb", 14: "2g.22gb", 9: "3g.44gb"}
)
_GH200_96 = _eight("12/24/48/96")
_GH200_144 = _eight("18/36/72/144", (17920, 36096, None, None))
_H200 = _eight("18/35/71/141", (16384, None, None, None))
_B200 = _eight("23/45/90/180", (20992, 45312, 91136, 182784))
_GB200 = _eight(
    "23/47/93/186",
    (22528, 46592, None, None),
    {19: "1g.24gb", 20: "1g.24gb+me", 9: "3g.95gb", 5: "4g.95gb", 0: "7g.189gb"},
)
_B300 = _eight("34/67/135/269")
_GB300 = _eight("35/70/139/278")


# fmt: off
MODELS: tuple[BoardModel, ...] = (
    #          name             family   product labels                             GB   MiB     slices NVLink  W    $/h
    BoardModel("L4",            "L4",    ("NVIDIA-L4",),                            24,  23034,  0,     0,      72,   0.8),
    BoardModel("A30",           "A30",   ("NVIDIA-A30",),                           24,  24125,  4,     200,    165,  1.0, _A30),
    BoardModel("L40S",          "L40S",  ("NVIDIA-L40S",),                          48,  46068,  0,     0,      350,  1.5),
    BoardModel("V100-32GB",     "V100",  ("Tesla-V100-SXM2-32GB", "Tesla-V100-SXM3-32GB"), 32, 32768, 0, 300,   306,  2.0),
    BoardModel("A100-40GB",     "A100",  ("NVIDIA-A100-SXM4-40GB",),                40,  40960,  8,     600,    400,  2.5, _A100_40),
    BoardModel("A100-PCIE-40GB", "A100", ("NVIDIA-A100-PCIE-40GB",),                40,  40960,  8,     0,      250,  2.4, _A100_40),
    BoardModel("A100-80GB",     "A100",  ("NVIDIA-A100-SXM4-80GB",),                80,  81920,  8,     600,    400,  4.1, _A100_80),
    BoardModel("A100-PCIE-80GB", "A100", ("NVIDIA-A100-80GB-PCIe",),                80,  81920,  8,     0,      300,  3.6, _A100_80),
    BoardModel("H100-80GB",     "H100",  ("NVIDIA-H100-80GB-HBM3",),                80,  81559,  8,     900,    700,  8.0, _H100_80),
    BoardModel("H100-PCIE-80GB", "H100", ("NVIDIA-H100-PCIe",),                     80,  81559,  8,     0,      350,  6.0, _H100_80),
    BoardModel("H100-94GB",     "H100",  ("NVIDIA-H100-NVL",),                      94,  95830,  8,     600,    400,  7.0, _H100_94),
    BoardModel("GH200-96GB",    "GH200", ("NVIDIA-GH200-480GB",),                   96,  97871,  8,     900,    900,  7.5, _GH200_96),
    BoardModel("GH200-144GB",   "GH200", ("NVIDIA-GH200-144G-HBM3e",),              144, 146831, 8,     900,    900,  9.0, _GH200_144),
    BoardModel("H200",          "H200",  ("NVIDIA-H200", "NVIDIA-H200-NVL"),        141, 143771, 8,     900,    700,  9.0, _H200),
    BoardModel("B200",          "B200",  ("NVIDIA-B200",),                          180, 183359, 8,     1800,   1000, 10.0, _B200),
    BoardModel("GB200",         "GB200", ("NVIDIA-GB200",),                         186, 189471, 8,     1800,   1200, 12.0, _GB200),
    BoardModel("B300",          "B300",  ("NVIDIA-B300", "NVIDIA-B300-SXM6-AC"),    269, nominal_mib(269), 8, 1800, 1400, 14.0, _B300),
    BoardModel("GB300",         "GB300", ("NVIDIA-GB300",),                         278, nominal_mib(278), 8, 1800, 1400, 15.0, _GB300),
)
# fmt: on


@cache
def model_of_product(product: str, memory_mib: int = 0) -> BoardModel:
    """The model of a node's product label.

    A product that the table lacks becomes a model of its own, without MIG: its whole boards can be used, with the
    memory that the node's label states.
    """
    known = next((m for m in MODELS if product in m.products), None)
    if known is not None:
        return known
    name = product.removeprefix("NVIDIA-")
    return BoardModel(name, name, (product,), memory_mib // 954, memory_mib, 0, 0, 300, 1.0)
