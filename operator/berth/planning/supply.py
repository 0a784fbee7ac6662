"""What a node's boards could be made into: which of them may change, for how many members, and at what price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from berth.model.boards import Board, Instance
from berth.model.gpus import WHOLE_BOARD, BoardModel, Profile
from berth.model.mig import taken_by
from berth.model.nodes import BoardLayout, Node, Way
from berth.model.resources import Resources
from berth.model.workloads import Device
from berth.planning.boards import prices_of
from berth.planning.layouts import layout_for
from berth.planning.snapshot import Policy, Snapshot

# How long a node takes no new pods: mig-manager stops the device plugin and starts it again, and its mounted ConfigMap
# lags by up to a minute; the agent creates an instance within a second, and the kubelet offers it within ten.
SECONDS = {Way.MIG_MANAGER: 90.0, Way.AGENT: 15.0}
MODE_SECONDS = 30.0  # more, to switch a board's MIG mode: older boards are reset
LOST_HOURS = 0.25  # for how long what is destroyed would be missed, were it asked for: about two re-layouts
FLOOR = 0.01  # weight of each instance that is there, and of the profile wanted now, where nobody else asks for it
MOST_KNOWN = 50_000  # nodes whose boards are remembered as states


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a board is like, whichever it is: equal boards share one state, so that it can be asked of quickly."""

    model: BoardModel
    healthy: bool
    mig_enabled: bool
    held: tuple[Instance, ...]  # without their holders
    free: tuple[Instance, ...]
    taken: bool  # as a whole


@dataclass(frozen=True, slots=True)
class Boards:
    """A node's boards as states, and who holds any of them."""

    states: tuple[State, ...]
    holders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Demanded:
    """What others ask of a model: how often each profile or WHOLE_BOARD, and what of it is free in the fleet."""

    mix: Mapping[str, float]
    free: Mapping[str, int]
    costs: dict[tuple[State, str], float] = field(default_factory=dict, compare=False)  # worked out so far


Spare = Sequence[tuple[Board, State]]
"""Boards that may change."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Boards of one node to lay out anew, so that `gain` more members fit."""

    node: Node
    changes: tuple[tuple[Board, State, int], ...]  # with how many more free instances of the profile; 0: whole
    gain: int
    seconds: float
    usd: float  # list price of what stands idle meanwhile, and of what is destroyed


_known: dict[int, tuple[Sequence[Board], Boards]] = {}  # by the identity of a node's boards: nodes outlive plans
_states: dict[tuple[object, ...], State] = {}


def boards_of(node: Node) -> Boards:
    """The node's boards as states; worked out once for as long as they stay as they are."""
    found = _known.get(id(node.boards))
    if found is None or found[0] is not node.boards:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        holders = {b.holder for b in node.boards} | {i.holder for b in node.boards for i in b.instances}
        boards = Boards(tuple(map(_state, node.boards)), frozenset(holders - {""}))
        found = _known[id(node.boards)] = node.boards, boards
    return found[1]


def changeable(node: Node, observed: float, policy: Policy, now: float) -> Spare:
    """The boards that may be laid out anew: not held, not laid out lately, on a node whose agent was heard lately.

    Beside held instances only the agent can work; whole boards that are held never change.
    """
    if node.way is None or node.relayout is not None or node.excluded or node.board is None or not node.ready:
        return ()
    if observed + policy.stale_seconds <= now or (node.trouble is not None and node.trouble.until > now):
        return ()
    resting = {index for index, at in node.laid if at + policy.relayout_pause_seconds > now}
    return tuple(
        (board, state)
        for board, state in zip(node.boards, boards_of(node).states, strict=True)
        if state.healthy and board.model == node.board and board.index not in resting and _idle(state, node.way)
    )


def accounted(node: Node, snapshot: Snapshot) -> bool:
    """Whether every pod with GPUs on the node, and nobody else, is reported as the holder of a device.

    Until then any of them might be about to get any free device, and none can be called idle.
    """
    known = snapshot.holding.get(node.name, {})
    observed = snapshot.observed.get(node.name, 0.0)
    return boards_of(node).holders == known.keys() and all(created <= observed for created in known.values())


