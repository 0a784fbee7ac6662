"""What would have to be there so that a pending job fits: quota, or nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from berth.model.gpus import MODELS, WHOLE_BOARD, BoardModel
from berth.model.nodes import Node
from berth.model.reasons import Reason
from berth.model.topology import NODE_LABEL
from berth.model.workloads import Device, Placement
from berth.planning.admission import Choice
from berth.planning.feasibility import why_not
from berth.planning.ledger import needs_of
from berth.planning.options import MIB
from berth.planning.quota import stated_for
from berth.planning.scratch import Scratch, gang_of
from berth.planning.trials import Remedy, Trial, Way, details_of, place_text
from berth.planning.verdicts import boards_text
from berth.planning.whatif import with_nodes, with_quota

MOST_NODES = 10_000  # that could be added
BOARDS_OF_NEW_NODE = 8  # where the fleet has no node of a model to take as an example
PLENTY = 2**50  # of CPU, memory and whatever else a node that is only imagined may need


def more_quota(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    """The nominal quota that would admit it, alone or together with more nodes."""
    for choice in tried:
        if choice.reason not in (Reason.WAITING_FOR_QUOTA, Reason.EXCEEDS_MAX_QUOTA):
            continue
        model = s.model(choice.option.device.model)
        name = s.quota.cohorts.charged_to(t.job.queue, model)
        room = s.quota.room(t.job.queue, model) or Fraction(0)
        owned = Fraction(stated_for(s.snapshot.queues[t.job.queue].nominal or {}, name) or 0)
        nominal = int(owned) - int((room - choice.option.boards * t.request.workers) // 1)
        raised = with_quota(t.snapshot, t.job.queue, name, nominal)
        more = f"{boards_text(nominal - owned)} more of {name} in queue {t.job.queue} ({nominal} instead of {owned})"
        details = {"queue": t.job.queue, "model": name, "nominal": nominal}
        if place := t.places(snapshot=raised):
            return Remedy(Way.MORE_QUOTA, f"{more}: {place_text(s, place)}", {**details, **details_of(place)})
        nodes_too = more_nodes(replace(t, snapshot=raised), s, [replace(choice, reason=None)])
        if nodes_too is not None:
            message = f"{more}, together with {nodes_too.message}"
            return Remedy(Way.MORE_QUOTA, message, {**details, **nodes_too.details})
    return None


def more_nodes(t: Trial, s: Scratch, tried: Sequence[Choice]) -> Remedy | None:
    """How many more nodes like those there are would hold it."""
    for choice in tried:
        if choice.reason is None and (remedy := _like(t, s, choice.option.device)):
            return remedy
    return None if any(c.reason is None for c in tried) or tried else _new_kind(t, s)


def _like(t: Trial, s: Scratch, device: Device) -> Remedy | None:
    """Nodes like the roomiest of the domain that lacks the fewest, beside those."""
    gang = gang_of(t.request, device, s.fleet.levels, t.request.workers)
    pool, needs = s.fleet.pools[device.model], needs_of(t.request.shape, device)
    fits: dict[tuple[str, ...], int] = defaultdict(int)
    example: dict[tuple[str, ...], tuple[int, Node]] = {}
    for node, path in zip(pool.nodes, pool.paths, strict=True):
        domain = path[: gang.within + 1] if gang.within is not None else ()
        if why_not(node, t.request.shape) or (domain and not domain[-1]):
            continue
        fits[domain] += s.ledger.fits(node.name, needs)
        whole = min(node.allocatable.get(name, 0) // n for name, n in needs.items())
        if whole > example.get(domain, (0, node))[0]:
            example[domain] = whole, node
    lacking = {d: -(-max(1, gang.members - fits[d]) // whole) for d, (whole, _) in example.items()}
    for domain in sorted(lacking, key=lambda d: (lacking[d], d))[:1]:
        whole, node = example[domain]
        at_most = -(-gang.members // whole) + gang.group
        for count in range(lacking[domain], min(at_most, MOST_NODES) + 1):
            if place := t.places(snapshot=with_nodes(t.snapshot, _copies(node, count, s))):
                near = f" in {s.fleet.levels[gang.within].name} {domain[-1]}" if gang.within is not None else ""
                return _more(count, f"like {node.name}{near}", device.model, place)
    return None


def _new_kind(t: Trial, s: Scratch) -> Remedy | None:
    """Nodes of a model that the fleet has none of, or with more boards than any has."""
    demand = t.request.demand
    for model in sorted(MODELS, key=lambda m: (m.name not in s.fleet.pools, m.usd_per_hour, m.name)):
        if demand.models and not any(model.answers_to(name) for name in demand.models):
            continue
        example = _imagined(model, t, s)
        if example is None or (demand.memory_bytes or 0) > model.memory_mib * MIB:
            continue
        each = max(n for name, n in example.allocatable.items() if model.profile_of(name) or name == WHOLE_BOARD)
        least, most = -(-t.request.workers // (each // (demand.count or 1))), t.request.workers
        if not t.places(snapshot=with_nodes(t.snapshot, _copies(example, most, s))):
            continue  # no number of them would do
        for count in range(least, most + 1):
            if place := t.places(snapshot=with_nodes(t.snapshot, _copies(example, count, s))):
                laid = f", laid out as {demand.profile}" if demand.profile else ""
                boards = f"with {max(BOARDS_OF_NEW_NODE, demand.count or 0)} boards each{laid}"
                return _more(count, boards, model.name, place)
    return None


def _imagined(model: BoardModel, t: Trial, s: Scratch) -> Node | None:
    """A node of a model, with all that a member asks for; None where the model can't give it."""
    demand = t.request.demand
    boards = max(BOARDS_OF_NEW_NODE, demand.count or 0)
    room = {"cpu": PLENTY, "memory": PLENTY, "pods": PLENTY, **{name: PLENTY for name, _ in t.request.shape.requests}}
    if demand.profile is not None:
        profile = model.profile(demand.profile)
        if profile is None:
            return None
        room[profile.resource] = boards * profile.max_instances
    else:
        room[WHOLE_BOARD] = boards
    labels = {level.labels[0]: "new" for level in s.fleet.levels if level.labels[0] != NODE_LABEL}
    return Node("new", {**labels, **dict(t.request.shape.node_selector)}, room, board=model)


def _copies(node: Node, count: int, s: Scratch) -> list[Node]:
    names = (f"new-{i}" for i in range(1, count + len(s.fleet.nodes) + 1))
    fresh = [name for name in names if name not in s.fleet.nodes][:count]
    return [replace(node, name=name, labels={**node.labels, NODE_LABEL: name}, boards=()) for name in fresh]


def _more(count: int, like: str, model: str, place: Placement) -> Remedy:
    message = f"{count} more node{'s' if count > 1 else ''} with {model} {like}"
    return Remedy(Way.MORE_NODES, message, {"count": count, "model": model, **details_of(place)})
