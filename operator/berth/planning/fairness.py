"""Fair share: whose turn it is among queues that want the same boards.

What counts is use: board-hours held lately, of which half is forgotten after each half-life, and what is held now, as
if for a while longer. A queue's share is its use of the model that it uses most of (its use over the boards there are:
its dominant share), divided by its weight; the queue with the least is served first. Queues are compared with their
siblings: first the roots of trees, then under the root the queues under it, and so on; what a cohort's own work uses
counts there as one more sibling, of weight 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import log

from berth.model.workloads import Past, Queue
from berth.planning.cohorts import Cohorts

HOUR = 3600.0
# What is held counts as if it were held for so long from now on. With less, a queue takes too much at once, since its
# use shows too late; with much more, what was used before says too little. In simulated weeks of jobs of 1 to 24 hours
# the error was least at 2 to 4, three times as much at 1/2; and at 240, which is the plain sum of the mean and of what
# is held, no jobs of unequal length got their shares.
HELD_ON_HOURS = 2.0
OWN = "/"  # what a cohort's own work uses is counted under its name and this, which no queue's name can end in
Rank = tuple[float, ...]
"""The weighted shares from a root down to a queue: of two queues the one with the lower rank is served first."""


def counted(past: Past, now: float, half_life_hours: float) -> dict[str, float]:
    """The board-hours of a past by model, as of now: what was held since is added, and all of it fades."""
    hours = max(0.0, now - past.at) / HOUR if past.at else 0.0
    kept: float = 0.5 ** (hours / half_life_hours)
    added = (1 - kept) * half_life_hours / log(2)  # hours, faded as they go by, of one board held all the time
    models = sorted({*past.board_hours, *past.boards})
    return {m: past.board_hours.get(m, 0.0) * kept + past.boards.get(m, 0.0) * added for m in models}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a queue stands among its siblings."""

    part: float  # its part of what all of them used lately
    due: float  # the part that its weight gives it
    past: Past  # of its own work, as of this plan


class Fairness:
    """The use of every queue, on a copy that a plan charges as it admits."""

    def __init__(
        self, cohorts: Cohorts, there_are: Callable[[str, str], float], half_life_hours: float, now: float
    ) -> None:
        """Begin with the pasts of the queues. `there_are` says how many boards of a model a tree has, "": all trees."""
        self._cohorts, self._there_are = cohorts, there_are
        self._now = now
        self._pasts = {q.name: counted(q.past, now, half_life_hours) for q in cohorts.queues.values()}
        self._held: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # boards, by own work
        self._used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # board-hours, whole subtree
        self._ranks: dict[str, Rank] = {}  # as long as nothing is charged
        self._weights: dict[str, int] = {}  # by the queue above
        self._cohort_names = {path[1] for path in cohorts.paths.values() if len(path) > 1}
        for queue, hours in self._pasts.items():
            self._count(queue, hours)

    def charge(self, queue: str, model: str, boards: float) -> None:
        """Count boards of a model that the work of a queue holds."""
        self._held[queue][model] += boards
        self._count(queue, {model: boards * HELD_ON_HOURS})

    def rank(self, queue: str) -> Rank:
        """Where a queue stands; while a plan admits, it only rises."""
        if queue not in self._ranks:
            path = self._cohorts.path(queue)
            weighted = [self._share(name) / self._weight(name) for name in reversed(path)]
            own = [self._share(queue + OWN)] if queue in self._cohort_names else []
            self._ranks[queue] = (*weighted, *own)
        return self._ranks[queue]

    def lead_hours(self, queue: str, other: str) -> float:
        """How much more than another a queue has had, in hours of what its weight gives it of all boards.

        Two queues are compared where their paths part: by the queues just below, of which one may be the cohort's own.
        """
        mine, theirs = self._cohorts.path(queue)[::-1], self._cohorts.path(other)[::-1]
        shared = sum(1 for a, b in zip(mine, theirs, strict=False) if a == b)  # paths that part never meet again
        lead = self.rank(queue)[shared] - self.rank(other)[shared]
        return lead * self._weight_below(mine[shared - 1] if shared else "") if lead > 0 else 0.0

    def _weight_below(self, above: str) -> int:
        """The weights of all queues right under one, or of all roots, that used something when first asked."""
        if above not in self._weights:
            siblings = self._cohorts.children(above) if above else list(self._cohorts.trees)
            self._weights[above] = max(1, sum(self._weight(name) for name in siblings if self._share(name)))
        return self._weights[above]

    def standings(self, queues: Iterable[str]) -> dict[str, Standing]:
        """How all these queues stand, each among those of them that are its siblings."""
        families: dict[str, list[str]] = defaultdict(list)
        for name in sorted(queues):
            path = self._cohorts.path(name)
            families[path[1] if len(path) > 1 else ""].append(name)
        found = {}
        for above, siblings in families.items():
            shares = {name: self._share(name) for name in siblings}
            weights = {n: self._weight(n) if n in self._cohorts.queues or shares[n] else 0 for n in siblings}
            own = self._share(above + OWN) if above else 0.0
            total, weight = sum(shares.values()) + own, sum(weights.values()) + (1 if own else 0)
            for name in siblings:
                part = shares[name] / total if total else 0.0
                found[name] = Standing(part, weights[name] / weight if weight else 0.0, self._remembered(name))
        return found

    def _remembered(self, queue: str) -> Past:
        held = {model: boards for model, boards in sorted(self._held[queue].items()) if boards > 0}
        return Past(self._now, self._pasts.get(queue, {}), held)

    def _count(self, queue: str, hours: Mapping[str, float]) -> None:
        self._ranks.clear()
        for name in (queue + OWN, *self._cohorts.path(queue)):
            used = self._used[name]
            for model, more in hours.items():
                used[model] += more

    def _share(self, name: str) -> float:
        """The dominant share of a queue; of a root, of all boards there are, else of those of its tree."""
        queue = name.removesuffix(OWN)
        tree = self._cohorts.root(queue) if name != self._cohorts.root(queue) else ""
        return max((hours / self._there_are(tree, model) for model, hours in self._used[name].items()), default=0.0)

    def _weight(self, name: str) -> int:
        return self._cohorts.queues.get(name, Queue(name)).weight
