"""A feed of carbon intensity asks seldom, keeps what it was told, and always has an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from berth.adapters.carbon.store import FolderStore
from berth.control.carbon_feed import CarbonFeed, FeedRules, Report
from berth.control.ports import Busy, Denied, Silent, SourceError, Unusable
from berth.model.carbon import CarbonForecast
from berth.planning.carbon import Origin

NOW = 480_000 * 3600.0
RULES = FeedRules(poll_seconds=900, timeout_seconds=0.05, table={"DE": 400.0})


@dataclass
class FakeSource:
    """Tells 100 g for the next day, or fails as told."""

    name: str = "fake"
    failures: list[SourceError | None] = field(default_factory=list)  # None: no answer at all
    asked: list[tuple[str, float]] = field(default_factory=list)

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """The next failure, or the forecast."""
        self.asked.append((zone, now - NOW))
        if self.failures:
            error = self.failures.pop(0)
            if error is None:
                await asyncio.sleep(30)
            else:
                raise error
        return CarbonForecast(now, {int(now // 3600) + hour: 100.0 for hour in range(24)})


@dataclass
class World:
    """A feed whose clock the test sets."""

    folder: Path
    source: FakeSource | None = field(default_factory=FakeSource)
    now: float = 0.0
    chance: float = 1.0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all that is not in the folder."""
        self.feed = CarbonFeed(
            self.source, FolderStore(self.folder), lambda: NOW + self.now, lambda: self.chance, RULES
        )

    async def at(self, seconds: float, zone: str = "DE") -> Report:
        """What the feed reports then of two hours."""
        self.now = seconds
        return await self.feed.report(zone, hours=2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kept")


def asked(world: World) -> list[tuple[str, float]]:
    assert world.source is not None
    return world.source.asked


def failing(world: World, *failures: SourceError | None) -> None:
    assert world.source is not None
    world.source.failures.extend(failures)


async def test_asks_once_in_a_while_for_each_zone(world: World) -> None:
    for seconds in (0, 60, 899, 900):
        await world.at(seconds)
    await world.at(901, "FR")
    assert asked(world) == [("DE", 0), ("DE", 900), ("FR", 901)]


async def test_readers_at_the_same_time_share_a_request(world: World) -> None:
    reports = await asyncio.gather(*(world.at(0) for _ in range(5)))
    assert len(asked(world)) == 1
    assert {report.outlook.grams for report in reports} == {(100.0, 100.0)}


async def test_says_where_it_knows_it_from_and_how_old_that_is(world: World) -> None:
    await world.at(0)
    found = await world.at(600)
    assert (found.zone, found.source, found.age_seconds, found.problem) == ("DE", "fake", 600, "")


async def test_a_restart_asks_no_sooner_and_knows_what_was_known(world: World) -> None:
    await world.at(0)
    world.restart()
    assert (await world.at(60)).outlook.counts == {Origin.FORECAST: 2}
    assert asked(world) == [("DE", 0)]


async def test_what_was_known_is_used_while_the_source_is_down_and_then_yesterday_and_the_table(world: World) -> None:
    await world.at(0)
    failing(world, *[Silent("down")] * 50)
    found = [await world.at(hours * 3600.0) for hours in (1, 7, 30, 24 * 9)]
    assert [next(iter(report.outlook.counts)) for report in found] == [
        Origin.FORECAST,
        Origin.STALE,
        Origin.YESTERDAY,
        Origin.STATIC,
    ]
    assert {report.problem for report in found} == {"fake: down"}
    assert (await world.at(24 * 9 * 3600.0, "FR")).outlook.counts == {Origin.WORLD: 2}


async def test_pauses_double_after_failures_and_end_with_a_success(world: World) -> None:
    failing(world, *[Silent("down")] * 3)
    for seconds in range(0, 1200, 10):
        await world.at(seconds)
    assert [seconds for _, seconds in asked(world)] == [0, 30, 90, 210, 1110]
    assert (await world.at(1200)).problem == ""


async def test_chance_takes_up_to_half_of_a_pause(world: World) -> None:
    world.chance = 0.0
    failing(world, Silent("down"))
    for seconds in (0, 14, 15):
        await world.at(seconds)
    assert [seconds for _, seconds in asked(world)] == [0, 15]


async def test_pauses_are_an_hour_at_most(world: World) -> None:
    failing(world, *[Silent("down")] * 3000)
    for hours in range(24 * 30):
        await world.at(hours * 3600.0)
    assert len(asked(world)) == 24 * 30


@pytest.mark.parametrize(("error", "wait"), [(Busy("busy", 600.0), 600), (Busy("busy"), 30)])
async def test_a_source_that_is_busy_is_left_alone_for_all_zones(world: World, error: SourceError, wait: int) -> None:
    failing(world, error)
    await world.at(0)
    assert (await world.at(1, "FR")).problem == "fake: busy"
    await world.at(wait - 1, "FR")
    await world.at(wait, "FR")
    assert asked(world) == [("DE", 0), ("FR", wait)]


@pytest.mark.parametrize("error", [Unusable("no such zone"), Denied("not in the plan"), Silent("down")])
async def test_what_is_wrong_with_a_zone_does_not_keep_others_from_being_asked_for(
    world: World, error: SourceError
) -> None:
    failing(world, error)
    await world.at(0, "XX")
    assert (await world.at(1, "DE")).problem == ""


async def test_no_answer_is_waited_for_no_longer_than_allowed(world: World) -> None:
    failing(world, None)
    found = await world.at(0)
    assert (found.problem, found.outlook.counts) == ("fake: no answer within 0.05 s", {Origin.STATIC: 2})


async def test_without_a_source_the_table_serves(tmp_path: Path) -> None:
    found = await World(tmp_path, source=None).at(0)
    assert (found.outlook.grams, found.source, found.age_seconds, found.problem) == ((400.0, 400.0), "", None, "")


@pytest.mark.parametrize("content", [b"", b"{", b'{"source": 1}', b"\xff"])
async def test_a_kept_file_that_is_broken_is_done_without(world: World, content: bytes) -> None:
    await world.at(0)
    (world.folder / "DE.json").write_bytes(content)
    world.restart()
    assert (await world.at(1)).outlook.counts == {Origin.FORECAST: 2}
    assert [seconds for _, seconds in asked(world)] == [0, 1]


async def test_a_folder_that_can_not_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("no folder")
    world = World(tmp_path / "kept")
    assert (await world.at(0)).outlook.counts == {Origin.FORECAST: 2}
    assert (await world.at(1)).problem == ""


async def test_zones_that_look_alike_are_kept_apart(world: World) -> None:
    await world.at(0, "a/b")
    await world.at(0, "a.b")
    assert len(list(world.folder.iterdir())) == 2
