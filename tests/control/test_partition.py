"""Boards are laid out anew for a job that waits, whatever goes wrong meanwhile, and never from under a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from berth.control.layouts import CONFIG_LABEL
from berth.control.ports import CONFIG_MAPS, GPU_NODES, NODES, PODS, TRAINING_JOBS
from berth.control.records import LAYOUT_ANNOTATION
from tests.control.fakes import MISHAPS, Trouble
from tests.control.machines import MachineWorld, a_profile_job, entries
from tests.control.world import CONFIG_MAP

SEVEN = ["1g.10gb"] * 7
LAID = ["3g.40gb", "3g.40gb"]  # since instances of 1g are free elsewhere


def state(world: MachineWorld, name: str = "llm") -> str:
    """The job's state."""
    return str(world.status(name).get("state"))


def verdict(world: MachineWorld, name: str = "llm") -> tuple[str, str]:
    """Reason and message of what the job is told."""
    found = world.status(name).get("verdict", {})
    return str(found.get("reason")), str(found.get("message"))


def label(world: MachineWorld, node: str = "n0-0") -> str:
    """The entry that the node's label names."""
    raw = world.api.find(NODES, node)
    assert raw is not None
    return str(raw["metadata"]["labels"].get(CONFIG_LABEL, ""))


def note(world: MachineWorld, node: str = "n0-0") -> dict[str, Any]:
    """What Berth keeps in mind about a node."""
    raw = world.api.find(GPU_NODES if world.agents else NODES, node)
    assert raw is not None
    found: dict[str, Any] = json.loads(raw["metadata"].get("annotations", {}).get(LAYOUT_ANNOTATION, "{}"))
    return found


def busy_and_idle(**more: Any) -> MachineWorld:
    """One node with a board that a neighbour holds a part of, and an idle one, both laid out as 7x1g."""
    world = MachineWorld([SEVEN, SEVEN], **more)
    world.run_pod("neighbour", "n0-0", mig_1g_10gb=1)
    world.api.put(TRAINING_JOBS, a_profile_job())
    return world


async def test_an_idle_board_is_laid_out_by_mig_manager_and_the_job_runs_on_it() -> None:
    world = busy_and_idle()
    await world.until(lambda: state(world) == "Running")
    assert world.broken == []
    assert world.layout("n0-0") == [SEVEN, LAID]
    assert list(note(world)) == ["laid"]
    assert list(entries(world))[-2:] == ["all-disabled", "all-1g.10gb"]
    assert [(c["devices"], c["mig-devices"]) for c in entries(world)[label(world)]] == [
        ([0], {"1g.10gb": 7}),
        ([1], {"3g.40gb": 2}),
    ]


async def test_an_instance_is_made_by_the_agent_beside_a_busy_one() -> None:
    world = MachineWorld([SEVEN], agents=True)
    world.run_pod("neighbour", "n0-0", mig_1g_10gb=1)
    world.api.put(TRAINING_JOBS, a_profile_job())
    await world.until(lambda: state(world) == "Running")
    assert world.broken == []
    assert "3g.40gb" in world.layout("n0-0")[0]
    assert list(note(world)) == ["laid"]


async def test_a_job_is_told_what_it_waits_for() -> None:
    world = busy_and_idle(apply_seconds=30)
    await world.until(lambda: verdict(world)[0] == "WaitingForRepartition", 10)
    assert verdict(world)[1] == (
        "waits for n0-0 (board 1 as 2 x 3g.40gb) to be laid out: about 90 s, at a price of $0.60"
    )
    assert ("WaitingForRepartition", verdict(world)[1]) in world.api.events()


async def test_nobody_is_sent_to_a_node_while_its_device_plugin_is_away() -> None:
    world = busy_and_idle(apply_seconds=30)
    await world.until(lambda: world.machines["n0-0"].node.hidden, 30)
    world.api.put(TRAINING_JOBS, a_profile_job("small", "1g.10gb"))
    await world.until(lambda: state(world) == "Running" and state(world, "small") == "Running")
    assert world.broken == []


async def test_a_file_that_lags_behind_costs_an_attempt_and_no_more() -> None:
    world = busy_and_idle(delay_seconds=20)
    await world.until(lambda: state(world) == "Running")
    assert label(world).endswith("-3")  # at 0 and 15 s the file did not have the entry yet
    assert world.layout("n0-0") == [SEVEN, LAID]


async def test_an_operator_that_restarts_amid_a_layout_goes_on_with_it() -> None:
    world = busy_and_idle(apply_seconds=30)
    await world.until(lambda: world.machines["n0-0"].node.hidden, 30)
    before = label(world)
    await world.restart()
    await world.until(lambda: state(world) == "Running")
    assert (label(world), world.layout("n0-0"), world.broken) == (before, [SEVEN, LAID], [])


