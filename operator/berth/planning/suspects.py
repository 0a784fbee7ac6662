"""Nodes on which different jobs crashed lately: their boards or links may be bad, though they say that they are well.

What is known of that is in the jobs' statuses, and so it outlives the operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.model.failures import Crash
from berth.model.workloads import Workload
from berth.planning.fleet import Fleet, Pool

LATELY_SECONDS = 3600.0
FEWEST_JOBS = 2
MOST_OF_A_MODEL = 0.5  # of its nodes: where more look bad it is hardly the nodes, and something must go on running
MOST_NAMES = 3  # of nodes, and of jobs of each, in a message
OWN_FAULT = ("OOMKilled",)  # what a job brings upon itself wherever it runs


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a node is avoided, and until when."""

    jobs: tuple[str, ...]  # that crashed there, by name
    until: float  # seconds since the epoch

    @property
    def text(self) -> str:
        """In words."""
        named = [*self.jobs[:MOST_NAMES], *(["others"] if len(self.jobs) > MOST_NAMES else [])]
        return f"{', '.join(named[:-1])} and {named[-1]} crashed there lately"


def suspects(workloads: Iterable[Workload], fleet: Fleet, now: float) -> Mapping[str, Suspicion]:
    """The nodes that are avoided, by name: two jobs or more crashed there within an hour.

    A crash counts against its node unless the same job crashed in the same way on another one, or ran out of its own
    memory. Of each model, half of the nodes at most are avoided, those on which most jobs crashed.
    """
    crashes: dict[str, dict[str, tuple[float, str]]] = {}  # by node, then by the job's uid
    for w in workloads:
        for crash in w.failures.last:
            if _counts(crash, w.failures.last, now):
                there = crashes.setdefault(crash.node, {})
                there[w.ref.uid] = (crash.at, w.ref.name)
    found = {node: _suspicion(jobs) for node, jobs in crashes.items() if len(jobs) >= FEWEST_JOBS}
    if not found:
        return {}
    avoided: dict[str, Suspicion] = {}
    for pool in fleet.pools.values():
        bad = sorted(found.keys() & pool.index.keys(), key=lambda n: (-len(found[n].jobs), -found[n].until, n))
        avoided |= {node: found[node] for node in bad[: int(len(pool.nodes) * MOST_OF_A_MODEL)]}
    return avoided


def avoided_text(suspected: Mapping[str, Suspicion], pools: Iterable[Pool]) -> str:
    """Which nodes of these pools are avoided, and why, in words; "" for none."""
    if not suspected:
        return ""
    nodes = sorted(node for pool in pools for node in suspected.keys() & pool.index.keys())
    told = [f"{node} is avoided: {suspected[node].text}" for node in nodes[:MOST_NAMES]]
    return "; ".join([*told, *([f"so are {len(nodes) - MOST_NAMES} more"] if len(nodes) > MOST_NAMES else [])])


def _counts(crash: Crash, all_of_them: Iterable[Crash], now: float) -> bool:
    if not crash.node or crash.reason in OWN_FAULT or crash.at + LATELY_SECONDS <= now:
        return False
    return not any(other.node not in ("", crash.node) and other.is_like(crash) for other in all_of_them)


def _suspicion(jobs: Mapping[str, tuple[float, str]]) -> Suspicion:
    """It lasts as long as enough of the crashes are recent."""
    latest = sorted((at for at, _ in jobs.values()), reverse=True)
    return Suspicion(tuple(sorted(name for _, name in jobs.values())), latest[FEWEST_JOBS - 1] + LATELY_SECONDS)
