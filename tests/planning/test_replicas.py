"""Replicas of a service: a floor on demand, the others on cheap capacity, spread over the pools that may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model.nodes import Interruption, Node
from berth.model.workloads import Availability, CarbonTerms, Device, Pod, PodPhase, Spot, Workload
from berth.planning.actions import LetGo, Pin, Plan, Replace, Serve, Stop
from berth.planning.carbon import Origin, Outlook
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, only, planned, running, shape, verdict_of

H100 = Device("H100-80GB", "nvidia.com/gpu", 1)
HALF = Availability(on_demand=2, per_spot_pool=1)


def steady(name: str, gpus: int = 8, **labels: str) -> Node:
    return a_node(name, gpus=gpus, labels=labels)


def spot(name: str, zone: str = "z1", gpus: int = 8, **labels: str) -> Node:
    return a_node(name, gpus=gpus, labels={"karpenter.sh/capacity-type": "spot", "zone": zone, **labels})


def replica(name: str, node: str = "", **more: Any) -> Pod:
    phase = PodPhase.READY if node else PodPhase.GATED
    return a_pod(phase, name=name, node=node, attempt=0, **{"created": float(name[1:]), **more})


def served(*pods: Pod, replicas: int | None = None, **more: Any) -> Workload:
    """A service whose replicas are these pods; of four, two on demand and one at most in each zone of spot nodes."""
    service = a_service(replicas=len(pods) if replicas is None else replicas, pod=more.pop("pod", None))
    made = {"pods": pods, "served_device": H100, "served_generation": 1, "availability": HALF}
    return replace(service, **{**made, **more})


def gated(count: int) -> list[Pod]:
    return [replica(f"p{i}") for i in range(count)]


def held(*nodes: str, **more: Any) -> list[Pod]:
    return [replica(f"p{i}", node, **more) for i, node in enumerate(nodes)]


def taken(*nodes: str) -> dict[str, dict[str, int]]:
    return {node: {"nvidia.com/gpu": count} for node, count in Counter(nodes).items()}


def placed(plan: Plan) -> list[str]:
    return [pin.node for pin in only(plan, Pin)]


THREE = [steady("d1"), spot("s1", "z1"), spot("s2", "z2")]


def test_the_floor_goes_on_demand_and_the_others_to_one_spot_pool_each() -> None:
    plan = planned(THREE, served(*gated(4)))
    assert sorted(placed(plan)) == ["d1", "d1", "s1", "s2"]
    assert "(2 on demand, 2 on spot capacity)" in verdict_of(plan, "service").message


def test_what_no_pool_may_hold_goes_on_demand() -> None:
    assert sorted(placed(planned(THREE[:2], served(*gated(4))))) == ["d1", "d1", "d1", "s1"]


def test_a_pool_takes_more_rather_than_that_a_replica_waits() -> None:
    nodes = [steady("d1", gpus=2), spot("s1")]
    assert sorted(placed(planned(nodes, served(*gated(4))))) == ["d1", "d1", "s1", "s1"]


def test_the_floor_waits_for_room_on_demand_and_the_others_do_not() -> None:
    plan = planned(THREE, served(*gated(4)), used=taken(*["d1"] * 7))
    assert sorted(placed(plan)) == ["d1", "s1", "s2"]
    verdict = verdict_of(plan, "service")
    assert (verdict.reason, verdict.fits, verdict.wanted) == ("WaitingForCapacity", 3, 4)
    assert "; 1 more are to run on demand (spec.availability.onDemandMinimum); 0 of 1 replicas fit" in verdict.message


def test_where_nothing_is_on_demand_nobody_waits_for_it() -> None:
    assert sorted(placed(planned(THREE[1:], served(*gated(2))))) == ["s1", "s2"]


@pytest.mark.parametrize(("asked", "nodes"), [(Spot.NEVER, ["d1", "d1"]), (Spot.ONLY, ["s1", "s2"])])
def test_what_is_forbidden_is_not_used(asked: Spot, nodes: list[str]) -> None:
    service = served(*gated(2), pod=shape(spot=asked), availability=Availability(per_spot_pool=1))
    assert sorted(placed(planned(THREE, service))) == nodes


def test_carbon_decides_between_regions() -> None:
    regions = {"topology.kubernetes.io/region": "clean"}, {"topology.kubernetes.io/region": "dirty"}
    hours = {
        name: Outlook(NOW, (grams,) * 48, (Origin.FORECAST,) * 48)
        for name, grams in (("clean", 50.0), ("dirty", 600.0))
    }
    nodes = [steady("a", **regions[1]), steady("b", **regions[0])]
    service = served(*gated(1), carbon=CarbonTerms(usd_per_tonne=100.0), availability=Availability())
    assert placed(planned(nodes, service, outlooks=hours)) == ["b"]


def test_growing_keeps_the_floor() -> None:
    pods = [*held("d1", "s1"), replica("p2"), replica("p3")]
    assert sorted(placed(planned(THREE, served(*pods), used=taken("d1", "s1")))) == ["d1", "s2"]


def test_replicas_of_an_older_template_hold_no_place_among_the_new_ones() -> None:
    old = held("d1", "d1", "s1", "s2", revision="old")
    pods = [*old, *(replica(f"p{i}", revision="new") for i in range(4, 8))]
    plan = planned(THREE, served(*pods, replicas=4), used=taken("d1", "d1", "s1", "s2"))
    assert sorted(placed(plan)) == ["d1", "d1", "s1", "s2"]


def goes(plan: Plan) -> list[str]:
    assert isinstance(plan.actions[-1], Serve)
    return [action.pod for action in only(plan, LetGo) if action.first]


def test_a_service_that_gets_smaller_loses_the_dearest_above_the_floor_first() -> None:
    where = ("d1", "d1", "d1", "s1", "s2")
    service = served(*held(*where), replicas=4, generation=2)
    assert goes(planned(THREE, service, used=taken(*where))) == ["p2"]


def test_and_then_those_on_spot_capacity() -> None:
    where = ("d1", "d1", "s1", "s2")
    service = served(*held(*where), replicas=2, generation=2)
    assert sorted(goes(planned(THREE, service, used=taken(*where)))) == ["p2", "p3"]


def test_a_crowded_pool_loses_one_first() -> None:
    where = ("d1", "d1", "s1", "s1", "s2")
    service = served(*held(*where), replicas=4, generation=2)
    assert goes(planned(THREE, service, used=taken(*where))) == ["p3"]


def test_a_replica_whose_node_goes_away_goes_before_all() -> None:
    nodes = [*THREE[:2], replace(THREE[2], interruption=Interruption("SpotInterruption", "a test"))]
    where = ("d1", "d1", "s1", "s2")
    service = served(*held(*where), replicas=3, generation=2)
    assert goes(planned(nodes, service, used=taken(*where))) == ["p3"]


def test_one_that_was_to_go_first_is_no_longer_once_another_is() -> None:
    where = ("d1", "d1", "s1", "s2")
    pods = held(*where)
    pods[0] = replace(pods[0], goes_first=True)
    plan = planned(THREE, served(*pods, replicas=3, generation=2), used=taken(*where))
    assert [(a.pod, a.first) for a in only(plan, LetGo)] == [("p0", False), ("p3", True)]


def test_where_too_few_are_on_demand_one_leaves_spot_capacity_once_there_is_room() -> None:
    where = ("d1", "s1", "s1", "s2")
    plan = planned(THREE, served(*held(*where)), used=taken(*where))
    assert [(a.pod, a.why) for a in only(plan, Replace)] == [
        ("p2", "1 of at least 2 replicas are on demand (spec.availability.onDemandMinimum)")
    ]


@pytest.mark.parametrize("changes", [{"least_replicas": 4}, {"availability": Availability(1, 1)}])
def test_none_does_where_none_can_be_spared_or_enough_are(changes: Mapping[str, Any]) -> None:
    where = ("d1", "s1", "s1", "s2")
    assert not only(planned(THREE, served(*held(*where), **changes), used=taken(*where)), Replace)


@pytest.mark.parametrize(("node", "stopped"), [("d1", ["low"]), ("s1", [])])
def test_others_give_way_to_the_floor_on_demand_alone(node: str, stopped: list[str]) -> None:
    low = running(a_job("low", priority=-1), node, pods=PodPhase.READY, started_at=NOW - 1e4, admitted_at=NOW - 1e4)
    pods = [*held("d1", "s1", "s2"), replica("p3")]
    full = {name: {"nvidia.com/gpu": 8} for name in ("d1", "s1", "s2")}
    plan = planned(THREE, served(*pods, created=NOW - 100), low, used=full)
    assert [action.ref.name for action in only(plan, Stop)] == stopped


FLEETS = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@given(fleet=FLEETS, replicas=st.integers(1, 8), floor=st.integers(0, 8), most=st.integers(1, 8))
def test_law_floor_held_spread_held_where_feasible_cheapest_otherwise(
    fleet: tuple[int, int, int, int], replicas: int, floor: int, most: int
) -> None:
    boards = dict(zip(("d1", "s1", "s2", "s3"), fleet, strict=True))
    nodes = [steady("d1", boards["d1"]), *(spot(f"s{i}", f"z{i}", boards[f"s{i}"]) for i in (1, 2, 3))]
    service = served(*gated(replicas), availability=Availability(floor, most))
    plan = planned(nodes, service)
    assert plan == planned(nodes, service)
    got = Counter(placed(plan))
    on_spot = sum(got[name] for name in ("s1", "s2", "s3"))
    least = min(floor, replicas, boards["d1"])
    full = {name for name, count in boards.items() if got[name] == count}
    assert all(got[name] <= boards[name] for name in boards)
    assert on_spot <= replicas - least, "the floor is held"
    assert got["d1"] >= least, "and has its room first"
    over = {name for name in ("s1", "s2", "s3") if got[name] > most}
    if over:
        assert all(name in full or got[name] >= most for name in boards), "none is over while others have room"
        assert "d1" in full
    if got["d1"] > least:
        assert all(name in full or got[name] >= most for name in ("s1", "s2", "s3")), "cheaper pools come first"
    assert got.total() == min(replicas, sum(boards.values()))
