"""What an agent writes, and what it does to the boards."""

from __future__ import annotations

from itertools import pairwise

import pytest

from berth.agent.agent import HEARTBEAT_SECONDS, JITTER, RETRY_SECONDS
from berth.control.gpus import GpuError, GpuInUse
from berth.control.ports import GPU_NODES, NODES, Unavailable
from tests.agent.nodes import NAME, World, a_node, mig, wanted

EIGHT = [f"1g.10gb@{start}" for start in range(7)]


async def test_makes_the_gpunode_and_has_it_go_with_its_node() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    world.hold("llm-0", at=0)
    await world.look()
    made = world.api.find(GPU_NODES, NAME)
    node = world.api.find(NODES, NAME)
    assert made is not None
    assert node is not None
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": NAME, "uid": node["metadata"]["uid"]}
    ]
    assert world.status["layouts"] == "Agent"
    assert world.status["counts"] == {"boards": 2, "instances": 1, "held": 1}
    (instance,) = world.status["boards"][0]["instances"]
    assert (instance["profile"], instance["start"], instance["size"], instance["pod"]) == (
        "1g.10gb",
        0,
        1,
        {"namespace": "team", "name": "llm-0"},
    )


async def test_writes_nothing_while_nothing_changes() -> None:
    world = World(a_node())
    await world.look()
    before = world.writes()
    for _ in range(10):
        await world.later(3)
    assert world.writes() == before


async def test_shows_now_and_then_that_it_still_looks() -> None:
    world = World(a_node())
    await world.look()
    before, seen = world.writes(), world.status["observedTime"]
    await world.later(HEARTBEAT_SECONDS * (1 + JITTER))
    assert world.writes() == before + 1
    assert world.status["observedTime"] > seen
    assert set(world.api.calls[-1].body["status"]) == {"observedTime"}


async def test_writes_at_once_when_a_pod_comes_or_a_board_breaks() -> None:
    world = World(a_node())
    await world.look()
    world.hold("llm-0", board=1)
    await world.later(3)
    assert world.status["boards"][1]["pod"]["name"] == "llm-0"
    world.node.set_unhealthy([0])
    await world.later(3)
    assert [board["healthy"] for board in world.status["boards"]] == [False, True]


async def test_restores_what_someone_else_wrote_into_its_status() -> None:
    world = World(a_node())
    await world.look()
    world.api.edit(GPU_NODES, "", NAME, status={"boards": [], "links": [[0]]})
    await world.look()
    assert len(world.status["boards"]) == 2
    assert "links" not in world.status


async def test_makes_a_gpunode_that_someone_deleted_anew() -> None:
    world = World(a_node())
    await world.look()
    world.api.remove(GPU_NODES, "", NAME)
    await world.look()
    assert len(world.status["boards"]) == 2


async def test_lays_a_board_out_anew_and_tells_the_device_plugin_once() -> None:
    world = World(a_node(mig=mig(*EIGHT)))
    await world.want(wanted("3g.40gb@0", "3g.40gb@4"))
    assert world.layout() == ["3g.40gb@0", "3g.40gb@4"]
    assert world.laid_out == ("True", "AsWanted", "every board is as spec.boards wants it")
    assert world.status["observedGeneration"] == 2
    assert world.relisted == 1
    assert world.node.allocatable()["nvidia.com/mig-3g.40gb"] == 2
    await world.later(3)
    assert world.relisted == 1


async def test_switches_a_board_into_mig_mode_and_back() -> None:
    world = World(a_node())
    await world.want(wanted("7g.80gb@0"))
    assert world.layout() == ["7g.80gb@0"]
    await world.want(wanted(migEnabled=False))
    assert world.layout() == []
    assert not world.node.boards[0].mig_enabled
    assert world.node.allocatable()["nvidia.com/gpu"] == 2


async def test_says_that_it_begins_before_it_touches_anything() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.look()
    world.api.fail(f"merge gpunodes/status {NAME}", Unavailable("no answer"))
    await world.want(wanted("3g.40gb@0"))
    assert world.layout() == ["1g.10gb@0"]
    await world.later(3)
    assert world.layout() == ["3g.40gb@0"]


async def test_waits_for_a_pod_then_goes_on_by_itself() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    world.hold("llm-0", at=0)
    await world.want(wanted("3g.40gb@0"))
    assert world.laid_out[:2] == ("False", "BoardBusy")
    assert "team/llm-0" in world.laid_out[2]
    world.node.holders.clear()
    await world.later(3)
    assert world.layout() == ["3g.40gb@0"]
    assert world.driver.wrongs == []


async def test_asks_again_before_every_removal_who_holds_what() -> None:
    world = World(a_node(mig=mig("1g.10gb@0", "1g.10gb@1")))
    world.gpus.after = lambda change: world.hold("late", at=1)
    await world.want(wanted("3g.40gb@4"))
    assert world.layout() == ["1g.10gb@1", "3g.40gb@4"]
    assert world.laid_out[1] == "BoardBusy"
    assert world.driver.wrongs == []
    assert world.relisted == 1


async def test_touches_nothing_while_the_kubelet_does_not_say_who_holds_what() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.look()
    seen, world.no_kubelet = world.status["observedTime"], "no answer"
    await world.want(wanted("3g.40gb@0"))
    await world.later(600)
    assert world.layout() == ["1g.10gb@0"]
    assert world.status["observedTime"] == seen
    world.no_kubelet = ""
    await world.later(3)
    assert world.layout() == ["3g.40gb@0"]


