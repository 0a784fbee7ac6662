"""What the cluster has, in boards."""

from __future__ import annotations

from typing import Any

import pytest

from berth.model.nodes import Interruption, Node
from berth.planning.snapshot import Snapshot
from berth.planning.stock import Stock, stock_of
from tests.planning.builders import a_node

BOARD = "nvidia.com/gpu"


def counted(*nodes: Node, **used: dict[str, int]) -> Stock:
    """The stock of these nodes, of which pods take so much."""
    return stock_of(Snapshot({node.name: node for node in nodes}, used, ()))


def test_boards_are_used_by_whoevers_pods_take_them() -> None:
    found = counted(a_node("n1"), a_node("n2"), a_node("cpu", board=None), n1={BOARD: 3, "cpu": 4000})
    assert found.boards == {
        ("H100-80GB", "used"): 3,
        ("H100-80GB", "free"): 13,
        ("H100-80GB", "unavailable"): 0,
    }


@pytest.mark.parametrize(
    "why",
    [
        {"ready": False},
        {"unschedulable": True},
        {"excluded": "GPUs are time-sliced"},
        {"lost_since": 1.0},
        {"interruption": Interruption("Drain", "berth drain")},
    ],
    ids=lambda why: next(iter(why)),
)
def test_what_is_free_on_a_node_that_takes_no_work_is_unavailable(why: dict[str, Any]) -> None:
    found = counted(a_node("n1", **why), n1={BOARD: 3})
    assert found.boards["H100-80GB", "unavailable"] == 5
    assert found.boards["H100-80GB", "used"] == 3
    assert found.fragmentation == {}


def test_an_instance_is_its_share_of_a_board() -> None:
    found = counted(a_node("n1", board="A100-80GB", gpus=0, mig={"3g.40gb": 2}), n1={"nvidia.com/mig-3g.40gb": 1})
    assert found.instances == {("3g.40gb", "used"): 1, ("3g.40gb", "free"): 1}
    assert found.boards["A100-80GB", "used"] == 0.5
    assert found.boards["A100-80GB", "free"] == 0.5


def test_free_boards_beside_busy_ones_are_fragments() -> None:
    found = counted(a_node("n1"), a_node("n2"), n1={BOARD: 4})
    assert found.fragmentation == {"H100-80GB": pytest.approx(4 / 12)}
    assert counted(a_node("n1"), n1={BOARD: 8}).fragmentation == {}
    assert counted(a_node("n1")).fragmentation == {"H100-80GB": 0}
