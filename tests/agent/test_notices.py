"""What a listener writes of what it hears, and when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import pytest

from berth.adapters.metadata import Cloud
from berth.agent import notices
from berth.agent.agent import seen_of
from berth.agent.notices import Listener
from berth.agent.program import Interruptions, Settings, sources_of
from berth.control.notices import NoAnswer
from berth.control.ports import GPU_NODES, NODES, Json, Unavailable
from berth.model.nodes import Interruption
from tests.adapters.metadata.world import a_machine
from tests.agent.nodes import NAME, World, a_node

SPOT = Interruption("SpotInterruption", "EC2 instance metadata", 1_772_452_920.0)
WRITTEN = {"reason": "SpotInterruption", "source": "EC2 instance metadata", "deadline": "2026-03-02T12:02:00Z"}
MAINTENANCE = Interruption("Maintenance", "EC2 instance metadata", SPOT.deadline + 3600)


@dataclass
class Source:
    """Says what a test has it say, or fails."""

    said: Interruption | Exception | None = None
    name: str = "a source"
    pause_seconds: float = 0.0
    asked: int = 0
    silent: asyncio.Event = field(default_factory=asyncio.Event)  # while set, it does not answer at all

    async def ask(self) -> Interruption | None:
        self.asked += 1
        while self.silent.is_set():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "RETRY_SECONDS", (0.005, 0.01))
    monkeypatch.setattr(notices, "WRITE_SECONDS", (0.005, 0.01))


@asynccontextmanager
async def listening(world: World, *sources: Source) -> AsyncIterator[Listener]:
    """A listener that runs, told of the GPUNode as it is."""
    listener = Listener(NAME, world.api, world.api.clock)
    found = world.api.find(GPU_NODES, NAME)
    listener.observe(seen_of(found) if found else None)
    work = asyncio.create_task(listener.run(sources))
    try:
        yield listener
        assert not work.done()
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds, for five seconds at most."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.002)


async def asked_again(*sources: Source) -> None:
    """Wait until all sources answered, and what they said was taken in."""
    before = [source.asked for source in sources]
    await until(lambda: all(s.asked >= b + 3 for s, b in zip(sources, before, strict=True)))


async def a_world() -> World:
    world = World(a_node())
    await world.look()
    return world


def interruption(world: World) -> Json | None:
    """What the GPUNode says."""
    found: Json | None = world.status.get("interruption")
    return found


async def test_writes_at_once_what_it_hears_and_only_once() -> None:
    world, source = await a_world(), Source()
    async with listening(world, source):
        await asked_again(source)
        before = world.writes()
        source.said = SPOT
        await until(lambda: interruption(world))
        await asked_again(source)
        assert world.writes() == before + 1
    found = interruption(world)
    assert found is not None
    assert found.pop("noticedAt")
    assert found == WRITTEN


async def test_the_agents_rounds_leave_it_alone() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source):
        await until(lambda: interruption(world))
    written = interruption(world)
    world.hold("llm-0")
    await world.later(3)
    await world.later(90)
    assert interruption(world) == written


async def test_removes_what_is_over() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source):
        await until(lambda: interruption(world))
        source.said = None
        await until(lambda: not interruption(world))


async def test_a_deadline_that_moves_or_goes_leaves_the_time_when_it_was_noticed() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source):
        await until(lambda: interruption(world))
        noticed = (interruption(world) or {})["noticedAt"]
        world.api.clock.advance(10)
        source.said = Interruption(SPOT.reason, SPOT.source)
        await until(lambda: "deadline" not in (interruption(world) or {"deadline": 1}))
    assert (interruption(world) or {})["noticedAt"] == noticed


async def test_of_what_several_sources_say_the_nearest_deadline_counts() -> None:
    world, first, second = await a_world(), Source(MAINTENANCE), Source()
    async with listening(world, first, second):
        await until(lambda: interruption(world))
        second.said = SPOT
        await until(lambda: (interruption(world) or {}).get("reason") == "SpotInterruption")
        second.said = None
        await until(lambda: (interruption(world) or {}).get("reason") == "Maintenance")


@pytest.mark.parametrize("error", [NoAnswer("status 503"), RuntimeError("a bug")])
async def test_a_source_that_fails_is_asked_again_and_takes_nothing_back(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    world, source, other = await a_world(), Source(SPOT), Source()
    with caplog.at_level(logging.INFO):
        async with listening(world, source, other):
            await until(lambda: interruption(world))
            source.said = error
            await asked_again(source, other)
            assert interruption(world)
            source.said = None
            await until(lambda: not interruption(world))
    assert len([r for r in caplog.records if str(error) in r.getMessage()]) == 1


async def test_a_source_that_hangs_holds_up_no_other() -> None:
    world, hangs, other = await a_world(), Source(), Source(SPOT)
    hangs.silent.set()
    async with listening(world, hangs, other):
        await until(lambda: interruption(world))


async def test_after_a_restart_nothing_is_taken_back_before_all_have_answered() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source):
        await until(lambda: interruption(world))
    hangs, other = Source(), Source()
    hangs.silent.set()
    async with listening(world, hangs, other):
        await asked_again(other)
        assert interruption(world)
        hangs.silent.clear()
        await until(lambda: not interruption(world))


async def test_an_agent_that_listens_to_nothing_takes_back_what_an_earlier_one_heard() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source):
        await until(lambda: interruption(world))
    async with listening(world):
        await until(lambda: not interruption(world))


async def test_a_write_that_fails_is_tried_again() -> None:
    world, source = await a_world(), Source(SPOT)
    world.api.fail("merge gpunodes", Unavailable("no answer"), times=3)
    async with listening(world, source):
        await until(lambda: interruption(world))


async def test_waits_for_the_gpunode_where_there_is_none_yet() -> None:
    world, source = World(a_node()), Source(SPOT)
    async with listening(world, source) as listener:
        await asked_again(source)
        await world.look()
        found = world.api.find(GPU_NODES, NAME)
        assert found
        listener.observe(seen_of(found))
        await until(lambda: interruption(world))


async def test_writes_again_what_somebody_removed() -> None:
    world, source = await a_world(), Source(SPOT)
    async with listening(world, source) as listener:
        await until(lambda: interruption(world))
        listener.observe(seen_of(world.api.edit(GPU_NODES, "", NAME, status={"interruption": None})))
        await until(lambda: interruption(world))


@pytest.mark.parametrize("cloud", list(Cloud))
async def test_from_the_clouds_word_to_the_gpunode_takes_less_than_a_second_and_a_half(cloud: Cloud) -> None:
    world = await a_world()
    async with a_machine(cloud, time.time) as machine, listening(world, *machine.sources):  # type: ignore[arg-type]
        await until(lambda: machine.machine.asked.total() >= 2)
        began = time.monotonic()
        await machine.tell("spot", seconds=30)
        await until(lambda: interruption(world))
        assert time.monotonic() - began < 1.5


def of_a_node(provider_id: str | None) -> World:
    world = World(a_node())
    world.api.edit(NODES, "", NAME, spec={"providerID": provider_id} if provider_id is not None else {})
    return world


@pytest.mark.parametrize(
    ("asked", "provider_id", "first"),
    [
        (Interruptions.AUTO, "aws:///eu-west-1a/i-1", "spot interruptions of EC2"),
        (Interruptions.AUTO, "gce://p/z/n", "preemption by Compute Engine"),
        (Interruptions.AUTO, "azure:///subscriptions/s", "scheduled events of Azure"),
        (Interruptions.AUTO, "kind://podman/berth/n", None),
        (Interruptions.AUTO, None, None),
        (Interruptions.NONE, "aws:///eu-west-1a/i-1", None),
        (Interruptions.GCE, "aws:///eu-west-1a/i-1", "preemption by Compute Engine"),
    ],
)
async def test_listens_to_the_cloud_that_its_node_is_in_unless_told_otherwise(
    asked: Interruptions, provider_id: str | None, first: str | None
) -> None:
    world = of_a_node(provider_id)
    settings = Settings(NAME, pod_resources=None, health_port=0, interruptions=asked)  # type: ignore[arg-type]
    async with aiohttp.ClientSession() as session:
        found = await sources_of(settings, world.api, session, time.time)
    assert [source.name for source in found][:1] == ([first] if first else [])


async def test_asks_again_which_cloud_it_is_in_while_the_api_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth.agent.program.RETRY_SECONDS", 0.005)
    world = of_a_node("aws:///eu-west-1a/i-1")
    world.api.fail("get nodes", Unavailable("no answer"), times=2)
    settings = Settings(NAME, pod_resources=None, health_port=0)  # type: ignore[arg-type]
    async with aiohttp.ClientSession() as session:
        assert await sources_of(settings, world.api, session, time.time)