def offer(node: Node, spare: Spare, device: Device, members: int, wanted: Demanded, free: int) -> Offer | None:
    """The cheapest way to make room for up to `members` more of the device; None where none can be made.

    Of the node's boards these may change; `free` whole ones are free.
    """
    profile = node.board.profile_of(device.resource) if node.board else None
    if profile is None:
        return _whole(node, spare, device, members, wanted, max(0, free))
    useful = []
    for board, state in spare:
        gain = _gain(state, profile)
        if gain > 0:
            cost = _cost(state, profile, wanted)
            useful.append((cost / min(gain, members), board.index, gain, cost, board, state))
    chosen: list[tuple[Board, State, int]] = []
    lost, left = 0.0, members
    for _, _, gain, cost, board, state in sorted(useful, key=lambda one: one[:2]):
        taken = min(gain, left)
        if taken:
            chosen.append((board, state, taken))
            lost += cost
            left -= taken
    return _priced(node, chosen, members - left, lost) if chosen else None


def layouts_of(offer: Offer, device: Device, wanted: Demanded) -> tuple[BoardLayout, ...]:
    """What the boards of an offer become."""
    model = offer.node.board
    profile = model.profile_of(device.resource) if model else None
    found = [
        BoardLayout(board.index, False)
        if profile is None
        else BoardLayout(board.index, True, _cut(state, profile, more, wanted, offer.node.way))
        for board, state, more in offer.changes
    ]
    return tuple(sorted(found, key=lambda layout: layout.index))


def counts(boards: tuple[Board, ...]) -> Counter[str]:
    """What healthy boards offer: whole ones, and instances by the name of their profile."""
    found: Counter[str] = Counter()
    for board in boards:
        if board.healthy and not board.mig_enabled:
            found[WHOLE_BOARD] += 1
        elif board.healthy:
            found.update(instance.profile.name for instance in board.instances)
    return found


def laid(boards: tuple[Board, ...], layouts: tuple[BoardLayout, ...]) -> tuple[Board, ...]:
    """The boards as they will be. What is held stays held."""
    wanted = {layout.index: layout for layout in layouts}
    return tuple(_laid(board, wanted[board.index]) if board.index in wanted else board for board in boards)


def resources(allocatable: Resources, model: BoardModel, boards: tuple[Board, ...]) -> dict[str, int]:
    """A node's allocatable with what these boards offer, under the names that its driver gives them."""
    names = {WHOLE_BOARD: WHOLE_BOARD}
    for profile in model.profiles:
        names[profile.name] = next((r for r in profile.resources if r in allocatable), profile.resource)
    ours = {WHOLE_BOARD, *(r for profile in model.profiles for r in profile.resources)}
    rest = {name: n for name, n in allocatable.items() if name not in ours}
    found = counts(boards)
    kept = {name: 0 for name in allocatable if name in ours}
    return {**rest, **kept, **{names[name]: n for name, n in found.items() if name in names}}


def in_words(layout: BoardLayout) -> str:
    """Such as "board 2 as 3g.40gb + 4 x 1g.10gb", largest first."""
    if not layout.mig_enabled:
        return f"board {layout.index} whole"
    sizes = {instance.profile.name: instance.profile for instance in layout.instances}
    number = Counter(instance.profile.name for instance in layout.instances)
    names = sorted(number, key=lambda name: (-sizes[name].memory_slices, -sizes[name].compute_slices, name))
    parts = [name if number[name] == 1 else f"{number[name]} x {name}" for name in names]
    return f"board {layout.index} as {' + '.join(parts) or 'nothing yet'}"


def _state(board: Board) -> State:
    instances = tuple((i.profile.name, i.start, bool(i.holder)) for i in board.instances)
    key = (board.model.name, board.model.memory_mib, board.healthy, board.mig_enabled, bool(board.holder), instances)
    found = _states.get(key)
    if found is None:
        held = tuple(replace(i, holder="") for i in board.instances if i.holder)
        free = tuple(i for i in board.instances if not i.holder)
        found = State(board.model, board.healthy, board.mig_enabled, held, free, bool(board.holder))
        _states[key] = found
    return found


def _idle(state: State, way: Way) -> bool:
    return not state.taken and (way is Way.AGENT or not state.held)


@cache
def _gain(state: State, profile: Profile) -> int:
    """How many more free instances of a profile a board in this state can have."""
    most = 0
    while layout_for(state.model, {profile.name: most + 1}, {}, state.held) is not None:
        most += 1
    return most - sum(i.profile == profile for i in state.free)


