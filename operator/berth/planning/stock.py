"""What the cluster has, in boards: used, free, out of reach, and how scattered the free ones lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.nodes import Node
from berth.model.resources import Resources
from berth.planning.snapshot import Snapshot

USED, FREE, AWAY = STATES = "used", "free", "unavailable"


@dataclass(frozen=True, slots=True)
class Stock:
    """Boards as kubelets offer them, whoever holds them; a MIG instance is its memory slices over its board's.

    "unavailable" is what is free on nodes that take no new work: not ready, cordoned, about to go away, laid out anew,
    or with boards that can't serve demands. `fragmentation` is the share of free boards that lie on nodes where others
    are used; models without free boards are not in it.
    """

    boards: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by model and state
    instances: Mapping[tuple[str, str], int] = field(default_factory=dict)  # MIG, by profile and state
    fragmentation: Mapping[str, float] = field(default_factory=dict)  # by model, 0 to 1


def stock_of(snapshot: Snapshot) -> Stock:
    """Count the boards of a snapshot."""
    boards: defaultdict[tuple[str, str], float] = defaultdict(float)
    instances: defaultdict[tuple[str, str], int] = defaultdict(int)
    scattered: defaultdict[str, float] = defaultdict(float)
    for node in snapshot.nodes.values():
        if node.board is None:
            continue
        model, rest = node.board.name, FREE if _takes_work(node) else AWAY
        used, free = 0.0, 0.0
        for profile, share, held, left in _offers(node, node.board, snapshot.used.get(node.name, {})):
            used, free = used + share * held, free + share * left
            if profile:
                instances[profile, USED] += held
                instances[profile, rest] += left
        boards[model, USED] += used
        boards[model, rest] += free
        boards[model, AWAY if rest == FREE else FREE] += 0.0
        scattered[model] += free if used and rest == FREE else 0.0
    shares = {model: lost / boards[model, FREE] for model, lost in scattered.items() if boards[model, FREE] > 0}
    return Stock(boards, instances, shares)


def _offers(node: Node, model: BoardModel, used: Resources) -> Iterator[tuple[str, float, int, int]]:
    """The profile ("" for whole boards), the share of a board that a piece of it is, and how many are held and left."""
    pieces = _pieces(model)
    for resource, count in node.allocatable.items():
        if resource in pieces:
            profile, share = pieces[resource]
            held = used.get(resource, 0)
            yield profile, share, held, max(0, count - held)


@lru_cache(maxsize=64)
def _pieces(model: BoardModel) -> Mapping[str, tuple[str, float]]:
    """What each extended resource of a model is: the profile, and its share of a board."""
    slices = model.memory_slices
    parts = {name: (p.name, p.memory_slices / slices) for p in model.profiles for name in p.resources}
    return {WHOLE_BOARD: ("", 1.0), **parts}


def _takes_work(node: Node) -> bool:
    keeps_off = node.unschedulable or node.excluded or node.lost_since
    return node.ready and not keeps_off and node.interruption is None and node.relayout is None
