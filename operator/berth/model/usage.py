"""What a workload used so far: board-hours, energy, carbon and dollars, and what they would have been on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from berth.model.prices import CapacityType

MOST_WEEKS = 5  # kept in a status: a month, whichever day it begins on


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was used, and what it came to."""

    gpu_hours: float = 0.0  # a MIG instance counts as its part of a board
    kwh: float = 0.0  # with the hosts' share, and that of the building
    kg: float = 0.0  # of CO2e
    usd: float = 0.0
    unknown_kwh: float = 0.0  # of the energy, what is not in `kg`: nobody knows how it was made
    on_demand_usd: float = 0.0  # of a start at once, on demand, that nothing interrupts
    on_demand_kg: float | None = 0.0  # None: of some hour, nobody knows

    def __add__(self, other: Amounts) -> Amounts:
        unknown = self.on_demand_kg is None or other.on_demand_kg is None
        return Amounts(
            self.gpu_hours + other.gpu_hours,
            self.kwh + other.kwh,
            self.kg + other.kg,
            self.usd + other.usd,
            self.unknown_kwh + other.unknown_kwh,
            self.on_demand_usd + other.on_demand_usd,
            None if unknown else (self.on_demand_kg or 0.0) + (other.on_demand_kg or 0.0),
        )


NOTHING = Amounts()


def total(amounts: Iterable[Amounts]) -> Amounts:
    """All of them.

    >>> total([Amounts(usd=1.5), Amounts(usd=2.0)]).usd
    3.5
    """
    return sum(amounts, NOTHING)


@dataclass(frozen=True, slots=True)
class Bought:
    """What was used of one kind of capacity."""

    model: str
    capacity: CapacityType
    region: str  # where it was used last; "": no label says
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Usage:
    """What a workload used until a moment. Sums and moment belong together: neither is written without the other."""

    until: float = 0.0  # seconds since the epoch; 0: nothing was counted yet
    ran_seconds: float = 0.0  # until then, for which a run that nothing interrupts would have held its boards
    bought: tuple[Bought, ...] = ()  # each model and capacity type once, that used last at the end
    weeks: tuple[tuple[str, Amounts], ...] = ()  # the last MOST_WEEKS of those in which it used something

    @property
    def total(self) -> Amounts:
        """All of it."""
        return total(one.amounts for one in self.bought)

    def and_some(self, week: str, more: Bought) -> Usage:
        """With more of one kind, used in that week."""
        same = [one for one in self.bought if (one.model, one.capacity) == (more.model, more.capacity)]
        summed = replace(more, amounts=total(one.amounts for one in same) + more.amounts)
        weeks = dict(self.weeks)
        weeks[week] = weeks.get(week, NOTHING) + more.amounts
        return replace(
            self,
            bought=(*(one for one in self.bought if one not in same), summed),
            weeks=tuple(sorted(weeks.items())[-MOST_WEEKS:]),
        )


NO_USAGE = Usage()


def week_of(time: float) -> str:
    """The ISO week, in UTC, of a moment.

    >>> week_of(0.0)
    '1970-W01'
    """
    year, week, _ = datetime.fromtimestamp(time, UTC).isocalendar()
    return f"{year}-W{week:02}"
