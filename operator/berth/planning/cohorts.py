"""The tree of queues: who is under whom, what is wrong with it, and under which name a model's boards are counted.

A queue without parent is the root of a tree; a queue with others under it is a cohort, and may have work of its own.
What is wrong in one place of a tree concerns the queues there and no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache

from berth.model.gpus import MODELS, BoardModel
from berth.model.workloads import Queue, StopPolicy

FAMILY_OF = {model.name.lower(): model.family.lower() for model in MODELS}


class Cohorts:
    """The queues of a snapshot as trees. A queue that has no object is an unlimited root of its own."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        """Arrange them; what can't be arranged is left a root, and is in `problems`."""
        self.queues = queues
        self._parents = {q.name: q.parent for q in queues.values() if q.parent in queues}
        rings = dict(_rings(self._parents))
        for name in rings:
            del self._parents[name]
        self.paths = {name: tuple(self._up(name)) for name in sorted(queues)}
        self._children: dict[str, list[str]] = {}
        for name in sorted(self._parents):
            self._children.setdefault(self._parents[name], []).append(name)
        self.trees: dict[str, list[str]] = defaultdict(list)  # names by root, parents before their children
        for name in sorted(queues, key=lambda name: (len(self.paths[name]), name)):
            self.trees[self.root(name)].append(name)
        self._names = {root: self._spellings(members) for root, members in self.trees.items()}
        self._limited = {self.root(q.name) for q in queues.values() if q.nominal is not None}  # trees with quotas
        self._limits = {name: tuple(self._priced(path)) for name, path in self.paths.items()}
        self.problems = self._problems(rings)  # by queue: the field, what is wrong there, and the remedy

    def path(self, queue: str) -> tuple[str, ...]:
        """The queue, its parent and so on up to its root."""
        return self.paths.get(queue) or (queue,)

    def root(self, queue: str) -> str:
        """The root of a queue's tree."""
        return self.path(queue)[-1]

    def members(self, queue: str) -> list[str]:
        """All queues of a queue's tree, parents before their children."""
        return self.trees.get(self.root(queue)) or [queue]

    def is_unlimited(self, queue: str) -> bool:
        """Whether no queue of its tree states quotas."""
        return self.root(queue) not in self._limited

    def is_bound(self, queue: str) -> bool:
        """Whether what others of its tree hold may keep a queue's work waiting."""
        return not self.is_unlimited(queue) or bool(self.limits(queue))

    def limits(self, queue: str) -> tuple[tuple[str, Fraction], ...]:
        """The queues from this one up that may only hold so many dollars per hour, at list prices."""
        return self._limits.get(queue, ())

    def name_for(self, queue: str, model: BoardModel) -> str | None:
        """The quota that boards of a model are charged to: the model's own, else its family's; None: there is none.

        A queue that states quotas has a right to the models they name and no others; one that states none, to all
        that are named in its tree.
        """
        name = self.charged_to(queue, model)
        named = self._names.get(self.root(queue), {})
        if name not in named.values():
            return None
        own = self.queues[queue].nominal
        return name if own is None or key_of(name) in map(key_of, own) else None

    def charged_to(self, queue: str, model: BoardModel) -> str:
        """The name under which a model's boards are counted in a queue's tree: its own where no quota covers it."""
        named = self._names.get(self.root(queue), {})
        return named.get(model.name.lower()) or named.get(model.family.lower()) or model.name

    def spelled(self, queue: str, name: str) -> str:
        """How a queue's tree writes a name."""
        return self._names.get(self.root(queue), {}).get(key_of(name), name)

    def children(self, queue: str) -> list[str]:
        """The queues right under one, by name."""
        return self._children.get(queue, [])

    def stopped_by(self, queue: str) -> tuple[str, StopPolicy]:
        """What stops a queue, itself or one above it: the strictest policy on its path, and the first with that."""
        found = queue, StopPolicy.NONE
        for name in self.paths.get(queue, ()):
            policy = self.queues[name].stop_policy
            if policy is StopPolicy.HOLD_AND_DRAIN:
                return name, policy
            if policy is StopPolicy.HOLD and found[1] is StopPolicy.NONE:
                found = name, policy
        return found

    def _up(self, name: str) -> Iterator[str]:
        at: str | None = name
        while at is not None:
            yield at
            at = self._parents.get(at)

    def _priced(self, path: Iterable[str]) -> Iterator[tuple[str, Fraction]]:
        for queue in (self.queues[name] for name in path):
            if queue.max_usd_per_hour is not None:
                yield queue.name, queue.max_usd_per_hour

    def _spellings(self, members: list[str]) -> dict[str, str]:
        """How a tree writes each model or family that its quotas name, by key: as the first queue by name does."""
        found: dict[str, str] = {}
        for queue in sorted(members):
            for name in sorted(self.queues[queue].nominal or ()):
                found.setdefault(key_of(name), name)
        return found

    def _problems(self, rings: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for root, members in self.trees.items():
            overlap = self._overlap(root, members)
            for name in members:
                above = self._parents.get(name, "")
                own = rings.get(name) or self._orphaned(name)
                inherited = (
                    f"spec.parent: {above}, above it, can't be used: see its conditions" if above in found else ""
                )
                if problem := own or overlap or inherited:
                    found[name] = problem
        return found

    def _orphaned(self, name: str) -> str:
        parent = self.queues[name].parent
        if not parent or parent in self.queues:
            return ""
        return f'spec.parent: there is no Queue "{parent}": create it, or name another or none'

    def _overlap(self, root: str, members: list[str]) -> str:
        """What is wrong with the names of a tree's quotas: a board must be counted alike in all of its queues."""
        named = self._names[root]
        for queue in members:
            keys: dict[str, str] = {}
            for name in sorted(self.queues[queue].nominal or ()):
                if (same := keys.setdefault(key_of(name), name)) != name:
                    return f"spec.quotas: {same} and {name} of queue {queue} mean the same boards: leave one out"
            for key, spelled in named.items():
                family = FAMILY_OF.get(key, key)
                if family != key and family in keys and key not in keys:
                    theirs = f"{keys[family]} of queue {queue} covers {spelled}, which another queue of its tree names"
                    return f"spec.quotas: {theirs}: name {spelled} in both, or {keys[family]} in all"
        return ""


def stopped(cohorts: Cohorts, queue: str) -> str:
    """What stops a queue, and what would set it going again; "" where nothing does."""
    by, policy = cohorts.stopped_by(queue)
    if policy is StopPolicy.NONE:
        return ""
    above = "" if by == queue else f", which is above {queue},"
    return f"queue {by}{above} is stopped: set its spec.stopPolicy to None to go on"


def defaults(queues: Mapping[str, Queue]) -> dict[str, str]:
    """Where the work of a namespace goes that names no queue; of several queues that want it, to the oldest."""
    found: dict[str, str] = {}
    for queue in sorted(queues.values(), key=lambda q: (q.created, q.name)):
        for namespace in queue.default_of:
            found.setdefault(namespace, queue.name)
    return found


@lru_cache(maxsize=1024)
def key_of(name: str) -> str:
    """What names of the same model or family have in common, however they are written.

    >>> key_of("NVIDIA-H100-80GB-HBM3"), key_of("h100")
    ('h100-80gb', 'h100')
    """
    wanted = name.lower()
    for model in MODELS:
        if wanted in (product.lower() for product in model.products):
            return model.name.lower()
    return wanted.removeprefix("nvidia-")


def _rings(parents: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The queues that are under themselves, and what is to be said of each."""
    settled: set[str] = set()
    for start in sorted(parents):
        walked: dict[str, int] = {}
        at = start
        while at in parents and at not in settled and at not in walked:
            walked[at] = len(walked)
            at = parents[at]
        if at in walked:
            ring = list(walked)[walked[at] :]
            shown = " -> ".join([*ring, ring[0]])
            yield from ((name, f"spec.parent: {shown} is a circle: give one of them another or none") for name in ring)
        settled.update(walked)
