"""Live prices, asked for seldom, kept, and there whatever their source does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from berth.control.carbon_feed import pause_seconds
from berth.control.ports import Clock, PriceSource, PriceStore, Silent, SourceError
from berth.model.prices import KnownPrices, PriceBook

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0  # between two looks at whether it is time to ask


@dataclass
class Books:
    """The prices of a file and those of a live source, as one book."""

    tell: Callable[[PriceBook], None]
    filed: PriceBook = field(default_factory=PriceBook)
    live: PriceBook = field(default_factory=PriceBook)

    def take_filed(self, book: PriceBook) -> None:
        """The file was read."""
        self.filed = book
        self.tell(self.live.over(self.filed))

    def take_live(self, book: PriceBook) -> None:
        """The source told its prices."""
        self.live = book
        self.tell(self.live.over(self.filed))


@dataclass(frozen=True, slots=True)
class PriceRules:
    """How often to ask, and when an answer is old. Times are in seconds."""

    poll_seconds: float = 900.0
    stale_seconds: float = 24 * 3600.0
    timeout_seconds: float = 10.0


@dataclass
class PriceFeed:
    """Asks a source at most once in `poll_seconds`, less often while it fails; what it said last counts meanwhile."""

    source: PriceSource
    address: str  # of the source: what another one told is forgotten
    store: PriceStore
    tell: Callable[[PriceBook], None]  # the prices, when they have changed
    aged: Callable[[float], None]  # how old they are, in seconds, at each look; infinite: it never told any
    clock: Clock
    chance: Callable[[], float]  # a number from 0 to 1, for pauses that do not fall together with those of others
    rules: PriceRules = field(default_factory=PriceRules)
    _known: KnownPrices | None = None
    _begun: bool = False
    _until: float = 0.0  # it is not asked before
    _failures: int = 0
    _problem: str = ""
    _stale: bool = False  # that was said

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self.rules.poll_seconds))
            await self.look()

    async def look(self) -> None:
        """Ask if it is time to. Never raises for what a source does; takes a time-out at most."""
        if not self._begun:
            self._recall()
        if self.clock() >= self._until:
            await self._ask()
        if self._known is not None:
            self._tell_age(self.clock() - self._known.told_at)
        else:
            self.aged(inf)

    def _recall(self) -> None:
        self._begun, kept = True, self.store.load()
        if kept is not None and kept.source == self.address:
            self._known, self._until = kept, min(kept.told_at, self.clock()) + self.rules.poll_seconds
            self.tell(kept.book)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self.rules.timeout_seconds):
                book = await self.source.book()
        except TimeoutError:
            self._failed(Silent(f"no answer within {self.rules.timeout_seconds:g} s"))
        except SourceError as error:
            self._failed(error)
        else:
            before, self._known = self._known, KnownPrices(self.address, self.clock(), book)
            self._until, self._failures, self._problem = self.clock() + self.rules.poll_seconds, 0, ""
            self.store.save(self._known)
            if before is None or before.book != book:
                self.tell(book)

    def _failed(self, error: SourceError) -> None:
        self._until = self.clock() + pause_seconds(self._failures, error, self.chance())
        self._failures += 1
        if str(error) != self._problem:
            known = "those known before" if self._known else "the price file, else by list prices"
            log.warning("%s: %s; going by %s", self.source.name, error, known)
        self._problem = str(error)

    def _tell_age(self, seconds: float) -> None:
        self.aged(max(0.0, seconds))
        stale = seconds > self.rules.stale_seconds
        if stale and not self._stale:
            log.warning("%s: prices are stale, %.0f h old", self.source.name, seconds / 3600)
        self._stale = stale
