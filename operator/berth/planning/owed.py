"""What queues own and wait for: nobody borrows it in the meantime.

A workload that its queue owns the boards for may have to wait, for the ends of others or for the runtime that they are
guaranteed. Whoever borrowed those boards while it waits would have to be waited for in turn. So they are lent to nobody
anew, as long as the workload would fit if all that is borrowed in its tree came back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from berth.model.gpus import BoardModel
from berth.model.workloads import Workload
from berth.planning.quota import Quota

MOST_OWED = 4  # workloads of each queue that are looked at: each may cost a search for a place


@dataclass(frozen=True, slots=True)
class Waiting:
    """A workload that waits for boards which its queue owns."""

    workload: Workload
    model: BoardModel
    boards: Fraction
    able: Callable[[], bool]  # whether it would fit if nobody borrowed


class Owed:
    """The workloads of each queue that wait for what it owns."""

    def __init__(self, quota: Quota) -> None:
        """Nobody waits yet."""
        self._quota = quota
        self._waiting: dict[str, list[Waiting]] = defaultdict(list)  # by queue, in the order of service
        self._asked: dict[tuple[str, str], Fraction] = defaultdict(Fraction)  # boards, by queue and model
        self._answers: dict[tuple[str, str], tuple[int, tuple[Fraction, Workload] | None]] = {}  # as of that change
        self._asking = False  # whether one would fit if nobody borrowed: what others are owed has no say in that
        self.settled: set[str] = set()  # uids of those whose boards are charged already

    def wait(self, w: Workload, model: BoardModel, boards: Fraction, able: Callable[[], bool]) -> bool:
        """Count a workload that waits, if its queue owns so much beside what it holds and what waits before it."""
        owns, asked = self._quota.nominal_left(w.queue, model), self._asked[w.queue, model.name]
        if owns is None or asked + boards > owns or len(self._waiting[w.queue]) >= MOST_OWED:
            return False
        self._asked[w.queue, model.name] += boards
        self._waiting[w.queue].append(Waiting(w, model, boards, able))
        return True

    def to_borrow(self, queue: str, model: BoardModel, boards: Fraction) -> tuple[Fraction, Workload] | None:
        """Boards that a queue may still take, where it is to take so many, and whom it has to leave some to.

        None where nobody's waiting bears on it: it owns them itself, or there are enough for all.
        """
        owns = self._quota.nominal_left(queue, model)
        if not self._waiting or self._asking or owns is None or boards <= owns:
            return None
        changes, bound = self._answers.get((queue, model.name), (-1, None))
        if changes != self._quota.changes:
            bound = self._left(queue, model)
            self._answers[queue, model.name] = self._quota.changes, bound
        return bound if bound is not None and boards > bound[0] else None

    def _left(self, queue: str, model: BoardModel) -> tuple[Fraction, Workload] | None:
        quota = self._quota.copy()
        name, root = quota.cohorts.charged_to(queue, model), quota.cohorts.root(queue)
        first: Workload | None = None
        for other, waiting in sorted(self._waiting.items()):
            if other == queue or quota.cohorts.root(other) != root:
                continue
            for one in waiting:
                owns = quota.nominal_left(other, one.model)
                charged = one.workload.ref.uid in self.settled or quota.cohorts.charged_to(other, one.model) != name
                if charged or owns is None or one.boards > owns or not self._is_able(one):
                    continue
                quota.charge(other, one.model, one.boards)
                first = first or one.workload
        left = quota.left(queue, model)
        return (left, first) if first is not None and left is not None else None

    def _is_able(self, one: Waiting) -> bool:
        self._asking = True
        try:
            return one.able()
        finally:
            self._asking = False
