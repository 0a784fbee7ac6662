"""What holds for every plan, whatever the cluster and the work."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.topology import DEFAULT_LEVELS, domains_of
from berth.model.workloads import Kind, PodPhase, Queue, Request, RunPhase, Workload
from berth.planning.actions import Admit, Pin
from berth.planning.feasibility import why_not
from berth.planning.fleet import Fleet
from berth.planning.ledger import needs_of
from berth.planning.lifecycle import live
from berth.planning.options import boards_of, options_for
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from tests.planning.builders import NOW, model
from tests.planning.strategies import clusters, many_workloads, quotas, workloads
from tests.planning.world import ON_NODE, World

LEVELS = [level.name for level in DEFAULT_LEVELS]


def a_world(nodes: list[Node], work: list[Workload], **more: Any) -> World:
    return World({n.name: n for n in nodes}, {w.ref.uid: w for w in work}, **more)


def promised(world: World) -> Counter[tuple[str, str]]:
    """What pods use and records promise, by node and resource; each member counts once."""
    total: Counter[tuple[str, str]] = Counter()
    for name, used in world.used().items():
        total.update({(name, resource): n for resource, n in used.items()})
    for w in world.workloads.values():
        if w.attempt and w.request and not w.finished and not w.attempt.stopping:
            holding = {p.index for p in w.pods if p.phase in (*ON_NODE, PodPhase.SUCCEEDED)}
            needs = needs_of(w.request.shape, w.attempt.placement.device)
            for i, node in enumerate(w.attempt.placement.nodes):
                if i not in holding:
                    total.update({(node, resource): n for resource, n in needs.items()})
    return total


def assert_nothing_is_promised_twice(world: World) -> None:
    for (name, resource), n in promised(world).items():
        assert n <= world.nodes[name].allocatable.get(resource, 0), (name, resource, n)


def assert_gangs_are_whole(world: World) -> None:
    for w in world.workloads.values():
        if w.ref.kind is Kind.TRAINING_JOB:
            running = [p for p in w.pods if p.phase is PodPhase.READY]
            assert len(running) == (len(w.attempt.placement.nodes) if w.attempt else 0), w


def assert_quota_is_kept(world: World) -> None:
    for queue in world.queues.values():
        used: Counter[str] = Counter()
        for w in world.workloads.values():
            if w.queue == queue.name and w.attempt:
                device = w.attempt.placement.device
                used[device.model] += boards_of(device, model(device.model)) * len(w.attempt.placement.nodes)  # type: ignore[assignment]
            for pod in w.pods if w.queue == queue.name and not w.attempt else ():
                if pod.phase in ON_NODE and pod.device:
                    used[pod.device.model] += boards_of(pod.device, model(pod.device.model))  # type: ignore[assignment]
        for name, most in (queue.nominal or {}).items():
            own = [m for m in used if m == name or (model(m).family == name and m not in (queue.nominal or {}))]
            assert sum((Fraction(used[m]) for m in own), Fraction(0)) <= most
        assert all(any(model(m).answers_to(name) for name in queue.nominal or {}) for m in used)


@given(clusters(), many_workloads(), st.data())
def test_the_order_of_what_is_observed_does_not_matter(
    nodes: list[Node], work: list[Workload], data: st.DataObject
) -> None:
    first = a_world(nodes, work).plan()
    assert a_world(data.draw(st.permutations(nodes)), data.draw(st.permutations(work))).plan() == first


@given(clusters(), many_workloads(queues=("a", "b", "default")), quotas())
def test_a_cluster_comes_to_rest_with_whole_gangs_within_room_and_quota(
    nodes: list[Node], work: list[Workload], queues: dict[str, Queue]
) -> None:
    world = a_world(nodes, work, queues=queues)
    world.settle()
    assert_nothing_is_promised_twice(world)
    assert_gangs_are_whole(world)
    assert_quota_is_kept(world)
    assert world.moves == 0  # nobody interfered, so nothing that was admitted moved
    assert {w.ref.uid for w in work} == set(world.plan().verdicts)


@given(clusters(), many_workloads(), st.data())
def test_a_crash_at_any_action_leaves_what_the_next_plan_completes(
    nodes: list[Node], work: list[Workload], data: st.DataObject
) -> None:
    world = a_world(nodes, work)
    for _ in range(data.draw(st.integers(1, 4))):
        actions = world.plan().actions
        done = data.draw(st.integers(0, len(actions)))
        world.apply(actions[:done], cut=data.draw(st.booleans()))
        assert_nothing_is_promised_twice(world)
        if data.draw(st.booleans()):
            world.work()
    world.settle()
    assert_nothing_is_promised_twice(world)
    assert_gangs_are_whole(world)
    assert world.moves == 0


@given(clusters(), many_workloads(), st.data())
def test_jobs_that_come_suspend_end_and_fail_never_break_a_promise(
    nodes: list[Node], work: list[Workload], data: st.DataObject
) -> None:
    world = a_world(nodes, work)
    for _ in range(6):
        actions = world.plan().actions
        world.apply(actions[: data.draw(st.integers(0, len(actions)))])
        world.work()
        w = data.draw(st.sampled_from(sorted(world.workloads.values(), key=lambda w: w.ref.uid)))
        event = data.draw(st.sampled_from(("suspend", "resume", "succeed", "fail", "refuse", "none")))
        if event in ("suspend", "resume") and w.ref.kind is Kind.TRAINING_JOB:
            world.workloads[w.ref.uid] = replace(w, suspend=event == "suspend")
        elif w.attempt and w.attempt.phase is RunPhase.RUNNING and any(p.phase is PodPhase.READY for p in w.pods):
            ready = next(p.index for p in w.pods if p.phase is PodPhase.READY)
            if event == "succeed":
                world.end(w.ref.uid, PodPhase.SUCCEEDED, ready)
            elif event in ("fail", "refuse"):
                world.end(w.ref.uid, PodPhase.FAILED, ready, "OutOfcpu" if event == "refuse" else "")
        world.now += data.draw(st.sampled_from((1.0, 100.0)))
        assert_nothing_is_promised_twice(world)
    world.settle()
    assert_nothing_is_promised_twice(world)
    assert all(not w.suspend or w.attempt is None or w.finished for w in world.workloads.values())


@given(clusters(), many_workloads(), st.data())
def test_no_job_succeeds_by_the_exits_of_members_that_were_evicted(
    nodes: list[Node], work: list[Workload], data: st.DataObject
) -> None:
    world = a_world(nodes, work)
    for _ in range(10):
        actions = world.plan().actions
        world.apply(actions[: data.draw(st.integers(0, len(actions)))], cut=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            world.report()
        running = [
            (w.ref.uid, p.index)
            for w in world.workloads.values()
            if w.attempt and w.attempt.phase is RunPhase.RUNNING
            for p in w.pods
            if p.phase is PodPhase.READY and not p.terminating
        ]
        for uid, index in running:
            event = data.draw(st.sampled_from(("evict", "succeed", "none")))
            if event == "evict":
                world.evict(uid, index)
            elif event == "succeed":
                world.end(uid, PodPhase.SUCCEEDED, index)
        world.work()
        world.now += data.draw(st.sampled_from((1.0, 400.0)))
    for w in world.workloads.values():
        if w.finished == "Succeeded":
            assert not [hit for hit in world.disturbed if hit[:2] == (w.ref.uid, w.attempts_made)]
    for _ in range(3):
        world.settle()
        world.now += 400.0
    assert all(live(w, w.attempt).missing == [] for w in world.workloads.values() if w.attempt and not w.finished)


@given(clusters(), many_workloads(), st.data())
@settings(max_examples=40)  # each lives through many plans
def test_no_pin_waits_for_ever_when_others_take_the_room(
    nodes: list[Node], work: list[Workload], data: st.DataObject
) -> None:
    world = a_world(nodes, work)
    for _ in range(data.draw(st.integers(1, 3))):
        world.apply(world.plan().actions)
        if data.draw(st.booleans()):
            world.work()
    for node in nodes:
        world.foreign[node.name] = {"nvidia.com/gpu": data.draw(st.integers(0, node.allocatable["nvidia.com/gpu"]))}
    for _ in range(40):
        world.apply(world.plan().actions)
        world.work()
        world.now += 61
    pinned = [p for w in world.workloads.values() for p in w.pods if p.phase is PodPhase.PINNED]
    assert all(p.pinned_at > world.now - 200 for p in pinned)
    for w in world.workloads.values():
        if w.ref.kind is Kind.TRAINING_JOB and w.attempt and not w.attempt.stopping:
            assert {p.index for p in w.pods} <= set(range(len(w.attempt.placement.nodes)))


@given(clusters(), workloads("w"))
def test_members_go_where_they_may(nodes: list[Node], w: Workload) -> None:
    request = w.request
    assert request is not None
    by_name = {n.name: n for n in nodes}
    for action in plan(Snapshot(by_name, {}, (w,)), Policy(), NOW).actions:
        if isinstance(action, Admit):
            assert all(why_not(by_name[name], request.shape) == "" for name in action.placement.nodes)
            assert {by_name[n].board.name for n in action.placement.nodes} == {action.placement.device.model}  # type: ignore[union-attr]
            assert len(action.placement.nodes) == request.workers
            assert _obeys_topology(request, action.placement.nodes, action.placement.device.count, by_name)


@given(clusters(most=4), workloads("w"))
def test_a_gang_waits_only_where_no_assignment_at_all_would_do(nodes: list[Node], w: Workload) -> None:
    request = w.request
    assert request is not None
    assume(w.ref.kind is Kind.TRAINING_JOB)
    by_name = {n.name: n for n in nodes}
    made = plan(Snapshot(by_name, {}, (w,)), Policy(), NOW)
    verdict = made.verdicts[w.ref.uid]
    assume(verdict.reason != "Misconfigured")
    cheapest, possible = None, False
    for option in options_for(request.demand, Fleet(by_name, DEFAULT_LEVELS), request.tensor):
        if cheapest is None or option.usd_per_hour <= 2 * cheapest:
            found = _some_assignment(request, option.device, by_name)
            possible = possible or found
            if cheapest is None and _potential(request, option.device, nodes) >= request.workers:
                cheapest = option.usd_per_hour
    assert (verdict.reason == "Placed") is possible


def _potential(request: Request, device: Any, nodes: list[Node]) -> int:
    needs = needs_of(request.shape, device)
    return sum(
        min(n.allocatable.get(r, 0) // need for r, need in needs.items())
        for n in nodes
        if _may_serve(n, request, device)
    )


def _may_serve(node: Node, request: Request, device: Any) -> bool:
    """Whether a node could take members if it were empty; tensor-parallel ones need NVLink, on its boards or beyond."""
    if node.board is None or node.board.name != device.model or why_not(node, request.shape):
        return False
    clique = domains_of(node.labels, DEFAULT_LEVELS)[LEVELS.index("nvlink")]
    return request.tensor == 1 or bool(node.board.nvlink_gb_per_s or clique)


def _some_assignment(request: Request, device: Any, nodes: dict[str, Node]) -> bool:
    """Whether any way to spread the members over nodes obeys room and topology, by trying them all."""
    needs = needs_of(request.shape, device)
    usable = [n for n in nodes.values() if _may_serve(n, request, device)]
    room = {n.name: min(n.allocatable.get(r, 0) // need for r, need in needs.items()) for n in usable}
    for names in combinations_with_replacement(sorted(room), request.workers):
        if all(names.count(n) <= room[n] for n in set(names)):
            by_island = tuple(sorted(names, key=lambda n: (domains_of(nodes[n].labels, DEFAULT_LEVELS), n)))
            if _obeys_topology(request, by_island, device.count, nodes):
                return True
    return False


def _obeys_topology(request: Request, names: tuple[str, ...], count: int, nodes: dict[str, Node]) -> bool:
    paths = [domains_of(nodes[n].labels, DEFAULT_LEVELS) for n in names]
    if request.topology and request.topology.mode == "Required":
        level = LEVELS.index(request.topology.level)
        if len({path[: level + 1] for path in paths}) > 1 or not paths[0][level]:
            return False
    if request.tensor > count:
        size, nvlink = request.tensor // count, LEVELS.index("nvlink")
        islands = [p[: nvlink + 1] if p[nvlink] else n for p, n in zip(paths, names, strict=True)]
        return all(len(set(islands[i : i + size])) == 1 for i in range(0, len(names), size))
    return True


@given(clusters(), many_workloads())
def test_a_service_is_pinned_only_where_its_device_is(nodes: list[Node], work: list[Workload]) -> None:
    world = a_world(nodes, work)
    for _ in range(3):
        actions = world.plan().actions
        for action in actions:
            w = world.workloads[action.ref.uid]
            if isinstance(action, Pin) and w.served_device:
                board = world.nodes[action.node].board
                assert board is not None
                assert board.name == w.served_device.model
        world.apply(actions)
        world.work()
