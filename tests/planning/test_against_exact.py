"""What the planner makes of small cases given at once, beside the best that can be made of them (HiGHS).

`python -m tests.planning.test_against_exact` prints how much dearer it is, case by case. The cost of an outcome is the
list price of an hour of all that runs, of the boards that re-layouts keep idle, and for who waits twice the price of
the cheapest device: the planner's own bound of what not waiting is worth (`planning.options`). Two optima are told
apart: the best under the documented order of service (nobody gives way to a later one), and the best without any order.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from random import Random
from typing import Any

import highspy

from berth.model.gpus import MODELS
from berth.model.nodes import Way
from berth.model.workloads import Queue, Workload
from berth.planning.actions import LayOut
from berth.planning.plan import plan
from berth.planning.snapshot import Backfilling, Passing, Policy
from tests.planning.brute import GEOMETRY, GPU, Cut, Machine, Town, arrangements, is_legal, profiles, resource_of
from tests.planning.builders import a_job, shape

CASES = 60  # of each kind
PACKING_ALONE = Policy(backfill=Backfilling(Passing.ANYBODY))  # the solver knows of no time to come
MOST_EXCESS = 0.02
SECONDS = 300.0  # in which a case is served: each board is laid out once at most
LAYOUT_SECONDS = 90.0  # for which a node's boards idle when mig-manager works on it
WAITING = 2.0  # times the cheapest price
USD = {model.name: model.usd_per_hour for model in MODELS}


@dataclass(frozen=True)
class Option:
    """A device for each member of a job."""

    model: str
    resource: str
    count: int
    boards: Fraction

    @property
    def usd(self) -> float:
        """For an hour of one member."""
        return float(self.boards) * USD[self.model]


@dataclass
class Outcome:
    """Who is served, and for how much."""

    served: frozenset[str]
    usd: float  # an hour of what runs, and re-layouts


@dataclass
class Case:
    """A cluster and the jobs that come to it at once, in the order in which they are served."""

    town: Town
    jobs: list[Workload]

    def cost(self, outcome: Outcome) -> float:
        """Of an outcome, those who wait included."""
        return outcome.usd + sum(self.waiting(w) for w in self.jobs if w.ref.uid not in outcome.served)

    def waiting(self, w: Workload) -> float:
        """What an hour of waiting costs."""
        assert w.request is not None
        return WAITING * w.request.workers * min(o.usd for o in options(self.town, w))


def options(town: Town, w: Workload) -> list[Option]:
    """The devices that satisfy a job."""
    assert w.request is not None
    demand = w.request.demand
    found = []
    for model in sorted({m.model for m in town.machines.values()}):
        if demand.models and model not in demand.models:
            continue
        if demand.count:
            found.append(Option(model, GPU, demand.count, Fraction(demand.count)))
        elif demand.profile and demand.profile in GEOMETRY[model]:
            slices, whole = GEOMETRY[model][demand.profile][0], max(size for size, _ in GEOMETRY[model].values())
            found.append(Option(model, resource_of(demand.profile), 1, Fraction(slices, whole)))
    return found


def whole_boards(seed: int) -> Case:
    """Nodes of two models in two racks, partly taken; jobs for whole boards with quotas, levels and CPU."""
    dice = Random(seed)
    town = Town(queues={"a": Queue("a", {"A100": dice.randint(4, 12), "H100": dice.randint(4, 12)})})
    for i in range(dice.randint(2, 4)):
        model, boards = dice.choice(("A100-80GB", "A100-80GB", "H100-80GB")), dice.choice((4, 8))
        labels = {"topology.kubernetes.io/zone": "z", "berth.dev/rack": dice.choice("rs")}
        town.machines[f"n{i}"] = Machine(f"n{i}", model, labels, 64_000, None, dict.fromkeys(range(boards)))
        for j in range(dice.choice((0, 0, 1, 2, 3))):
            town.intrude(f"other/p{i}-{j}", f"n{i}", GPU, 1, dice)
    return _case(town, [_whole_job(i, dice) for i in range(dice.randint(3, 7))])


def _whole_job(i: int, dice: Random) -> Workload:
    return a_job(
        f"j{i}",
        gpus=dice.choice((1, 1, 2, 2, 3, 4)),
        workers=dice.choice((1, 1, 2, 2, 3, 4)),
        models=dice.choice(((), (), ("A100-80GB",), ("H100-80GB",))),
        required=dice.choice(("", "", "rack", "node")),
        queue=dice.choice(("default", "default", "a")),
        pod=shape(cpu=dice.choice((0, 4, 12))),
    )


def instances(seed: int) -> Case:
    """Nodes whose boards mig-manager may lay out anew, some held; jobs for profiles, and a few for whole boards."""
    dice = Random(seed)
    town = Town()
    for i in range(dice.randint(2, 4)):
        labels = {"topology.kubernetes.io/zone": "z", "berth.dev/rack": dice.choice("rs")}
        model = dice.choice(("A100-80GB", "A100-80GB", "A30"))
        boards = {b: dice.choice((None, _some_cut(model, dice), _some_cut(model, dice))) for b in range(2)}
        town.machines[f"n{i}"] = Machine(f"n{i}", model, labels, 64_000, Way.MIG_MANAGER, boards)
        if dice.random() < 0.4:
            kinds = sorted(k for k, n in town.machines[f"n{i}"].offered().items() if n and k.startswith("nvidia"))
            town.intrude(f"other/p{i}", f"n{i}", dice.choice(kinds), 1, dice)
        town.report(f"n{i}")
    return _case(town, [_small_job(i, dice) for i in range(dice.randint(3, 6))])


def _some_cut(model: str, dice: Random) -> Cut:
    names = {
        "A100-80GB": ("1g.10gb",) * 7,
        "A30": ("1g.6gb",) * 4,
    }
    others = {
        "A100-80GB": (("3g.40gb", "3g.40gb"), ("2g.20gb", "2g.20gb", "2g.20gb"), ("3g.40gb", "2g.20gb", "1g.10gb")),
        "A30": (("2g.12gb", "2g.12gb"), ("4g.24gb",)),
    }
    chosen = dice.choice((names[model], *others[model]))
    return next(arrangements(model, chosen))


def _small_job(i: int, dice: Random) -> Workload:
    profile = dice.choice(("1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb", "2g.12gb", "4g.24gb", ""))
    workers = dice.choice((1, 2, 3)) if profile.startswith(("1g", "2g")) else dice.choice((1, 1, 2))
    wish = dice.choice(("", "", "rack"))
    if not profile:
        return a_job(f"j{i}", gpus=1, models=("A100-80GB",), workers=workers, required=wish)
    return a_job(f"j{i}", profile=profile, workers=workers, required=wish)


def _case(town: Town, jobs: list[Workload]) -> Case:
    """In the documented order: equally old and important, so the largest in whole boards first, then by uid."""
    jobs = [w for w in jobs if options(town, w)]
    town.work = {w.ref.uid: w for w in jobs}
    return Case(town, sorted(jobs, key=lambda w: (-_whole(w), w.ref.uid)))


def _whole(w: Workload) -> int:
    assert w.request is not None
    return w.request.workers * (w.request.demand.count or 0)


class Tidy(Random):
    """Chance that takes the first: a kubelet that uses one board after the other, which no plan can make it do."""

    def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
        """The first k."""
        return list(population[:k])


def planned(case: Case) -> Outcome:
    """What the planner makes of it, left alone for a while."""
    town, dice, usd = case.town, Tidy(0), 0.0
    end = town.now + SECONDS
    while town.now < end:
        for m in town.machines.values():
            if m.way is not None:
                town.report(m.name)
        made = plan(town.snapshot(), PACKING_ALONE, town.now)
        for action in made.actions:
            town.act(action, 0)
        for each in made.layouts:
            if town.lay_out(each) and isinstance(each, LayOut):
                usd += _layout_usd(town.machines[each.node])
        town.make_pods()
        for pod in list(town.pods.values()):
            town.bind(pod, dice) if pod.node and not pod.pieces else None
        for m in town.machines.values():
            town.work_on(m.name, dice, "done")
        town.now += 10.0
    served = {uid: w.attempt.placement for uid, w in town.work.items() if w.attempt}
    for placement in served.values():
        device = placement.device
        usd += _usd(device.model, device.resource, device.count) * len(placement.nodes)
    return Outcome(frozenset(served), usd)


def _usd(model: str, resource: str, count: int) -> float:
    for name, (slices, _) in GEOMETRY[model].items():
        if resource_of(name) == resource:
            return USD[model] * slices / max(size for size, _ in GEOMETRY[model].values())
    return USD[model] * count


def _layout_usd(m: Machine) -> float:
    return LAYOUT_SECONDS / 3600 * len(m.boards) * USD[m.model]


@dataclass
class Program:
    """The program under way: what is chosen for each job, and what is asked of each node."""

    solver: highspy.Highs
    chosen: dict[str, list[tuple[Any, Option]]]  # by uid
    at_once: dict[str, list[Any]]  # by uid: the choices that need nothing to be laid out
    asked: dict[tuple[str, str], list[Any]]  # by node and resource
    present: dict[tuple[str, str], list[Any]]  # the same of those that are served at once
    quota: dict[tuple[str, str], list[Any]]  # by queue and model


def optimum(case: Case, *, ordered: bool) -> Outcome:
    """The least cost there is; `ordered`: of those that follow the documented order of service.

    That is: each that fits as boards are laid out, in turn; then each of the others, in turn, by laying out boards that
    nobody holds. Where they go is free, so long as nobody gives way to one that is served later.
    """
    made = _program(case, ordered)
    relayouts = _supply(made, case.town)
    for (queue, model), charged in made.quota.items():
        nominal = case.town.queues[queue].nominal if queue in case.town.queues else None
        if nominal is not None:
            made.solver.addConstr(sum(charged) <= nominal[model.partition("-")[0]])
    usd = sum(begun * price for begun, price in relayouts)
    for w in case.jobs:
        usd = usd + sum(chosen * (o.usd * _workers(w)) for chosen, o in made.chosen[w.ref.uid])
        usd = usd + case.waiting(w) * (1 - sum(chosen for chosen, _ in made.chosen[w.ref.uid]))
    for choices in _in_turn(case, made) if ordered else ():
        made.solver.maximize(sum(choices))
        best = round(made.solver.getInfo().objective_function_value)
        made.solver.addConstr(sum(choices) == best)
    made.solver.minimize(usd)
    assert made.solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    total = made.solver.getInfo().objective_function_value
    served = {uid for uid, each in made.chosen.items() if any(made.solver.val(chosen) > 0.5 for chosen, _ in each)}
    return Outcome(frozenset(served), total - sum(case.waiting(w) for w in case.jobs if w.ref.uid not in served))


def _in_turn(case: Case, made: Program) -> Iterator[list[Any]]:
    yield from (made.at_once[w.ref.uid] for w in case.jobs)
    yield from ([chosen for chosen, _ in made.chosen[w.ref.uid]] for w in case.jobs)


def _program(case: Case, ordered: bool) -> Program:
    solver, town = highspy.Highs(), case.town  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", 0.0)
    cells = [(n, kind) for n, m in town.machines.items() for kind in _kinds(m)]
    made = Program(solver, {}, {}, {cell: [] for cell in cells}, {cell: [] for cell in cells}, {})
    for w in case.jobs:
        made.chosen[w.ref.uid], made.at_once[w.ref.uid] = [], []
        for option in options(town, w):
            for at_once in (True, False) if ordered else (False,):
                chosen = _choice(made, town, w, option, at_once=at_once)
                made.chosen[w.ref.uid].append((chosen, option))
                if at_once:
                    made.at_once[w.ref.uid].append(chosen)
        solver.addConstr(sum(chosen for chosen, _ in made.chosen[w.ref.uid]) <= 1)
    return made


def _choice(made: Program, town: Town, w: Workload, option: Option, *, at_once: bool) -> Any:
    """Whether a job is served so, with members on nodes of that model."""
    chosen = made.solver.addBinary()
    made.quota.setdefault((w.queue, option.model), []).append(chosen * (option.count * _workers(w)))
    spread = {n: made.solver.addIntegral(0, _workers(w)) for n, m in town.machines.items() if m.model == option.model}
    made.solver.addConstr(sum(spread.values()) == chosen * _workers(w))
    cpu = dict(w.request.shape.requests).get("cpu", 0) if w.request else 0
    for n, members in spread.items():
        made.asked[n, option.resource].append(members * option.count)
        made.asked[n, "cpu"].append(members * cpu)
        if at_once:
            made.present[n, option.resource].append(members * option.count)
    _keep_together(made.solver, town, w, spread)
    return chosen


def _workers(w: Workload) -> int:
    assert w.request is not None
    return w.request.workers


def _kinds(m: Machine) -> Iterable[str]:
    return ("cpu", GPU, *(resource_of(profile) for profile in GEOMETRY[m.model]))


def _keep_together(solver: highspy.Highs, town: Town, w: Workload, spread: dict[str, Any]) -> None:
    """All members in one domain of the required level."""
    assert w.request is not None
    if w.request.topology is None:
        return
    level = w.request.topology.level
    domain = {n: n if level == "node" else town.machines[n].labels["berth.dev/rack"] for n in spread}
    here = {name: solver.addBinary() for name in sorted(set(domain.values()))}
    solver.addConstr(sum(here.values()) <= 1)
    for n, members in spread.items():
        solver.addConstr(members <= here[domain[n]] * w.request.workers)


def _supply(made: Program, town: Town) -> list[tuple[Any, float]]:
    """Nobody gets more than there is; boards that nobody holds may be laid out, at the price of their node's pause."""
    solver, relayouts = made.solver, []
    for n, m in town.machines.items():
        used, held = town.used(n), {board for board, _ in town.held(n)}
        stays: dict[str, list[Any]] = {kind: [] for kind in _kinds(m)}
        comes: dict[str, list[Any]] = {kind: [] for kind in _kinds(m)}
        fixed = Counter({"cpu": m.cpu})
        begun = solver.addBinary()
        for index, cut in m.boards.items():
            if m.way is None or index in held:
                fixed.update(_offer(cut))
                continue
            kept, patterns = solver.addBinary(), [_offer(pattern) for pattern in (None, *_maximal(m.model))]
            anew = [solver.addBinary() for _ in patterns]
            solver.addConstr(kept + sum(anew) == 1)
            solver.addConstr(sum(anew) <= begun)
            for kind, number in _offer(cut).items():
                stays[kind].append(kept * number)
            for choice, offer in zip(anew, patterns, strict=True):
                for kind, number in offer.items():
                    comes[kind].append(choice * number)
        for kind in _kinds(m):
            there = fixed[kind] - used.get(kind, 0)
            for asked, supply in ((made.asked, [*stays[kind], *comes[kind]]), (made.present, stays[kind])):
                if asked[n, kind]:
                    solver.addConstr(sum([*asked[n, kind], *(-1 * each for each in supply)]) <= there)
        relayouts.append((begun, _layout_usd(m)))
    return relayouts


