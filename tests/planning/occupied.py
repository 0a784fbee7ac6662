"""Clusters in which jobs run already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.resources import add
from berth.model.workloads import PodPhase, Queue, Workload
from berth.planning.snapshot import Snapshot
from berth.planning.whatif import on_nodes
from tests.planning.builders import NOW, a_job, a_node, a_snapshot, running

HOUR = 3600.0


def on(job: Workload, *nodes: str, hours: float = 1.0, **more: Any) -> Workload:
    """The job, bound on these nodes for that long."""
    began = NOW - hours * HOUR
    return running(job, *nodes, pods=PodPhase.READY, admitted_at=began, started_at=began, **more)


def occupied(nodes: Iterable[Node], *workloads: Workload, queues: Iterable[Queue] = ()) -> Snapshot:
    """A snapshot in which bound pods use their nodes."""
    used: dict[str, dict[str, int]] = {}
    for w in workloads:
        for node, needs in on_nodes(w):
            used[node] = add(used.get(node, {}), needs)
    return a_snapshot(nodes, *workloads, used=used, queues=queues)


@st.composite
def small_worlds(draw: st.DrawFn) -> tuple[list[Node], Workload, list[Workload]]:
    """Up to four nodes with up to six jobs where they fit, and one that waits."""
    nodes = [
        a_node(f"n{i}", gpus=draw(st.sampled_from((4, 8))), labels={"rack": f"r{i % 2}"})
        for i in range(draw(st.integers(2, 4)))
    ]
    free = {node.name: node.allocatable["nvidia.com/gpu"] for node in nodes}
    others = []
    for j in range(draw(st.integers(1, 6))):
        boards, workers = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((1, 1, 2)))
        able = [n for n in free for _ in range(free[n] // boards)]
        if len(able) < workers:
            continue
        at = sorted(draw(st.permutations(able))[:workers])
        for n in at:
            free[n] -= boards
        job = a_job(f"j{j}", workers=workers, gpus=boards, priority=draw(st.integers(0, 1)))
        others.append(on(job, *at, hours=draw(st.integers(1, 9))))
    level = draw(st.sampled_from(("", "rack")))
    waits = a_job(
        "big", workers=draw(st.integers(1, 2)), gpus=draw(st.sampled_from((4, 8))), required=level, priority=1
    )
    return nodes, waits, others
