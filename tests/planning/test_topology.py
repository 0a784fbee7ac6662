"""Groups within a gang, the order of its ranks, and the fast packer beside the obvious one."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.resources import add
from berth.model.topology import DEFAULT_LEVELS
from berth.model.workloads import Device, PodShape
from berth.planning.field import Tier, Tiers
from berth.planning.ledger import needs_of
from berth.planning.packing import Gang, most_that_fit, pack
from berth.planning.scratch import Scratch
from berth.planning.snapshot import Policy, Snapshot
from tests.planning.builders import NOW, a_job, a_node, nodes_of, planned, racks, shape, verdict_of
from tests.planning.reference import Reference, spots_of
from tests.planning.strategies import clusters

H100 = "H100-80GB"
DEVICES = (
    Device(H100, "nvidia.com/gpu", 1),
    Device(H100, "nvidia.com/gpu", 2),
    Device(H100, "nvidia.com/mig-1g.10gb", 1),
)
TOP = len(DEFAULT_LEVELS)


def all_tiers() -> st.SearchStrategy[Tiers]:
    """Groups within groups of 2, 4 and 8, on levels that get closer."""
    levels = st.lists(st.integers(0, TOP), max_size=2).map(sorted)
    return st.tuples(levels, st.sampled_from(((4, 2), (2, 2), (8, 2), (6, 3)))).map(
        lambda drawn: tuple(Tier(size, level) for size, level in zip(drawn[1], drawn[0], strict=False))
    )


@st.composite
def gangs(draw: st.DrawFn) -> Gang:
    """A gang of whole groups; wishes add to what must be."""
    tiers = draw(all_tiers())
    unit = tiers[0].size if tiers else 1
    members = unit * draw(st.integers(1, 16 // unit))
    within = draw(st.sampled_from((None, None, 1, 4, 5, 6)))
    wishes = draw(st.lists(all_tiers(), max_size=2)) if not tiers else []
    return Gang(members, tiers, within, tuple(w for w in wishes if w and members % w[0].size == 0))


def cliques(*sizes: int, gpus: int = 4, board: str = "GB200") -> list[Node]:
    """Cliques "c1", "c2"... of so many nodes "c1n1"...; two cliques to a block."""
    return [
        a_node(f"c{c}n{n}", gpus=gpus, board=board, labels={"block": f"b{(c + 1) // 2}", "nvlink": f"c{c}"})
        for c, size in enumerate(sizes, start=1)
        for n in range(1, size + 1)
    ]


def test_every_two_workers_share_an_nvlink_domain_and_all_a_block() -> None:
    nodes = cliques(3, 3, 3)
    job = a_job(workers=4, gpus=4, required="block", groups={2: "nvlink"})
    assert nodes_of(planned(nodes, job)) == ("c1n1", "c1n2", "c2n1", "c2n2")


def test_groups_of_three_leave_what_a_clique_has_beyond_them() -> None:
    job = a_job(workers=6, gpus=4, groups={3: "nvlink"})
    assert nodes_of(planned(cliques(5, 4), job)) == ("c1n1", "c1n2", "c1n3", "c2n1", "c2n2", "c2n3")
    assert nodes_of(planned(cliques(5, 2), job)) is None


def test_a_clique_that_is_full_in_part_takes_whole_groups_only() -> None:
    job = a_job(workers=4, gpus=4, groups={2: "nvlink"})
    used = {"c1n1": {"nvidia.com/gpu": 4}}
    assert nodes_of(planned(cliques(4, 2), job, used=used)) == ("c1n2", "c1n3", "c2n1", "c2n2")


def test_a_verdict_names_the_groups_that_hinder_and_what_would_help() -> None:
    verdict = verdict_of(planned(cliques(3, 3), a_job(workers=6, gpus=4, required="block", groups={2: "nvlink"})))
    assert verdict.reason == "TopologyPlacementFailed"
    assert verdict.message.startswith("4 of 6 workers fit in one block and groups of 2 that share NVLink: 6 nodes")
    assert verdict.message.endswith(": mode Preferred in spec.topology.groups would place it")


def test_groups_lie_in_groups() -> None:
    nodes = [
        a_node(f"r{r}c{c}n{n}", gpus=4, board="GB200", labels={"zone": "z", "rack": f"r{r}", "nvlink": f"r{r}c{c}"})
        for r in (1, 2, 3)
        for c in (1, 2)
        for n in ((1, 2, 3) if r == 1 else (1, 2))
    ]
    job = a_job(workers=8, gpus=4, groups={4: "rack", 2: "nvlink"})
    assert nodes_of(planned(nodes, job)) == tuple(f"r{r}c{c}n{n}" for r in (2, 3) for c in (1, 2) for n in (1, 2))


def test_preferred_groups_are_kept_where_all_can_be() -> None:
    job = a_job(workers=4, gpus=4, groups={2: "nvlink?"})
    assert nodes_of(planned(cliques(3, 3), job)) == ("c1n1", "c1n2", "c2n1", "c2n2")
    assert nodes_of(planned(cliques(3, 1), job)) == ("c1n1", "c1n2", "c1n3", "c2n1")


def test_preferred_groups_do_not_put_the_gang_further_apart() -> None:
    job = a_job(workers=4, gpus=4, groups={4: "nvlink?"})
    assert nodes_of(planned(cliques(3, 1, 2, 2), job)) == ("c1n1", "c1n2", "c1n3", "c2n1")


def test_among_domains_of_one_level_the_one_that_keeps_the_groups_wins() -> None:
    job = a_job(workers=4, gpus=4, groups={2: "nvlink?"})
    assert nodes_of(planned(cliques(3, 1, 2, 3), job)) == ("c3n1", "c3n2", "c4n1", "c4n2")


def test_a_worker_with_an_nvlink_node_of_its_own_is_a_domain_by_itself() -> None:
    job = a_job(workers=4, gpus=4, groups={2: "nvlink"})
    assert nodes_of(planned([a_node("n1"), a_node("n2")], job)) == ("n1", "n1", "n2", "n2")


def test_a_rack_s_label_tells_that_its_nodes_share_a_block() -> None:
    job = a_job(workers=4, gpus=8, groups={2: "block"})
    assert nodes_of(planned(racks(count=2, nodes=2), job)) == ("r1n1", "r1n2", "r2n1", "r2n2")
    assert nodes_of(planned([a_node(f"n{i}") for i in range(4)], job)) is None


def test_tensor_groups_and_groups_of_the_topology_hold_together() -> None:
    nodes = cliques(3, 3, 2)
    job = a_job(workers=4, gpus=4, tensor=8, groups={4: "block"})
    assert nodes_of(planned(nodes, job)) == ("c1n1", "c1n2", "c2n1", "c2n2")


def test_stages_of_a_pipeline_stay_together_and_beside_each_other() -> None:
    nodes = racks(count=3, nodes=3)
    assert nodes_of(planned(nodes, a_job(workers=4, gpus=8))) == ("r1n1", "r1n2", "r1n3", "r2n1")
    staged = a_job(workers=4, gpus=8, pipeline=2)
    assert nodes_of(planned(nodes, staged)) == ("r1n1", "r1n2", "r2n1", "r2n2")


def test_stages_are_split_where_no_room_keeps_them_whole() -> None:
    nodes = racks(count=2, nodes=3)
    assert nodes_of(planned(nodes, a_job(workers=6, gpus=8, pipeline=3))) is not None


@settings(max_examples=300)
@given(clusters(most=12), st.sampled_from(DEVICES), st.lists(gangs(), min_size=1, max_size=4), st.data())
def test_the_fast_packer_answers_as_the_obvious_one_does_while_room_is_taken(
    nodes: list[Node], device: Device, wanted: list[Gang], data: st.DataObject
) -> None:
    used = {n.name: {"nvidia.com/gpu": data.draw(st.integers(0, 9)), "pods": 1} for n in nodes[::2]}
    pod = shape(cpu=data.draw(st.sampled_from((0, 1, 3))))
    s = Scratch(Snapshot({n.name: n for n in nodes}, used, ()), Policy(), NOW)
    large = data.draw(st.lists(st.tuples(st.integers(2, 4), st.integers(1, 3)), max_size=2))
    for room in s.ledger.rooms.values():
        room.gangs = tuple(large)
    for gang in wanted:
        field = s.field(pod, device)
        spots = spots_of(nodes, used, DEFAULT_LEVELS, pod, device)
        if field is None:
            assert spots == ()
            return
        assert field.capacity.tolist() == [spot.capacity for spot in spots]
        placed = pack(field, gang)
        assert placed == Reference(spots, device, large).pack(gang)
        assert (placed is None) == (most_that_fit(field, gang) < gang.members)
        for name in placed or ():
            s.ledger.take(name, field.needs)
            used[name] = add(used.get(name, {}), needs_of(pod, device))


@given(clusters(most=8), gangs(), st.sampled_from(DEVICES))
def test_every_group_lies_in_one_domain_and_ranks_follow_the_topology(
    nodes: list[Node], gang: Gang, device: Device
) -> None:
    s = Scratch(Snapshot({n.name: n for n in nodes}, {}, ()), Policy(), NOW)
    field = s.field(PodShape(), device)
    placed = pack(field, gang) if field else None
    if field is None or placed is None:
        return
    indices = [field.pool.index[name] for name in placed]
    assert indices == sorted(indices)
    assert len(placed) == gang.members
    assert all(count <= field.capacity[field.pool.index[name]] for name, count in Counter(placed).items())
    for tier in gang.tiers:
        numbers = field.pool.bonds(tier.level).numbers
        for first in range(0, gang.members, tier.size):
            assert len({int(numbers[i]) for i in indices[first : first + tier.size]}) == 1
    if gang.within is not None:
        paths = {field.pool.paths[i][: gang.within + 1] for i in indices}
        assert len(paths) == 1
        assert all(path[gang.within] for path in paths)
