"""Queues of unequal weights get their shares; the long version, with unlike jobs, is `make bench-fairshare`."""

from __future__ import annotations

from berth.bench.fairshare import Team, run


def test_a_few_hours_are_shared_by_weight() -> None:
    got = run((Team(1, ((1, 1),), 1.0), Team(3, ((1, 2),), 0.5)), nodes=1, days=0.25)
    assert got.worst < 0.1  # single jobs count, on eight boards in six hours
    assert got.utilisation > 0.9
