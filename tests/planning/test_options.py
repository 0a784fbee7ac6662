"""A demand becomes a device: cheapest first, and never one that does not suffice."""

from __future__ import annotations

import pytest

from tests.planning.builders import a_job, a_node, device_of, nodes_of, planned, verdict_of


def test_whole_boards_come_from_the_cheapest_model() -> None:
    nodes = [a_node("h", board="H100-80GB"), a_node("a", board="A30")]
    assert device_of(planned(nodes, a_job(gpus=2))) == "A30 gpu 2"


def test_a_family_name_means_each_of_its_models() -> None:
    nodes = [a_node("h", board="H100-80GB"), a_node("a", board="A100-80GB")]
    assert device_of(planned(nodes, a_job(gpus=2, models=("A100",)))) == "A100-80GB gpu 2"


def test_a_gang_stays_on_one_model() -> None:
    nodes = [a_node("a", board="A100-80GB"), a_node("b", board="H100-80GB")]
    assert nodes_of(planned(nodes, a_job(workers=2, gpus=8, models=("A100", "H100")))) is None


def test_a_full_model_falls_on_to_the_next_that_was_named() -> None:
    nodes = [a_node("a", board="A100-40GB"), a_node("b", board="H100-80GB")]
    used = {"a": {"nvidia.com/gpu": 8}}
    plan = planned(nodes, a_job(gpus=8, models=("A100", "H100")), used=used)
    assert device_of(plan) == "H100-80GB gpu 8"
    assert "after 8 x A100-40GB" in verdict_of(plan).message


def test_an_open_demand_does_not_fall_on_to_boards_of_more_than_twice_the_price() -> None:
    nodes = [a_node("a", board="A100-40GB"), a_node("b", board="H100-80GB")]
    plan = planned(nodes, a_job(gpus=8), used={"a": {"nvidia.com/gpu": 8}})
    assert device_of(plan) is None
    assert "8 x H100-80GB has room" in verdict_of(plan).message


def test_an_open_demand_falls_on_to_dearer_boards_when_no_cheaper_ones_could_ever_hold_it() -> None:
    nodes = [a_node("a", board="A30", gpus=2), a_node("b", board="H100-80GB")]
    assert device_of(planned(nodes, a_job(workers=4, gpus=1))) == "H100-80GB gpu 1"


def test_a_profile_takes_an_existing_instance() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=4, mig={"1g.10gb": 7})]
    assert device_of(planned(nodes, a_job(profile="1g.10gb"))) == "A100-80GB mig-1g.10gb 1"


def test_a_profile_is_asked_for_as_the_node_spells_it() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=0, mig={"7g.79gb": 1})]
    assert device_of(planned(nodes, a_job(profile="7g.80gb"))) == "A100-80GB mig-7g.79gb 1"


def test_a_media_profile_is_another_than_its_plain_sister() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=0, mig={"1g.10gb+me": 1})]
    assert device_of(planned(nodes, a_job(profile="1g.10gb+me"))) == "A100-80GB mig-1g.10gb.me 1"
    assert device_of(planned(nodes, a_job(profile="1g.10gb"))) is None


@pytest.mark.parametrize(
    ("memory_gib", "expected"),
    [
        (9, "A100-80GB mig-1g.10gb 1"),
        (18, "A100-80GB mig-2g.20gb 1"),
        (19.5, "A100-80GB mig-2g.20gb 1"),  # it has 19,968 MiB, which is 19.5 GiB
        (19.4, "A100-80GB mig-2g.20gb 1"),
        (20, "A100-80GB mig-3g.40gb 1"),
        (40, "A100-80GB gpu 1"),
    ],
)
def test_memory_takes_the_smallest_that_suffices(memory_gib: float, expected: str) -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=1, mig={"1g.10gb": 1, "2g.20gb": 1, "3g.40gb": 1})]
    assert device_of(planned(nodes, a_job(memory_gib=memory_gib))) == expected


def test_memory_falls_on_to_the_next_size_when_the_smallest_is_full() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=1, mig={"1g.10gb": 1, "2g.20gb": 1})]
    used = {"a": {"nvidia.com/mig-1g.10gb": 1}}
    assert device_of(planned(nodes, a_job(memory_gib=9), used=used)) == "A100-80GB mig-2g.20gb 1"


def test_memory_waits_rather_than_take_a_whole_board_for_a_slice() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=1, mig={"1g.10gb": 1})]
    used = {"a": {"nvidia.com/mig-1g.10gb": 1}}
    assert device_of(planned(nodes, a_job(memory_gib=9), used=used)) is None


def test_memory_runs_on_another_board_unchanged() -> None:
    assert device_of(planned([a_node("a", board="L40S")], a_job(memory_gib=18))) == "L40S gpu 1"


def test_time_sliced_nodes_serve_no_demand() -> None:
    plan = planned([a_node("a", excluded="GPUs are time-sliced"), a_node("b", gpus=1)], a_job(gpus=1, workers=2))
    assert nodes_of(plan) is None
    assert ("left out (GPUs are time-sliced)", 1) in verdict_of(plan).nodes
