"""Who may go before work of other queues that waits for room."""

from __future__ import annotations

from fractions import Fraction

from berth.model.gpus import BoardModel
from berth.model.workloads import Workload
from berth.planning.fairness import Fairness
from berth.planning.quota import Quota

# Small work finds room where large work of another queue does not, and a queue of small work would so get more than its
# share for as long as the load lasts. It may get ahead by what its weight gives it in an hour: 0.6 % of a week. Less
# leaves boards idle that nobody else can use; more is more than shares may be off by.
MOST_HOURS = 1.0


class Lead:
    """The queues that work waits in for boards of each model, and how far ahead of them others are."""

    def __init__(self, fairness: Fairness, quota: Quota) -> None:
        """Nobody waits yet."""
        self._fairness, self._quota = fairness, quota
        self._behind: dict[str, Workload] = {}  # by model: what waits in the queue with the smallest share
        self.changes = 0  # of that

    def is_behind(self, w: Workload, model: BoardModel) -> bool:
        """Whether the queue of a workload has a smaller share than all in which others wait for that model."""
        known = self._behind.get(model.name)
        rank = self._fairness.rank
        return known is None or (known.queue != w.queue and rank(w.queue) < rank(known.queue))

    def wait(self, w: Workload, model: BoardModel) -> None:
        """It waits for room that boards of the model would give, though not for quota."""
        self._behind[model.name] = w
        self.changes += 1

    def too_far(self, w: Workload, model: BoardModel, boards: Fraction) -> Workload | None:
        """The workload of another queue that this one must let go first; None where it need not.

        What a queue takes of boards it owns, it takes without regard to others.
        """
        first = self._behind.get(model.name)
        if first is None or first.queue == w.queue or first.priority < w.priority:
            return None
        own = self._quota.nominal_left(w.queue, model)
        if own is not None and boards <= own:
            return None
        return first if self._fairness.lead_hours(w.queue, first.queue) > MOST_HOURS else None
