"""Virtual time: what happens next, in one heap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

Event = Callable[[], None]


@dataclass
class Clock:
    """Events in the order of their time; those of one moment in the order in which they were asked for.

    >>> clock = Clock()
    >>> clock.after(2.0, lambda: print("second"))
    >>> clock.at(1.0, lambda: print("first, at", clock.now))
    >>> while clock.next_at is not None:
    ...     clock.step()
    first, at 1.0
    second
    """

    now: float = 0.0  # seconds since the scenario began
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def at(self, moment: float, event: Event) -> None:
        """Have something happen then, or at once where that is past."""
        heappush(self._events, (max(moment, self.now), next(self._numbers), event))

    def after(self, seconds: float, event: Event) -> None:
        """Have something happen so much later."""
        self.at(self.now + seconds, event)

    @property
    def next_at(self) -> float | None:
        """When the next event is due; None where there is none."""
        return self._events[0][0] if self._events else None

    def step(self) -> None:
        """Go to the next event, and let it happen."""
        self.now, _, event = heappop(self._events)
        event()
