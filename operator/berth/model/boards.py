"""The boards of one node, as its agent reports them: layouts, and who holds what."""

from __future__ import annotations

from dataclasses import dataclass, field

from berth.model.gpus import BoardModel, Profile


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG instance on its board."""

    profile: Profile
    start: int  # its first memory slice
    holder: str = ""  # "namespace/name" of the pod that holds it; "": none


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU and how it is laid out."""

    index: int  # its number on the node
    model: BoardModel
    healthy: bool = True
    mig_enabled: bool = False
    instances: tuple[Instance, ...] = ()
    holder: str = ""  # "namespace/name" of the pod that holds the whole board; "": none
    # What it did in the last minutes, coarsely. None: nobody can say. It is no part of what a board is, so that nothing
    # is planned or arranged anew for it: `Snapshot.reported` has it of now, `Snapshot.nodes` perhaps of before.
    watts: float | None = field(default=None, compare=False)
    utilization: float | None = field(default=None, compare=False)  # 0 to 1

    @property
    def busy(self) -> bool:
        """Whether any pod holds the board or an instance on it."""
        return bool(self.holder) or any(instance.holder for instance in self.instances)
