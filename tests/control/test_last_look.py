"""The last look before boards are laid out: what the plan could not know any more."""

from __future__ import annotations

from berth.control.ports import GPU_NODES, PODS, TRAINING_JOBS
from tests.control.machines import MachineWorld, a_profile_job

SEVEN = ["1g.10gb"] * 7


async def test_a_pod_that_came_back_under_its_old_name_keeps_its_new_boards() -> None:
    world = MachineWorld([SEVEN, SEVEN])
    world.run_pod("web-0", "n0-0", mig_1g_10gb=1)
    world.api.put(TRAINING_JOBS, a_profile_job())
    release = world.api.hold("list pods")
    await world.turn()
    await world.turn()
    world.clock.advance(1.0)
    world.api.edit(PODS, "other", "web-0", status={"phase": "Succeeded"})
    world.api.remove(PODS, "other", "web-0")
    world.run_machines()
    world.run_pod("web-0", "n0-0", mig_1g_10gb=14)  # now on both boards, and the report that was read says: on one
    release.set()
    for _ in range(20):
        await world.turn()
        world.run_controllers()
        world.clock.advance(1.0)
    assert not [call for call in world.api.said() if "merge configmaps" in call or "merge nodes" in call]
    assert world.layout("n0-0") == [SEVEN, SEVEN]


async def test_a_node_whose_report_is_gone_is_not_laid_out_by_a_guess() -> None:
    world = MachineWorld([SEVEN, SEVEN])
    world.api.put(TRAINING_JOBS, a_profile_job())
    release = world.api.hold("get gpunodes")
    await world.turn()
    await world.turn()
    world.api.remove(GPU_NODES, "", "n0-0")
    release.set()
    for _ in range(5):
        await world.turn()
    assert "get gpunodes n0-0" in [str(call) for call in world.api.calls]
    assert not [call for call in world.api.said() if "merge configmaps" in call or "merge nodes" in call]
