"""The nodes in truth: which boards and instances they have, which pod holds what, and what the planner sees of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from berth.model.boards import Board
from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.nodes import BoardLayout, Interruption, Node, Progress, Relayout, Trouble, Way
from berth.model.resources import parse_quantity
from berth.planning.layouts import layout_for
from berth.simulation.pools import Pool
from berth.simulation.scenario import Scenario

Piece = tuple[int, int]
"""A board's number, and the first memory slice of an instance on it; WHOLE for the board itself."""

WHOLE = -1
SPOT_INTERRUPTION = "SpotInterruption"  # the reason of what is stopped since its node is taken back
EPOCH = 12 * 24 * 3600.0  # the planner's clock at the start, a midnight: to it, 0 means "not yet"


@dataclass
class Machine:
    """One node. Devices are handed out as a kubelet does: only what is free, and which instance of equals by chance."""

    node: Node  # as the planner sees it
    boards: tuple[Board, ...]  # as they are, with who holds what
    chance: Random
    taken: dict[str, int] = field(default_factory=dict)  # by bound pods
    _held: dict[str, tuple[Mapping[str, int], tuple[Piece, ...]]] = field(default_factory=dict)  # by pod

    def __post_init__(self) -> None:
        """Nothing is held yet."""
        self._offer(self.boards)

    @property
    def board(self) -> BoardModel:
        """The model of its boards."""
        return self.boards[0].model

    @property
    def pods(self) -> tuple[str, ...]:
        """The pods that are bound here."""
        return tuple(self._held)

    def free(self, resource: str) -> int:
        """How much of a resource bound pods leave."""
        return self.node.allocatable.get(resource, 0) - self.taken.get(resource, 0)

    def bind(self, pod: str, needs: Mapping[str, int], resource: str) -> bool:
        """Give a pod what it needs, devices of `resource` among it; False where something is lacking."""
        if not self.node.ready or self.node.relayout or any(self.free(name) < n for name, n in needs.items()):
            return False
        free = [piece for piece, holder in _pieces(self.boards).get(resource, ()) if not holder]
        pieces = free[: needs[resource]] if resource == WHOLE_BOARD else self.chance.sample(free, needs[resource])
        self._held[pod] = needs, tuple(pieces)
        self._count(needs, 1)
        self._hand(pieces, pod)
        return True

    def release(self, pod: str) -> None:
        """Take back what a pod held, if it held anything."""
        if pod in self._held:
            needs, pieces = self._held.pop(pod)
            self._count(needs, -1)
            self._hand(pieces, "")

    def turn(self, *, ready: bool, noticed: float = 0.0) -> None:
        """The node goes down, which its cluster notices then, or comes back."""
        self.node = replace(self.node, ready=ready, lost_since=0.0 if ready else noticed, interruption=None)

    def warn(self, deadline: float) -> None:
        """The node says that it will be taken back at that moment, in seconds since the start."""
        self.node = replace(self.node, interruption=Interruption(SPOT_INTERRUPTION, "the scenario", EPOCH + deadline))

    def begin(self, relayout: Relayout) -> None:
        """A re-layout is under way: the node offers already what it will have."""
        self.node = replace(self.node, relayout=relayout)
        self._offer(_as_wanted(self.boards, relayout))

    def finish(self) -> None:
        """The re-layout ends: well, or because a pod holds what was to go."""
        relayout = self.node.relayout
        if relayout is None:
            return
        boards = _as_wanted(self.boards, relayout)
        progress = Progress.FAILED
        if _holders(boards) == _holders(self.boards):
            self.boards, progress = boards, Progress.DONE
        self.node = replace(self.node, relayout=replace(relayout, progress=progress))
        self._show()

    def end(self, laid: tuple[tuple[int, float], ...], trouble: Trouble | None) -> None:
        """The record of a re-layout goes."""
        self.node = replace(self.node, relayout=None, laid=laid, trouble=trouble)
        self._offer(self.boards)

    def _count(self, needs: Mapping[str, int], sign: int) -> None:
        for name, n in needs.items():
            self.taken[name] = self.taken.get(name, 0) + sign * n

    def _hand(self, pieces: Iterable[Piece], pod: str) -> None:
        boards = list(self.boards)
        for index, start in pieces:
            boards[index] = _held_by(boards[index], start, pod)
        self.boards = tuple(boards)
        self._show()

    def _offer(self, boards: tuple[Board, ...]) -> None:
        """What the device plugin has to offer."""
        others = {name: n for name, n in self.node.allocatable.items() if not name.startswith("nvidia.com/")}
        offered = {resource: len(pieces) for resource, pieces in _pieces(boards).items()}
        self.node = replace(self.node, allocatable=others | offered)
        self._show()

    def _show(self) -> None:
        """What the node's agent reports, where it has one."""
        if self.node.way is not None:
            self.node = replace(self.node, boards=self.boards)


