"""What holds for every re-layout that any plan begins, and for a cluster that carries them out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from berth.model.boards import Board, Instance
from berth.model.gpus import WHOLE_BOARD
from berth.model.mig import layouts, legal
from berth.model.nodes import Node, Progress, Trouble, Way
from berth.model.workloads import Workload
from berth.planning.actions import Admit, EndLayout, LayOut, Plan
from berth.planning.ahead import changed_node
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.supply import counts, resources
from tests.planning.boards import holding, used
from tests.planning.builders import NOW, a_job, a_node, model, nodes_of

MODELS = ("A100-80GB", "A30")
POLICY = Policy()


@st.composite
def boards(draw: st.DrawFn, index: int, name: str, of: str) -> Board:
    """A board in any legal state, some of it held."""
    if draw(st.integers(0, 3)) == 3:
        held = draw(st.booleans())
        return Board(index, model(of), draw(st.integers(0, 9)) < 9, holder=f"team/{name}-{index}" if held else "")
    layout = draw(st.sampled_from(layouts(model(of))))
    busy = draw(st.lists(st.booleans(), min_size=len(layout), max_size=len(layout)))
    quiet = draw(st.booleans())
    instances = tuple(
        Instance(i.profile, i.start, f"team/{name}-{index}-{i.start}" if held and not quiet else "")
        for i, held in zip(layout, busy, strict=True)
    )
    return Board(index, model(of), draw(st.integers(0, 9)) < 9, True, instances)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    """A node with boards of one model, and who can lay them out."""
    of = draw(st.sampled_from(MODELS))
    found = tuple(draw(boards(i, name, of)) for i in range(draw(st.integers(1, 3))))
    bare = a_node(name, board=of, gpus=0, cpu=draw(st.sampled_from((64, 2))))
    return replace(
        bare,
        boards=found,
        allocatable=resources(bare.allocatable, model(of), found),
        way=draw(st.sampled_from((Way.MIG_MANAGER, Way.AGENT, None))),
        laid=((0, NOW - draw(st.sampled_from((10.0, 1000.0)))),) if draw(st.integers(0, 4)) == 4 else (),
        trouble=Trouble(1, NOW + draw(st.sampled_from((-1.0, 60.0))), "broken")
        if draw(st.integers(0, 4)) == 4
        else None,
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A few nodes and jobs; of some nodes the report is old, or lacks a pod that is on its way."""
    found = [draw(nodes(f"n{i}")) for i in range(draw(st.integers(1, 4)))]
    held = holding(*found)
    taken = used(*found)
    observed = {n.name: NOW - draw(st.sampled_from((0.0, 0.0, 0.0, 500.0))) for n in found}
    for node in found:
        offered = [
            r for r, n in node.allocatable.items() if r.startswith("nvidia.com/") and n > taken[node.name].get(r, 0)
        ]
        if offered and draw(st.integers(0, 5)) == 5:
            resource = draw(st.sampled_from(offered))
            taken[node.name] = {**taken[node.name], resource: taken[node.name].get(resource, 0) + 1}
            held[node.name]["other/on-its-way"] = NOW - 1000
    jobs = tuple(draw(demands(f"job{i}")) for i in range(draw(st.integers(1, 4))))
    return Snapshot({n.name: n for n in found}, taken, jobs, holding=held, observed=observed)


@st.composite
def demands(draw: st.DrawFn, name: str) -> Workload:
    """A job that asks for boards, a profile or memory."""
    asks = draw(
        st.sampled_from(
            (
                {"gpus": 1},
                {"gpus": 2},
                {"profile": "1g.10gb"},
                {"profile": "2g.20gb"},
                {"profile": "3g.40gb"},
                {"profile": "7g.80gb"},
                {"profile": "1g.6gb"},
                {"profile": "2g.12gb"},
                {"memory_gib": 5},
                {"memory_gib": 18},
                {"memory_gib": 30},
            )
        )
    )
    workers = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    return a_job(name, workers=workers, created=float(draw(st.integers(0, 3))), **asks)  # type: ignore[arg-type]


def begun(made: Plan) -> dict[str, LayOut]:
    """What is begun, by node."""
    return {a.node: a for a in made.layouts if isinstance(a, LayOut)}


def taken_by(snapshot: Snapshot, made: Plan) -> dict[str, dict[str, int]]:
    """What is used of each node once the jobs that the plan admits have their pods there."""
    taken = {name: dict(room) for name, room in snapshot.used.items()}
    for action in made.actions:
        if isinstance(action, Admit):
            device = action.placement.device
            for node in action.placement.nodes:
                for resource, n in ((device.resource, device.count), ("pods", 1)):
                    taken[node][resource] = taken[node].get(resource, 0) + n
    return taken


