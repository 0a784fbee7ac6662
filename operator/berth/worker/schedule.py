"""When to save next. By a clock that never jumps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

UNKNOWN_SAVE_SECONDS = 10.0  # until one was measured: low, so that the first save comes early and measures
UNKNOWN_MTBF_SECONDS = 24 * 3600.0  # where nobody says how often the gang is disturbed
RETRY_SECONDS = 60.0  # after a save that failed
WEIGHT = 0.5  # of the latest save among those measured


def daly(save_seconds: float, mtbf_seconds: float) -> float:
    """Seconds of work between saves that lose least: J. T. Daly, Future Generation Computer Systems 22 (2006), eq. 37.

    >>> round(daly(300, 24 * 3600) / 60)
    117
    """
    if save_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    x = save_seconds / (2 * mtbf_seconds)
    return math.sqrt(2 * save_seconds * mtbf_seconds) * (1 + math.sqrt(x) / 3 + x / 9) - save_seconds


class Schedule:
    """The interval between saves: fixed, told by Berth, or by the times that saves take."""

    def __init__(
        self,
        interval_seconds: float | None = None,
        mtbf_seconds: float = UNKNOWN_MTBF_SECONDS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval_seconds` None: automatic."""
        self._fixed = interval_seconds
        self._mtbf_seconds = mtbf_seconds
        self._told: float | None = None
        self._save_seconds: float | None = None
        self._timer = timer
        self._last = timer()
        self._not_before = 0.0

    @property
    def interval_seconds(self) -> float:
        """Seconds from the end of one save to the beginning of the next."""
        if self._fixed is not None:
            return self._fixed
        if self._told is not None and self._save_seconds is not None:
            return self._told
        return daly(self._save_seconds or UNKNOWN_SAVE_SECONDS, self._mtbf_seconds)

    def tell(self, seconds: float) -> None:
        """Berth knows better by now how often nodes fail. An interval that the user fixed stays."""
        if math.isfinite(seconds) and seconds > 0:
            self._told = seconds

    def saved(self, seconds: float) -> None:
        """A save was done that took so long."""
        old = seconds if self._save_seconds is None else self._save_seconds
        self._save_seconds = WEIGHT * seconds + (1 - WEIGHT) * old
        self._last = self._timer()

    def failed(self) -> None:
        """A save failed: it is tried again soon, but not at every step."""
        self._not_before = self._timer() + RETRY_SECONDS

    def due(self) -> bool:
        """Whether it is time to save."""
        now = self._timer()
        return now >= self._not_before and now - self._last >= self.interval_seconds
