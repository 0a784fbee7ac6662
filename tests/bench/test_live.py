"""The operator's plan on spot windows: about as good as the program alone, and never late."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.bench.live import operator
from berth.bench.spot import SPOT_POLICIES
from tests.bench.spot import a_track, some_terms

COMES_AND_GOES = "111001111110000111111111011111100000000011111111" * 2


def test_it_waits_for_spot_capacity_that_comes_and_goes() -> None:
    terms, track = some_terms(work=24, deadline=40, restart=0.1), a_track(COMES_AND_GOES)
    ours = operator(terms, track)
    assert ours.dollars < 1.05 * SPOT_POLICIES["berth"](terms, track).dollars
    assert ours.dollars < SPOT_POLICIES["uniform_progress"](terms, track).dollars
    assert not ours.missed


def test_it_runs_on_demand_where_there_never_is_any() -> None:
    terms = some_terms(work=4, deadline=8, restart=0.1)
    ours = operator(terms, a_track("0000"))
    assert (round(ours.dollars, 1), ours.starts, ours.missed) == (12.3, 1, False)


@settings(max_examples=40, deadline=None)
@given(
    looks=st.text("01", min_size=1, max_size=40),
    work=st.floats(1, 12),
    slack=st.floats(0.6, 8),
    start=st.floats(0.0, 0.25),
)
def test_no_deadline_is_missed_in_any_window(looks: str, work: float, slack: float, start: float) -> None:
    terms = some_terms(work=work, deadline=work + slack, restart=start)
    assert not operator(terms, a_track(looks, hours=1 / 6)).missed