def after(snapshot: Snapshot, made: Plan) -> Snapshot:
    """The cluster once all that is begun has ended well, and nothing else has happened."""
    changed = {name: changed_node(snapshot.nodes[name], a.relayout.boards) for name, a in begun(made).items()}
    return replace(snapshot, nodes={**snapshot.nodes, **changed})


@given(snapshots())
def test_only_free_boards_of_known_nodes_are_laid_out_and_legally(snapshot: Snapshot) -> None:
    made = plan(snapshot, POLICY, NOW)
    assert not made.faults
    admitted = {node for a in made.actions if isinstance(a, Admit) for node in a.placement.nodes}
    assert len(made.layouts) == len(begun(made))
    for name, action in begun(made).items():
        node = snapshot.nodes[name]
        assert node.way is action.relayout.way
        assert name not in admitted
        assert snapshot.observed[name] == NOW
        assert "other/on-its-way" not in snapshot.holding[name]
        assert node.trouble is None or node.trouble.until <= NOW
        for layout in action.relayout.boards:
            board = node.boards[layout.index]
            assert not board.holder
            assert board.healthy
            assert all(at + 600 <= NOW for index, at in node.laid if index == layout.index)
            assert legal(board.model, layout.instances)
            assert layout.mig_enabled or not layout.instances
            held = {(i.profile, i.start) for i in board.instances if i.holder}
            assert not held or node.way is Way.AGENT
            assert held <= {(i.profile, i.start) for i in layout.instances}


@given(snapshots())
def test_who_waits_for_boards_gets_them_once_they_are_there(snapshot: Snapshot) -> None:
    made = plan(snapshot, POLICY, NOW)
    waits = {uid for uid, verdict in made.verdicts.items() if verdict.reason == "WaitingForRepartition"}
    assert bool(waits) == bool(made.layouts)
    left = tuple(w for w in snapshot.workloads if w.ref.uid in waits)
    then = plan(replace(after(snapshot, made), used=taken_by(snapshot, made), workloads=left), POLICY, NOW)
    assert all(nodes_of(then, w.ref.name) is not None for w in left)


@given(snapshots(), st.data())
def test_while_boards_are_laid_out_nothing_more_is_begun_for_who_waits(snapshot: Snapshot, data: st.DataObject) -> None:
    made = plan(snapshot, POLICY, NOW)
    progress = data.draw(st.sampled_from((Progress.WORKING, Progress.DONE)))
    flying = {
        name: replace(node, relayout=replace(action.relayout, progress=progress))
        for name, action in begun(made).items()
        for node in [snapshot.nodes[name]]
    }
    coming = {name: changed_node(snapshot.nodes[name], flying[name].relayout.boards) for name in flying}  # type: ignore[union-attr]
    flying = {name: replace(node, allocatable=coming[name].allocatable) for name, node in flying.items()}
    waits = tuple(w for w in snapshot.workloads if made.verdicts[w.ref.uid].reason == "WaitingForRepartition")
    sent = {node for a in made.actions if isinstance(a, Admit) for node in a.placement.nodes}
    on_their_way = {
        node: {**held, **({"team/new": NOW} if node in sent else {})} for node, held in snapshot.holding.items()
    }
    facts = {"used": taken_by(snapshot, made), "holding": on_their_way, "workloads": waits}
    later = plan(replace(snapshot, nodes={**snapshot.nodes, **flying}, **facts), POLICY, NOW + 1)
    assert begun(later) == {}
    assert not {node for a in later.actions if isinstance(a, Admit) for node in a.placement.nodes} & flying.keys()
    ended = {a.node for a in later.layouts if isinstance(a, EndLayout)}
    assert ended == (set(flying) if progress is Progress.DONE else set())


@given(snapshots())
def test_the_order_of_what_is_observed_does_not_matter(snapshot: Snapshot) -> None:
    shuffled = replace(
        snapshot, nodes=dict(reversed(snapshot.nodes.items())), workloads=tuple(reversed(snapshot.workloads))
    )
    assert plan(shuffled, POLICY, NOW) == plan(snapshot, POLICY, NOW)


@given(nodes("n"), st.data())
def test_a_laid_out_node_offers_what_its_boards_have(node: Node, data: st.DataObject) -> None:
    snapshot = Snapshot(
        {"n": node}, used(node), (data.draw(demands("job")),), holding=holding(node), observed={"n": NOW}
    )
    for action in begun(plan(snapshot, POLICY, NOW)).values():
        landed = changed_node(node, action.relayout.boards)
        found = counts(landed.boards)
        assert landed.allocatable[WHOLE_BOARD] == found[WHOLE_BOARD]
        assert sum(found.values()) == sum(n for r, n in landed.allocatable.items() if r.startswith("nvidia.com/"))
