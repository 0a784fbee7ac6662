"""What GPUNodes say of what boards do: coarse, seldom, and with writes that are due anyway."""

from __future__ import annotations

import heapq
import random

import msgspec
import pytest

from berth.adapters.records import Decoder, GPUNode
from berth.agent.agent import HEARTBEAT_SECONDS, JITTER
from berth.control.board_use import TELL_SECONDS, WINDOW_SECONDS, Sample, Telling, Usage, Use
from berth.control.gpus import Inventory, Load, Reading
from e2e.fakegpu.driver import Driver
from e2e.fakegpu.sensors import training
from tests.agent.nodes import a_node, mig
from tests.agent.test_metrics import Measured, a_measured

STEP = 30  # seconds from look to look here; every 3 and 10 s would only take longer to simulate
JOB_SECONDS = 3600  # that a board has a pod, or none, on average
SETTLED_SECONDS, WATCHED_SECONDS = 600.0, 900.0


async def an_inventory(boards: int = 1) -> Inventory:
    return await Driver(a_node(boardsPerNode=boards)).read()


def sample(inventory: Inventory, at: float, watts: float | None, busy: float | None = 0.5) -> Sample:
    readings = {gpu.uuid: Reading(gpu.uuid, Load(busy), watts=watts) for gpu in inventory.gpus}
    return Sample(at, inventory, readings, {})


def unvaried(seconds: float) -> float:
    return seconds


async def test_a_board_is_told_by_its_mean_over_five_minutes_coarsely() -> None:
    usage, inventory = Usage(), await an_inventory()
    for at in range(0, 600, 10):
        usage.take(sample(inventory, at, 700.0 if at < 290 else 333.0, 1.0 if at < 290 else 0.37))
    assert usage.means(600) == {inventory.gpus[0].uuid: Use(330, 35)}
    assert usage.means(590 + WINDOW_SECONDS) == {}


async def test_what_nobody_can_say_is_told_as_nothing() -> None:
    usage, inventory = Usage(), await an_inventory()
    usage.take(sample(inventory, 0, None, None))
    assert usage.means(1) == {inventory.gpus[0].uuid: Use(None, None)}


@pytest.mark.parametrize(
    ("found", "due"),
    [
        (Use(400, 50), False),
        (Use(470, 60), False),
        (Use(480, 50), True),
        (Use(400, 65), True),
        (Use(None, 50), True),
    ],
)
async def test_only_a_change_by_more_than_a_tenth_of_what_is_possible_is_told(found: Use, due: bool) -> None:
    inventory = await an_inventory()
    uuid = inventory.gpus[0].uuid
    assert Telling(unvaried).due({uuid: Use(400, 50)}, {uuid: found}, inventory, 1000.0) == due


async def test_that_a_board_becomes_idle_or_works_again_is_told_in_any_case() -> None:
    inventory, telling = await an_inventory(), Telling(unvaried)
    uuid = inventory.gpus[0].uuid
    assert telling.due({uuid: Use(70, 5)}, {uuid: Use(70, 0)}, inventory, 1000.0)
    assert telling.due({uuid: Use(70, 0)}, {uuid: Use(70, 5)}, inventory, 1000.0)


async def test_changes_are_told_two_minutes_apart_at_least() -> None:
    inventory, telling = await an_inventory(), Telling(unvaried)
    uuid = inventory.gpus[0].uuid
    changed = ({uuid: Use(400, 50)}, {uuid: Use(100, 5)}, inventory)
    assert telling.due(*changed, 1000.0)
    telling.told(1000.0)
    assert not telling.due(*changed, 1000.0 + TELL_SECONDS - 1)
    assert telling.due(*changed, 1000.0 + TELL_SECONDS)


async def until_told(measured: Measured, seconds: float = 200) -> None:
    for _ in range(int(seconds / STEP)):
        await measured.pass_by(STEP)