async def test_a_pod_that_got_a_device_just_before_it_went_stops_further_removals() -> None:
    world = World(a_node(mig=mig("1g.10gb@0") + mig("1g.10gb@0", board=1)))
    await world.want(wanted("2g.20gb@0"))
    world.hold("unlucky", at=-1)
    await world.want(wanted("2g.20gb@0"), wanted(board=1))
    assert world.layout(1) == ["1g.10gb@0"]
    assert world.laid_out[1] == "BoardBusy"
    assert "team/unlucky" in world.laid_out[2]


async def test_names_what_is_wrong_with_a_wish_and_touches_nothing() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.want(wanted(), wanted("3g.40gb@1", board=1))
    assert world.layout() == ["1g.10gb@0"]
    assert world.laid_out == (
        "False",
        "Invalid",
        "spec.boards[1].instances[0].start: 3g.40gb on H100-80GB can't begin at 1: choose from 0, 4",
    )


async def test_a_field_of_a_later_version_is_named_not_guessed() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.want({**wanted(), "power": "low"})
    assert world.laid_out[1:] == ("Invalid", "spec.boards[0].power: unknown field: check its spelling and place")
    assert world.layout() == ["1g.10gb@0"]


async def test_tries_again_later_each_time_when_the_driver_refuses() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    refusals: list[float] = []

    def refused(change: str) -> None:
        refusals.append(world.api.clock())
        raise GpuError("a board fell off the bus: reboot the node")

    world.gpus.before = refused
    await world.want(wanted())
    assert world.laid_out[:2] == ("False", "Failed")
    assert world.laid_out[2] == "board 0: destroy 1g.10gb at 0: a board fell off the bus: reboot the node"
    for _ in range(120):
        await world.later(1)
    gaps = [after - before for before, after in pairwise(refusals)]
    assert len(gaps) == 4
    assert gaps == sorted(gaps)
    assert gaps[0] >= RETRY_SECONDS[0] * (1 - JITTER)


async def test_a_new_wish_is_tried_at_once_whatever_failed_before() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    world.no_plugin = "it is down"
    await world.want(wanted("1g.10gb@0", "1g.10gb@1"))
    assert world.laid_out[1] == "Failed"
    world.no_plugin = ""
    await world.want(wanted("1g.10gb@0", "1g.10gb@1", "1g.10gb@2"))
    assert world.laid_out[0] == "True"
    assert len(world.layout()) == 3


async def test_a_process_that_still_uses_an_instance_makes_the_board_busy() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))

    def used(change: str) -> None:
        raise GpuInUse("a process has it open")

    world.gpus.before = used
    await world.want(wanted())
    assert world.laid_out[1:] == ("BoardBusy", "board 0: destroy 1g.10gb at 0: a process has it open")


async def test_a_driver_that_says_yes_and_does_nothing_is_not_asked_for_ever() -> None:
    world = World(a_node())
    world.gpus.idle = True
    await world.want(wanted("1g.10gb@0"))
    message = "board 0: enable MIG: the driver said yes, but the board did not change"
    assert world.laid_out == ("False", "Failed", message)


async def test_is_not_done_before_the_device_plugin_knows() -> None:
    world = World(a_node(mig=mig()))
    world.no_plugin = "it is down"
    await world.want(wanted("3g.40gb@0"))
    assert world.layout() == ["3g.40gb@0"]
    assert world.laid_out == (
        "False",
        "Failed",
        "the boards changed, but the device plugin does not know: it is down",
    )
    world.no_plugin = ""
    await world.later(10)
    assert world.laid_out[0] == "True"
    assert world.relisted == 1


async def test_an_agent_that_only_reports_says_so_and_leaves_the_boards() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    world.agent = world.new_agent(may_lay_out=False)
    await world.want(wanted())
    assert world.status["layouts"] == "None"
    assert world.laid_out[1:] == ("Invalid", "this agent only reports (layouts is None): leave spec.boards empty")
    assert world.layout() == ["1g.10gb@0"]


async def test_does_not_call_a_wish_done_that_came_while_it_worked_on_another() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.look()

    def changes_its_mind(change: str) -> None:
        world.api.edit(GPU_NODES, "", NAME, spec={"boards": [wanted("2g.20gb@0")]})

    world.gpus.after = changes_its_mind
    await world.want(wanted())
    assert world.status["observedGeneration"] == 2
    await world.look()
    assert world.layout() == ["2g.20gb@0"]
    assert (world.status["observedGeneration"], world.laid_out[0]) == (3, "True")


async def test_keeps_the_time_of_the_last_change_of_the_condition() -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    world.hold("llm-0", at=0)
    await world.want(wanted())
    since = world.status["conditions"][0]["lastTransitionTime"]
    world.hold("llm-1", at=0)
    await world.later(100)
    assert "llm-1" in world.laid_out[2]
    assert world.status["conditions"][0]["lastTransitionTime"] == since


@pytest.mark.parametrize("boards", [[], [wanted("1g.10gb@0")]])
async def test_forgets_the_condition_when_nothing_is_wanted_any_more(boards: list[object]) -> None:
    world = World(a_node(mig=mig("1g.10gb@0")))
    await world.want(*boards)  # type: ignore[arg-type]
    await world.want()
    assert world.status["conditions"] == []
