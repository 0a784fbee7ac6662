"""What the plan is told of carbon intensity and of prices, kept current beside it: no plan waits for a source."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from berth.control.carbon_feed import CarbonFeed
from berth.control.picture import Picture
from berth.control.ports import PriceSource, SourceError
from berth.model.prices import PriceBook, region_of
from berth.planning.carbon import Outlook

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0  # between two looks at what is told, at most; the feed itself asks its source less often


@dataclass
class Outlooks:
    """The hours to come of the regions that there are nodes of."""

    feed: CarbonFeed
    picture: Picture
    zone_of: Callable[[str], str]  # the zone that a region lies in; "": in none
    tell: Callable[[Mapping[str, Outlook]], None]  # the outlooks by region, when they have changed
    aged: Callable[[str, float | None], None]  # how old a zone's forecast is, in seconds, at each look; None: none came
    _told: dict[str, Outlook] = field(default_factory=dict)
    _problems: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self.feed.rules.poll_seconds))
            await self.look()

    async def look(self) -> None:
        """Ask for each zone once; what has not changed stays the same object, by which schedules are kept."""
        found: dict[str, Outlook] = {}
        by_zone: dict[str, Outlook] = {}
        for region in sorted({region_of(node.meta.labels) for node in self.picture.nodes}):
            zone = self.zone_of(region)
            if zone and zone not in by_zone:
                by_zone[zone] = await self._of(zone)
            if zone:
                before = self._told.get(region)
                found[region] = before if before is not None and _same(before, by_zone[zone]) else by_zone[zone]
        if found != self._told:
            self._told = found
            self.tell(found)

    def intensity(self, region: str, hour: int) -> float | None:
        """The g/kWh that is known of an hour since the epoch in a region: told of it, or assumed by the table."""
        zone = self.zone_of(region)
        return self.feed.told(zone, hour) if zone else None

    async def _of(self, zone: str) -> Outlook:
        report = await self.feed.report(zone)
        if report.problem and report.problem != self._problems.get(zone):
            log.warning("carbon intensity of %s: %s; going by what is known", zone, report.problem)
        self._problems[zone] = report.problem
        if self.feed.source is not None:
            self.aged(zone, report.age_seconds)
        return report.outlook


def _same(one: Outlook, other: Outlook) -> bool:
    return (one.start, one.grams, one.origins) == (other.start, other.grams, other.origins)


@dataclass
class Prices:
    """The price book, read again and again; one that can't be read changes nothing."""

    source: PriceSource
    tell: Callable[[PriceBook], None]
    _told: PriceBook | None = None
    _problem: str = ""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read the book once."""
        try:
            book = await self.source.book()
        except SourceError as error:
            if str(error) != self._problem:
                log.warning("prices: %s; going by those known before", error)
            self._problem = str(error)
            return
        self._problem = ""
        if book != self._told:
            self._told = book
            self.tell(book)
