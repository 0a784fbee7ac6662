"""Gangs: all or none, as few nodes as fit, the smallest domain, whole boards and nodes kept free."""

from __future__ import annotations

from collections import Counter

from berth.model.nodes import Taint
from tests.planning.builders import a_job, a_node, nodes_of, planned, racks, running, shape, verdict_of


def used_boards(**boards: int) -> dict[str, dict[str, int]]:
    return {name: {"nvidia.com/gpu": n, "pods": 1} for name, n in boards.items()}


def test_a_gang_that_fits_only_in_part_gets_nothing() -> None:
    plan = planned([a_node("n1"), a_node("n2")], a_job(workers=3, gpus=8))
    assert plan.actions == ()
    assert (verdict_of(plan).fits, verdict_of(plan).wanted) == (2, 3)


def test_members_share_one_node_when_it_holds_them_all() -> None:
    assert nodes_of(planned([a_node("n1"), a_node("n2")], a_job(workers=4, gpus=2))) == ("n1",) * 4


def test_a_member_never_spans_nodes() -> None:
    assert nodes_of(planned([a_node("n1", gpus=4), a_node("n2", gpus=4)], a_job(gpus=8))) is None


def test_small_work_goes_to_the_node_with_the_least_room_that_suffices() -> None:
    nodes = [a_node("n1"), a_node("n2"), a_node("n3")]
    assert nodes_of(planned(nodes, a_job(gpus=2), used=used_boards(n2=4, n3=6))) == ("n3",)


def test_a_gang_takes_the_fewest_nodes() -> None:
    nodes = [a_node("n1"), a_node("n2"), a_node("n3"), a_node("n4")]
    placed = nodes_of(planned(nodes, a_job(workers=10, gpus=1), used=used_boards(n1=6, n2=6)))
    assert placed is not None
    assert Counter(placed) == {"n3": 8, "n1": 2}


def test_the_smallest_domain_that_holds_the_gang_wins() -> None:
    placed = nodes_of(planned(racks(count=3, nodes=2), a_job(workers=2, gpus=8), used=used_boards(r1n1=1, r2n2=8)))
    assert placed == ("r3n1", "r3n2")


def test_of_equal_domains_the_tightest_is_taken() -> None:
    placed = nodes_of(planned(racks(count=2, nodes=4), a_job(workers=2, gpus=8), used=used_boards(r2n1=8, r2n2=8)))
    assert placed == ("r2n3", "r2n4")


def test_ranks_follow_the_topology() -> None:
    placed = nodes_of(planned(racks(count=2, nodes=2), a_job(workers=8, gpus=4)))
    assert placed == ("r1n1", "r1n1", "r1n2", "r1n2", "r2n1", "r2n1", "r2n2", "r2n2")


def test_a_gang_wider_than_a_rack_fills_few_racks() -> None:
    placed = nodes_of(
        planned(racks(count=4, nodes=4), a_job(workers=6, gpus=8), used=used_boards(r1n1=8, r2n1=8, r2n2=8))
    )
    assert placed is not None
    assert Counter(name[:2] for name in placed) == {"r3": 4, "r2": 2}


def test_nodes_in_no_known_rack_are_not_taken_for_neighbours() -> None:
    nodes = [*racks(count=2, nodes=3), a_node("x", labels={"zone": "z1"}), a_node("y", labels={"zone": "z1"})]
    placed = nodes_of(planned(nodes, a_job(workers=5, gpus=8)))
    assert placed == ("r1n1", "r1n2", "r1n3", "r2n1", "r2n2")


def test_a_required_level_is_not_exceeded() -> None:
    plan = planned(racks(count=4, nodes=2), a_job(workers=3, gpus=8, required="rack"))
    assert nodes_of(plan) is None
    assert verdict_of(plan).reason == "TopologyPlacementFailed"
    assert verdict_of(plan).fits == 2
    assert "level zone would hold it" in verdict_of(plan).message


def test_a_preferred_level_may_be_exceeded() -> None:
    assert nodes_of(planned(racks(count=4, nodes=2), a_job(workers=3, gpus=8, preferred="rack"))) is not None


def test_nodes_without_the_required_label_are_left_out() -> None:
    plan = planned([a_node("n1"), a_node("n2")], a_job(required="rack"))
    assert nodes_of(plan) is None
    assert verdict_of(plan).nodes == (("without a rack label", 2),)


def test_a_closer_label_is_no_substitute_for_the_required_one() -> None:
    nodes = [a_node(n, gpus=4, board="GB200", labels={"nvlink": "c1"}) for n in ("n1", "n2")]
    assert nodes_of(planned(nodes, a_job(workers=2, gpus=4))) == ("n1", "n2")
    assert nodes_of(planned(nodes, a_job(workers=2, gpus=4, required="rack"))) is None