def machines_of(scenario: Scenario) -> dict[str, Machine]:
    """Every node of the fleet, by name."""
    chance = Random(f"{scenario.seed}/devices")
    return {
        name: _machine(pool, name, i, chance)
        for pool in scenario.fleet.pools
        for i, name in enumerate(pool.node_names())
    }


def _machine(pool: Pool, name: str, ordinal: int, chance: Random) -> Machine:
    room = {"cpu": int(parse_quantity(pool.cpu) * 1000), "memory": int(parse_quantity(pool.memory)), "pods": pool.pods}
    node = Node(
        name=name,
        labels=_labels(pool, name, ordinal),
        allocatable=room,
        board=pool.board,
        way=Way(pool.layouts_by) if pool.layouts_by else None,
    )
    return Machine(node, _boards(pool), chance)


def _boards(pool: Pool) -> tuple[Board, ...]:
    boards = [Board(i, pool.board) for i in range(pool.boards)]
    for entry in pool.mig:
        instances = layout_for(pool.board, entry.layout, {}) or ()
        for i in pool.boards_of(entry):
            boards[i] = replace(boards[i], mig_enabled=True, instances=instances)
    return tuple(boards)


def _labels(pool: Pool, name: str, ordinal: int) -> dict[str, str]:
    """The labels that name a node and its place, as the cloud and Topograph set them."""
    place = pool.topology
    rack = ordinal // place.nodes_per_rack if place.nodes_per_rack else None
    leaf = rack // place.racks_per_leaf if rack is not None and place.racks_per_leaf else None
    block = leaf // place.leaves_per_block if leaf is not None and place.leaves_per_block else None
    named = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/region": place.region,
        "topology.kubernetes.io/zone": place.zone,
        "network.topology.nvidia.com/spine": _domain(pool, "block", block),
        "network.topology.nvidia.com/leaf": _domain(pool, "leaf", leaf),
        "berth.dev/rack": _domain(pool, "rack", rack),
        "nvidia.com/gpu.clique": _domain(pool, "clique", rack) if place.clique else "",
        "karpenter.sh/capacity-type": "spot" if pool.spot else "",
    }
    return {key: value for key, value in named.items() if value} | pool.labels


def _domain(pool: Pool, level: str, number: int | None) -> str:
    return "" if number is None else f"{pool.name}-{level}-{number}"


def _pieces(boards: Iterable[Board]) -> dict[str, list[tuple[Piece, str]]]:
    """What can be held, in order, and who holds it; by extended resource."""
    found: dict[str, list[tuple[Piece, str]]] = {}
    for board in boards:
        if not board.mig_enabled:
            found.setdefault(WHOLE_BOARD, []).append(((board.index, WHOLE), board.holder))
        for instance in board.instances:
            piece = board.index, instance.start
            found.setdefault(instance.profile.resource, []).append((piece, instance.holder))
    return found


def _holders(boards: Iterable[Board]) -> set[tuple[str, Piece, str]]:
    return {(name, piece, pod) for name, pieces in _pieces(boards).items() for piece, pod in pieces if pod}


def _as_wanted(boards: tuple[Board, ...], relayout: Relayout) -> tuple[Board, ...]:
    """The boards as a re-layout wants them; instances that stay keep their holders."""
    wanted = {layout.index: layout for layout in relayout.boards}
    return tuple(_laid(board, wanted[board.index]) if board.index in wanted else board for board in boards)


def _laid(board: Board, layout: BoardLayout) -> Board:
    holders = {(instance.profile, instance.start): instance.holder for instance in board.instances}
    instances = tuple(replace(i, holder=holders.get((i.profile, i.start), "")) for i in layout.instances)
    whole = "" if layout.mig_enabled else board.holder
    return replace(board, mig_enabled=layout.mig_enabled, instances=instances, holder=whole)


def _held_by(board: Board, start: int, pod: str) -> Board:
    if start == WHOLE:
        return replace(board, holder=pod)
    instances = (replace(i, holder=pod) if i.start == start else i for i in board.instances)
    return replace(board, instances=tuple(instances))
