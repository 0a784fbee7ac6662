"""What is recorded of a run: allocation and fragmentation by what has been asked for so far."""

from __future__ import annotations

import pytest

from berth.bench.fragmentation import task_classes
from berth.bench.policies import HighestScore, best_fit
from berth.bench.replay import figures, replay
from tests.bench.openb import a_demand, a_node


def test_a_pod_that_fits_nowhere_is_dropped_and_counts_as_asked_for() -> None:
    arrivals = [a_demand(boards=2), a_demand(boards=4), a_demand(boards=2)]
    run = replay([a_node(boards=4)], arrivals, HighestScore(best_fit))
    assert run.placed.tolist() == [0, -1, 0]
    found = figures(run, task_classes(arrivals))
    assert found.allocated == {50: 50.0, 150: 50.0, 200: 100.0}
    assert found.pods_placed == 2


def test_pods_in_one_percent_of_arrivals_are_averaged() -> None:
    arrivals = [a_demand(), a_demand(boards=0), a_demand(boards=0, cpu=999)]
    found = figures(replay([a_node(boards=2)], arrivals, HighestScore(best_fit)), task_classes(arrivals))
    assert found.allocated == {50: 50.0}


def test_fragmentation_is_the_share_of_the_free_that_the_mix_can_not_use() -> None:
    arrivals = [a_demand(share=600), a_demand(share=600)]
    found = figures(replay([a_node(boards=2)], arrivals, HighestScore(best_fit)), task_classes(arrivals))
    assert found.fragmented == {30: pytest.approx(100 * 400 / 1400), 60: pytest.approx(100)}


def test_a_fleet_without_free_boards_is_not_fragmented() -> None:
    arrivals = [a_demand(boards=2)]
    found = figures(replay([a_node(boards=2)], arrivals, HighestScore(best_fit)), task_classes(arrivals))
    assert found.fragmented == {100: 0}
