"""Quota: what each queue of a tree may hold, what it holds, and what it lends and borrows; in exact boards.

The words are Kueue's. Of each model or family (a "name"), a queue owns its nominal quota. What it does not use, others
of its tree may borrow: through its parent, up to its lending limit, and each up to its own borrowing limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from berth.model.gpus import BoardModel
from berth.model.workloads import Queue
from berth.planning.cohorts import Cohorts, key_of

ZERO = Fraction(0)
Freed = Iterable[tuple[str, BoardModel, Fraction]]
"""What others would give back: the queue, the model, and boards."""


@dataclass(frozen=True, slots=True)
class Share:
    """One queue's part in the quota of one name."""

    queue: str
    nominal: Fraction  # its own
    borrowing: Fraction | None  # most beyond what is its own; None: no limit
    subtree: Fraction  # what is its own and what the queues under it lend
    local: Fraction  # what of that it lends to nobody

    @property
    def lent(self) -> Fraction:
        """The most of its own that others may hold."""
        return self.subtree - self.local

    @property
    def most_from_parent(self) -> Fraction | None:
        """The most that it may hold of what its parent has: what it lent itself, and its limit; None: no limit."""
        return None if self.borrowing is None else self.lent + self.borrowing


Chain = tuple[Share, ...]
"""The shares of a queue, its parent and so on up to the root."""


def shares(cohorts: Cohorts, root: str, name: str) -> dict[str, Share]:
    """The shares of every queue of a tree in one name, children before their parents.

    A queue owns its nominal quota (nothing where it states none for the name) and what the queues under it lend: of
    what each of those owns, up to its lending limit, or all.
    """
    found: dict[str, Share] = {}
    lent: dict[str, Fraction] = defaultdict(Fraction)
    for queue in reversed(cohorts.trees[root]):
        stated = cohorts.queues[queue]
        nominal = Fraction(stated_for(stated.nominal or {}, name) or 0)
        subtree = nominal + lent[queue]
        lends = stated_for(stated.lending, name)
        local = ZERO if lends is None else max(ZERO, subtree - lends)
        borrows = stated_for(stated.borrowing, name)
        found[queue] = Share(queue, nominal, None if borrows is None else Fraction(borrows), subtree, local)
        if len(path := cohorts.path(queue)) > 1:
            lent[path[1]] += subtree - local
    return found


def available(chain: Chain, used: Mapping[str, Fraction]) -> Fraction:
    """Boards that the first queue of a chain may still take; less than nothing where more is held than there is.

    The root has what it owns less what is used of it. A queue has what it does not lend, as far as that is unused, and
    of what its parent has, as much as it lent and may borrow, less what it holds of that already. `used` is what is
    used at each queue: by its own work, and by the queues under it beyond what these keep for themselves.
    """
    *below, root = chain
    left = root.subtree - used.get(root.queue, ZERO)
    for share in reversed(below):
        mine = used.get(share.queue, ZERO)
        if share.most_from_parent is not None:
            left = min(left, share.most_from_parent - max(ZERO, mine - share.local))
        left += max(ZERO, share.local - mine)
    return left


def potential(chain: Chain) -> Fraction:
    """Boards that the first queue of a chain could hold if no other held any."""
    *below, root = chain
    most = root.subtree
    for share in reversed(below):
        most = share.local + (most if share.most_from_parent is None else min(most, share.most_from_parent))
    return most


def add(chain: Chain, used: dict[str, Fraction], boards: Fraction) -> None:
    """Count boards (fewer than none: given back) at the first queue of a chain, and what it does not keep above it."""
    for share in chain:
        before = used.get(share.queue, ZERO)
        used[share.queue] = before + boards
        boards = max(ZERO, before + boards - share.local) - max(ZERO, before - share.local)
        if not boards:
            return


