"""Metrics: what they count, and that their labels never grow with the number of workloads."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from berth.adapters.metrics import Metrics
from berth.model.idling import Idle
from berth.model.losses import Loss, Losses
from berth.model.nodes import Relayout, Trouble, Way
from berth.model.prices import CapacityType
from berth.model.reasons import Reason, Verdict
from berth.model.usage import Amounts, Bought, Usage
from berth.model.workloads import Attempt, Demand, Placement, Pod, PodPhase, PodShape, Queue, Request, Workload
from berth.planning.actions import Admit, EndLayout, LayOut, Plan, QueueUsage, Stop
from berth.planning.snapshot import Snapshot
from tests.control.builders import BOARD, a_ref
from tests.planning.builders import a_node

NOW = 1000.0
PLACED = Verdict("Placed", "on n1")
WAITS = Verdict(Reason.WAITING_FOR_CAPACITY, "no room")


def a_job(name: str = "llm", **more: object) -> Workload:
    """A pending job, made 30 s ago."""
    return Workload(a_ref(name), NOW - 30, Request(1, Demand(count=1), PodShape()), queue="red", **more)  # type: ignore[arg-type]


def after(metrics: Metrics, plan: Plan, *workloads: Workload) -> None:
    """Tell of one cycle."""
    metrics.cycled(0.01, Snapshot({}, {}, workloads, {"red": Queue("red", {"H100": 8})}), plan, NOW)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """A sample."""
    return metrics.registry.get_sample_value(name, labels)


def test_waiting_jobs_by_queue_and_reason_are_those_of_the_last_cycle() -> None:
    metrics = Metrics("1")
    jobs = [a_job(name) for name in "abc"]
    after(metrics, Plan(verdicts={job.ref.uid: WAITS for job in jobs}), *jobs)
    assert value(metrics, "berth_pending_workloads", queue="red", reason="WaitingForCapacity") == 3
    after(metrics, Plan())
    assert value(metrics, "berth_pending_workloads", queue="red", reason="WaitingForCapacity") is None


def test_an_admission_is_timed_once_however_long_its_write_takes() -> None:
    metrics = Metrics("1")
    job = a_job()
    admit = Plan((Admit(job.ref, 1, Placement(BOARD, ("n1",)), PLACED),), {job.ref.uid: PLACED})
    for _ in range(3):
        after(metrics, admit, job)
    assert value(metrics, "berth_admission_wait_seconds_count", queue="red") == 1
    assert value(metrics, "berth_admission_wait_seconds_sum", queue="red") == 30


def test_a_re_layout_counts_once_when_it_ends() -> None:
    metrics = Metrics("1")
    relayout = Relayout(Way.AGENT, (), "team/llm", since=NOW)
    ends = Plan(layouts=(LayOut("n1", relayout, ""), EndLayout("n2", relayout, (), Trouble(1, NOW + 60, "why"), "")))
    for _ in range(3):
        after(metrics, ends)
    assert value(metrics, "berth_repartitions_total", result="given up") == 1
    assert value(metrics, "berth_repartitions_total", result="succeeded") == 0


def test_a_second_attempt_is_no_first_admission() -> None:
    metrics = Metrics("1")
    job = a_job(attempts_made=1)
    after(metrics, Plan((Admit(job.ref, 2, Placement(BOARD, ("n1",)), PLACED),)), job)
    assert value(metrics, "berth_admission_wait_seconds_count", queue="red") == 0


def test_an_eviction_is_counted_once_and_not_while_it_goes_on() -> None:
    metrics = Metrics("1")
    attempt = Attempt(1, Placement(BOARD, ("n1",)), NOW)
    stop = Plan((Stop(a_ref(), 1, "Suspended", "stop"),))
    after(metrics, stop, a_job(attempt=attempt))
    after(metrics, stop, a_job(attempt=attempt))
    after(metrics, stop, a_job(attempt=replace(attempt, stopping="Suspended")))
    assert value(metrics, "berth_evictions_total", reason="Suspended") == 1


def lost(**gpu_seconds: float) -> Losses:
    """One attempt by each of these reasons."""
    return Losses(tuple(Loss(reason, 1, seconds) for reason, seconds in gpu_seconds.items()))


def test_losses_count_once_when_a_status_tells_of_them() -> None:
    metrics = Metrics("1")
    after(metrics, Plan(), a_job(), a_job("other"))
    for _ in range(3):
        after(metrics, Plan(), a_job(losses=lost(Drain=80.0)), a_job("other", losses=lost(Drain=20.0, Failed=5.0)))
    assert value(metrics, "berth_lost_gpu_seconds_total", reason="Drain") == 100
    assert value(metrics, "berth_lost_gpu_seconds_total", reason="Failed") == 5


def test_losses_that_an_operator_before_counted_are_not_counted_again() -> None:
    metrics = Metrics("1")
    after(metrics, Plan(), a_job(losses=lost(Drain=80.0)))
    after(metrics, Plan(), a_job(losses=lost(Drain=90.0)))
    assert value(metrics, "berth_lost_gpu_seconds_total", reason="Drain") == 10
    after(metrics, Plan(), a_job())  # somebody wiped its status
    assert value(metrics, "berth_lost_gpu_seconds_total", reason="Drain") == 10


def test_losses_count_though_a_job_was_left_out_meanwhile() -> None:
    metrics = Metrics("1")
    after(metrics, Plan(), a_job())
    after(metrics, Plan())
    after(metrics, Plan(), a_job(losses=lost(Suspended=80.0)))
    assert value(metrics, "berth_lost_gpu_seconds_total", reason="Suspended") == 80


def of_usage(until: float, **usd: float) -> Usage:
    """Dollars for H100 boards by capacity type ("_" stands for "-"), at two dollars an hour."""
    return Usage(
        until,
        bought=tuple(
            Bought("H100-80GB", CapacityType(kind.replace("_", "-")), "", Amounts(much / 2, much / 4, much / 8, much))
            for kind, much in usd.items()
        ),
    )


def test_usage_counts_once_when_a_status_tells_of_it() -> None:
    metrics = Metrics("1")
    after(metrics, Plan(), a_job(usage=of_usage(NOW - 60, spot=6.0)), a_job("other"))
    later = of_usage(NOW, spot=10.0, on_demand=2.0)
    for _ in range(3):
        after(metrics, Plan(), a_job(usage=later), a_job("other", usage=of_usage(NOW, spot=1.0)))
    spot = {"queue": "red", "model": "H100-80GB", "capacity_type": "spot"}
    assert value(metrics, "berth_cost_dollars_total", **spot) == 5
    assert value(metrics, "berth_used_gpu_seconds_total", **spot) == 2.5 * 3600
    assert value(metrics, "berth_energy_joules_total", **spot) == 1.25 * 3.6e6
    assert value(metrics, "berth_carbon_grams_total", **spot) == 625
    assert value(metrics, "berth_cost_dollars_total", **(spot | {"capacity_type": "on-demand"})) == 2
    after(metrics, Plan(), a_job())  # somebody wiped its status
    assert value(metrics, "berth_cost_dollars_total", **spot) == 5


def test_the_age_of_checkpoints_is_that_of_the_job_that_has_most_to_lose() -> None:
    metrics = Metrics("1")
    runs = {"attempt": Attempt(1, Placement(BOARD, ("n1",)), NOW - 600), "started_at": NOW - 500}
    jobs = [
        a_job("fresh", saves=True, saved_at=NOW - 10, **runs),
        a_job("old", saves=True, saved_at=NOW - 60, **runs),
        a_job("careless", **runs),
        a_job("done", saves=True, finished="Succeeded", **runs),
        a_job("waiting", saves=True),
    ]
    after(metrics, Plan(), *jobs)
    assert value(metrics, "berth_checkpoint_age_seconds", queue="red", spot="false") == 60
    after(metrics, Plan(), a_job("new", saves=True, **runs))
    assert value(metrics, "berth_checkpoint_age_seconds", queue="red", spot="false") == 500
    after(metrics, Plan())
    assert value(metrics, "berth_checkpoint_age_seconds", queue="red", spot="false") is None


def test_checkpoints_on_spot_capacity_have_an_age_of_their_own() -> None:
    metrics = Metrics("1")
    nodes = {"n1": a_node("n1", labels={"karpenter.sh/capacity-type": "spot"}), "n2": a_node("n2")}
    jobs = [
        a_job(node, saves=True, started_at=NOW - age, attempt=Attempt(1, Placement(BOARD, (node,)), NOW - age))
        for node, age in (("n1", 50), ("n2", 500))
    ]
    metrics.cycled(0.01, Snapshot(nodes, {}, tuple(jobs), {"red": Queue("red", {})}), Plan(), NOW)
    assert value(metrics, "berth_checkpoint_age_seconds", queue="red", spot="true") == 50
    assert value(metrics, "berth_checkpoint_age_seconds", queue="red", spot="false") == 500


def test_saves_and_restores_are_timed() -> None:
    metrics = Metrics("1")
    metrics.saved(2.5)
    metrics.restored(40.0)
    assert value(metrics, "berth_checkpoint_save_seconds_sum") == 2.5
    assert value(metrics, "berth_restore_seconds_bucket", le="60.0") == 1


def test_boards_of_queues_as_numbers() -> None:
    metrics = Metrics("1")
    after(metrics, Plan(queues={"red": QueueUsage(0, 1, {"H100": "9/4"})}))
    assert value(metrics, "berth_queue_gpus", queue="red", model="H100", state="used") == 2.25
    assert value(metrics, "berth_queue_gpus", queue="red", model="H100", state="nominal") == 8
    assert value(metrics, "berth_admitted_workloads", queue="red") == 1


def test_the_longest_wait_is_of_jobs_that_would_run_if_there_were_room() -> None:
    metrics = Metrics("1")
    jobs = [
        a_job("new"),
        replace(a_job("old"), created=NOW - 500),
        replace(a_job("ran-before"), created=NOW - 9000, usage=Usage(NOW - 700)),
        replace(a_job("suspended"), created=NOW - 9000),
        replace(a_job("runs", attempt=Attempt(1, Placement(BOARD, ("n1",)), NOW)), created=NOW - 9000),
    ]
    verdicts = {job.ref.uid: WAITS for job in jobs} | {jobs[3].ref.uid: Verdict(Reason.SUSPENDED, "")}
    after(metrics, Plan(verdicts=verdicts), *jobs)
    assert value(metrics, "berth_longest_wait_seconds", queue="red") == 700
    after(metrics, Plan())
    assert value(metrics, "berth_longest_wait_seconds", queue="red") == 0


def test_pods_that_kube_scheduler_cannot_bind() -> None:
    metrics = Metrics("1")
    pods = [
        Pod("a", "a", PodPhase.PINNED, message="0/4 nodes are available"),
        Pod("b", "b", PodPhase.PINNED),
        Pod("c", "c", PodPhase.FAILED, message="OOMKilled"),
    ]
    after(metrics, Plan(), a_job(pods=tuple(pods)))
    assert value(metrics, "berth_unschedulable_pods", queue="red") == 1


def test_the_fleet_is_counted_when_asked_for() -> None:
    metrics = Metrics("1")
    metrics.look()
    assert value(metrics, "berth_gpus", model="H100-80GB", state="free") is None
    nodes = {name: a_node(name, mig={"1g.10gb": 7}) for name in ("n1", "n2")}
    used = {"n1": {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 1}}
    metrics.cycled(0.01, Snapshot(nodes, used, ()), Plan(suspects=frozenset({"n2"})), NOW)
    metrics.look()
    assert value(metrics, "berth_gpus", model="H100-80GB", state="used") == 2.125
    assert value(metrics, "berth_mig_instances", profile="1g.10gb", state="free") == 13
    assert value(metrics, "berth_fragmentation_ratio", model="H100-80GB") == pytest.approx(6.75 / 15.625)
    assert value(metrics, "berth_suspect_nodes") == 1


def test_a_forecast_that_never_came_is_infinitely_old() -> None:
    metrics = Metrics("1")
    metrics.forecast_aged("DE", None)
    metrics.forecast_aged("FR", 60.0)
    assert value(metrics, "berth_carbon_age_seconds", zone="DE") == inf
    assert value(metrics, "berth_carbon_age_seconds", zone="FR") == 60


def test_what_rates_are_taken_of_begins_at_zero() -> None:
    metrics = Metrics("1")
    assert value(metrics, "berth_evictions_total", reason="SpotInterruption") == 0
    assert value(metrics, "berth_repartitions_total", result="given up") == 0


def series_of(workloads: int) -> int:
    """How many series there are after cycles in which so many workloads of three queues do all that is counted."""
    metrics = Metrics("1")
    queues = {name: Queue(name, {"H100": 8}) for name in ("red", "green", "blue")}
    placement, used = Placement(BOARD, ("n1",)), of_usage(NOW, spot=1.0)
    made = [replace(a_job(f"job-{i}"), queue=[*queues, f"none-{i}"][i % 4]) for i in range(workloads)]
    waits = tuple(made[0::2])
    runs = tuple(replace(job, attempt=Attempt(1, placement, NOW), saves=True, started_at=NOW) for job in made[1::2])
    stops = tuple(Stop(job.ref, 1, "Drain", "") for job in runs)
    admits = tuple(Admit(job.ref, 1, placement, PLACED) for job in waits)
    verdicts = {job.ref.uid: WAITS for job in waits}
    metrics.cycled(0.01, Snapshot({}, {}, (*waits, *runs), queues), Plan((*admits, *stops), verdicts), NOW)
    later = tuple(replace(job, usage=used, losses=lost(Drain=8.0)) for job in runs)
    metrics.cycled(0.01, Snapshot({}, {}, (*waits, *later), queues), Plan(verdicts=verdicts), NOW)
    metrics.look()
    return sum(not line.startswith(b"#") for line in generate_latest(metrics.registry).splitlines())


def test_10_000_workloads_have_no_more_series_than_100_though_a_quarter_names_queues_that_do_not_exist() -> None:
    assert series_of(10_000) == series_of(100)


def test_every_metric_is_documented() -> None:
    table = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    suffixes = {"counter": "_total", "info": "_info"}
    for metric in Metrics("1").registry.collect():
        assert f"| `{metric.name}{suffixes.get(metric.type, '')}` |" in table


def test_the_version_is_told() -> None:
    assert value(Metrics("1.2.3"), "berth_build_info", version="1.2.3") == 1


def test_idle_jobs_are_counted_by_queue_once_their_users_were_told() -> None:
    metrics = Metrics("1")
    attempt = Attempt(1, Placement(BOARD, ("n1",)), NOW)
    idle = a_job(attempt=attempt, idle=Idle(NOW - 60, told=True))
    after(metrics, Plan(), idle, a_job("new", attempt=attempt, idle=Idle(NOW)), a_job("busy", attempt=attempt))
    assert value(metrics, "berth_idle_workloads", queue="red") == 1
    after(metrics, Plan(), replace(idle, idle=None))
    assert value(metrics, "berth_idle_workloads", queue="red") is None
