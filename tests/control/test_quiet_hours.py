"""Quiet hours: what a move cost is in its job's status, and a restarted operator keeps within the same budget."""

from __future__ import annotations

from berth.control.ports import TRAINING_JOBS
from berth.planning.snapshot import DAY_SECONDS, Consolidating, Policy, QuietHours
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

LEAD = 7200  # seconds from the start of the jobs to the quiet hours
H100 = 8.0  # $/h of a board
HALVES = ("a", "b", "c", "d")


def set_quiet_hours(world: World, begins: int, budget_usd: float) -> None:
    """Quiet hours that last eight hours."""
    at = begins % DAY_SECONDS
    quiet = QuietHours(at, (at + 8 * 3600) % DAY_SECONDS, budget_usd)
    world.cycle.policy = Policy(consolidation=Consolidating(quiet=quiet))


async def put(world: World, name: str, boards: int) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(name, workers=1, boards=boards))
    await world.settle()


async def four_halves(world: World) -> None:
    """Four jobs of two boards, each alone on a node of four, and one that has all of its node."""
    for name in HALVES:
        await put(world, name, 2)
        await put(world, f"beside-{name}", 2)
    await put(world, "large", 4)
    for name in HALVES:
        world.api.remove(TRAINING_JOBS, "team", f"beside-{name}")
    await world.settle()


def moved(world: World) -> list[float]:
    """What each job's move in quiet hours cost."""
    return [status["moved"]["usd"] for status in map(world.status, HALVES) if status["attempt"] > 1]


async def test_a_restarted_operator_keeps_within_what_is_left_of_the_budget() -> None:
    world = World(*(a_node(f"n{i}") for i in range(1, 6)))
    await four_halves(world)
    begins = int(world.clock()) + LEAD
    world.clock.advance(LEAD + 1)
    set_quiet_hours(world, begins, 60.0)
    await world.settle()
    (usd,) = moved(world)
    assert 2 * H100 * LEAD / 3600 < usd < 60

    await put(world, "large-too", 4)  # takes the room that was opened
    await world.restart()
    set_quiet_hours(world, begins, 60.0)
    world.clock.advance(begins + 901 - world.clock())
    await world.settle()
    assert moved(world) == [usd]

    set_quiet_hours(world, begins, 120.0)
    world.clock.advance(begins + 1801 - world.clock())
    await world.settle()
    assert len(moved(world)) == 2
    assert sum(moved(world)) < 120
    assert world.broken == []
