"""What the next step of a layout is, and what is wrong with a wish."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.agent.report import wanted_layouts
from berth.control.gpus import GpuInstance, Inventory, Pod
from berth.control.laying import AS_WANTED, BUSY, FAILED, INVALID, Destroy, outlook
from berth.control.ports import Json
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.node import Node
from tests.agent.nodes import a_node, mig, wanted


async def inventory(node: Node) -> Inventory:
    return await Driver(node).read()


async def next_of(node: Node, *boards: Json, held: dict[str, str] | None = None) -> str:
    """The next step, or the reason why there is none."""
    holders = {device: Pod("team", pod) for device, pod in (held or {}).items()}
    found = outlook(await inventory(node), holders, wanted_layouts({"boards": list(boards)}))
    return str(found.step or found.reason)


async def problem(node: Node, *boards: Json) -> str:
    """What is wrong with the wish."""
    found = outlook(await inventory(node), {}, wanted_layouts({"boards": list(boards)}))
    assert found.step is None
    assert found.reason == INVALID
    return found.message


async def test_nothing_is_to_be_done_where_every_board_is_as_wanted() -> None:
    assert await next_of(a_node(mig=mig("3g.40gb@4")), wanted("3g.40gb@4")) == AS_WANTED


async def test_boards_that_are_not_named_stay_as_they_are() -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    assert await next_of(node, wanted("7g.80gb@0", board=1)) == "board 1: enable MIG"
    assert await next_of(node) == AS_WANTED


async def test_removes_before_it_creates() -> None:
    node = a_node(mig=mig("1g.10gb@0", "1g.10gb@1"))
    assert await next_of(node, wanted("3g.40gb@0", "1g.10gb@4")) == "board 0: destroy 1g.10gb at 0"


async def test_creates_one_instance_beside_a_busy_one() -> None:
    node = a_node(mig=mig("3g.40gb@0"))
    held = {node.boards[0].instances[0].uuid: "busy"}
    assert await next_of(node, wanted("3g.40gb@0", "3g.40gb@4"), held=held) == "board 0: create 3g.40gb at 4"


async def test_creates_what_fits_though_something_else_must_wait_for_a_pod() -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    held = {node.boards[0].instances[0].uuid: "busy"}
    assert await next_of(node, wanted("3g.40gb@0", "3g.40gb@4"), held=held) == "board 0: create 3g.40gb at 4"


async def test_removes_nothing_of_a_board_while_a_pod_holds_any_of_what_should_go() -> None:
    node = a_node(mig=mig("1g.10gb@0", "1g.10gb@1"))
    held = {node.boards[0].instances[1].uuid: "busy"}
    assert await next_of(node, wanted("3g.40gb@0"), held=held) == BUSY


async def test_the_same_profile_at_another_start_is_another_instance() -> None:
    assert await next_of(a_node(mig=mig("2g.20gb@0")), wanted("2g.20gb@2")) == "board 0: destroy 2g.20gb at 0"


async def test_a_name_of_another_driver_means_the_same_profile() -> None:
    assert await next_of(a_node(mig=mig("7g.80gb@0")), wanted("7g.79gb@0")) == AS_WANTED


async def test_wanting_instances_wants_mig_mode_and_wanting_none_leaves_it() -> None:
    assert await next_of(a_node(), wanted("1g.10gb@0")) == "board 0: enable MIG"
    assert await next_of(a_node(mig=mig("1g.10gb@0")), wanted()) == "board 0: destroy 1g.10gb at 0"
    assert await next_of(a_node(mig=mig()), wanted()) == AS_WANTED


async def test_leaves_mig_mode_once_the_instances_are_gone() -> None:
    whole = wanted(migEnabled=False)
    assert await next_of(a_node(mig=mig("1g.10gb@0")), whole) == "board 0: destroy 1g.10gb at 0"
    assert await next_of(a_node(mig=mig()), whole) == "board 0: disable MIG"
    assert await next_of(a_node(), whole) == AS_WANTED


async def test_does_not_switch_a_board_that_a_pod_holds() -> None:
    node = a_node()
    assert await next_of(node, wanted("1g.10gb@0"), held={node.boards[0].uuid: "busy"}) == BUSY
    assert await next_of(node, wanted("1g.10gb@0"), held={f"{node.boards[0].uuid}::3": "shares"}) == BUSY


async def test_a_busy_board_does_not_keep_another_waiting() -> None:
    node = a_node()
    boards = (wanted("1g.10gb@0"), wanted("1g.10gb@0", board=1))
    assert await next_of(node, *boards, held={node.boards[0].uuid: "busy"}) == "board 1: enable MIG"


@pytest.mark.parametrize("stranger", ["MIG-gone", "gpu.nvidia.com/gpu-0", "nvidia0/gi1"])
async def test_removes_nothing_while_a_pod_holds_a_device_that_no_board_has(stranger: str) -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    assert await next_of(node, wanted("3g.40gb@0"), held={stranger: "who"}) == BUSY
    assert await next_of(node, wanted("1g.10gb@0", "3g.40gb@4"), held={stranger: "who"}) == (
        "board 0: create 3g.40gb at 4"
    )


async def test_what_an_earlier_agent_left_half_made_is_made_anew() -> None:
    found = await inventory(a_node(mig=mig("3g.40gb@0")))
    bare = replace(found.gpus[0], instances=(replace(found.gpus[0].instances[0], devices=()),))
    layouts = wanted_layouts({"boards": [wanted("3g.40gb@0")]})
    step = outlook(replace(found, gpus=(bare, found.gpus[1])), {}, layouts).step
    assert step == Destroy(bare, bare.instances[0])


async def test_an_instance_that_someone_cut_up_goes_only_when_no_part_of_it_is_held() -> None:
    found = await inventory(a_node(mig=mig("3g.40gb@0")))
    cut = GpuInstance(1, 9, "3g.40gb", 0, 4, ("MIG-a", "MIG-b"), whole=False)
    gpus = (replace(found.gpus[0], instances=(cut,)), found.gpus[1])
    layouts = wanted_layouts({"boards": [wanted("3g.40gb@0")]})
    assert outlook(Inventory(gpus), {"MIG-b": Pod("team", "busy")}, layouts).reason == BUSY
    assert outlook(Inventory(gpus), {}, layouts).step == Destroy(gpus[0], cut)


async def test_a_board_whose_mode_changes_at_its_next_reset_says_so() -> None:
    found = await inventory(a_node())
    pending = replace(found, gpus=(replace(found.gpus[0], mig_pending=True), found.gpus[1]))
    told = outlook(pending, {}, wanted_layouts({"boards": [wanted("1g.10gb@0")]}))
    assert told.reason == FAILED
    assert "board 0 enters MIG mode at its next reset: drain the node" in told.message


async def test_says_which_pod_a_board_waits_for() -> None:
    node = a_node(mig=mig("1g.10gb@2"))
    held = {node.boards[0].instances[0].uuid: Pod("team", "llm-0")}
    told = outlook(await inventory(node), held, wanted_layouts({"boards": [wanted("3g.40gb@0")]}))
    assert told.message == (
        "board 0 waits: pod team/llm-0 holds the 1g.10gb at 2; wait for its end, stop it, or want that instance too"
    )


@pytest.mark.parametrize(
    ("board", "message"),
    [
        (wanted(board=7), "spec.boards[0].index: the node has no board 7: it has boards 0 to 1"),
        (wanted("3g.40gb@2"), "instances[0].start: 3g.40gb on H100-80GB can't begin at 2: choose from 0, 4"),
        (wanted("1g.5gb@0"), "instances[0].profile: H100-80GB has no 1g.5gb: choose from 1g.10gb, 1g.10gb+me"),
        (wanted("3g.40gb@0", "2g.20gb@2"), "instances[1].start: it overlaps instances[0]"),
        (wanted("1g.10gb+me@0", "1g.10gb+me@1"), "instances[1].profile: a board has one +me instance"),
        (wanted("1g.10gb@0", migEnabled=False), "spec.boards[0].migEnabled: instances exist in MIG mode only"),
    ],
)
async def test_a_wish_that_the_board_can_not_have_is_named_with_a_remedy(board: Json, message: str) -> None:
    assert message in await problem(a_node(), board)


async def test_a_board_without_mig_is_left_out() -> None:
    message = await problem(a_node(board="L40S"), wanted("1g.10gb@0"))
    assert message == "spec.boards[0]: board 0, a L40S, has no MIG: leave it out"


async def test_one_mistake_keeps_every_board_as_it_is() -> None:
    node = a_node(mig=mig("1g.10gb@0"))
    assert await next_of(node, wanted(), wanted("3g.40gb@1", board=1)) == INVALID
