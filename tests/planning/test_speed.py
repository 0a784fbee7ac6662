"""Plans are quick enough to be made anew at every change; docs/benchmarks.md has the figures (`make bench-planner`)."""

from __future__ import annotations

from berth.planning.fleet import Nodes
from tests.planning.bench import (
    LEAST_PODS_PER_SECOND,
    MOST_SECONDS_FOR_1000_PODS,
    busy,
    fleet,
    gangs,
    placed,
    timed,
)
from tests.planning.builders import a_job, verdict_of

MOST_SECONDS = 2.0  # of CPU; measured: 0.03 and 0.06, and a slow machine may take several times as long
MOST_SECONDS_FOR_NO = 0.2  # promised and measured: 0.05 and 0.02, which leaves less to a slow machine than the others


def test_200_gangs_of_4_are_placed_on_500_nodes_well_within_a_cycle() -> None:
    seconds, made = timed(fleet(500), gangs(200, gpus=2, shapes=20))
    assert placed(made) == 200
    assert seconds < MOST_SECONDS


def test_a_full_cluster_of_1000_nodes_says_why_500_gangs_wait() -> None:
    seconds, made = timed(fleet(1000), gangs(500, gpus=8))
    assert sum(v.reason == "WaitingForCapacity" for v in made.verdicts.values()) == 250
    assert seconds < MOST_SECONDS


def test_5000_nodes_take_3000_pods_a_second() -> None:
    seconds, made = timed(fleet(5000), gangs(500, gpus=8, preferred="rack"))
    assert placed(made) == 500
    assert 2000 / seconds >= LEAST_PODS_PER_SECOND


def test_a_gang_of_1000_pods_is_placed_at_once() -> None:
    seconds, made = timed(fleet(5000), [a_job(workers=1000, gpus=8, preferred="rack")])
    assert placed(made) == 1
    assert seconds < MOST_SECONDS_FOR_1000_PODS


def test_a_gang_of_10000_boards_is_told_at_once_that_there_is_no_room() -> None:
    nodes = fleet(5000)
    seconds, made = timed(nodes, [a_job(workers=1250, gpus=8)], busy(nodes))
    assert verdict_of(made).message.startswith("1000 of 1250 workers fit: 5000 nodes, 4000 lack free GPUs")
    assert seconds < MOST_SECONDS_FOR_NO


def test_a_decision_takes_no_longer_than_in_proportion_to_the_nodes() -> None:
    few, many = (timed(Nodes(fleet(n)), gangs(100, gpus=8, preferred="rack"))[0] for n in (500, 4000))
    assert many / few < 8  # measured: 1.4


def test_nodes_that_stay_are_arranged_once() -> None:
    nodes = Nodes(fleet(20))
    assert timed(nodes, gangs(3, gpus=8))[1] == timed(dict(nodes), gangs(3, gpus=8))[1]
    levels = nodes.arranged(()).levels
    assert nodes.arranged(levels) is nodes.arranged(levels)
