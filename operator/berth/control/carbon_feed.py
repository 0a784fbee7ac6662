"""The carbon intensity of zones, asked for seldom, kept, and there whatever the source does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from berth.control.ports import Busy, CarbonSource, CarbonStore, Clock, Silent, SourceError
from berth.model.carbon import Known
from berth.planning.carbon import Outlook, merged, outlook

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3600.0  # seconds after a failure; doubles each time
MOST_DOUBLINGS = 7
MOST_AHEAD = 96  # hours


@dataclass(frozen=True, slots=True)
class FeedRules:
    """How often to ask, and what to believe without an answer. Times are in seconds."""

    poll_seconds: float = 900.0  # forecasts change about hourly
    stale_seconds: float = 6 * 3600.0
    timeout_seconds: float = 10.0
    table: Mapping[str, float] = field(default_factory=dict)  # by zone, gCO2eq/kWh: what is believed at last


@dataclass(frozen=True, slots=True)
class Report:
    """A zone's outlook, and where it comes from."""

    zone: str
    outlook: Outlook
    source: str  # "": none has said anything yet
    age_seconds: float | None  # of the last forecast
    problem: str  # why there is no newer one; "": there is no need of one


@dataclass
class _Pause:
    """How long not to ask, and why."""

    until: float = 0.0
    failures: int = 0
    problem: str = ""


def pause_seconds(failures: int, error: SourceError, chance: float) -> float:
    """When to ask again after so many failures: the pause doubles, half of it is chance; not before a source says so.

    >>> pause_seconds(0, Silent("no answer"), 1.0), pause_seconds(1, Busy("later", 90.0), 0.0)
    (30.0, 90.0)
    """
    seconds = min(LONGEST_PAUSE, FIRST_PAUSE * float(2 ** min(failures, MOST_DOUBLINGS))) * (0.5 + chance / 2)
    if isinstance(error, Busy) and error.retry_after_seconds is not None:
        seconds = max(seconds, error.retry_after_seconds)
    return seconds


class CarbonFeed:
    """Asks a source for each zone at most once in `poll_seconds`, one request at a time, less often while it fails.

    A source that is busy is left alone for all zones. Other failures are a zone's own; denials too, since plans are
    sold by zone.
    """

    def __init__(
        self,
        source: CarbonSource | None,
        store: CarbonStore,
        clock: Clock,
        chance: Callable[[], float],
        rules: FeedRules,
    ) -> None:
        """`chance`: a number from 0 to 1, for pauses that do not fall together with those of others."""
        self.source, self.store, self.clock, self.chance, self.rules = source, store, clock, chance, rules
        self._known: dict[str, Known] = {}
        self._pauses: defaultdict[str, _Pause] = defaultdict(_Pause)
        self._all = _Pause()
        self._lock = asyncio.Lock()

    async def report(self, zone: str, hours: int = MOST_AHEAD) -> Report:
        """So many hours from now. Never raises; takes a time-out at most, after those of requests for other zones."""
        async with self._lock:
            if zone not in self._known and (kept := self.store.load(zone)):
                self._known[zone] = kept
            if self._due(zone):
                await self._ask(zone)
        known, now = self._known.get(zone), self.clock()
        return Report(
            zone,
            outlook(known, self.rules.table.get(zone), now, hours, self.rules.stale_seconds),
            known.source if known else "",
            max(0.0, now - known.issued_at) if known else None,
            self._all.problem or self._pauses[zone].problem,
        )

    def told(self, zone: str, hour: int) -> float | None:
        """The g/kWh that the source told of an hour since the epoch, else the table's; None: neither knows."""
        known = self._known.get(zone)
        return known.hours[hour] if known and hour in known.hours else self.rules.table.get(zone)

    def _due(self, zone: str) -> bool:
        now, known = self.clock(), self._known.get(zone)
        if self.source is None or now < max(self._all.until, self._pauses[zone].until):
            return False
        return not (
            known and known.source == self.source.name and 0 <= now - known.fetched_at < self.rules.poll_seconds
        )

    async def _ask(self, zone: str) -> None:
        assert self.source is not None
        try:
            async with asyncio.timeout(self.rules.timeout_seconds):
                forecast = await self.source.forecast(zone, self.clock())
        except TimeoutError:
            self._failed(self._pauses[zone], Silent(f"no answer within {self.rules.timeout_seconds:g} s"))
        except SourceError as error:
            self._failed(self._all if isinstance(error, Busy) else self._pauses[zone], error)
        else:
            self._pauses[zone], self._all = _Pause(), _Pause()
            self._known[zone] = merged(self._known.get(zone), self.source.name, forecast, self.clock())
            self.store.save(zone, self._known[zone])

    def _failed(self, pause: _Pause, error: SourceError) -> None:
        assert self.source is not None
        seconds = pause_seconds(pause.failures, error, self.chance())
        pause.until, pause.failures = self.clock() + seconds, pause.failures + 1
        pause.problem = f"{self.source.name}: {error}"
