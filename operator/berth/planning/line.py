"""The line in which pending workloads are served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

from berth.model.workloads import Workload
from berth.planning.fairness import Rank
from berth.planning.scratch import Scratch
from berth.planning.whatif import order

Key = tuple[int, Rank, tuple[int, float, int, str]]


class Line:
    """Serves workloads one by one; who is next depends on what those before got.

    1. The higher priority. 2. The queue with the smaller share: of the roots of trees first, then of the queues under
    the root, and so on down. 3. The older; of those made in the same second, the larger in whole boards, since small
    ones fit beside them but not the other way round. 4. By uid.
    """

    def __init__(self, s: Scratch, workloads: Iterable[Workload]) -> None:
        """All of them wait. Where the snapshot names one to stop at, those after it are not served."""
        self.served: list[Workload] = []
        self._s = s
        self._waiting: dict[str, list[Workload]] = {}  # by queue, the next one last
        for w in sorted(workloads, key=order, reverse=True):
            self._waiting.setdefault(w.queue, []).append(w)

    def __iter__(self) -> Iterator[Workload]:
        """The workloads. A queue whose share has risen since it was put in line goes back to where it belongs now."""
        line = [(self._key(queue), queue) for queue in self._waiting]
        heapify(line)
        while line:
            key, queue = heappop(line)
            now = self._key(queue)
            if now > key:
                heappush(line, (now, queue))
                continue
            w = self._waiting[queue].pop()
            if self._waiting[queue]:
                heappush(line, (self._key(queue), queue))
            self.served.append(w)
            yield w
            if w.ref.uid == self._s.snapshot.until:
                return

    def _key(self, queue: str) -> Key:
        w = self._waiting[queue][-1]
        return -w.priority, self._s.fairness.rank(queue), order(w)
