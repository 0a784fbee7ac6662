"""Nobody starves: whatever is said of run times, and however many small jobs come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model.workloads import Workload
from berth.planning.snapshot import Backfilling, Passing, Policy
from tests.planning.builders import a_job, racks
from tests.planning.crowd import Line

MINUTE, HOUR = 60.0, 3600.0
LONGEST = HOUR  # that any job runs
STEP = 5 * MINUTE
POLICY = Policy(backfill=Backfilling(most_wait_seconds=HOUR))

small_jobs = st.lists(
    st.tuples(
        st.sampled_from((1, 1, 2, 4)),  # boards
        st.sampled_from((STEP, 3 * STEP, LONGEST)),  # what it takes
        st.sampled_from((None, 1.0, MINUTE, HOUR, 100 * HOUR)),  # what its user says
    ),
    min_size=4,
    max_size=12,
)
gangs = st.sampled_from(
    (
        a_job("gang", workers=2, gpus=8, required="rack"),
        a_job("gang", workers=4, gpus=8),
        a_job("gang", workers=4, gpus=4, required="rack"),
        a_job("gang", workers=1, gpus=8, estimated_seconds=HOUR),
    )
)


def crowded(line: Line, jobs: list[tuple[int, float, float | None]], steps: int, gang: Workload) -> None:
    """More small jobs at each step than there is room for, and a gang that joins after a while."""
    made = 0
    for step in range(steps):
        if step == 6:
            line.join(gang, LONGEST)
        while len(line.waiting) < 8:
            boards, takes, said = jobs[made % len(jobs)]
            line.join(a_job(f"s{made}", gpus=boards, estimated_seconds=said), takes)
            made += 1
        line.step(STEP)
        if gang.ref.uid in line.started:
            return


@settings(max_examples=15, deadline=None)
@given(small_jobs, gangs)
def test_every_gang_starts_in_bounded_time_under_a_stream_of_small_jobs(
    jobs: list[tuple[int, float, float | None]], gang: Workload
) -> None:
    line = Line(racks(count=2, nodes=2), POLICY)
    bound = 6 + int((POLICY.backfill.most_wait_seconds + 3 * LONGEST) / STEP)
    crowded(line, jobs, bound, gang)
    assert gang.ref.uid in line.started


def test_without_reservations_a_gang_waits_for_ever() -> None:
    line = Line(racks(count=2, nodes=2), Policy(backfill=Backfilling(Passing.ANYBODY)))
    gang = a_job("gang", workers=2, gpus=8)
    crowded(line, [(1, LONGEST, None), (1, 3 * STEP, None), (2, STEP, None)] * 3, 200, gang)
    assert gang.ref.uid not in line.started


@settings(max_examples=15, deadline=None)
@given(small_jobs, gangs, st.sampled_from((1.0, 3.0)))
def test_a_start_that_was_promised_is_kept_where_no_run_takes_longer_than_is_said(
    jobs: list[tuple[int, float, float | None]], gang: Workload, padding: float
) -> None:
    line = Line(racks(count=2, nodes=2), Policy(backfill=Backfilling(most_wait_seconds=100 * HOUR)))
    promised: list[float] = []
    gang_came = line.now + 4 * STEP
    for step in range(40):
        if step == 4:
            line.join(gang, LONGEST)
        while len(line.waiting) < 8:
            boards, takes, _ = jobs[len(line.takes) % len(jobs)]
            line.join(a_job(f"s{len(line.takes)}", gpus=boards, estimated_seconds=padding * takes), takes)
        line.step(STEP)
        if gang.ref.uid in line.started:
            break
        older = [job for job in line.waiting.values() if job.created < gang_came]
        if (kept := line.kept.get(gang.ref.uid)) and not older:  # those served before may go elsewhere than expected
            promised.append(kept.start)
    assert all(later <= earlier for earlier, later in pairwise(promised))
    assert line.started[gang.ref.uid] < promised[0] + STEP if promised else True
