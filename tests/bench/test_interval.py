"""The automatic checkpoint interval loses little more than the best fixed one in hindsight."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from berth.bench.interval import LIMIT, Run, best_fixed, drawn, excesses, kinds, lost_by_fixed, outcomes, recorded
from berth.planning.interval import HOUR, MINUTE

SPOT = Path(os.environ.get("BERTH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "spot"


def test_what_a_fixed_interval_loses_by_hand() -> None:
    """100 s of restart, saves of 10 s after 90 s: at 350 s two are done, and 50 s of work are lost."""
    failed, ended = [Run(350, True)], [Run(350, False)]
    assert lost_by_fixed([failed], 10, 100, 90) == 100 + 2 * 10 + 50
    assert lost_by_fixed([ended], 10, 100, 90) == 100 + 2 * 10


def test_the_search_finds_the_interval_that_just_fits() -> None:
    lost, interval = best_fixed([[Run(1000, True)] * 3], 10, 0)
    assert 900 < interval <= 990
    assert lost == pytest.approx(3 * (1000 - interval))


def test_a_recorded_window_ends_each_stretch_within_the_gap_and_loses_nothing_at_its_own_end() -> None:
    line = json.dumps({"gap_seconds": 600, "available": [0, 1, 1, 0, 0, 1]})
    [window] = recorded(random.Random(1), [line])
    assert [run.failed for run in window] == [True, False]
    assert 600 < window[0].seconds < 1200
    assert window[1].seconds == 600


def test_it_loses_little_more_under_exponential_failures_and_under_bursts() -> None:
    chance = random.Random(7)
    totals = excesses(
        outcomes(
            {
                "exponential": drawn(chance, [6 * HOUR], windows=8),
                "bursts": drawn(chance, [12 * HOUR, 10 * MINUTE], 0.8, windows=20),
            }
        )
    )
    assert len(totals) == 6
    assert max(totals.values()) < LIMIT


@pytest.mark.skipif(not SPOT.is_dir(), reason="the recorded spot windows are not here")
def test_it_loses_little_more_on_recorded_spot_windows() -> None:
    windows = {name: found for name, found in kinds(7, SPOT, windows=0).items() if found}
    totals = excesses(outcomes(windows))
    assert set(totals) == {f"spot, save {save} s" for save in (30, 120, 300)}
    assert max(totals.values()) < LIMIT