def _offer(cut: Cut | None) -> Counter[str]:
    return Counter([GPU] if cut is None else [resource_of(name) for name, _ in cut])


@cache
def _maximal(model: str) -> list[Cut]:
    """Layouts, one for each multiset of profiles, of which no other has all and more."""
    each = {tuple(profiles(cut) or ()): cut for cut in _cuts(model, (), 0)}
    counts = {names: Counter(names) for names in each}
    return [cut for names, cut in each.items() if not any(counts[names] < more for more in counts.values())]


def _cuts(model: str, so_far: Cut, at: int) -> Iterator[Cut]:
    if at == max(size for size, _ in GEOMETRY[model].values()):
        yield so_far
        return
    for name, (_, starts) in GEOMETRY[model].items():
        if at in starts and not name.endswith("+me") and is_legal(model, (*so_far, (name, at))):
            yield from _cuts(model, (*so_far, (name, at)), at + 1)
    yield from _cuts(model, so_far, at + 1)


@dataclass
class Score:
    """One case."""

    name: str
    ours: float
    ordered: float
    free: float
    served: frozenset[str]
    served_in_order: frozenset[str]
    served_at_best: frozenset[str]


def scores(count: int = CASES) -> list[Score]:
    """All cases."""
    found = []
    for kind in (whole_boards, instances):
        for seed in range(count):
            case = kind(seed)
            ordered, free = optimum(case, ordered=True), optimum(case, ordered=False)
            ours = planned(case)
            if case.jobs:
                found.append(_score(f"{kind.__name__} {seed}", case, (ours, ordered, free)))
    return found


