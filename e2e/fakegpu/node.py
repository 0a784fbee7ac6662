"""One node with its boards, as its device plugin and kubelet see it: who may take which device. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from e2e.fakegpu.fleet import Fleet, Member
from e2e.fakegpu.hardware import Board, silicon_of
from e2e.fakegpu.links import Links, nvlinks, preferred

WHOLE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """The pod that has a device."""

    namespace: str
    name: str


class Refused(Exception):
    """The kubelet's refusal to admit a pod; its text is the message that the pod gets."""


@dataclass(slots=True)
class Node:
    """Boards, the devices made of them, and who holds these."""

    member: Member
    boards: list[Board]
    links: Links
    hidden: bool = False  # the device plugin is paused, so the kubelet has no healthy device
    holders: dict[str, Holder] = field(default_factory=dict)  # device id -> pod
    load: Mapping[str, float] = field(default_factory=dict)  # what devices were told to do: "0", "2@4" -> 0 to 1
    seen: set[str] = field(default_factory=set)  # resources that the kubelet has heard of, now perhaps empty
    _listed: dict[str, dict[str, Board]] = field(default_factory=dict)  # what the device plugin saw when it last looked

    @classmethod
    def of(cls, fleet: Fleet, member: Member) -> Node:
        """The node as the fleet file describes it."""
        boards = fleet.boards(member.pool, member.name)
        per_board = silicon_of(boards[0].model).nvlinks
        node = cls(member, boards, nvlinks(member.pool.nvlink, len(boards), per_board))
        node.relist()
        return node

    def relist(self) -> None:
        """The device plugin starts, and looks at the boards: it never does otherwise."""
        self._listed = self._collected()

    def devices(self) -> dict[str, dict[str, bool]]:
        """Device ids and their health by resource, of a plugin that runs; a resource stays once it was seen.

        Under the agent the plugin shows what it saw when it last looked. Elsewhere it always does, as mig-manager
        restarts it with every change.
        """
        listed = self._listed if self.member.pool.agent else self._collected()
        self.seen.update(listed)
        return {
            resource: {device: board.healthy for device, board in listed.get(resource, {}).items()}
            for resource in sorted(self.seen)
        }

    def _collected(self) -> dict[str, dict[str, Board]]:
        """The device ids by resource, with their boards."""
        found: dict[str, dict[str, Board]] = {}
        if self.member.pool.dra or (self.member.pool.mig_strategy == "single" and self.single_profile() == "INVALID"):
            return found
        sharing = self.member.pool.sharing
        for board in self.boards:
            if not board.mig_enabled:
                ids = [f"{board.uuid}::{i}" for i in range(sharing.replicas)] if sharing else [board.uuid]
                found.setdefault(WHOLE, {}).update(dict.fromkeys(ids, board))
            for instance in board.instances:
                single = self.member.pool.mig_strategy == "single"
                resource = WHOLE if single else instance.placed.profile.resource
                found.setdefault(resource, {})[instance.uuid] = board
        return found

    def single_profile(self) -> str | None:
        """Under the `single` strategy: the profile that all boards share, None for no MIG, else "INVALID"."""
        if not any(board.mig_enabled for board in self.boards):
            return None
        names = {name for board in self.boards for name in (board.profiles() or {"": 1})}
        return names.pop() if len(names) == 1 and "" not in names else "INVALID"

    def capacity(self) -> dict[str, int]:
        """What the kubelet writes as capacity."""
        return {resource: len(ids) for resource, ids in self.devices().items()}

    def allocatable(self) -> dict[str, int]:
        """What the kubelet writes as allocatable: healthy devices, none while the plugin is paused."""
        devices = self.devices()
        return {resource: 0 if self.hidden else sum(ids.values()) for resource, ids in devices.items()}

    def preferred(self, resource: str, available: Iterable[str], must: Sequence[str], size: int) -> tuple[str, ...]:
        """GetPreferredAllocation: whole boards by NVLink; anything else in the order that it was offered."""
        index = {board.uuid: board.index for board in self.boards}
        offered = list(available)
        if resource != WHOLE or not index.keys() >= {*offered, *must}:
            return tuple(dict.fromkeys([*must, *offered]))[:size]
        chosen = preferred(self.links, [index[i] for i in offered], [index[i] for i in must], size)
        return tuple(self.boards[i].uuid for i in chosen)

    def admit(self, holder: Holder, requests: Mapping[str, int]) -> tuple[str, ...]:
        """Hand devices to a pod as a kubelet would on its arrival; Refused changes nothing."""
        chosen: list[str] = []
        devices = self.devices()
        for resource, count in requests.items():
            healthy = [i for i, well in devices.get(resource, {}).items() if well and not self.hidden]
            free = [i for i in healthy if i not in self.holders]
            if len(free) < count:
                raise Refused(
                    "Allocate failed due to requested number of devices unavailable for "
                    f"{resource}. Requested: {count}, Available: {len(free)}, which is unexpected"
                )
            chosen += self.preferred(resource, free, (), count)
        self.holders.update(dict.fromkeys(chosen, holder))
        return tuple(chosen)

    def adopt(self, holder: Holder, ids: Iterable[str]) -> bool:
        """Give a pod that runs already the devices it is known to hold; False where they are gone or taken."""
        wanted = set(ids)
        exist = {i for ids in self.devices().values() for i in ids}
        if not wanted or not wanted <= exist or any(self.holders.get(i, holder) != holder for i in wanted):
            return False
        self.holders.update(dict.fromkeys(wanted, holder))
        return True

    def release(self, holder: Holder) -> bool:
        """Take back what a pod held; whether that was anything."""
        held = [i for i, pod in self.holders.items() if pod == holder]
        for device in held:
            del self.holders[device]
        return bool(held)

    def holder_of(self, uuid: str) -> Holder | None:
        """Who holds a board or instance; of several on a shared board, the first."""
        return min((pod for i, pod in self.holders.items() if i.split("::")[0] == uuid), default=None)

    def busy(self, board: Board) -> bool:
        """Whether a pod uses the board or one of its instances."""
        return any(self.holder_of(uuid) for uuid in (board.uuid, *(i.uuid for i in board.instances)))

    def set_unhealthy(self, indices: Iterable[int]) -> bool:
        """Make exactly these boards unhealthy; whether anything changed."""
        sick = set(indices)
        changed = [board for board in self.boards if board.healthy == (board.index in sick)]
        for board in changed:
            board.healthy = not board.healthy
        return bool(changed)
