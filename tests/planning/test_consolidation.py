"""Room by moving others: only when everything finds its place, and as cheaply as can be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.workloads import Device, PodPhase, Queue, Spot, Workload
from berth.planning.actions import Stop
from berth.planning.consolidation import Consolidating, Consolidation, consolidate
from berth.planning.plan import plan
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.trials import settled
from berth.planning.whatif import order, unplaced, with_workload, without
from tests.planning.builders import NOW, a_job, a_node, a_service, nodes_of, only, racks, running, shape, verdict_of
from tests.planning.occupied import HOUR, occupied, on, small_worlds
from tests.planning.world import World

H100 = 8.0  # $/h of a board
RESTART = 120.0 / HOUR


def moved(nodes: list[Node], waits: Workload, *others: Workload, **more) -> Consolidation | None:
    rules = more.pop("rules", Consolidating())
    return consolidate(occupied(nodes, waits, *others, **more), waits, settle, rules)


def settle(snapshot: Snapshot) -> Scratch:
    """What a plan leaves now."""
    return settled(snapshot, Policy(), NOW)


def names(found: Consolidation | None) -> list[str]:
    assert found is not None
    return sorted(move.ref.name for move in found.moves)


def two_halves() -> tuple[Workload, Workload]:
    """Two small jobs that keep two nodes of eight boards from a job of eight."""
    return on(a_job("a", gpus=2), "n1", hours=3), on(a_job("b", gpus=2), "n2", hours=1)


def test_the_job_with_the_least_to_lose_moves() -> None:
    found = moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), *two_halves())
    assert found is not None
    assert found.placement.nodes == ("n2",)
    assert [(m.ref.name, m.before.nodes, m.after.nodes) for m in found.moves] == [("b", ("n2",), ("n1",))]


def test_a_move_costs_the_work_since_the_start_and_a_restart() -> None:
    found = moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), *two_halves())
    assert found is not None
    assert abs(found.usd - 2 * H100 * (1 + RESTART)) < 1e-9


def test_a_checkpoint_makes_the_older_job_the_cheaper_one() -> None:
    a, b = two_halves()
    saved = replace(a, saved_at=NOW - 60)
    found = moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), saved, b)
    assert names(found) == ["a"]
    assert found is not None
    assert abs(found.usd - 2 * H100 * (60 + 120) / HOUR) < 1e-9


def test_nothing_moves_for_a_job_that_fits() -> None:
    assert moved([a_node("n1"), a_node("n2"), a_node("n3")], a_job("big", gpus=8), *two_halves()) is None


def test_nothing_moves_that_would_not_find_a_place() -> None:
    full = [on(a_job(f"j{i}", gpus=4), f"n{1 + i // 2}") for i in range(3)]
    assert moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), *full) is None


def test_all_moves_or_none() -> None:
    nodes = [a_node("n1"), a_node("n2", gpus=4), a_node("n3", gpus=2)]
    a, b = on(a_job("a", gpus=4), "n1"), on(a_job("b", gpus=2), "n1")
    assert names(moved(nodes, a_job("big", gpus=8), a, b)) == ["a", "b"]
    assert moved(nodes[:2], a_job("big", gpus=8), a, b) is None


def test_a_gang_moves_whole_and_keeps_its_required_rack() -> None:
    nodes = racks(count=2, nodes=2)
    gang = on(a_job("gang", workers=2, gpus=4, required="rack"), "r1n1", "r1n2")
    found = moved(
        nodes, a_job("big", workers=2, gpus=8, required="rack"), gang, on(a_job("s", gpus=1), "r2n1", hours=9)
    )
    assert names(found) == ["s"] or names(found) == ["gang"]
    assert found is not None
    assert found.usd == min(found.usd, 8 * H100 * (1 + RESTART))


def test_a_victim_of_higher_priority_is_left_alone() -> None:
    a, b = on(a_job("a", gpus=2, priority=5), "n1"), on(a_job("b", gpus=2, priority=5), "n2")
    nodes = [a_node("n1"), a_node("n2")]
    assert moved(nodes, a_job("big", gpus=8), a, b) is None
    assert moved(nodes, a_job("big", gpus=8, priority=5), a, b) is not None


def test_a_job_that_has_just_begun_is_left_alone() -> None:
    a, b = on(a_job("a", gpus=2), "n1", hours=0.1), on(a_job("b", gpus=2), "n2", hours=5)
    assert names(moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), a, b)) == ["b"]


def test_replicas_of_services_stay() -> None:
    service = a_service("web", gpus=2, served_device=Device("H100-80GB", "nvidia.com/gpu", 2), served_generation=1)
    held = running(service, "n1", pods=PodPhase.READY)
    service = Workload(**{**_fields(held), "attempt": None})
    assert moved([a_node("n1"), a_node("n2", gpus=4)], a_job("big", gpus=8), service) is None


def _fields(w: Workload) -> dict[str, object]:
    return {name: getattr(w, name) for name in w.__slots__}


def test_no_more_gangs_move_than_allowed() -> None:
    nodes = [a_node("n1"), a_node("n2", gpus=4), a_node("n3", gpus=4)]
    small = [on(a_job(f"s{i}", gpus=1), "n1") for i in range(3)]
    assert moved(nodes, a_job("big", gpus=8), *small, rules=Consolidating(most_moves=2)) is None
    assert len(names(moved(nodes, a_job("big", gpus=8), *small, rules=Consolidating(most_moves=3)))) == 3


def test_who_is_served_first_gets_the_room_that_is_made() -> None:
    first = a_job("first", gpus=8, priority=1)
    assert moved([a_node("n1"), a_node("n2")], a_job("big", gpus=8), first, *two_halves()) is None


def test_quota_is_kept() -> None:
    queue = Queue("red", {"H100": 4})
    nodes = [a_node("n1"), a_node("n2")]
    assert moved(nodes, a_job("big", gpus=8, queue="red"), *two_halves(), queues=(queue,)) is None


def test_moving_pays_once_the_wait_has_cost_as_much() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    short = moved(nodes, a_job("big", gpus=8, created=NOW - 60), *two_halves())
    long = moved(nodes, a_job("big", gpus=8, created=NOW - HOUR), *two_halves())
    assert short is not None
    assert long is not None
    assert (short.pays, long.pays) == (False, True)


def test_what_is_simulated_is_what_the_planner_then_does() -> None:
    big = a_job("big", gpus=8)
    snapshot = occupied([a_node("n1"), a_node("n2")], big, *two_halves())
    found = consolidate(snapshot, big, settle, Consolidating())
    assert found is not None
    gone = {move.ref.uid for move in found.moves}
    victims = [w for w in snapshot.workloads if w.ref.uid in gone]
    after = without(snapshot, victims)
    for victim in victims:
        after = with_workload(after, unplaced(victim))
    assert nodes_of(plan(after, Policy(), NOW), "big") == found.placement.nodes


LONG = 30 * 1.25**23 + 1  # 1.4 hours, and a moment when moves are looked for
ON = Policy(consolidation=Consolidating(enabled=True), preemption=None)


def a_world(waits: Workload, *others: Workload, nodes: Iterable[Node] = (), policy: Policy = ON) -> World:
    """Two nodes of eight boards, unless said otherwise, with the jobs as they are at the beginning."""
    there = nodes or (a_node("n1"), a_node("n2"))
    return World({n.name: n for n in there}, {w.ref.uid: w for w in (waits, *others)}, policy=policy, now=NOW)


def places(world: World) -> dict[str, tuple[str, ...]]:
    """Where each job runs."""
    return {w.ref.name: w.attempt.placement.nodes for w in world.workloads.values() if w.attempt}


def test_a_gang_moves_and_the_one_that_waits_gets_the_room() -> None:
    world = a_world(a_job("big", gpus=8, created=NOW - LONG), *two_halves())
    world.settle()
    assert places(world) == {"big": ("n2",), "a": ("n1",), "b": ("n1",)}
    assert {w.ref.name: w.attempts_made for w in world.workloads.values()} == {"big": 1, "a": 1, "b": 2}


def test_nothing_moves_unless_it_is_allowed() -> None:
    world = a_world(a_job("big", gpus=8, created=NOW - LONG), *two_halves(), policy=Policy(preemption=None))
    world.settle()
    assert places(world) == {"a": ("n1",), "b": ("n2",)}


def test_a_gang_that_moves_and_the_one_that_waits_are_told_why() -> None:
    made = a_world(a_job("big", gpus=8, created=NOW - LONG), *two_halves()).plan()
    assert [(stop.ref.name, stop.reason) for stop in only(made, Stop)] == [("b", "Consolidated")]
    assert verdict_of(made, "b").message == "moved elsewhere so that team/big fits"
    assert verdict_of(made, "big").message.startswith("waits for team/b to move elsewhere, which costs $16.53")


def test_plans_are_made_as_the_wait_grows_until_moving_pays() -> None:
    world = a_world(a_job("big", gpus=8, created=NOW), *two_halves())
    waits = []
    while not only(made := world.plan(), Stop):
        assert made.wake_at is not None
        world.now = made.wake_at
        waits.append(round(world.now - NOW))
    assert waits[:3] == [31, 38, 48]
    assert 1000 < waits[-1] < 1400  # moving costs 2 boards for 1.03 h and more, waiting 8 boards


def test_while_gangs_are_stopped_nobody_takes_the_room_that_is_made() -> None:
    a, b = two_halves()
    assert b.attempt is not None
    b = replace(b, attempt=replace(b.attempt, stopping="Consolidated"))
    made = a_world(a_job("big", gpus=8, created=1.0), a, b, a_job("small", gpus=6, created=2.0)).plan()
    assert nodes_of(made, "small") is None
    assert verdict_of(made, "small").message == ("waits while room is made for team/big, which is served before it")


@given(small_worlds())
def test_all_of_it_works_or_nothing_moves(world: tuple[list[Node], Workload, list[Workload]]) -> None:
    nodes, waits, others = world
    moving = a_world(replace(waits, created=NOW - LONG), *others, nodes=nodes)
    moving.settle()
    if any(w.attempts_made > 1 for w in moving.workloads.values()):
        assert places(moving).keys() == {"big", *(w.ref.name for w in others)}
    else:
        assert {k: v for k, v in places(moving).items() if k != "big"} == {
            w.ref.name: w.attempt.placement.nodes for w in others if w.attempt
        }


def by_brute_force(nodes: list[Node], waits: Workload, others: list[Workload], most: int) -> float | None:
    """The least that any set of moves costs, each tried whole by the planner itself."""
    snapshot = occupied(nodes, waits, *others)
    if nodes_of(plan(snapshot, Policy(), NOW), "big"):
        return None
    costs = []
    for size in range(1, min(most, len(others)) + 1):
        for victims in combinations(others, size):
            after = without(snapshot, victims)
            taken = nodes_of(plan(after, Policy(), NOW), "big")
            if taken is None:
                continue
            # The pending job first, then each that moves, in the order of service: later ones cannot displace earlier.
            again = sorted((unplaced(v) for v in victims), key=order)
            for place, v in enumerate(again):
                away = tuple((node, NOW + 60) for node in taken)
                after = with_workload(after, replace(v, priority=-1 - place, avoid=away))
            if all(nodes_of(plan(after, Policy(), NOW), v.ref.name) for v in again):
                costs.append(sum(_usd(v) for v in victims))
    return min(costs, default=None)


def _usd(w: Workload) -> float:
    assert w.attempt is not None
    boards = w.attempt.placement.device.count * len(w.attempt.placement.nodes)
    return boards * H100 * ((NOW - w.started_at) / HOUR + RESTART)


@given(small_worlds())
@settings(max_examples=120)
def test_no_set_of_moves_is_cheaper(world: tuple[list[Node], Workload, list[Workload]]) -> None:
    nodes, waits, others = world
    best = by_brute_force(nodes, waits, others, Consolidating().most_moves)
    found = moved(nodes, waits, *others)
    assert (None if found is None else round(found.usd, 6)) == (None if best is None else round(best, 6))


def in_markets(name: str) -> Node:
    """A node of 8 boards, on spot capacity where its name begins with an s."""
    return a_node(name, labels={"karpenter.sh/capacity-type": "spot"} if name.startswith("s") else {})


def test_nobody_moves_where_it_would_cost_more_than_it_may() -> None:
    cheap = on(a_job("cheap", gpus=4, max_usd_per_hour=20.0), "s1")  # on demand they cost $32 an hour
    waits = a_job("big", gpus=8, pod=shape(spot=Spot.ONLY))
    assert moved([in_markets("d1"), in_markets("s1")], waits, cheap) is None
    free = replace(cheap, max_usd_per_hour=40.0)
    assert names(moved([in_markets("d1"), in_markets("s1")], waits, free)) == ["cheap"]


MARKET_WORLDS = st.lists(
    st.tuples(
        st.sampled_from(("d1", "d2", "s1", "s2")),
        st.sampled_from((1, 2, 4)),
        st.sampled_from(list(Spot)),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(MARKET_WORLDS, st.sampled_from(list(Spot)))
def test_law_no_move_goes_where_spot_or_price_forbid(placed: list[tuple[str, int, Spot, bool]], wanted: Spot) -> None:
    nodes = {name: in_markets(name) for name in ("d1", "d2", "s1", "s2")}
    free = dict.fromkeys(nodes, 8)
    others = []
    for i, (at, boards, spot, thrifty) in enumerate(placed):
        if free[at] < boards or (spot, nodes[at].spot) in ((Spot.NEVER, True), (Spot.ONLY, False)):
            continue
        free[at] -= boards
        limit = boards * 3.0 if thrifty and nodes[at].spot else None
        job = a_job(f"j{i}", gpus=boards, pod=shape(spot=spot), max_usd_per_hour=limit, checkpoints=True)
        others.append(on(job, at, hours=i + 1))
    found = moved(list(nodes.values()), a_job("big", gpus=8, pod=shape(spot=wanted)), *others)
    asked = {w.ref: w for w in others}
    for move in found.moves if found else ():
        w = asked[move.ref]
        assert w.request is not None
        on_spot = [nodes[name].spot for name in move.after.nodes]
        assert not (w.request.shape.spot is Spot.NEVER and any(on_spot))
        assert not (w.request.shape.spot is Spot.ONLY and not all(on_spot))
        assert w.max_usd_per_hour is None or all(on_spot)