def _score(name: str, case: Case, outcomes: tuple[Outcome, Outcome, Outcome]) -> Score:
    ours, ordered, free = outcomes
    costs = case.cost(ours), case.cost(ordered), case.cost(free)
    return Score(name, *costs, ours.served, ordered.served, free.served)


def excess(pairs: list[tuple[float, float]]) -> float:
    """By how much the first of each two is more than the second, on average."""
    return sum(ours / best - 1 for ours, best in pairs) / len(pairs)


def test_small_cases_cost_no_more_than_two_percent_above_the_optimum() -> None:
    found = scores()
    assert len(found) >= 100
    assert all(s.free <= s.ordered + 1e-6 and s.free <= s.ours + 1e-6 for s in found)  # the reference is one
    assert excess([(s.ours, s.ordered) for s in found]) <= MOST_EXCESS


def main() -> None:
    """Print the distribution."""
    found = scores(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
    for kind in ("whole_boards", "instances"):
        own = [s for s in found if s.name.startswith(kind)]
        print(f"{kind}, {len(own)} cases")
        _tell("the documented order", [(s.name, s.ours, s.ordered) for s in own])
        _tell("no order at all", [(s.name, s.ours, s.free) for s in own])
        ours, ordered, free = (
            sum(map(len, each))
            for each in zip(*((s.served, s.served_in_order, s.served_at_best) for s in own), strict=True)
        )
        print(f"  jobs served: {ours}; by the optima {ordered} and {free}")
    print(f"mean excess of all {len(found)}, documented order: {excess([(s.ours, s.ordered) for s in found]):+.2%}")


def _tell(optimum_of: str, costs: list[tuple[str, float, float]]) -> None:
    each = sorted((ours / best - 1, name.split()[1]) for name, ours, best in costs)
    alike = sum(x < 1e-6 for x, _ in each)
    mean = excess([(ours, best) for _, ours, best in costs])
    worst = ", ".join(f"{x:+.1%} (seed {seed})" for x, seed in reversed(each[-6:]) if x > 1e-6)
    print(f"  above the optimum with {optimum_of}: {mean:+.2%} on average; {alike} are optimal; worst {worst}")


if __name__ == "__main__":
    main()
