"""Small scenarios, worked by hand."""

from __future__ import annotations

import pytest

from tests.simulation.builders import BOUND, HOUR, PLACED, READY, a_job, a_pool, a_service, record, run

DAY = 24 * HOUR


def test_a_job_starts_when_its_pods_are_ready_and_ends_after_its_duration() -> None:
    job = record(run(a_job(at=100)), "job")
    assert job["placedAt"] == pytest.approx(100 + PLACED)
    assert job["startedAt"] == pytest.approx(100 + READY)
    assert job["endedAt"] == pytest.approx(100 + READY + HOUR)
    assert (job["outcome"], job["evictions"], job["waitedSeconds"]) == ("Succeeded", 0, pytest.approx(PLACED))


def test_the_delays_of_the_cluster_are_what_the_scenario_says() -> None:
    delays = {"pods": 10, "binding": 20, "readiness": 300}
    job = record(run(a_job(), delays=delays, policy={"cycleDebounceSeconds": 5}), "job")
    assert job["startedAt"] == pytest.approx(5 + 10 + 5 + 20 + 300)


def test_a_job_that_finds_no_room_waits_for_the_end_of_the_one_before() -> None:
    result = run(a_job("first"), a_job("second", at=60))
    end = READY + HOUR
    assert record(result, "second")["placedAt"] == pytest.approx(end + PLACED)
    assert result.summary["waitingSeconds"]["max"] == pytest.approx(end + PLACED - 60)
    assert result.summary["pending"]["max"] == 1


def test_a_gang_waits_until_all_of_it_fits() -> None:
    result = run(a_job("small", gpus=1), a_job("gang", workers=2, at=60), pools=(a_pool(nodes=2),))
    assert record(result, "gang")["placedAt"] == pytest.approx(READY + HOUR + PLACED)


def test_utilisation_is_exact() -> None:
    held = READY - BOUND + HOUR
    result = run(a_job(gpus=4), pools=(a_pool(nodes=2),), horizon=4 * held)
    assert result.summary["utilisation"] == {
        "all": pytest.approx(4 / 16 / 4),
        "boards": pytest.approx(4 / 16 / 4),
        "slices": None,
    }
    assert result.summary["boardHours"]["held"] == pytest.approx(4 * held / HOUR)
    assert result.summary["boardHours"]["useful"] == pytest.approx(4)
    assert result.summary["goodput"] == pytest.approx(HOUR / held, abs=1e-6)
    assert result.summary["usd"]["held"] == pytest.approx(8.0 * 4 * held / HOUR)  # the list price of an H100 is 8 $/h
    assert result.summary["usd"]["idle"] == pytest.approx(8.0 * (16 * 4 - 4) * held / HOUR)


def test_the_series_adds_up_to_the_summary() -> None:
    result = run(a_job(gpus=4, duration=2 * HOUR), a_job("other", at=HOUR), horizon=5 * HOUR)
    for series, mean in (
        ("allocated", result.summary["utilisation"]["all"]),
        ("pending", result.summary["pending"]["mean"]),
    ):
        values = [value or 0.0 for value in result.series[series]]
        assert sum(values) / len(values) == pytest.approx(mean, abs=1e-6)


def test_what_still_waits_at_the_end_counts_with_its_wait_so_far_and_says_why() -> None:
    result = run(a_job(duration=None), a_job("late", at=9 * HOUR))
    late = record(result, "late")
    assert (late["placedAt"], late["waitedSeconds"]) == (None, HOUR)
    assert late["reason"] == "WaitingForCapacity"
    assert result.summary["workloads"] == {"arrived": 2, "placed": 1, "succeeded": 0, "failed": 0, "neverPlaced": 1}


def test_what_runs_at_the_end_is_useful_so_far() -> None:
    result = run(a_job(duration=None), horizon=READY + HOUR)
    assert result.summary["boardHours"]["useful"] == pytest.approx(8)


def test_higher_priority_goes_first() -> None:
    result = run(a_job("running"), a_job("early", at=60), a_job("urgent", at=120, priority=10))
    assert record(result, "urgent")["placedAt"] < record(result, "early")["placedAt"]


def test_a_queue_keeps_to_its_quota_though_boards_are_free() -> None:
    queues = [{"name": "team", "quotas": [{"model": "H100", "nominal": 4}]}]
    jobs = [a_job(name, gpus=4, queueName="team") for name in ("first", "second")]
    result = run(*jobs, queues=queues)
    assert record(result, "second")["placedAt"] == pytest.approx(
        READY + HOUR + 2 * PLACED
    )  # the end is noted, then counts


def test_a_service_holds_its_boards_until_it_is_deleted() -> None:
    result = run(a_service(replicas=8, duration=HOUR), a_job(at=60))
    assert record(result, "service")["outcome"] == "Deleted"
    assert record(result, "service")["endedAt"] == pytest.approx(HOUR)
    assert record(result, "job")["placedAt"] == pytest.approx(HOUR + PLACED)


