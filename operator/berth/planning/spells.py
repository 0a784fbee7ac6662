"""How long spot capacity stays and how long it stays away, pool by pool: a prior, and what was seen.

A spell is a time without a change: capacity is there (up) or is not (down). Young spells end soon and old ones last: in
all twelve pools of the recorded windows the hazard falls from about 1.3 an hour to 0.1-0.5 within an hour or two. So a
spell is fresh at first and settled later, with a hazard for each (docs/decisions/0018-spot-and-carbon.md). What a pool
shows scales both: with ends ~ Poisson(level x what the prior expects) and level ~ Gamma(PRIOR_ENDS, PRIOR_ENDS), the
level's posterior mean is (PRIOR_ENDS + ends seen) / (PRIOR_ENDS + ends expected).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

Key = TypeVar("Key")

FRESH_HOURS = 0.75  # where the recorded hazards, by age, have fallen half way
AGE_WHEN_FOUND_HOURS = 1.0  # a spell found under way is rather old than new: long ones are found more often
PRIOR_ENDS = 8.0  # spells that the prior is worth: fewer chase noise, more learn nothing within two days
LEVEL_STEP = 1.5  # levels are rounded to powers of this, so that plans are made anew only when it matters


@dataclass(frozen=True, slots=True)
class Hazards:
    """Ends of spells per hour, while they are fresh and once they have settled."""

    fresh: float
    settled: float

    def at(self, age_hours: float) -> float:
        """Of a spell of this age."""
        return self.settled if age_hours >= FRESH_HOURS else self.fresh

    def times(self, level: float) -> Hazards:
        """Both scaled."""
        return Hazards(self.fresh * level, self.settled * level)

    @property
    def mean_hours(self) -> float:
        """How long a spell lasts from its beginning."""
        outlives = math.exp(-self.fresh * FRESH_HOURS)
        return (1 - outlives) / self.fresh + outlives / self.settled


PRIOR = Hazards(fresh=1.2, settled=0.5)  # of both kinds of spells: medians over the recorded pools, rounded


@dataclass(frozen=True, slots=True)
class Record:
    """What was seen of the spells of one kind: how many ended, and how many the prior expected to."""

    ends: int = 0
    expected: float = 0.0

    @property
    def level(self) -> float:
        """By how much this pool's hazards exceed the prior's, rounded to a power of LEVEL_STEP."""
        level = (PRIOR_ENDS + self.ends) / (PRIOR_ENDS + self.expected)
        return float(LEVEL_STEP ** round(math.log(level, LEVEL_STEP)))


@dataclass(frozen=True, slots=True)
class Sightings:
    """What is known of one pool's spot capacity: whether it is there, since when, and how its spells went."""

    up: bool
    age_hours: float = AGE_WHEN_FOUND_HOURS
    ups: Record = Record()
    downs: Record = Record()

    def then(self, up: bool, hours: float) -> Sightings:
        """Looked at again, so many hours later."""
        expected = PRIOR.at(self.age_hours) * hours
        record = self.ups if self.up else self.downs
        record = Record(record.ends + (up != self.up), record.expected + expected)
        age = self.age_hours + hours if up == self.up else 0.0
        seen = replace(self, up=up, age_hours=age)
        return replace(seen, ups=record) if self.up else replace(seen, downs=record)

    @property
    def settled(self) -> bool:
        """Whether the spell is no longer fresh."""
        return self.age_hours >= FRESH_HOURS

    @property
    def habits(self) -> Habits:
        """The hazards to expect of this pool."""
        return Habits(PRIOR.times(self.ups.level), PRIOR.times(self.downs.level))


def looked(known: Mapping[Key, Sightings], there: Mapping[Key, bool], seconds: float) -> dict[Key, Sightings]:
    """What is known of several pools, looked at again after so long; of one that is not among `there`, nothing."""
    return {key: known[key].then(up, seconds / 3600) if key in known else Sightings(up) for key, up in there.items()}


@dataclass(frozen=True, slots=True)
class Habits:
    """The hazards of one pool: of losing capacity that is there, and of getting it back."""

    up: Hazards
    down: Hazards

    @property
    def availability(self) -> float:
        """The share of time in which capacity is there, in the long run."""
        return self.up.mean_hours / (self.up.mean_hours + self.down.mean_hours)

    def transitions(self, hours: float) -> tuple[tuple[float, ...], ...]:
        """From each of STATES to each, within a step of so many hours (at most one change is counted)."""
        settles = min(1.0, hours / FRESH_HOURS)
        ends = [1 - math.exp(-hazard * hours) for hazard in self._hazards]
        down_fresh, down_settled, up_fresh, up_settled = ends
        return (
            ((1 - down_fresh) * (1 - settles), (1 - down_fresh) * settles, down_fresh, 0.0),
            (0.0, 1 - down_settled, down_settled, 0.0),
            (up_fresh, 0.0, (1 - up_fresh) * (1 - settles), (1 - up_fresh) * settles),
            (up_settled, 0.0, 0.0, 1 - up_settled),
        )

    @property
    def _hazards(self) -> tuple[float, float, float, float]:
        return self.down.fresh, self.down.settled, self.up.fresh, self.up.settled


STATES = ("down, fresh", "down, settled", "up, fresh", "up, settled")  # of a pool, in the order of `transitions`


def state(seen: Sightings) -> int:
    """The index in STATES of what was seen last."""
    return 2 * seen.up + seen.settled
