"""Live prices: asked for seldom, kept over failures and restarts, and never waited for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf

import pytest

from berth.control.ports import Busy, Silent
from berth.control.price_feed import Books, PriceFeed, PriceRules
from berth.model.prices import KnownPrices, Price, PriceBook
from tests.control.fakes import HandClock

CHEAP, DEAR = PriceBook((Price("H100", 2.0),)), PriceBook((Price("H100", 9.0),))
Answer = PriceBook | Silent | Busy | None


@dataclass
class Shop:
    """Answers in turn, the last one for ever; None: not at all."""

    answers: list[Answer]
    asked: list[float] = field(default_factory=list)
    clock: HandClock = field(default_factory=HandClock)
    name: str = "shop"

    async def book(self) -> PriceBook:
        self.asked.append(self.clock() - 1_000_000)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


@dataclass
class Drawer:
    """Keeps prices in memory."""

    kept: KnownPrices | None = None

    def load(self) -> KnownPrices | None:
        return self.kept

    def save(self, known: KnownPrices) -> None:
        self.kept = known


@dataclass
class Feed:
    """A feed, and what it told."""

    shop: Shop
    drawer: Drawer = field(default_factory=Drawer)
    told: list[PriceBook] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    address: str = "http://shop"

    def __post_init__(self) -> None:
        rules = PriceRules(poll_seconds=900, stale_seconds=7200, timeout_seconds=0.01)
        self.feed = PriceFeed(
            self.shop,
            self.address,
            self.drawer,
            self.told.append,
            self.ages.append,
            self.shop.clock,
            lambda: 1.0,
            rules,
        )

    async def at(self, *seconds: float) -> None:
        """Look at these moments."""
        for moment in seconds:
            self.shop.clock.now = 1_000_000 + moment
            await self.feed.look()


async def test_it_is_asked_once_in_a_while_and_told_of_when_something_changed() -> None:
    feed = Feed(Shop([CHEAP, CHEAP, DEAR]))
    await feed.at(0, 60, 899, 900, 1800, 1860)
    assert feed.shop.asked == [0, 900, 1800]
    assert feed.told == [CHEAP, DEAR]
    assert feed.ages[-1] == 60


async def test_what_it_said_last_counts_while_it_fails_and_it_is_left_alone_for_longer_and_longer() -> None:
    feed = Feed(Shop([CHEAP, Silent("no answer")]))
    await feed.at(0, *range(900, 1500, 10))
    assert feed.told == [CHEAP]
    assert feed.shop.asked == [0, 900, 930, 990, 1110, 1350]


async def test_prices_that_never_came_are_infinitely_old() -> None:
    feed = Feed(Shop([Silent("no answer"), CHEAP]))
    await feed.at(0, 60)
    assert feed.ages == [inf, 0]


async def test_who_is_busy_is_not_asked_before_it_says() -> None:
    feed = Feed(Shop([Busy("later", 300.0), CHEAP]))
    await feed.at(*range(0, 400, 10))
    assert feed.shop.asked == [0, 300]


async def test_who_gives_no_answer_is_waited_for_no_longer_than_the_time_out(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(Shop([None]))
    async with asyncio.timeout(1.0):
        await feed.at(0)
    assert caplog.messages == ["shop: no answer within 0.01 s; going by the price file, else by list prices"]


async def test_a_restart_goes_on_with_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    first = Feed(Shop([CHEAP]))
    await first.at(0)
    second = Feed(Shop([Silent("dead")]), first.drawer)
    await second.at(60)
    assert (second.told, second.shop.asked) == ([CHEAP], [])
    await second.at(901)
    assert caplog.messages == ["shop: dead; going by those known before"]
    other = Feed(Shop([Silent("dead")]), first.drawer, address="http://other")
    await other.at(60)
    assert other.told == []


async def test_prices_that_are_stale_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(Shop([CHEAP, Silent("dead"), Silent("dead"), Silent("dead"), DEAR]))
    await feed.at(0, 3000, 7100, 7300, 7301)
    assert [text for text in caplog.messages if "stale" in text] == ["shop: prices are stale, 2 h old"]
    assert feed.told == [CHEAP]
    await feed.at(9000)
    assert feed.told == [CHEAP, DEAR]


async def test_a_clock_that_was_set_back_stops_nothing() -> None:
    feed = Feed(Shop([CHEAP, DEAR]))
    await feed.at(100_000)
    again = Feed(feed.shop, feed.drawer)
    await again.at(0, 900)
    assert again.told == [CHEAP, DEAR]


def test_live_prices_go_before_those_of_the_file_whichever_comes_first() -> None:
    told: list[PriceBook] = []
    books, file = Books(told.append), PriceBook((Price("H100", 5.0), Price("A100", 3.0)))
    books.take_live(CHEAP)
    books.take_filed(file)
    books.take_live(DEAR)
    assert [book.prices for book in told] == [
        (Price("H100", 2.0),),
        (Price("H100", 2.0), Price("A100", 3.0)),
        (Price("H100", 9.0), Price("A100", 3.0)),
    ]
