"""What each queue has, for its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from berth.model.workloads import Queue, Workload
from berth.planning.actions import Admit, QueueUsage
from berth.planning.cohorts import defaults, stopped
from berth.planning.lifecycle import ON_NODES
from berth.planning.scratch import Scratch


def usage(s: Scratch, going: Sequence[Workload]) -> dict[str, QueueUsage]:
    """What each queue has after this plan; of boards, with what the queues under it have."""
    admitted = {a.ref.uid for a in s.actions if isinstance(a, Admit)}
    admitted |= {w.ref.uid for w in going if w.attempt or any(p.phase in ON_NODES for p in w.pods)}
    running = Counter(w.queue for w in going if w.ref.uid in admitted)
    pending = Counter(w.queue for w in going if w.ref.uid not in admitted and not w.suspend)
    known, taken, totals = s.quota.cohorts, defaults(s.snapshot.queues), s.quota.totals()
    standings = s.fairness.standings({*s.snapshot.queues, s.policy.default_queue})
    found = {}
    for name, standing in sorted(standings.items()):
        queue, used = s.snapshot.queues.get(name, Queue(name)), totals.get(name, {})
        names = sorted({*used, *(known.spelled(name, stated) for stated in queue.nominal or ())})
        exchanged = {model: s.quota.exchanged(name, model) for model in names}
        found[name] = QueueUsage(
            pending=pending[name],
            admitted=running[name],
            used=_texts(used),
            borrowed=_texts({model: borrowed for model, (borrowed, _) in exchanged.items()}),
            lent=_texts({model: lent for model, (_, lent) in exchanged.items()}),
            standing=standing,
            names=tuple(names),
            problem=known.problems.get(name, ""),
            stopped=stopped(known, name),
            not_default=_not_default(queue, taken),
        )
    return found


def _texts(boards: Mapping[str, Fraction]) -> dict[str, str]:
    return {name: str(n) for name, n in boards.items() if n}


def _not_default(queue: Queue, taken: Mapping[str, str]) -> str:
    """Which namespaces a queue can't be the default of, since an older queue is."""
    others = {ns: taken[ns] for ns in queue.default_of if taken[ns] != queue.name}
    told = ", ".join(f"{namespace} goes to {other}" for namespace, other in sorted(others.items()))
    return f"spec.defaultOf: {told}, which is older: leave it out of one of the two" if told else ""
