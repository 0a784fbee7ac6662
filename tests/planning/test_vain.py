"""What was sought in vain is not sought again; nobody could tell by the plan."""

from __future__ import annotations

from collections import Counter
from random import Random
from unittest.mock import patch

import pytest

from berth.model.nodes import Node
from berth.model.workloads import PodPhase, Queue, Workload
from berth.planning.actions import Admit, Plan
from berth.planning.ledger import needs_of
from berth.planning.plan import plan
from berth.planning.preemption import Yielding
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.vain import Vain
from tests.planning.builders import NOW, a_job, a_node, a_snapshot, nodes_of, only, planned, running

SIZES = ((1, 1), (1, 5), (4, 5))  # workers, and boards of each
QUEUES = [Queue("red"), Queue("blue", {"H100": 12}, parent="red"), Queue("pink", {"H100": 8}, parent="red")]
QUEUES += [Queue("grey", {"H100": 4}), Queue("free")]


def a_crowd(seed: int) -> tuple[list[Node], list[Workload]]:
    """Three to eight nodes, and sixty jobs of few kinds."""
    chance = Random(seed)
    nodes = [a_node(f"n{i}", labels={"rack": f"r{i // 2}"}) for i in range(chance.randint(3, 8))]
    return nodes, [_a_job(chance, i) for i in range(60)]


def _a_job(chance: Random, i: int) -> Workload:
    workers, boards = chance.choice(SIZES)
    return a_job(
        f"job-{i}",
        workers=workers,
        gpus=boards,
        created=NOW - chance.choice((2.0, 50.0, 200_000.0)),
        queue=chance.choice(QUEUES).name,
        priority=chance.choice((0, 0, 5)),
        estimated_seconds=chance.choice((None, 60.0, 3600.0)),
    )


def begun(nodes: list[Node], work: list[Workload], now: float) -> Snapshot:
    """The same crowd once those that fit run, all but the youngest queue's, whose boards others have borrowed."""
    late = {w.ref.uid for w in work if w.queue == "pink"}
    made = planned(nodes, *(w for w in work if w.ref.uid not in late), queues=QUEUES)
    used: dict[str, Counter[str]] = {}
    crowd = [_run(w, made, used) for w in work]
    return a_snapshot(nodes, *crowd, used=used, queues=QUEUES)


def _run(w: Workload, made: Plan, used: dict[str, Counter[str]]) -> Workload:
    places = nodes_of(made, w.ref.name)
    if places is None:
        return w
    job = running(w, *places, pods=PodPhase.READY, started_at=NOW)
    assert job.attempt is not None
    assert w.request is not None
    for node in places:
        used.setdefault(node, Counter()).update(needs_of(w.request.shape, job.attempt.placement.device))
    return job


@pytest.mark.parametrize("seed", range(25))
def test_the_plan_is_the_same_as_if_everybody_had_been_tried(seed: int) -> None:
    nodes, work = a_crowd(seed)
    for snapshot, now in ((a_snapshot(nodes, *work, queues=QUEUES), NOW), (begun(nodes, work, NOW), NOW + 1000)):
        made = plan(snapshot, Policy(), now)
        with patch.object(Vain, "is_known", return_value=False):
            assert plan(snapshot, Policy(), now) == made


def test_of_hundreds_that_ask_for_the_same_few_are_tried() -> None:
    crowd = [a_job(f"job-{i}", gpus=8, queue="abc"[i % 3], created=float(i)) for i in range(300)]
    with patch.object(Yielding, "serve", autospec=True, side_effect=Yielding.serve) as tried:
        made = planned([a_node("n1"), a_node("n2")], *crowd, queues=[Queue(name) for name in "abc"])
    assert len(only(made, Admit)) == 2
    assert tried.call_count < 20