def test_replicas_are_placed_one_by_one() -> None:
    result = run(a_job("other", gpus=6), a_service(at=60, replicas=4))
    assert record(result, "service")["placedAt"] == pytest.approx(READY + HOUR + PLACED)
    assert result.summary["boardHours"]["held"] == pytest.approx(6 * (HOUR + 30) / HOUR + 2 * 10 + 2 * 9, rel=0.01)


def test_a_gang_begins_anew_when_one_of_its_nodes_dies() -> None:
    pools = (a_pool(nodes=3),)
    result = run(a_job(workers=2), pools=pools, failures=[{"node": "dgx-0", "at": 1000, "for": DAY}])
    job = record(result, "job")
    noticed = 1000 + 50 + 10  # by the cluster, and then by the planner
    gone = noticed + PLACED + 15  # stopped in the next plan, with 15 s to end
    placed = gone + PLACED + PLACED  # released, then placed
    assert job["endedAt"] == pytest.approx(placed - PLACED + READY + HOUR)
    assert (job["evictions"], job["outcome"]) == (1, "Succeeded")
    assert result.summary["boardHours"]["useful"] == pytest.approx(16)
    assert result.summary["evictions"] == {"NodeLost": 1}


def test_a_node_that_is_back_soon_has_lost_nothing() -> None:
    result = run(a_job(), failures=[{"node": "dgx-0", "at": 1000, "for": 40}])
    assert record(result, "job")["endedAt"] == pytest.approx(READY + HOUR)


def test_a_service_gets_new_replicas_for_those_of_a_dead_node() -> None:
    pools = (a_pool(nodes=2, boards=1),)
    result = run(a_service(), pools=pools, failures=[{"node": "dgx-0", "at": 1000, "for": DAY}], horizon=2000 + READY)
    useful = 1000 + 350 - READY, 2000 + READY - (1350 + READY)  # until the loss is noticed, and from its replacement on
    assert result.summary["boardHours"]["useful"] * HOUR == pytest.approx(sum(useful), abs=0.2)


def test_boards_are_laid_out_anew_for_a_profile_that_none_has() -> None:
    pool = a_pool(boards=1, layoutsBy="agent", mig=[{"layout": {"1g.10gb": 7}}])
    job = a_job(gpus=1) | {"gpus": {"profile": "3g.40gb"}}
    result = run(job, pools=(pool,), delays={"relayout": 40})
    assert result.summary["repartitions"] == 1
    assert 40 < record(result, "job")["placedAt"] < 45
    assert run(job, pools=(a_pool(boards=1, mig=pool["mig"]),)).summary["workloads"]["neverPlaced"] == 1


def test_gangs_move_for_one_that_waits_where_the_policy_allows_it() -> None:
    small = [a_job(f"small{i}", gpus=1, at=60, duration=5 * HOUR) for i in range(2)]
    work = [a_job("a", gpus=7), a_job("b", gpus=7), *small, a_job("big", at=1.5 * HOUR)]
    pools = (a_pool(nodes=2),)
    assert record(run(*work, pools=pools), "big")["waitedSeconds"] > 3 * HOUR
    moved = run(*work, pools=pools, policy={"consolidation": {"enabled": True}})
    assert record(moved, "big")["waitedSeconds"] < HOUR
    assert moved.summary["evictions"] == {"Consolidated": 1}


def test_an_elastic_gang_begins_with_what_there_is_and_runs_for_as_much_longer() -> None:
    bounds = {"minWorkers": 1, "maxWorkers": 4}
    first = a_job("first", gpus=1, workers=6, duration=8 * HOUR)
    result = run(first, a_job("gang", gpus=1, workers=4, at=60, elastic=bounds))
    gang = record(result, "gang")
    assert gang["placedAt"] == pytest.approx(60 + PLACED)
    assert gang["endedAt"] == pytest.approx(60 + READY + 2 * HOUR)
    assert result.summary["boardHours"]["useful"] == pytest.approx(6 * 8 + 4)


def test_an_elastic_gang_grows_when_that_ends_it_sooner() -> None:
    bounds = {"minWorkers": 1, "maxWorkers": 8}
    first = a_job("first", gpus=1, workers=7, duration=HOUR)
    gang = a_job("gang", gpus=1, workers=8, at=60, duration=10 * HOUR, elastic=bounds, estimatedRuntime=10 * HOUR)
    told = record(run(first, gang, horizon=20 * HOUR), "gang")
    assert told["evictions"] == 1
    assert HOUR + READY + 10 * HOUR < told["endedAt"] < HOUR + READY + 10 * HOUR + 120