def test_a_required_node_holds_the_whole_gang() -> None:
    assert nodes_of(planned([a_node("n1", gpus=4), a_node("n2")], a_job(workers=8, required="node"))) == ("n2",) * 8
    assert nodes_of(planned([a_node("n1"), a_node("n2")], a_job(workers=9, required="node"))) is None


def test_racks_of_one_name_in_two_zones_are_two() -> None:
    nodes = [
        a_node("a", labels={"zone": "z1", "rack": "r1"}),
        a_node("b", labels={"zone": "z2", "rack": "r1"}),
    ]
    assert nodes_of(planned(nodes, a_job(workers=2, gpus=8, required="rack"))) is None


def test_a_tensor_group_of_several_nodes_shares_a_clique() -> None:
    nodes = [a_node(f"n{i}", gpus=4, board="GB200", labels={"nvlink": f"c{i % 2}"}) for i in range(4)]
    assert nodes_of(planned(nodes, a_job(workers=4, gpus=4, tensor=8))) == ("n0", "n2", "n1", "n3")


def test_a_tensor_group_does_not_leave_its_node_without_a_clique() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    plan = planned(nodes, a_job(workers=2, gpus=8, tensor=16))
    assert nodes_of(plan) is None
    assert verdict_of(plan).reason == "TopologyPlacementFailed"
    assert "groups of 2 that share NVLink" in verdict_of(plan).message


def test_tensor_groups_stay_whole_on_each_node() -> None:
    nodes = [a_node("n1", gpus=6), a_node("n2", gpus=6)]
    assert nodes_of(planned(nodes, a_job(workers=8, gpus=1, tensor=4))) == ("n1",) * 4 + ("n2",) * 4
    assert nodes_of(planned(nodes, a_job(workers=12, gpus=1, tensor=4))) is None


def test_tensor_parallelism_needs_nvlink() -> None:
    nodes = [a_node("n1", board="L40S"), a_node("n2", board="A100-40GB")]
    assert nodes_of(planned(nodes, a_job(gpus=8, tensor=8))) == ("n2",)
    plan = planned(nodes[:1], a_job(gpus=8, tensor=8))
    assert verdict_of(plan).reason == "NoMatchingGPU"
    assert "NVLink" in verdict_of(plan).message


def test_the_rack_that_is_broken_already_takes_the_next_whole_node() -> None:
    nodes = racks(count=3, nodes=2)
    assert nodes_of(planned(nodes, a_job(gpus=8), used=used_boards(r2n1=1))) == ("r2n2",)


def test_room_is_kept_for_the_gangs_that_wait_or_run() -> None:
    nodes = [*racks(count=1, nodes=3), *(n for n in racks(count=2, nodes=2) if n.name[:2] == "r2")]
    assert nodes_of(planned(nodes, a_job(gpus=8))) == ("r2n1",)
    pair = a_job("pair", workers=2, gpus=8, required="rack", created=1.0, not_before=2e9)
    assert nodes_of(planned(nodes, a_job(gpus=8), pair)) == ("r1n1",)
    assert nodes_of(planned(nodes, a_job(gpus=8), running(pair, "r1n1", "r1n2"))) == ("r1n3",)


def test_whole_nvlink_domains_are_kept_for_gangs_too() -> None:
    nodes = [
        a_node(f"c{c}n{n}", gpus=4, board="GB200", labels={"nvlink": f"c{c}"})
        for c, size in ((1, 3), (2, 2))
        for n in range(size)
    ]
    pair = a_job("pair", workers=2, gpus=4, required="nvlink", created=1.0)
    plan = planned(nodes, a_job(gpus=4), pair)
    assert nodes_of(plan) == ("c1n0",)
    assert nodes_of(plan, "pair") is not None


def test_cpu_memory_and_pod_places_count_too() -> None:
    roomy = a_node("z")
    assert nodes_of(planned([a_node("a", cpu=4), roomy], a_job(pod=shape(cpu=8)))) == ("z",)
    assert nodes_of(planned([a_node("a", memory_gib=4), roomy], a_job(pod=shape(memory_gib=8)))) == ("z",)
    assert nodes_of(planned([a_node("a", pods=0), roomy], a_job())) == ("z",)


def test_a_mig_instance_is_taken_from_the_node_whose_instances_are_most_used() -> None:
    nodes = [a_node(n, gpus=4, board="A100-80GB", mig={"1g.10gb": 14}) for n in ("n1", "n2")]
    used = {"n2": {"nvidia.com/mig-1g.10gb": 5}}
    assert nodes_of(planned(nodes, a_job(profile="1g.10gb"), used=used)) == ("n2",)


def test_an_unwelcoming_node_loses_a_tie() -> None:
    nodes = [a_node("n1", taints=(Taint("maintenance", "soon", "PreferNoSchedule"),)), a_node("n2")]
    assert nodes_of(planned(nodes, a_job())) == ("n2",)
