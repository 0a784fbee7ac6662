"""What passing is worth, on a small saturated fleet; `make bench-backfill` looks at more of them."""

from __future__ import annotations

from berth.bench.backfill import LEAST_SAVED, MOST_GROWTH, Comparison, Trace, waits
from berth.planning.snapshot import Passing


def test_small_jobs_wait_half_as_long_and_gangs_no_longer_than_in_strict_order() -> None:
    trace = Trace(nodes=8, days=0.15, load=2.0, small_hours=0.25, gang_hours=1.0, seed=1)
    found = Comparison("small", {rule: waits(trace, rule) for rule in (Passing.NOBODY, Passing.WITHOUT_DELAY)})
    assert found.saved >= LEAST_SAVED
    assert found.growth < MOST_GROWTH