class Quota:
    """What the queues of a snapshot hold, on a copy that a plan charges as it admits."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        """Start with nothing used."""
        self.cohorts = Cohorts(queues)
        self._shares: dict[tuple[str, str], dict[str, Share]] = {}  # by root and name; never changes once it is there
        self._chains: dict[tuple[str, str], Chain] = {}  # by queue and name; nor does this
        self._names: dict[tuple[str, str], str | None] = {}  # by queue and model; nor this
        self._ever: dict[tuple[str, str], Fraction | None] = {}  # nor this
        self._used: dict[str, dict[str, Fraction]] = {}  # by name, then queue, of its own work
        self._counted: dict[str, dict[str, Fraction]] = {}  # by name, then queue, as `available` wants it
        self.changes = 0  # how often anything was charged or given back
        self._usd: dict[str, Fraction] = {}  # per hour, of what is held in the subtree, by queue that has a limit

    def copy(self) -> Quota:
        """The same usage, to be charged by itself."""
        twin = Quota.__new__(Quota)
        twin.cohorts, twin._shares, twin._chains = self.cohorts, self._shares, self._chains
        twin._names, twin._ever = self._names, self._ever
        twin._used = {name: dict(held) for name, held in self._used.items()}
        twin._counted = {name: dict(held) for name, held in self._counted.items()}
        twin._usd = dict(self._usd)
        twin.changes = self.changes
        return twin

    def charge(self, queue: str, model: BoardModel, boards: Fraction) -> None:
        """Count boards against a queue, beyond its quota where they run already; fewer than none are given back."""
        self.changes += 1
        name = self.cohorts.charged_to(queue, model)
        used = self._used.setdefault(name, {})
        used[queue] = used.get(queue, ZERO) + boards
        if chain := self._chain(queue, name):
            add(chain, self._counted.setdefault(name, {}), boards)
        for above, _ in self.cohorts.limits(queue):
            self._usd[above] = self._usd.get(above, ZERO) + boards * usd_per_hour(model)

    def name_for(self, queue: str, model: BoardModel) -> str | None:
        """The quota that boards of a model are charged to; None: the queue has none for it."""
        key = queue, model.name
        if key not in self._names:
            self._names[key] = self.cohorts.name_for(queue, model)
        return self._names[key]

    def covers(self, queue: str, model: BoardModel) -> bool:
        """Whether a queue has a right to boards of a model, however many."""
        return self.cohorts.is_unlimited(queue) or self.name_for(queue, model) is not None

    def ever(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards of a model that a queue could hold if no other held any; None: any number."""
        key = queue, model.name
        if key not in self._ever:
            bounds = [most / usd_per_hour(model) for _, most in self.cohorts.limits(queue)]
            if not self.cohorts.is_unlimited(queue):
                name = self.name_for(queue, model)
                bounds.append(potential(self._chain(queue, name)) if name else ZERO)
            self._ever[key] = min(bounds, default=None)
        return self._ever[key]

    def room(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards of a model that a queue may still take; less than none where more is held; None: any number."""
        limits = self.cohorts.limits(queue)
        bounds = [(most - self._usd.get(above, ZERO)) / usd_per_hour(model) for above, most in limits]
        if not self.cohorts.is_unlimited(queue):
            name = self.name_for(queue, model)
            bounds.append(available(self._chain(queue, name), self._counted.get(name, {})) if name else ZERO)
        return min(bounds, default=None)

    def left(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards of a model that a queue may still take; None: any number."""
        room = self.room(queue, model)
        return None if room is None else max(ZERO, room)

    def room_after(self, queue: str, model: BoardModel, freed: Freed) -> Fraction | None:
        """The room once others have given these back."""
        given = list(freed)
        for other, theirs, boards in given:
            self.charge(other, theirs, -boards)
        room = self.room(queue, model)
        for other, theirs, boards in given:
            self.charge(other, theirs, boards)
        return room

    def nominal_left(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards of a model that a queue may still take of what it owns, whether or not others hold them now.

        What a cohort owns includes what the queues under it lend. None: its tree is unlimited.
        """
        if self.cohorts.is_unlimited(queue):
            return None
        name = self.name_for(queue, model)
        return max(ZERO, -self._beyond(queue, name)) if name else ZERO

    def owned(self, queue: str, model: BoardModel) -> Fraction | None:
        """Boards of a model that a queue and those under it own together; None: its tree is unlimited."""
        chain = self._chain(queue, self.cohorts.charged_to(queue, model))
        return chain[0].subtree if chain else None

    def borrowed(self, queue: str, model: BoardModel) -> Fraction:
        """Boards of a model that a queue, with those under it, holds beyond what it owns."""
        if self.cohorts.is_unlimited(queue):
            return ZERO
        return max(ZERO, self._beyond(queue, self.cohorts.charged_to(queue, model)))

    def exchanged(self, queue: str, name: str) -> tuple[Fraction, Fraction]:
        """Boards of a name that a queue, with those under it, borrows, and that it lends.

        What several queues could have lent is lent by each in proportion to what it has to lend and does not use.
        """
        chain, counted = self._chain(queue, name), self._counted.get(name, {})
        if not chain:
            return ZERO, ZERO
        lends = ZERO
        for share, under in zip(reversed(chain), [None, *reversed(chain)], strict=False):
            lends = self._lent(share, under, lends, name) if under else ZERO
        return max(ZERO, counted.get(queue, ZERO) - chain[0].subtree), lends

    def _lent(self, share: Share, above: Share, above_lends: Fraction, name: str) -> Fraction:
        """What one queue lends, where the one above it lends so much."""
        counted = self._counted.get(name, {})
        idle, wanted = ZERO, self._used.get(name, {}).get(above.queue, ZERO) + above_lends - above.nominal
        wanted -= max(ZERO, counted.get(above.queue, ZERO) - above.subtree)
        for child in self.cohorts.children(above.queue):
            sibling = self._chain(child, name)[0]
            out = sibling.lent - max(ZERO, counted.get(child, ZERO) - sibling.local)
            idle, wanted = idle + max(ZERO, out), wanted + max(ZERO, -out)
        mine = share.lent - max(ZERO, counted.get(share.queue, ZERO) - share.local)
        return min(max(ZERO, wanted), idle) * max(ZERO, mine) / idle if idle else ZERO

    def borrowers(self, queue: str, model: BoardModel) -> tuple[str, ...]:
        """The queues of a tree whose work holds what a queue may have back: those that borrow, by name.

        From each of them up to where its path meets the queue's, all hold more than they own; where one does not, what
        is borrowed under it comes from there.
        """
        if self.cohorts.is_unlimited(queue):
            return ()
        name, path = self.cohorts.charged_to(queue, model), self.cohorts.path(queue)
        holding = (other for other, boards in self._used.get(name, {}).items() if boards > 0 and other != queue)
        return tuple(sorted(other for other in holding if self._borrows(other, name, path)))

    def totals(self) -> dict[str, dict[str, Fraction]]:
        """Boards that each queue and those under it hold, by queue, then quota name."""
        found: dict[str, dict[str, Fraction]] = {}
        for name, by_queue in sorted(self._used.items()):
            for queue, boards in by_queue.items():
                for above in self.cohorts.path(queue) if boards else ():
                    total = found.setdefault(above, {})
                    total[name] = total.get(name, ZERO) + boards
        return found

    def spent(self, queue: str) -> Fraction:
        """Dollars an hour of what a queue with a price limit, and those under it, hold."""
        return self._usd.get(queue, ZERO)

    def used(self, queue: str) -> dict[str, str]:
        """Boards that a queue and those under it hold, by quota name, as exact fractions."""
        return {name: str(boards) for name, boards in self.totals().get(queue, {}).items()}

    def _borrows(self, other: str, name: str, path: Sequence[str]) -> bool:
        above = self.cohorts.path(other)
        if above[-1] != path[-1]:
            return False
        if other in path:  # a cohort above the queue, by its own work
            return self._used[name][other] > self._chain(other, name)[0].nominal
        return all(self._beyond(node, name) > 0 for node in above if node not in path)

    def _beyond(self, queue: str, name: str) -> Fraction:
        """How much more a queue holds of a name than it owns; less than nothing where it has room."""
        chain = self._chain(queue, name)
        return self._counted.get(name, {}).get(queue, ZERO) - chain[0].subtree

    def _chain(self, queue: str, name: str) -> Chain:
        """The shares from a queue up; none in an unlimited tree."""
        known = self._chains.get((queue, name))
        if known is None:
            known = () if self.cohorts.is_unlimited(queue) else self._found(queue, name)
            self._chains[queue, name] = known
        return known

    def _found(self, queue: str, name: str) -> Chain:
        root = self.cohorts.root(queue)
        if (root, name) not in self._shares:
            self._shares[root, name] = shares(self.cohorts, root, name)
        return tuple(self._shares[root, name][above] for above in self.cohorts.path(queue))


def stated_for(stated: Mapping[str, int], name: str) -> int | None:
    """What a queue states for a name, however it is written; None where it states nothing."""
    if name in stated:
        return stated[name]
    key = key_of(name)
    return next((n for other, n in sorted(stated.items()) if key_of(other) == key), None)


def usd_per_hour(model: BoardModel) -> Fraction:
    """The list price of a board, exactly as the table writes it."""
    return Fraction(str(model.usd_per_hour))
