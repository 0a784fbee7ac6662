"""NVLink islands within a node: boards linked in pairs, where a tensor-parallel group fits only inside one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from berth.model.boards import Board
from berth.model.nodes import Node
from tests.planning.builders import a_job, a_node, model, nodes_of, planned, verdict_of

PAIRS = tuple(tuple(4 if a // 2 == b // 2 and a != b else 0 for b in range(4)) for a in range(4))


def bridged(name: str, *holders: str, **more: Any) -> Node:
    """A node of four boards in two bridged pairs, and who holds each board."""
    pcie = model("A100-PCIE-40GB")
    boards = tuple(Board(i, pcie, holder=holder) for i, holder in enumerate(holders or ("",) * 4))
    return replace(a_node(name, gpus=4, board=pcie.name, **more), boards=boards, links=PAIRS)


def test_a_tensor_group_fits_inside_a_bridged_pair() -> None:
    assert nodes_of(planned([bridged("n1")], a_job(workers=2, gpus=2, tensor=2))) == ("n1", "n1")
    assert nodes_of(planned([bridged("n1")], a_job(gpus=4, tensor=2))) == ("n1",)


def test_a_tensor_group_never_spans_two_islands_of_a_node() -> None:
    plan = planned([bridged("n1")], a_job(gpus=4, tensor=4))
    assert nodes_of(plan) is None
    assert ("lack free GPUs that share NVLink", 1) in verdict_of(plan).nodes


def test_free_boards_of_two_islands_make_no_pair() -> None:
    held = {"n1": {"nvidia.com/gpu": 2}}
    job = a_job(gpus=2, tensor=2)
    assert nodes_of(planned([bridged("n1", "a/x", "", "a/y", "")], job, used=held)) is None
    assert nodes_of(planned([bridged("n1", "a/x", "a/y", "", "")], job, used=held)) == ("n1",)


def test_of_boards_taken_since_the_report_the_worst_is_assumed() -> None:
    job = a_job(gpus=2, tensor=2)
    assert nodes_of(planned([bridged("n1")], job, used={"n1": {"nvidia.com/gpu": 1}})) == ("n1",)
    assert nodes_of(planned([bridged("n1")], job, used={"n1": {"nvidia.com/gpu": 2}})) is None


def test_boards_without_any_link_take_no_tensor_group() -> None:
    plain = a_node("n1", gpus=4, board="A100-PCIE-40GB")
    job = a_job(gpus=2, tensor=2)
    assert nodes_of(planned([plain, bridged("n2")], job)) == ("n2",)
    assert verdict_of(planned([plain], job)).reason == "NoMatchingGPU"