async def test_a_mig_manager_that_hangs_is_set_going_again_and_its_operands_resumed() -> None:
    world = busy_and_idle(apply_seconds=1e9)
    await world.until(lambda: world.machines["n0-0"].manager.working)
    await world.until(lambda: label(world).endswith("-2"), 320)
    again = [call.body["metadata"]["labels"] for call in world.api.calls if str(call) == "merge nodes n0-0"][-1]
    assert again["nvidia.com/gpu.deploy.device-plugin"] == "true"
    stuck = world.machines["n0-0"].manager
    stuck.apply_seconds, stuck._done_at = 0.0, None  # its pod was replaced
    await world.until(lambda: state(world) == "Running")
    assert world.layout("n0-0") == [SEVEN, LAID]


async def test_a_node_on_which_it_never_works_is_given_up_with_a_reason() -> None:
    world = busy_and_idle()
    world.config.delay_seconds = 1e9
    await world.until(lambda: "trouble" in note(world), 300)
    assert note(world)["trouble"]["times"] == 1
    assert "relayout" not in note(world)
    await world.until(lambda: verdict(world)[0] == "NoFeasibleMigLayout", 20)
    assert "mig-manager says failed" in verdict(world)[1]


async def test_a_config_map_that_is_not_there_is_named() -> None:
    world = busy_and_idle()
    world.api.remove(CONFIG_MAPS, *CONFIG_MAP)
    await world.until(lambda: "trouble" in note(world), 20)
    assert "there is no ConfigMap gpu-operator/default-mig-parted-config" in note(world)["trouble"]["why"]
    assert label(world) == ""


async def test_a_pod_that_comes_at_the_last_moment_keeps_its_board() -> None:
    world = busy_and_idle()
    release = world.api.hold("list pods")
    await world.turn()
    await world.turn()
    world.run_pod("late", "n0-0", mig_1g_10gb=7)  # takes the rest of board 0, and an instance of board 1
    release.set()
    for _ in range(20):
        await world.turn()
        world.run_controllers()
        world.clock.advance(1.0)
    assert world.layout("n0-0") == [SEVEN, SEVEN]
    assert label(world) == ""


async def test_entries_that_no_node_names_are_cleared_away() -> None:
    world = busy_and_idle()
    world.api.edit(
        CONFIG_MAPS,
        *CONFIG_MAP,
        data={"config.yaml": "version: v1\nmig-configs:\n  berth-0123456789ab-1: []\n  mine: []\n"},
    )
    await world.until(lambda: state(world) == "Running")
    assert [name for name in entries(world) if not name.startswith(label(world)[:-1])] == ["mine"]


async def told(agents: bool, mishap: tuple[Any, bool] | None = None, at: int = 0) -> tuple[MachineWorld, int]:
    """The world once the job runs, though one write went wrong, and the number of writes that it took."""
    world = busy_and_idle(agents=agents)
    before = world.api.changes
    if mishap is not None:
        world.api.fail_change(before + at, mishap[0], applied=mishap[1])
    for _ in range(600):
        if world.api.dead:
            await world.restart()
        await world.turn()
        world.run_controllers()
        world.clock.advance(1.0)
        if state(world) == "Running" and "relayout" not in note(world):
            break
    await world.turn()
    return world, world.api.changes - before


@pytest.mark.parametrize("agents", [False, True])
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_ends_the_same_whatever_happens_at_any_single_write(agents: bool, mishap: str) -> None:
    smooth, writes = await told(agents)
    assert smooth.broken == []
    for at in range(1, writes + 1):
        world, _ = await told(agents, MISHAPS[mishap], at)
        assert world.broken == [], f"{mishap} write {at}"
        assert (state(world), world.layout("n0-0")) == ("Running", smooth.layout("n0-0")), f"{mishap} write {at}"
        assert list(note(world)) == ["laid"], f"{mishap} write {at}"


async def test_dies_and_dies_again_at_every_write_and_still_gets_there() -> None:
    world = busy_and_idle()
    lives = 0
    for _ in range(600):
        if world.api.dead:
            lives += 1
            await world.restart()
        world.api.troubles = [Trouble(lambda call: call.number > 0, applied=True)]
        await world.turn()
        world.run_controllers()
        world.clock.advance(1.0)
        if state(world) == "Running":
            break
    assert lives >= 8
    assert (state(world), world.layout("n0-0"), world.broken) == ("Running", [SEVEN, LAID], [])
    assert len(world.api.all(PODS)) == 2
