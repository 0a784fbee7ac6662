"""Random clusters in which a gang waits that others have to give way to, and the rules that are in use elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from berth.model.nodes import Node
from berth.model.workloads import Device, Kind, PodPhase, Queue, Workload
from berth.planning.covering import cost_of
from berth.planning.freeing import Holder, Lack
from berth.planning.plan import worked_out
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Policy, Preempting
from berth.planning.victims import Found, Search
from berth.planning.whatif import room_for
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, model, running
from tests.planning.occupied import occupied

RULES = Preempting()
BOARD = "A100-80GB"
CUTS = ({}, {}, {}, {"1g.10gb": 14}, {"2g.20gb": 6, "1g.10gb": 2}, {"3g.40gb": 4}, {"3g.40gb": 2, "2g.20gb": 3})


@dataclass
class Case:
    """A cluster, what runs in it, and the gang that waits."""

    nodes: list[Node]
    queues: list[Queue]
    waits: Workload
    others: list[Workload] = field(default_factory=list)

    def scratch(self) -> Scratch:
        """The working copy once everything but the gang has what it gets."""
        seen = occupied(self.nodes, *self.others, queues=self.queues)
        return worked_out(seen, Policy(preemption=None), NOW)[0]

    def search(self) -> Search:
        """What looks for victims in it."""
        return Search(self.scratch(), RULES, self.others)

    def found(self) -> Found | None:
        """What ours chooses."""
        assert self.waits.request is not None
        return self.search().found(self.waits, self.waits.request)


def a_case(seed: int) -> Case:
    """Nodes in racks, some with MIG instances; a tree of queues that borrow; jobs and services that fill most of it."""
    dice = Random(seed)
    racks, each = dice.choice((2, 3, 4)), dice.choice((3, 4, 6, 8))
    nodes = [_a_node(f"r{r}n{n}", f"r{r}", dice) for r in range(racks) for n in range(each)]
    names = [f"q{i}" for i in range(dice.choice((2, 3, 4)))]
    case = Case(nodes, _tree(nodes, names, dice), _gang(names, dice))
    free = {node.name: dict(node.allocatable) for node in nodes}
    for i in range(6 * len(nodes)):
        _add(case, free, _runs(i, names, dice), dice)
    return case


def _a_node(name: str, rack: str, dice: Random) -> Node:
    cut = dice.choice(CUTS)
    return a_node(
        name,
        board=BOARD,
        gpus=dice.choice((2, 4, 6)) if cut else dice.choice((4, 8, 8)),
        mig=cut,
        labels={"rack": rack},
    )


def _tree(nodes: Sequence[Node], names: Sequence[str], dice: Random) -> list[Queue]:
    """A root, a cohort under it, and queues that own unequal shares of what there is."""
    boards = sum(node.allocatable["nvidia.com/gpu"] + (2 if len(node.allocatable) > 4 else 0) for node in nodes)
    cuts = sorted(dice.randint(0, boards) for _ in names[1:])
    shares = [high - low for low, high in zip([0, *cuts], [*cuts, boards], strict=True)]
    queues = [Queue("root", {}), Queue("cohort", {}, parent="root")]
    for name, share in zip(names, sorted(shares, reverse=True), strict=True):
        borrowing = {"A100": dice.randint(0, boards)} if dice.random() < 0.3 else {}
        queues.append(Queue(name, {"A100": share}, borrowing, parent=dice.choice(("root", "cohort"))))
    return queues


def _gang(names: Sequence[str], dice: Random) -> Workload:
    demand = dice.choice(
        ({"gpus": 8}, {"gpus": 4}, {"gpus": 4}, {"gpus": 2}, {"profile": "3g.40gb"}, {"profile": "1g.10gb"})
    )
    workers = dice.choice((1, 2, 3, 4, 6))
    wish = {"required": "rack"} if dice.random() < 0.4 else {}
    return a_job("waits", workers=workers, models=("A100",), priority=4, queue=names[0], created=NOW, **demand, **wish)


def _runs(i: int, names: Sequence[str], dice: Random) -> Workload:
    demand = dice.choice(
        (
            {"gpus": 1},
            {"gpus": 1},
            {"gpus": 2},
            {"gpus": 4},
            {"gpus": 8},
            {"profile": "1g.10gb"},
            {"profile": "2g.20gb"},
            {"profile": "3g.40gb"},
        )
    )
    more = {
        **demand,
        "models": ("A100",),
        "priority": dice.choice((0, 0, 0, 1, 1, 2, 3, 4)),
        "queue": dice.choice(names),
    }
    if dice.random() < 0.12:
        return a_service(f"s{i}", replicas=dice.choice((1, 2, 3, 4)), least_replicas=dice.choice((1, 2)), **more)
    return a_job(f"j{i}", workers=dice.choice((1, 1, 1, 2, 2, 3, 4)), **more)


def _add(case: Case, free: dict[str, dict[str, int]], w: Workload, dice: Random) -> None:
    """Have it run where it fits, for as long as chance will, with a checkpoint more often than not."""
    assert w.request is not None
    resource = f"nvidia.com/mig-{w.request.demand.profile}" if w.request.demand.profile else "nvidia.com/gpu"
    count = w.request.demand.count or 1
    able = [n for n, left in free.items() for _ in range(left.get(resource, 0) // count)]
    if len(able) < w.request.workers:
        return
    at = sorted(dice.sample(able, w.request.workers))
    for n in at:
        free[n][resource] -= count
    began = NOW - 600.0 * 400.0 ** dice.random()  # 10 minutes to 3 days
    interval = 300.0 * 24.0 ** dice.random()  # 5 minutes to 2 hours
    saved = max(began, NOW - dice.uniform(0, interval)) if dice.random() < 0.85 else 0.0
    device = Device(BOARD, resource, count)
    if w.ref.kind is Kind.INFERENCE_SERVICE:
        pods = [
            a_pod(PodPhase.READY, node=n, name=f"{w.ref.name}-{i}", attempt=0, created=began, device=device)
            for i, n in enumerate(at)
        ]
        case.others.append(replace(w, pods=tuple(pods), served_device=device, served_generation=1))
        return
    made = running(w, *at, pods=PodPhase.READY, device=device, admitted_at=began, started_at=began, saved_at=saved)
    pods = tuple(replace(p, name=f"{w.ref.name}-{p.index}", uid=f"{w.ref.name}-{p.index}") for p in made.pods)
    case.others.append(replace(made, pods=pods))


def candidates(case: Case, *, reclaims: bool) -> tuple[list[Holder], dict[str, Mapping[str, int]]]:
    """Who may be stopped, services as a whole left out, and what is free on each node."""
    search, w = case.search(), case.waits
    some = search._own(w) + (search._borrowed(w, model(BOARD)) if reclaims else [])
    return search._candidates(some, whole=False), {n.name: search.s.ledger.free(n.name) for n in case.nodes}


def device_of(w: Workload) -> Device:
    """What each member of it asks for."""
    assert w.request is not None
    profile = w.request.demand.profile
    return Device(BOARD, f"nvidia.com/mig-{profile}" if profile else "nvidia.com/gpu", w.request.demand.count or 1)


Key = Callable[[Holder], tuple[float, ...]]


def newest_first(one: Holder) -> tuple[float, ...]:
    """Whoever began last goes first."""
    return (-_began(one),)


def lowest_first(one: Holder) -> tuple[float, ...]:
    """Of the lowest priority, whoever began last."""
    return (one.workload.priority, -_began(one))


def _began(one: Holder) -> float:
    w = one.workload
    return w.started_at or next(p.created for p in w.pods if p.uid == one.replica)


def by_rule(case: Case, key: Key) -> float | None:
    """What is lost by ending one after the other in that order until the gang fits, then keeping whom it fits beside.

    So Kueue's classical preemption does: first as one that takes back what others borrow, then within its queue alone.
    """
    w, search = case.waits, case.search()
    assert w.request is not None
    field = room_for(search.s, w, w.request, device_of(w))
    assert field is not None
    own, others = search._own(w), search._borrowed(w, field.pool.model)
    for some, reclaims in (([*own, *others], True), (own, False)):
        lack = Lack(search.s, w, w.request, field, of_its_own=reclaims)
        chosen: list[Holder] = []
        for one in sorted(search._candidates(some, whole=False), key=lambda h: (*key(h), h.uid)):
            if lack.met_by(chosen):
                break
            if lack.concerns(one) and search._allowed(w, field.pool.model, [*chosen, one]):
                chosen.append(one)
        if lack.met_by(chosen):
            for one in tuple(reversed(chosen)):
                rest = [other for other in chosen if other is not one]
                chosen = rest if lack.met_by(rest) else chosen
            return cost_of(chosen)
    return None
