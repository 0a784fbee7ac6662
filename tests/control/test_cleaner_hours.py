"""Jobs that wait and pause for cleaner hours, from the API server's state alone: each story goes on after restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from berth.adapters.carbon.store import FolderStore
from berth.control.carbon_feed import CarbonFeed, FeedRules
from berth.control.outlooks import Outlooks, Prices
from berth.control.ports import TRAINING_JOBS, Silent
from berth.control.status import from_rfc3339, to_rfc3339
from berth.model.carbon import CarbonForecast
from berth.model.prices import PriceBook
from berth.planning.carbon import Origin, Outlook
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

HOUR = 3600.0
BEGIN = 480_000  # in hours since the epoch
CLEAN_AT_EIGHT = [400.0] * 8 + [100.0] * 6 + [400.0] * 34


@dataclass
class Weather:
    """A carbon source that tells what it is set to, from BEGIN on; nothing while it is dead."""

    hours: list[float]
    name: str = "weather"
    dead: bool = False
    asked: list[str] = field(default_factory=list)

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """All hours, or no answer."""
        self.asked.append(zone)
        if self.dead:
            raise Silent("HTTP 503")
        return CarbonForecast(now, {BEGIN + i: grams for i, grams in enumerate(self.hours)})


class Sky(World):
    """A world under whose weather jobs wait; one node in the region "de"."""

    def __init__(self, folder: Path, *hours: float) -> None:
        super().__init__(_in_region(a_node("n1", boards=8)))
        self.clock.advance(BEGIN * HOUR + 60 - self.clock())
        self.folder, self.weather = folder, Weather(list(hours))
        self.ages: dict[str, float | None] = {}  # of forecasts, by zone
        self.look_up()

    def look_up(self) -> None:
        """Another operator asks for the weather, and finds what is kept."""
        feed = CarbonFeed(
            self.weather, FolderStore(self.folder), self.clock, lambda: 1.0, FeedRules(table={"DE": 300.0})
        )
        self.sky = Outlooks(feed, self.picture, lambda region: region.upper(), self._tell, self.ages.__setitem__)

    def _tell(self, outlooks: Mapping[str, Outlook]) -> None:
        self.outlooks = outlooks

    async def go_on(self, hours: float = 0.0) -> None:
        """So much later, the weather is asked for again and everybody works."""
        self.clock.advance(max(0.0, hours * HOUR))
        self.watch()
        await self.sky.look()
        await self.settle()

    async def until(self, hour: float) -> None:
        """The same at an hour after BEGIN."""
        await self.go_on((BEGIN + hour) - self.clock() / HOUR)


def _in_region(node: dict[str, Any]) -> dict[str, Any]:
    node["metadata"]["labels"]["topology.kubernetes.io/region"] = "de"
    return node


def a_patient_job(**more: Any) -> dict[str, Any]:
    """Four hours on all boards of the node, within a day."""
    asks = {"carbon": {"budget": "20%", "maxDelay": "1d"}, "estimatedRuntime": "4h", "checkpoint": {}, **more}
    return a_training_job(workers=1, boards=8, **asks)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_job_waits_for_its_hour_and_starts(tmp_path: Path, restarted: bool) -> None:
    world = Sky(tmp_path, *CLEAN_AT_EIGHT)
    world.api.put(TRAINING_JOBS, a_patient_job())
    await world.go_on()
    status = world.status("llm")
    assert (status["state"], status["verdict"]["reason"]) == ("Pending", "DeferredForCarbon")
    assert status["verdict"]["message"].startswith("starts 08:00 UTC: 100 instead of 400 g/kWh in de")
    if restarted:
        world.weather.dead = True
        await world.restart()
        world.look_up()
    await world.until(7.9)
    assert world.status("llm")["state"] == "Pending"
    await world.until(8.01)
    assert world.status("llm")["state"] == "Running"


async def test_another_job_runs_while_one_waits(tmp_path: Path) -> None:
    world = Sky(tmp_path, *CLEAN_AT_EIGHT)
    world.api.put(TRAINING_JOBS, a_patient_job())
    await world.go_on()
    world.api.put(TRAINING_JOBS, a_training_job("other", workers=1, boards=8))
    await world.go_on(0.1)
    assert world.status("other")["state"] == "Running"
    assert world.status("llm")["verdict"]["reason"] == "DeferredForCarbon"


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_job_pauses_when_the_forecast_turns_and_goes_on_by_checkpoint(tmp_path: Path, restarted: bool) -> None:
    world = Sky(tmp_path, *([100.0] * 48))
    world.listening.add("llm")
    world.api.put(TRAINING_JOBS, a_patient_job(estimatedRuntime="6h"))
    await world.go_on()
    assert world.status("llm")["state"] == "Running"
    world.weather.hours = [100.0] * 2 + [600.0] * 8 + [50.0] * 38
    await world.until(2.0)
    if restarted:
        await world.restart()
        world.look_up()
        await world.go_on()
    paused = world.status("llm")
    assert (paused["state"], paused["attempt"]) == ("Pending", 1)
    assert paused["saveRequest"]["reason"] == "PausedForCarbon"
    assert paused["verdict"]["message"].startswith("goes on 10:00 UTC: 50 instead of ")
    assert 1.9 * HOUR < paused["workedSeconds"] < 2.1 * HOUR
    await world.until(9.9)
    assert world.status("llm")["attempt"] == 1
    await world.until(10.01)
    assert (world.status("llm")["attempt"], world.status("llm")["state"]) == (2, "Running")
    await world.until(12.0)
    assert world.status("llm")["attempt"] == 2


async def test_a_job_meets_its_deadline_when_the_server_dies(tmp_path: Path) -> None:
    world = Sky(tmp_path, *([400.0] * 20 + [100.0] * 28))
    deadline = (BEGIN + 12) * HOUR
    world.api.put(TRAINING_JOBS, a_patient_job(deadline=to_rfc3339(deadline), carbon={"pricePerTonne": 90}))
    await world.go_on()
    world.weather.dead = True
    for hour in range(1, 12):
        await world.until(float(hour))
    started = world.status("llm").get("startedAt")
    assert started is not None
    assert from_rfc3339(started) + 4 * HOUR <= deadline


async def test_without_any_forecast_a_job_starts_at_once(tmp_path: Path) -> None:
    world = Sky(tmp_path)
    world.weather.dead = True
    world.api.put(TRAINING_JOBS, a_patient_job())
    await world.go_on()
    assert world.status("llm")["state"] == "Running"


async def test_a_zone_is_asked_for_once_for_all_its_regions_and_what_stays_is_not_told_anew(tmp_path: Path) -> None:
    world = Sky(tmp_path, *CLEAN_AT_EIGHT)
    told: list[Mapping[str, Outlook]] = []
    world.watch()
    sky = Outlooks(world.sky.feed, world.picture, lambda region: "DE", told.append, world.ages.__setitem__)
    await sky.look()
    await sky.look()
    assert [set(outlooks) for outlooks in told] == [{"de"}]
    assert told[0]["de"].origins[0] is Origin.FORECAST
    assert world.weather.asked == ["DE"]


async def test_how_old_a_forecast_is_is_told_also_while_there_is_none(tmp_path: Path) -> None:
    world = Sky(tmp_path, *CLEAN_AT_EIGHT)
    world.weather.dead = True
    await world.go_on()
    assert world.ages == {"DE": None}
    world.weather.dead = False
    await world.go_on(1.0)
    await world.go_on(0.1)
    assert world.ages == {"DE": pytest.approx(360, abs=30)}


async def test_prices_that_cannot_be_read_leave_those_known_before(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass
    class Book:
        answers: list[PriceBook | Silent]

        async def book(self) -> PriceBook:
            answer = self.answers.pop(0)
            if isinstance(answer, Silent):
                raise answer
            return answer

    told: list[PriceBook] = []
    cheap = PriceBook(spot_share=0.2)
    prices = Prices(Book([cheap, cheap, Silent("no file"), Silent("no file"), PriceBook()]), told.append)
    for _ in range(5):
        await prices.look()
    assert told == [cheap, PriceBook()]
    assert caplog.messages.count("prices: no file; going by those known before") == 1
