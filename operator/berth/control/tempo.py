"""How an attempt gets on, measured by its reports."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from berth.control.ports import Json
from berth.control.status import pace_from
from berth.model.failures import Pace

FEWEST_PAUSES = 5  # before anything is called usual
WHOLE = 100  # percent
KEPT_PAUSES = 15  # of which the median is; more would not see that a job has become slower


@dataclass
class Tempo:
    """A sign of life is a step or percentage beyond those before, and a save that ended well or badly.

    Whatever else a program repeats, it may repeat while it hangs.
    """

    attempt: int
    step: int = -1
    percent: int = -1
    advanced_at: float = 0.0
    usual_seconds: float | None = None  # as an operator before this one knew it, until enough was seen
    longest_seconds: float = 0.0
    whole: bool = False  # whether all its steps are made: what comes then, such as an export, has no pace
    _since: float = 0.0  # of the pause under way; 0: it was not seen from its beginning on
    _pauses: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_PAUSES))

    @classmethod
    def resumed(cls, attempt: int, status: Json) -> Tempo:
        """With what the status knows of the attempt."""
        told, known = status.get("progress") or {}, pace_from(status)
        if known.attempt != attempt:
            return cls(attempt)
        step, percent = told.get("step"), told.get("percent")
        return cls(
            attempt,
            -1 if step is None else int(step),
            -1 if percent is None else int(percent),
            known.advanced_at,
            known.usual_seconds,
            known.longest_seconds,
            told.get("percent") == WHOLE,
        )

    def take(self, now: float, step: int | None, total: int | None, percent: int | None, *, saved: bool) -> None:
        """A report came; `saved`: a save ended."""
        if step is not None or percent is not None:
            self.whole = percent == WHOLE or bool(total and (step or 0) >= total)
        before = self.step, self.percent
        self.step = max(self.step, -1 if step is None else step)
        self.percent = max(self.percent, -1 if percent is None else percent)
        if not saved and (self.step, self.percent) == before:
            return
        if self._since:
            self._pauses.append(now - self._since)
            self.longest_seconds = max(self.longest_seconds, now - self._since)
        if len(self._pauses) >= FEWEST_PAUSES:
            self.usual_seconds = median(self._pauses)
        self.advanced_at = self._since = now

    @property
    def pace(self) -> Pace:
        """For the plan."""
        usual = None if self.whole else self.usual_seconds
        return Pace(self.attempt, self.advanced_at, usual, self.longest_seconds)
