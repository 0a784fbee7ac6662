"""How often to save: what a checkpoint interval loses, and the interval that loses least.

C is the seconds that a save stalls training, M the mean seconds between failures of a whole gang, R the seconds of a
restart. Daly's formula holds for failures that come at a constant rate. Real ones come in bursts: spot capacity that
was just given is the likeliest to be taken back, and so is a node that was just repaired. So `Hazard` learns the rate
by how long a run has lasted, and `next_interval` spaces saves by the rate of the moment
(Ling, Mi and Lin, IEEE Transactions on Computers 50 (2001): saves as dense as the root of the hazard over 2C).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, exp, expm1, inf, sqrt

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
AGES = (0.0, 900.0, HOUR, 4 * HOUR)  # seconds into a run at which its rate of failure may change
AGE_WEIGHT = 4.0  # failures' worth of belief that the rate of an age is that of the whole
SHORTEST_SECONDS = 5.0  # between saves: less is noise of the measured save time


def young(save: float, mtbf: float) -> float:
    """Young's interval: sqrt(2 C M), seconds of work between saves.

    >>> round(young(300, DAY) / MINUTE)
    120
    """
    return sqrt(2 * save * mtbf)


def daly(save: float, mtbf: float) -> float:
    """Daly's interval, seconds of work between saves; M where a save takes longer than two failures are apart.

    >>> [round(daly(300, m * HOUR) / MINUTE, 1) for m in (24, 6, 0.25)]
    [116.7, 56.7, 9.1]
    """
    if save >= 2 * mtbf:
        return mtbf
    x = save / (2 * mtbf)
    return young(save, mtbf) * (1 + sqrt(x) / 3 + x / 9) - save


def exact(save: float, mtbf: float) -> float:
    """The interval that loses least under a constant rate: M (1 + W0(-exp(-(1 + C/M)))).

    >>> [round(exact(300, m * HOUR) / MINUTE, 1) for m in (24, 6, 0.25)]
    [116.7, 56.7, 9.2]
    """
    return mtbf * (1 + _lambert(-exp(-(1 + save / mtbf))))


def _lambert(x: float) -> float:
    """The principal branch of Lambert's W for -1/e <= x < 0, by Halley's method from its series at the branch point.

    >>> w = _lambert(-0.2)
    >>> abs(w * exp(w) + 0.2) < 1e-12
    True
    """
    p = sqrt(max(0.0, 2 * (e * x + 1)))
    w = -1 + p - p * p / 3
    for _ in range(20):
        error = w * exp(w) - x
        slope = exp(w) * (w + 1)
        if abs(error) < 1e-15 or slope == 0:
            break
        w -= error / (slope - (w + 2) * error / (2 * w + 2))
    return w


def wall_time(work: float, interval: float, save: float, mtbf: float, restart: float) -> float:
    """Expected seconds until `work` seconds of work are done (Daly): M e^(R/M) (e^((tau + C)/M) - 1) T / tau.

    >>> round(wall_time(DAY, daly(300, 6 * HOUR), 300, 6 * HOUR, 120) / DAY, 3)
    1.194
    """
    return mtbf * exp(restart / mtbf) * expm1((interval + save) / mtbf) * work / interval


def waste(interval: float, save: float, mtbf: float, restart: float) -> float:
    """Share of the time that is lost, to first order: C/tau + tau/2M + R/M.

    >>> round(waste(daly(300, 6 * HOUR), 300, 6 * HOUR, 120), 3)
    0.172
    """
    return save / interval + interval / (2 * mtbf) + restart / mtbf


def caught(mtbf: float, share: float) -> float:
    """The mean seconds between failures that lose work, where a share of all comes with a notice that saves suffice in.

    >>> caught(6 * HOUR, 0.75) == 24 * HOUR
    True
    """
    return mtbf / (1 - share) if share < 1 else inf


@dataclass(frozen=True, slots=True)
class Rate:
    """Failures of one node per second: a gamma prior, and what was seen since. Both numbers include the prior.

    >>> Rate(2, 12 * HOUR).seen(failures=3, seconds=8 * HOUR).mtbf / HOUR
    4.0
    """

    failures: float
    seconds: float  # that nodes ran

    def seen(self, failures: float, seconds: float) -> Rate:
        """After more was seen."""
        return Rate(self.failures + failures, self.seconds + seconds)

    @property
    def per_second(self) -> float:
        """The expected rate."""
        return self.failures / self.seconds

    @property
    def mtbf(self) -> float:
        """The expected seconds between failures."""
        return self.seconds / self.failures


SPOT = Rate(2.0, 12 * HOUR)  # recorded pools take a node back every 1 to 4 hours (Can't Be Late, NSDI 2024)
STEADY = Rate(1.0, 100 * DAY)  # Llama 3's 2,048 nodes of 8 boards: 419 failures in 54 days, one in 264 days of a node


@dataclass(frozen=True, slots=True)
class Hazard:
    """How the rate of failure of one node depends on how long a run has lasted, as far as has been seen.

    >>> fresh = Hazard(SPOT)
    >>> burst = fresh.ran(120, failed=True).ran(300, failed=True).ran(90, failed=True).ran(9 * HOUR, failed=False)
    >>> burst.rate(0) > 2 * burst.rate(5 * HOUR)
    True
    """

    prior: Rate
    failures: tuple[float, ...] = (0.0,) * len(AGES)
    seconds: tuple[float, ...] = (0.0,) * len(AGES)

    def ran(self, seconds: float, failed: bool, since: float = 0.0) -> Hazard:
        """After a run of so many seconds, which a failure ended or which may go on, watched from that age on.

        What passed before is no evidence: the runs that did not last so long were not seen.
        """
        ended = [float(failed and low <= seconds < high) for low, high in _spans()]
        lasted = [max(0.0, min(seconds, high) - max(since, low)) for low, high in _spans()]
        return Hazard(
            self.prior,
            tuple(a + b for a, b in zip(self.failures, ended, strict=True)),
            tuple(a + b for a, b in zip(self.seconds, lasted, strict=True)),
        )

    @property
    def overall(self) -> Rate:
        """The rate at any age."""
        return self.prior.seen(sum(self.failures), sum(self.seconds))

    def rate(self, age: float) -> float:
        """Failures per second of a run that has lasted so long: that of all ages, until its own has shown another."""
        here = max(i for i, low in enumerate(AGES) if low <= age)
        mean = self.overall.per_second
        return (AGE_WEIGHT + self.failures[here]) / (AGE_WEIGHT / mean + self.seconds[here])


def next_interval(
    hazard: Hazard, save: float, age: float = 0.0, *, members: int = 1, caught_share: float = 0.0
) -> float:
    """Seconds of work until the next save of a gang whose nodes have run for `age`; any of its members may fail.

    `caught_share` of the failures lose nothing, since they come with a notice in which a step and a save fit. Where the
    rate is the same at all ages this is Daly's interval.

    >>> round(next_interval(Hazard(Rate(1, DAY)), 300) / MINUTE, 1) == round(daly(300, DAY) / MINUTE, 1)
    True
    """
    if caught_share >= 1:
        return inf
    left, at = 1.0, age  # of the interval; each second uses up 1/Daly's interval of its age
    while True:
        mtbf = caught(1 / (members * hazard.rate(at)), caught_share)
        seconds = left * max(daly(save, mtbf), SHORTEST_SECONDS)
        room = next((low for low in AGES if low > at), inf) - at
        if seconds <= room:
            return at + seconds - age
        left -= left * room / seconds
        at += room


def _spans() -> list[tuple[float, float]]:
    return list(zip(AGES, (*AGES[1:], inf), strict=True))
