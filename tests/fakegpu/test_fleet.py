"""The fleet file: what it refuses, and the nodes that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.fakegpu.fleet import Fleet, FleetError, load_fleet, preset_names
from e2e.fakegpu.labels import node_labels
from e2e.fakegpu.node import Node
from tests.fakegpu.machines import a_fleet

POOL: dict[str, Any] = {"name": "n", "count": 1, "board": "H100-80GB", "boardsPerNode": 2}


def labels_of(fleet: Fleet, ordinal: int = 0) -> dict[str, str]:
    return node_labels(Node.of(fleet, list(fleet.fake_nodes())[ordinal]), {})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"board": "H100"}, "pools.0.board: .*unknown board 'H100'"),
        ({"count": -1}, "pools.0.count"),
        ({"boardsPerNode": 0}, "pools.0.boardsPerNode"),
        ({"color": "blue"}, "pools.0.color"),
        ({"name": "Upper"}, "pools.0.name"),
        ({"cpu": "many"}, "pools.0.cpu: .*not a quantity"),
        ({"nvlink": "yes"}, "pools.0.nvlink"),
        ({"racks": {"nodesPerRack": 0}}, "pools.0.racks.nodesPerRack"),
        ({"nodes": ["a"]}, "either count"),
        ({"clique": "rack"}, "clique: rack needs racks"),
        ({"mig": [{"layout": "all-1g.5gb"}]}, r"pools.n.mig.0.layout: .*all-<profile of H100-80GB>"),
        ({"mig": [{"layout": [{"profile": "9g.90gb"}]}]}, "has no profile '9g.90gb'"),
        ({"mig": [{"layout": [{"profile": "3g.40gb", "start": 2}]}]}, r"can't start at 2 \(legal: 0, 4\)"),
        ({"mig": [{"layout": [{"profile": "4g.40gb"}] * 2}]}, "2 x 4g.40gb"),
        ({"mig": [{"boards": [2], "layout": []}]}, "names board 2, but a node has 2"),
        ({"mig": [{"layout": []}, {"boards": [0], "layout": []}]}, "board 0 two layouts"),
        ({"mig": [{"layout": []}], "migStrategy": "none"}, "migStrategy"),
        ({"mig": [{"layout": []}], "sharing": {"strategy": "mps", "replicas": 2}}, "excludes mig"),
        ({"board": "L40S", "mig": [{"layout": []}]}, "L40S has no MIG"),
    ],
)
def test_names_the_field_that_is_wrong(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump({"pools": [POOL | wrong]}))
    with pytest.raises(FleetError, match=told):
        load_fleet(str(path))


@pytest.mark.parametrize("text", ["", "pools: []", "pools: [", "42"])
def test_refuses_a_file_without_pools(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(FleetError, match=str(path)):
        load_fleet(str(path))


def test_lists_the_presets_when_a_name_is_unknown() -> None:
    with pytest.raises(FleetError, match="dgx-a100, dgx-h100"):
        load_fleet("dgx-h1000")


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "kind"])
def test_every_preset_describes_nodes_with_gpus(name: str) -> None:
    fleet = load_fleet(name)
    for member in fleet.fake_nodes():
        node = Node.of(fleet, member)
        assert sum(node.allocatable().values()) > 0
        assert all(len(value) <= 63 for value in node_labels(node, {}).values())


def test_the_kind_preset_gives_both_workers_whole_boards_and_instances() -> None:
    fleet = load_fleet("kind")
    for name in ("berth-worker", "berth-worker2"):
        allocatable = Node.of(fleet, fleet.real_node(name)).allocatable()
        assert {"nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb"} <= allocatable.keys()


def test_a_real_node_that_no_pool_names_is_an_error() -> None:
    with pytest.raises(FleetError, match="control-plane"):
        load_fleet("kind").real_node("berth-control-plane")


def test_ids_stay_the_same_when_the_fleet_starts_again() -> None:
    mig = [{"boards": [0], "layout": "all-1g.10gb"}]
    first, second = (Node.of(a_fleet(count=1, mig=mig), next(a_fleet(count=1).fake_nodes())) for _ in range(2))
    assert first.boards == second.boards


def test_nodes_fill_racks_leaves_and_blocks_from_the_left() -> None:
    racks = {"nodesPerRack": 2, "racksPerLeaf": 2, "leavesPerBlock": 1}
    fleet = a_fleet(count=5, racks=racks)
    levels = ("berth.dev/rack", "network.topology.nvidia.com/leaf", "network.topology.nvidia.com/spine")
    domains = [tuple(labels_of(fleet, i)[level].rpartition("-")[2] for level in levels) for i in range(5)]
    assert domains == [("0", "0", "0"), ("0", "0", "0"), ("1", "0", "0"), ("1", "0", "0"), ("2", "1", "1")]


def test_racks_that_share_an_nvlink_domain_carry_its_clique() -> None:
    fleet = load_fleet("gb200-nvl72")
    cliques = [labels_of(fleet, i)["nvidia.com/gpu.clique"] for i in (0, 17, 18)]
    assert cliques[0] == cliques[1] != cliques[2]
    assert "nvidia.com/gpu.clique" not in labels_of(load_fleet("dgx-h100"))


def test_mixed_labels_count_physical_boards_and_each_profile() -> None:
    mig = [{"layout": [{"profile": "3g.40gb"}, {"profile": "2g.20gb"}, {"profile": "1g.10gb"}]}]
    labels = labels_of(a_fleet(count=1, boardsPerNode=8, mig=mig))
    assert labels["nvidia.com/mig.strategy"] == "mixed"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert labels["nvidia.com/gpu.count"] == "8"
    assert labels["nvidia.com/gpu.replicas"] == "0"
    assert labels["nvidia.com/mig-3g.40gb.count"] == "8"
    assert labels["nvidia.com/mig-3g.40gb.memory"] == "40448"
    assert labels["nvidia.com/mig-3g.40gb.product"] == "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"


def test_single_labels_describe_the_instances() -> None:
    labels = labels_of(a_fleet(count=1, mig=[{"layout": "all-1g.10gb"}], migStrategy="single"))
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"
    assert labels["nvidia.com/gpu.count"] == "14"
    assert labels["nvidia.com/gpu.memory"] == "9984"


def test_single_labels_of_unlike_boards_are_invalid() -> None:
    fleet = a_fleet(count=1, mig=[{"boards": [0], "layout": "all-1g.10gb"}], migStrategy="single")
    assert labels_of(fleet)["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3-MIG-INVALID"
    assert labels_of(fleet)["nvidia.com/gpu.count"] == "0"
    assert Node.of(fleet, next(fleet.fake_nodes())).allocatable() == {}


@pytest.mark.parametrize("strategy", ["time-slicing", "mps"])
def test_shared_boards_say_so(strategy: str) -> None:
    labels = labels_of(a_fleet(count=1, sharing={"strategy": strategy, "replicas": 4}))
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3-SHARED"
    assert labels["nvidia.com/gpu.replicas"] == "4"
    assert labels["nvidia.com/gpu.sharing-strategy"] == strategy
    assert labels["nvidia.com/mps.capable"] == str(strategy == "mps").lower()


def test_spot_nodes_say_so() -> None:
    assert labels_of(a_fleet(count=1, capacityType="spot"))["karpenter.sh/capacity-type"] == "spot"


def test_nodes_with_a_dra_driver_say_so() -> None:
    assert labels_of(a_fleet(count=1, dra=True))["nvidia.com/dra-kubelet-plugin"] == "true"
    assert "nvidia.com/dra-kubelet-plugin" not in labels_of(a_fleet(count=1))
