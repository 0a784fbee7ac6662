"""The fleet as it will be, once what is under way and what a plan begins has ended: who waits for that, waits here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from berth.model.gpus import WHOLE_BOARD
from berth.model.nodes import BoardLayout, Node, Relayout
from berth.model.resources import Resources
from berth.model.workloads import Demand, Device, Request, Workload
from berth.planning.actions import LayOut
from berth.planning.forecast import demands
from berth.planning.options import Option, options_for
from berth.planning.pursuit import words_of
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Snapshot
from berth.planning.supply import Offer, Spare, accounted, changeable, laid, resources

MOST_TRIALS = 64  # packings of gangs tried by one plan on fleets that might be
MOST_WEIGHED = 8  # admissions of one plan for which a cheaper device of later is weighed, each on a copy of its own


class Ahead:
    """The fleet as it will be: what is under way has ended, and so has what this plan begins."""

    def __init__(self, s: Scratch) -> None:
        """Nothing is arranged before someone asks."""
        self.s = s
        self.weighed = MOST_WEIGHED  # how often this plan may still weigh a device of later against one of now
        self._trials = MOST_TRIALS
        self._laying: dict[str, LayOut] = {}  # by node
        self._nodes: dict[str, Node] = {}  # as they will be, where this plan changes them
        self._spare: dict[str, Spare] = {}
        self._options: dict[tuple[Demand, int], tuple[Option, ...]] = {}
        self._free: dict[str, Mapping[str, int]] = {}
        self._promised: set[str] = set()
        self._hopeless: set[tuple[object, ...]] = set()

    @cached_property
    def under_way(self) -> frozenset[str]:
        """The nodes that are being laid out."""
        return frozenset(n.name for n in self.s.snapshot.nodes.values() if n.relayout is not None)

    @cached_property
    def able(self) -> dict[str, list[str]]:
        """By model: the nodes whose boards somebody can lay out, by name."""
        found: dict[str, list[str]] = {}
        for node in self.s.snapshot.nodes.values():
            if node.way is not None and node.board is not None and node.relayout is None:
                found.setdefault(node.board.name, []).append(node.name)
        return {model: sorted(names) for model, names in found.items()}

    def spare(self, name: str) -> Spare:
        """The boards of a node that may change yet."""
        known = self._spare.get(name)
        if known is None:
            s = self.s
            node, observed = s.snapshot.nodes[name], s.snapshot.observed.get(name, 0.0)
            known = self._spare[name] = changeable(node, observed, s.policy, s.now)
        return known

    @cached_property
    def later(self) -> dict[str, tuple[float, str]]:
        """By model: when the next node of those that are left alone for now may be laid out, and why not before."""
        found: dict[str, tuple[float, str]] = {}
        for node in (self.s.snapshot.nodes[name] for names in self.able.values() for name in names):
            until, why = self._rests(node)
            if until > self.s.now and node.board is not None:
                self.s.wake(until)
                found[node.board.name] = min(found.get(node.board.name, (until, why)), (until, why))
        return found

    def _rests(self, node: Node) -> tuple[float, str]:
        if node.trouble is not None and node.trouble.until > self.s.now:
            return node.trouble.until, f"{node.name} could not be laid out ({node.trouble.why})"
        ends = [at + self.s.policy.relayout_pause_seconds for _, at in node.laid]
        return min((end for end in ends if end > self.s.now), default=0.0), f"{node.name} was laid out just before"

    @cached_property
    def wanted(self) -> Mapping[Demand, float]:
        """How many members ask for what."""
        return demands(self.s.snapshot.workloads, self.s.now)

    def options(self, request: Request) -> tuple[Option, ...]:
        """Every device that satisfies a request, those included that boards could be laid out as."""
        key = (request.demand, request.tensor)
        if key not in self._options:
            self._options[key] = options_for(request.demand, self.s.fleet, request.tensor, self._could_offer)
        return self._options[key]

    @cached_property
    def _could_offer(self) -> dict[str, dict[str, int]]:
        """The most that one node could offer of each resource, were its boards laid out for it alone, by model."""
        found: dict[str, dict[str, int]] = {}
        for model, names in self.able.items():
            pool = self.s.fleet.pools[model]
            found[model] = {WHOLE_BOARD: max(len(self.s.snapshot.nodes[name].boards) for name in names)}
            for profile in pool.model.profiles:
                known = next((r for r in profile.resources if r in pool.stock), profile.resource)
                found[model][known] = 1
        return found

    @cached_property
    def scratch(self) -> Scratch:
        """A working copy of that fleet, with all that this plan and what waits for it have taken."""
        s = self.s
        landed = {name: _landed(s, name) for name in self.under_way}
        nodes = {**s.snapshot.nodes, **landed} if landed else s.snapshot.nodes  # as they are, they are arranged already
        arranged = Scratch(Snapshot(nodes, _used(s), (), s.snapshot.queues), s.policy, s.now)
        arranged.quota = s.quota.copy()
        return arranged

    def node(self, name: str) -> Node:
        """A node as it will be."""
        return self._nodes.get(name) or self.scratch.snapshot.nodes[name]

    def in_use(self, name: str) -> bool:
        """Whether this plan puts somebody on that node, or its agent has not caught up with who is there."""
        return name in self._taken_by_plan or not accounted(self.s.snapshot.nodes[name], self.s.snapshot)

    def promise(self, name: str, needs: Resources) -> None:
        """Keep one member's room for a workload that waits."""
        self.scratch.ledger.take(name, needs)
        self._promised.add(name)

    def promised(self, name: str) -> bool:
        """Whether somebody waits for room of that node."""
        return name in self._promised

    def keeps(self, name: str, layouts: tuple[BoardLayout, ...]) -> bool:
        """Whether a node still has, once these boards are laid out, what was promised there."""
        return all(self.free_on(name, resource) >= n for resource, n in self._lost(name, layouts).items())

    def free_on(self, name: str, resource: str) -> int:
        """What a node has left of a resource."""
        board = self.node(name).board
        assert board is not None
        room = self.scratch.ledger.rooms[board.name]
        return int(room.free(resource)[room.pool.index[name]])

    def _lost(self, name: str, layouts: tuple[BoardLayout, ...]) -> dict[str, int]:
        """What a node offers less of once these boards are laid out; what it offers more of is less than nothing."""
        node = self.node(name)
        now, then = node.allocatable, changed_node(node, layouts).allocatable
        return {r: now.get(r, 0) - then.get(r, 0) for r in {**now, **then} if now.get(r, 0) != then.get(r, 0)}

    @cached_property
    def _taken_by_plan(self) -> frozenset[str]:
        return frozenset(self.s.ledger.taken_since(0))

    @contextmanager
    def trying(self, offers: Sequence[Offer], device: Device) -> Iterator[bool]:
        """As if these boards were laid out; False where this plan has tried enough."""
        lent = [(o.node.name, {device.resource: o.gain * device.count}) for o in offers] if self._trials else []
        self._trials -= bool(self._trials)
        for name, more in lent:
            self.scratch.ledger.take(name, {resource: -n for resource, n in more.items()})
        try:
            yield bool(lent)
        finally:
            for name, more in lent:
                self.scratch.ledger.take(name, more)

    @property
    def begun(self) -> tuple[LayOut, ...]:
        """The re-layouts that this plan begins."""
        return tuple(self._laying[name] for name in sorted(self._laying))

    def commit(self, w: Workload, offers: Sequence[tuple[Offer, tuple[BoardLayout, ...]]]) -> None:
        """Begin these re-layouts, in one go with those of the same node: from now on they have ended."""
        for offer, layouts in offers:
            name = offer.node.name
            changed = {layout.index for layout in layouts}
            self._laying[name] = self._begin(w, offer, layouts)
            self._spare[name] = tuple(pair for pair in self.spare(name) if pair[0].index not in changed)
            self.scratch.ledger.take(name, self._lost(name, layouts))
            self._nodes[name] = changed_node(self.node(name), layouts)
        self._hopeless.clear()
        self._free.clear()

    def _begin(self, w: Workload, offer: Offer, layouts: tuple[BoardLayout, ...]) -> LayOut:
        before = self._laying.get(offer.node.name)
        record = Relayout(
            way=offer.node.way,  # type: ignore[arg-type]
            boards=layouts,
            workload=f"{w.ref.namespace}/{w.ref.name}",
            since=self.s.now,
            usd=round(offer.usd, 4),
            tried=self.s.now,
        )
        if before is not None:
            boards = tuple(sorted((*before.relayout.boards, *layouts), key=lambda layout: layout.index))
            record = replace(before.relayout, boards=boards, usd=round(before.relayout.usd + offer.usd, 4))
        return LayOut(offer.node.name, record, f"{words_of(record)}, for {record.workload}")

    def free(self, model: str) -> Mapping[str, int]:
        """The free instances of each profile, of all nodes of a model."""
        if model not in self._free:
            room = self.scratch.ledger.rooms[model]
            names = {p.name: [r for r in p.resources if r in room.pool.stock] for p in room.pool.model.profiles}
            self._free[model] = {
                name: sum(int(room.free(r).clip(min=0).sum()) for r in found) for name, found in names.items() if found
            }
        return self._free[model]

    def record(self, name: str) -> Relayout | None:
        """What is under way on a node, or begun by this plan."""
        begun = self._laying.get(name)
        return begun.relayout if begun else self.s.snapshot.nodes[name].relayout

    def hopeless(self, *key: object) -> bool:
        """Whether the same was tried in vain."""
        return key in self._hopeless

    def give_up(self, *key: object) -> None:
        """Note that it was tried in vain."""
        self._hopeless.add(key)


def changed_node(node: Node, layouts: tuple[BoardLayout, ...]) -> Node:
    """The node once these boards are laid out."""
    assert node.board is not None
    boards = laid(node.boards, layouts)
    return replace(node, boards=boards, allocatable=resources(node.allocatable, node.board, boards), relayout=None)


def _landed(s: Scratch, name: str) -> Node:
    """A node once what is under way on it has ended."""
    node = s.snapshot.nodes[name]
    return changed_node(node, node.relayout.boards) if node.boards and node.relayout else replace(node, relayout=None)


def _used(base: Scratch) -> dict[str, Mapping[str, int]]:
    """What is used of each node as that working copy sees it."""
    used = dict(base.snapshot.used)
    for name in set(base.ledger.taken_since(0)):
        free, allocatable = base.ledger.free(name), base.snapshot.nodes[name].allocatable
        used[name] = {resource: allocatable.get(resource, 0) - n for resource, n in free.items()}
    return used
