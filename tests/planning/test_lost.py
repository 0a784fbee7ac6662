"""What an attempt that ended had done in vain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.model.workloads import Device, PodPhase, Workload
from berth.planning.lost import lost_gpu_seconds, with_loss
from tests.planning.builders import NOW, a_job, running


def stopped(*, started_at: float = NOW - 100, saved_at: float = 0.0, since: float = NOW - 10) -> Workload:
    """A gang of two workers with four boards each, told to stop ten seconds ago."""
    job = running(a_job(workers=2, gpus=4), "n1", "n2", pods=PodPhase.READY, started_at=started_at, saved_at=saved_at)
    assert job.attempt is not None
    return replace(job, attempt=replace(job.attempt, stopping="Drain", stopping_since=since))


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        (stopped(), 90),
        (stopped(saved_at=NOW - 30), 20),
        (stopped(saved_at=NOW - 2), 0),
        (stopped(saved_at=NOW - 500), 90),
        (stopped(started_at=0.0), 0),
        (stopped(since=0.0), 100),
    ],
    ids=["never saved", "saved before", "saved at SIGTERM", "saved by an attempt before", "never whole", "crashed"],
)
def test_all_boards_lose_what_came_after_the_last_checkpoint_until_the_stop(job: Workload, seconds: float) -> None:
    assert lost_gpu_seconds(job, NOW) == 8 * seconds


def test_an_instance_is_a_part_of_a_board() -> None:
    device = Device("A100-80GB", "nvidia.com/mig-2g.20gb", 1)
    job = running(a_job(profile="2g.20gb"), "n1", pods=PodPhase.READY, device=device, started_at=NOW - 100)
    assert lost_gpu_seconds(job, NOW) == 25


def test_boards_that_no_table_knows_count_whole() -> None:
    device = Device("RTX-6000", "nvidia.com/gpu", 2)
    job = running(a_job(gpus=2), "n1", pods=PodPhase.READY, device=device, started_at=NOW - 100)
    assert lost_gpu_seconds(job, NOW) == 200


def test_nothing_runs_so_nothing_is_lost() -> None:
    assert lost_gpu_seconds(a_job(started_at=NOW - 100), NOW) == 0


def test_each_reason_has_its_own_account() -> None:
    job = with_loss(with_loss(with_loss(stopped(), "Drain", NOW), "Preempted", NOW), "Drain", NOW)
    assert [(one.reason, one.attempts, one.gpu_seconds) for one in job.losses.by_reason] == [
        ("Drain", 2, 1440),
        ("Preempted", 1, 720),
    ]
    assert job.losses.gpu_seconds == 2160
