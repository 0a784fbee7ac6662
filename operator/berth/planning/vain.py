"""What was sought in vain: who asks for the same is not tried again as long as nothing has changed since."""

from __future__ import annotations

from berth.model.workloads import Request, Workload
from berth.planning.ahead import Ahead
from berth.planning.preemption import Yielding

State = tuple[int, ...]


class Vain:
    """The searches of one plan that found nothing and left everything as it was.

    Thousands may wait in a few queues, and ask for a few things. The same search on the same working copy has the same
    end, so one of each is enough until somebody takes or keeps something.
    """

    def __init__(self, ahead: Ahead, yielding: Yielding) -> None:
        """Nothing was sought yet."""
        self._ahead, self._yielding = ahead, yielding
        self._found_nothing: dict[tuple[object, ...], State] = {}

    def key(self, w: Workload, request: Request) -> tuple[object, ...]:
        """All that a search depends on of the workload that it is for."""
        s, yielding = self._ahead.s, self._yielding
        own = w.ref.uid if yielding.is_owed(w) else ""
        until = s.estimates.end_if_admitted(w)
        return request, w.queue, w.priority, s.avoided(w), until, yielding.is_time(w), own

    def state(self) -> State:
        """What changes with everything that a plan does while it serves the line."""
        s = self._ahead.s
        return len(s.actions), s.ledger.mark, len(s.reserved), s.lead.changes, self._ahead.weighed

    def is_known(self, key: tuple[object, ...]) -> bool:
        """Whether the same was sought in vain, and nothing has changed since."""
        return self._found_nothing.get(key) == self.state()

    def note(self, key: tuple[object, ...], before: State) -> None:
        """It was sought in vain, and `before` is how things stood; if something was kept for it, that may count."""
        if self.state() == before:
            self._found_nothing[key] = before