async def test_a_gpunode_says_what_its_boards_do_and_the_operator_reads_it() -> None:
    measured = await a_measured(load={"0@0": 0.6, "1": 0.8}, mig=mig("7g.80gb@0"))
    await until_told(measured)
    first, second = measured.world.status["boards"]
    assert (first["utilization"], second["utilization"]) == (60, 80)
    assert (first["watts"], second["watts"]) == (450, 570)
    raw = {"metadata": {"name": "n-0"}, "status": {"boards": measured.world.status["boards"]}}
    record = Decoder[object](GPUNode).one(msgspec.json.encode(raw))
    assert [(b.watts, b.utilization) for b in record.boards] == [(450, 0.6), (570, 0.8)]  # type: ignore[attr-defined]


async def test_what_boards_do_takes_no_write_of_its_own() -> None:
    still, moving = await a_measured(), await a_measured()
    rng = random.Random(7)
    for _ in range(60):
        moving.world.node.load = {"0": rng.random(), "1": rng.random()}
        for measured in (still, moving):
            await measured.pass_by(STEP)
    assert moving.world.writes() <= 1.2 * still.world.writes()


async def test_boards_that_can_no_longer_be_measured_are_told_no_more() -> None:
    measured = await a_measured(load={"0": 0.8})
    await until_told(measured)
    assert "watts" in measured.world.status["boards"][0]
    for _ in range(20):
        await measured.world.later(STEP)
    assert "watts" not in measured.world.status["boards"][0]


def jitter(rng: random.Random, seconds: float) -> float:
    return seconds * rng.uniform(1 - JITTER, 1 + JITTER)


class Node:
    """A busy node's boards, their jobs, what its GPUNode says, and when its agent next writes."""

    def __init__(self, inventory: Inventory, rng: random.Random) -> None:
        self.rng, self.inventory = rng, inventory
        self.usage, self.telling = Usage(), Telling(lambda seconds: jitter(rng, seconds))
        self.told: dict[str, Use] = {}
        self.jobs = {gpu.uuid: (rng.random() < 0.5, rng.expovariate(1 / JOB_SECONDS)) for gpu in inventory.gpus}
        self.phase, self.measured = rng.uniform(0, 300), 0.0
        self.beat, self.retold = rng.uniform(0, HEARTBEAT_SECONDS), 0

    def next_write(self) -> float:
        """A pod comes or goes, or it is time to show that somebody still looks."""
        return min(self.beat, *(until for _, until in self.jobs.values()))

    def write(self, now: float) -> None:
        """Do what `Agent._write` does."""
        self._measure(now)
        means = self.usage.means(now)
        if now >= self.beat and self.telling.due(self.told, means, self.inventory, now):
            self.told = means
            self.telling.told(now)
            self.retold += 1
        for uuid, (runs, until) in self.jobs.items():
            if until <= now:
                self.jobs[uuid] = not runs, now + self.rng.expovariate(1 / JOB_SECONDS)
        self.beat = now + jitter(self.rng, HEARTBEAT_SECONDS)

    def _measure(self, now: float) -> None:
        while self.measured + STEP <= now:
            self.measured += STEP
            found = {}
            for gpu in self.inventory.gpus:
                busy = training(gpu.uuid, self.measured + self.phase) if self.jobs[gpu.uuid][0] else 0.0
                found[gpu.uuid] = Reading(gpu.uuid, Load(busy), watts=gpu.model.power_watts * (0.1 + 0.9 * busy))
            self.usage.take(Sample(self.measured, self.inventory, found, {}))


async def test_the_agents_of_1_000_busy_nodes_write_less_than_20_times_a_second() -> None:
    rng, inventory = random.Random(11), await an_inventory(boards=8)
    nodes = [Node(inventory, rng) for _ in range(1000)]
    due = [(node.next_write(), i) for i, node in enumerate(nodes)]
    heapq.heapify(due)
    writes = 0
    while due[0][0] < SETTLED_SECONDS + WATCHED_SECONDS:
        now, i = heapq.heappop(due)
        nodes[i].write(now)
        writes += now >= SETTLED_SECONDS
        heapq.heappush(due, (nodes[i].next_write(), i))
    retold = sum(node.retold for node in nodes)
    print(f"{writes / WATCHED_SECONDS:.1f} writes/s, {retold} times with another use")
    assert retold > 2000, "the boards of this simulation do too little"
    assert 15 < writes / WATCHED_SECONDS < 20