def _cut(state: State, profile: Profile, more: int, wanted: Demanded, way: Way | None) -> tuple[Instance, ...]:
    """A layout with `more` further free instances of the profile, and the rest after what is asked for.

    The agent leaves free instances alone that are asked for and not in the way. mig-manager makes the whole board anew,
    and can add nothing later while any of it is held: so it leaves no slice uncut that anybody might want.
    """
    mix, kept = wanted.mix, state.held
    own = Counter(i.profile.name for i in state.free)
    number = more + own[profile.name]
    if way is Way.AGENT:
        kept, number = _kept(state, profile, number, mix)
        weights = dict(mix)
    else:
        names = {profile.name, *own, *mix}
        weights = {name: FLOOR * max(own[name], name == profile.name) + mix.get(name, 0.0) for name in names}
    elsewhere = {name: max(0, n - own[name]) for name, n in wanted.free.items()}
    layout = layout_for(state.model, {profile.name: number}, weights, kept, elsewhere)
    if layout is None:
        raise ValueError(f"{number} x {profile.name} do not fit beside {kept}")
    return layout


def _kept(state: State, profile: Profile, number: int, mix: Mapping[str, float]) -> tuple[tuple[Instance, ...], int]:
    """What stays beside `number` free instances of the profile, and how many of these are still to be made."""
    kept = state.held
    for instance in sorted(state.free, key=lambda i: (i.profile != profile, -mix.get(i.profile.name, 0.0), i.start)):
        useful = instance.profile == profile or not mix or mix.get(instance.profile.name, 0.0) > 0
        left = number - (instance.profile == profile)
        if useful and layout_for(state.model, {profile.name: left}, {}, (*kept, instance)) is not None:
            kept, number = (*kept, instance), left
    return kept, number


def _whole(node: Node, spare: Spare, device: Device, members: int, wanted: Demanded, free: int) -> Offer | None:
    """Idle boards taken out of MIG mode, so that more members get all the boards that each needs of one node."""
    idle = [(_worth(s, wanted), b.index, b, s) for b, s in spare if s.mig_enabled and not s.held]
    gain = min(members, (free + len(idle)) // device.count - free // device.count)
    if gain <= 0:
        return None
    needed = sorted(idle, key=lambda one: one[:2])[: (free // device.count + gain) * device.count - free]
    return _priced(node, [(b, s, 0) for _, _, b, s in needed], gain, sum(worth for worth, *_ in needed))


def _priced(node: Node, chosen: Sequence[tuple[Board, State, int]], gain: int, lost: float) -> Offer:
    assert node.way is not None
    assert node.board is not None
    switched = any(state.mig_enabled != bool(more) for _, state, more in chosen)
    seconds = SECONDS[node.way] + (MODE_SECONDS if switched else 0.0)
    paused = len(node.boards) if node.way is Way.MIG_MANAGER else len(chosen)
    usd = seconds / 3600 * paused * node.board.usd_per_hour + lost
    return Offer(node, tuple(chosen), gain, seconds, usd)


def _cost(state: State, profile: Profile, wanted: Demanded) -> float:
    """What it costs others, in dollars, to have an instance made there: what is destroyed, and the room it spoils.

    Spoiled is what the board's free room is worth less, beyond the slices that the instance takes itself.
    """
    known = wanted.costs.get((state, profile.name))
    if known is None:
        spot = prices_of(state.model, wanted.mix).spot(taken_by(state.held), profile)
        spoiled = max(0.0, spot.price - profile.memory_slices) / state.model.memory_slices if spot else 0.0
        known = _worth(state, wanted) + LOST_HOURS * state.model.usd_per_hour * spoiled
        wanted.costs[state, profile.name] = known
    return known


def _worth(state: State, wanted: Demanded) -> float:
    """What the free parts of a board are worth to those who may ask for them, in dollars; never quite nothing."""
    mix, total = wanted.mix, sum(wanted.mix.values())
    parts: list[tuple[str, int]] = [(i.profile.name, i.profile.memory_slices) for i in state.free]
    if not state.mig_enabled:
        parts = [(WHOLE_BOARD, state.model.memory_slices)]
    asked = sum(slices * (FLOOR + (mix.get(name, 0.0) / total if total else 0.0)) for name, slices in parts)
    return LOST_HOURS * state.model.usd_per_hour * asked / (state.model.memory_slices or 1)


def _laid(board: Board, layout: BoardLayout) -> Board:
    held = {(i.profile.name, i.start): i.holder for i in board.instances}
    instances = tuple(replace(i, holder=held.get((i.profile.name, i.start), "")) for i in layout.instances)
    return replace(board, mig_enabled=layout.mig_enabled, instances=instances)
