"""What holds at every event of every scenario."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.mig import legal
from berth.model.workloads import PodPhase
from berth.planning.lifecycle import ON_NODES
from berth.simulation.cluster import Cluster
from berth.simulation.machines import Machine
from berth.simulation.run import simulate
from tests.simulation.builders import HOUR, a_case, a_pool

LAYOUTS = [{"1g.10gb": 7}, {"3g.40gb": 2}, {"2g.20gb": 2, "1g.10gb": 3}, {}]
Piece = tuple[str, int, str, int]
PROFILES = ["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"]


def pools() -> st.SearchStrategy[dict[str, Any]]:
    layouts = st.lists(st.sampled_from(LAYOUTS), max_size=2)
    return st.builds(
        lambda nodes, boards, ways, cut: a_pool(
            "mig",
            model="A100-80GB",
            nodes=nodes,
            boards=boards,
            mig=[{"boards": [i], "layout": layout} for i, layout in enumerate(cut[:boards])],
            **({"layoutsBy": ways} if ways else {}),
        ),
        st.integers(1, 3),
        st.integers(1, 4),
        st.sampled_from([None, "agent", "mig-manager"]),
        layouts,
    )


def shapes() -> st.SearchStrategy[dict[str, Any]]:
    gpus = st.one_of(
        st.builds(lambda n: {"count": n}, st.integers(1, 4)),
        st.builds(lambda p: {"profile": p}, st.sampled_from(PROFILES)),
        st.builds(lambda gib: {"memory": f"{gib}Gi"}, st.integers(1, 70)),
    )
    kinds = st.one_of(
        st.builds(lambda n: {"workers": n}, st.integers(1, 5)),
        st.builds(lambda n: {"kind": "InferenceService", "replicas": n}, st.integers(1, 3)),
    )
    return st.builds(lambda g, k, cpu: {"gpus": g, "requests": {"cpu": cpu}, **k}, gpus, kinds, st.integers(0, 40))


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    pool = draw(pools())
    work = [
        draw(shapes()) | {"name": f"w{i}", "at": draw(st.integers(0, 4000)), "duration": draw(st.integers(0, 3000))}
        for i in range(draw(st.integers(1, 8)))
    ]
    down = st.builds(
        lambda node, at, lasting: {"node": f"mig-{node}", "at": at, "for": lasting},
        st.integers(0, pool["nodes"] - 1),
        st.integers(0, 5000),
        st.integers(1, 2000),
    )
    failures = {failure["node"]: failure for failure in draw(st.lists(down, max_size=2))}
    return {"work": work, "pools": (pool,), "failures": list(failures.values())}


def check(cluster: Cluster) -> None:
    """What can be said of a cluster at any moment."""
    for name, used in cluster.snapshot().used.items():
        for resource, n in used.items():
            assert 0 <= n <= cluster.machines[name].node.allocatable.get(resource, 0), (name, resource)
    holders: Counter[str] = Counter()
    for machine in cluster.machines.values():
        assert all(legal(board.model, board.instances) for board in machine.boards)
        assert all(not board.instances or not board.holder for board in machine.boards)
        held = held_by(machine)
        assert set(held) == set(machine.pods)
        holders += held
    for life in cluster.lives.values():
        placed = [p for p in life.workload.pods if p.phase in ON_NODES]
        bound = [p for p in placed if p.phase is not PodPhase.PINNED]
        if life.is_job:
            assert len(placed) in (0, life.arrival.request.workers)
        device = life.device
        assert all(device and holders[f"simulated/{p.name}"] == device.count for p in bound)


def held_by(machine: Machine) -> Counter[str]:
    """How many boards and instances each pod holds."""
    holders = [board.holder for board in machine.boards]
    holders += [instance.holder for board in machine.boards for instance in board.instances]
    return Counter(holder for holder in holders if holder)


def held_pieces(cluster: Cluster) -> dict[str, set[Piece]]:
    """Where the boards and instances are that each pod holds."""
    found: dict[str, set[Piece]] = {}
    for name, machine in cluster.machines.items():
        for board in machine.boards:
            found.setdefault(board.holder, set()).add((name, board.index, "", 0))
            for i in board.instances:
                found.setdefault(i.holder, set()).add((name, board.index, i.profile.name, i.start))
    found.pop("", None)
    return found


@settings(max_examples=40)
@given(scenarios())
def test_no_board_is_held_twice_no_gang_is_split_and_nobody_is_lost(drawn: dict[str, Any]) -> None:
    work = drawn.pop("work")
    before: dict[str, set[Piece]] = {}

    def watch(cluster: Cluster) -> None:
        check(cluster)
        pieces = held_pieces(cluster)
        for pod in before.keys() & pieces.keys():
            assert before[pod] == pieces[pod]  # what a pod holds is never taken, changed or moved
        before.clear()
        before.update(pieces)

    result = simulate(a_case(*work, horizon=3 * HOUR, **drawn), watch)
    assert {told["name"] for told in result.workloads} == {w["name"] for w in work}
    for told in result.workloads:
        if told["outcome"] == "Succeeded" and not told["evictions"]:
            (duration,) = (w["duration"] for w in work if w["name"] == told["name"])
            assert abs(told["endedAt"] - told["startedAt"] - duration) < 1e-5
    share = result.summary["utilisation"]["all"]
    assert share is not None
    assert 0 <= share <= 1
