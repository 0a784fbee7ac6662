"""Jobs with a deadline on spot windows: policies keep it, none beats the bound, and ours costs less than rules do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from berth.bench.spot import JOINT_POLICIES, figures, outcomes, tracks
from berth.bench.spot_data import load_windows
from berth.bench.spot_policies import Berth, Greedy, UniformProgress
from berth.bench.spot_run import Chooser, Terms, Track, run
from berth.planning.spot import Job, Place
from tests.bench.openb import DATA
from tests.bench.spot import a_track, cheapest, some_terms

SPOT = DATA.parent / "spot"
ALL = list(JOINT_POLICIES)


@st.composite
def jobs(draw: st.DrawFn, most_pools: int = 3) -> tuple[Terms, Track]:
    """A job that on-demand capacity could finish in time, and what it meets."""
    pools = draw(st.integers(1, most_pools))
    size = draw(st.integers(1, 40))
    step = draw(st.sampled_from([0.1, 0.25, 1 / 6, 1.0]))
    seen = [draw(st.text("01", min_size=size, max_size=size)) for _ in range(pools)]
    grams = [draw(st.lists(st.floats(0, 900), min_size=size, max_size=size)) for _ in range(pools)]
    restart = draw(st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.7]))
    work = draw(st.floats(0.1, 6))
    terms = some_terms(
        work=work,
        restart=restart,
        move=restart * draw(st.sampled_from([1.0, 2.5])),
        deadline=work + restart + draw(st.floats(0, 3)),
        carbon_price=draw(st.sampled_from([0.0, 1.0, 20.0])),
    )
    return terms, a_track(*seen, hours=step, grams=grams, home=draw(st.integers(0, pools - 1)))


@given(jobs())
@example((some_terms(work=1.1, deadline=1.2000000000000002, restart=0.0), a_track("0", hours=0.1)))
@settings(max_examples=40, deadline=None)
def test_no_policy_misses_a_deadline_that_on_demand_capacity_keeps(job: tuple[Terms, Track]) -> None:
    terms, track = job
    for name in ALL:
        assert not JOINT_POLICIES[name](terms, track).missed, name


@given(jobs(most_pools=2))
@settings(max_examples=25, deadline=None)
def test_no_policy_beats_the_clairvoyant_bound(job: tuple[Terms, Track]) -> None:
    terms, track = job
    costs = {name: _cost(terms, track, name) for name in ALL}
    assert min(costs.values()) >= costs["clairvoyant"] - 1e-6


@given(st.lists(st.text("01", min_size=6, max_size=6), min_size=1, max_size=1), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
@settings(max_examples=15, deadline=None)
def test_the_bound_is_the_best_of_all_ways_through_one_pool(seen: list[str], restart: float) -> None:
    terms = some_terms(work=1.5, deadline=3.0, restart=restart, carbon_price=2.0)
    track = a_track(*seen, grams=[[100.0 * (step % 3) for step in range(6)]])
    assert _cost(terms, track, "clairvoyant") == pytest.approx(cheapest(terms, track))


def test_the_bound_is_the_best_of_all_ways_through_two_pools() -> None:
    terms = some_terms(work=1.0, deadline=2.5, restart=0.25, move=0.5, carbon_price=5.0)
    for home in (0, 1):
        track = a_track("01011", "10100", grams=[[300, 100, 100, 50, 0], [0, 400, 50, 50, 90]], home=home)
        assert _cost(terms, track, "clairvoyant") == pytest.approx(cheapest(terms, track))


def test_the_same_window_gives_the_same_run() -> None:
    terms, track = some_terms(work=5, deadline=8), a_track("1101001100110101")
    assert run(terms, track, Berth(terms, track)) == run(terms, track, Berth(terms, track))


def test_what_comes_later_in_a_window_changes_nothing_before() -> None:
    terms = some_terms(work=20, deadline=30)
    first = _places(terms, a_track("110100" + "1" * 50))
    second = _places(terms, a_track("110100" + "0" * 50))
    assert first[:6] == second[:6]
    assert first != second


def test_uniform_progress_takes_on_demand_capacity_only_while_behind() -> None:
    terms, track = some_terms(work=4, deadline=8, restart=0.0), a_track("0" * 16)
    places = _places(terms, track, UniformProgress)
    assert places[0] is None
    assert places[1] is not None


def test_greedy_waits_until_the_deadline_forces_on_demand_capacity() -> None:
    terms, track = some_terms(work=2, deadline=6, restart=0.25), a_track("0" * 12)
    assert [place is not None for place in _places(terms, track, Greedy)] == [False] * 7 + [True] * 5


@pytest.mark.skipif(not SPOT.is_dir(), reason="there are no spot windows beside the repository")
@pytest.mark.parametrize("deadline", [52, 70])
@pytest.mark.parametrize("pool", ["us-west-2a_k80_8", "us-west-2a_v100_1", "us-west-2b_k80_8"])
def test_recorded_windows_cost_less_than_under_uniform_progress(pool: str, deadline: int) -> None:
    windows = load_windows([SPOT / f"{pool}.jsonl.gz"])[::15]
    terms = Terms(48, deadline, 0.1, 0.1, 0.9731, 3.06)
    policies = {name: JOINT_POLICIES[name] for name in ("uniform_progress", "berth", "clairvoyant")}
    found = figures(outcomes(terms, tracks(windows), policies))[""]
    assert not any(row.missed_deadlines for row in found.values())
    least, ours, theirs = (found[name].mean_dollars for name in ("clairvoyant", "berth", "uniform_progress"))
    assert least < ours < theirs - 0.3 * (theirs - least)


def _cost(terms: Terms, track: Track, name: str) -> float:
    outcome = JOINT_POLICIES[name](terms, track)
    return outcome.dollars + terms.carbon_price * outcome.kilograms


def _places(terms: Terms, track: Track, chooser: Callable[[Terms, Track], Chooser] = Berth) -> list[Place | None]:
    """Where the job was, step by step."""
    choose, found = chooser(terms, track), list[Place | None]()

    def noted(job: Job, up: Sequence[bool], step: int) -> Place | None:
        found.append(choose(job, up, step))
        return found[-1]

    run(terms, track, noted)
    return found
