"""What holds for elastic gangs, whatever comes and goes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.workloads import Queue, Workload
from berth.planning.actions import Stop
from berth.planning.snapshot import Growing, Policy, Preempting
from tests.planning.builders import a_job, a_node
from tests.planning.test_properties import assert_gangs_are_whole, assert_nothing_is_promised_twice
from tests.planning.world import World

GROWING = Growing(min_runtime_seconds=600.0, restart_seconds=60.0)
POLICY = Policy(growing=GROWING, preemption=Preempting(min_runtime_seconds=60.0))
TREE = (
    Queue("root", {}),
    Queue("own", {"H100": 8}, parent="root"),
    Queue("lent", {"H100": 2}, {"H100": 9}, parent="root"),
)


@st.composite
def jobs(draw: st.DrawFn, name: str) -> Workload:
    """A gang of some size, elastic or not, in one of two queues."""
    step, boards = draw(st.sampled_from((1, 1, 2))), draw(st.sampled_from((1, 2)))
    least, more, most = (step * draw(st.integers(low, 3)) for low in (1, 0, 0))
    rigid = draw(st.integers(0, 2)) == 2
    return a_job(
        name,
        workers=least + more,
        elastic=() if rigid else (least, least + more + most, step),
        gpus=boards,
        priority=draw(st.integers(0, 1)),
        queue=draw(st.sampled_from(("own", "lent"))),
        estimated_seconds=draw(st.sampled_from((None, 600.0, 86400.0))),
    )


def assert_sizes_are_allowed(world: World) -> None:
    for w in world.workloads.values():
        assert w.attempt is None or (w.request and len(w.attempt.placement.nodes) in w.request.sizes), w


def assert_no_quota_is_exceeded(world: World) -> None:
    used = dict.fromkeys(("own", "lent"), 0)
    for w in world.workloads.values():
        if w.attempt and w.request:
            used[w.queue] += len(w.attempt.placement.nodes) * (w.request.demand.count or 0)
    assert used["lent"] <= 2 + 9
    assert sum(used.values()) <= 10


@given(st.data())
@settings(max_examples=40, deadline=None)  # each lives through many plans
def test_elastic_gangs_stay_within_their_bounds_and_their_quota_and_do_not_thrash(data: st.DataObject) -> None:
    nodes = {f"n{i}": a_node(f"n{i}", gpus=n) for i, n in enumerate((4, 8))}
    world = World(nodes, {}, queues={q.name: q for q in TREE}, policy=POLICY)
    grown: dict[str, float] = {}  # when each was last stopped to grow
    for step in range(8):
        if data.draw(st.booleans()) or not world.workloads:
            job = replace(data.draw(jobs(f"j{step}")), created=world.now)
            world.workloads[job.ref.uid] = job
        else:
            del world.workloads[data.draw(st.sampled_from(sorted(world.workloads)))]
        for _ in range(data.draw(st.integers(1, 8))):
            made = world.plan()
            assert made == world.plan()
            assert made.faults == {}
            resized = [a for a in made.actions if isinstance(a, Stop) and a.reason == "Resized" and a.resize]
            assert sum(stop.resize.after > stop.resize.before for stop in resized if stop.resize) <= 1
            for stop in resized:
                assert world.now - grown.get(stop.ref.uid, 0.0) >= GROWING.min_runtime_seconds
                grown[stop.ref.uid] = world.now
            world.report()
            world.apply(made.actions, cut=data.draw(st.booleans()))
            world.work()
            world.now += data.draw(st.sampled_from((1.0, 30.0, 700.0)))
            assert_nothing_is_promised_twice(world)
            assert_sizes_are_allowed(world)
            assert_no_quota_is_exceeded(world)
    world.settle()
    assert_gangs_are_whole(world)
    assert_sizes_are_allowed(world)
