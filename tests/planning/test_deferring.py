"""Jobs wait for cleaner hours and pause for them, never past their deadlines, and in nobody's way meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from berth.model.nodes import Node
from berth.model.reasons import Reason
from berth.model.workloads import CarbonTerms, PodPhase, SaveRequest, Workload
from berth.planning.actions import AskToSave, Plan, Stop
from berth.planning.carbon import Origin, Outlook
from berth.planning.deferring import GRID_SECONDS, PAUSED
from berth.planning.explain import explain
from berth.planning.snapshot import Policy
from tests.planning import strategies
from tests.planning.builders import a_job, a_node, a_snapshot, nodes_of, only, planned, running, verdict_of

HOUR = 3600.0
NOW = 480_000 * HOUR
DAY = [400.0] * 8 + [100.0] * 6 + [400.0] * 10
NIGHT = NOW + 8 * HOUR  # when the clean hours begin
REGION = "topology.kubernetes.io/region"


def an_outlook(*grams: float, origin: Origin = Origin.FORECAST) -> Outlook:
    """These hours from now on."""
    return Outlook(int(NOW // HOUR), grams, (origin,) * len(grams))


DIRTY_DAYS = an_outlook(*(DAY * 4))


def terms(price: float | None = 80.0, budget: float | None = None, hours: float | None = 24.0) -> CarbonTerms:
    """A price of a tonne, unless there is a budget, and how long it may wait."""
    return CarbonTerms(None if budget is not None else price, budget, None if hours is None else hours * HOUR)


def nodes(*regions: str) -> list[Node]:
    """A node in each region; in "de" alone, if none is named."""
    return [a_node(f"{region}1", labels={REGION: region}) for region in regions or ("de",)]


def a_patient_job(name: str = "job", carbon: CarbonTerms | None = None, **more: Any) -> Workload:
    """Four hours on eight boards, which may wait for a day."""
    more = {"created": NOW, "estimated_seconds": 4 * HOUR, "carbon": carbon or terms(), "gpus": 8, **more}
    return a_job(name, **more)


def plan_of(*jobs: Workload, now: float = NOW, of: list[Node] | None = None, **more: Any) -> Plan:
    """The plan where the next hours are dirty and the night is clean."""
    return planned(of or nodes(), *jobs, now=now, **{"outlooks": {"de": DIRTY_DAYS}, **more})


def test_a_job_with_slack_waits_for_the_cleanest_hours() -> None:
    plan = plan_of(a_patient_job())
    verdict = verdict_of(plan)
    assert (verdict.reason, nodes_of(plan), plan.wake_at) == (Reason.DEFERRED_FOR_CARBON, None, NIGHT)
    told = "starts 08:00 UTC: 100 instead of 400 g/kWh in de, saves 10.0 kg worth $0.80; maxDelay leaves 16 h"
    assert verdict.message == told


def test_it_starts_when_they_begin() -> None:
    assert nodes_of(plan_of(a_patient_job(), now=NIGHT + 0.2)) == ("de1",)


def test_a_deadline_alone_is_slack_enough() -> None:
    job = a_patient_job(carbon=terms(hours=None), deadline=NOW + 14 * HOUR)
    verdict = verdict_of(plan_of(job))
    assert verdict.reason == Reason.DEFERRED_FOR_CARBON
    assert verdict.message.endswith("deadline leaves 2 h")


def test_a_deadline_that_ends_in_dirty_hours_is_kept() -> None:
    assert nodes_of(plan_of(a_patient_job(deadline=NOW + 5 * HOUR))) == ("de1",)


def test_of_a_window_that_only_begins_to_be_clean_as_much_is_taken_as_there_is_time_for() -> None:
    plan = plan_of(a_patient_job(deadline=NOW + 11 * HOUR))
    assert plan.wake_at is not None
    assert NOW + 6 * HOUR <= plan.wake_at < NOW + 7 * HOUR


def test_without_terms_nothing_waits() -> None:
    assert nodes_of(plan_of(replace(a_patient_job(), carbon=None, deadline=NOW + 90 * HOUR))) == ("de1",)
    assert nodes_of(plan_of(a_patient_job(carbon=terms(price=0.0)))) == ("de1",)


def test_who_says_neither_how_long_it_runs_nor_until_when_does_not_wait() -> None:
    assert nodes_of(plan_of(a_patient_job(estimated_seconds=None))) == ("de1",)
    assert nodes_of(plan_of(a_patient_job(carbon=terms(hours=None)))) == ("de1",)


def test_where_nobody_forecasts_nothing_waits() -> None:
    assert nodes_of(plan_of(a_patient_job(), outlooks={})) == ("de1",)
    assert nodes_of(plan_of(a_patient_job(), outlooks={"de": an_outlook(*[380.0] * 96)})) == ("de1",)


def test_what_is_believed_without_a_forecast_is_said() -> None:
    of_a_day_before = an_outlook(*(DAY * 4), origin=Origin.YESTERDAY)
    message = verdict_of(plan_of(a_patient_job(), outlooks={"de": of_a_day_before})).message
    assert "(by the same hour of a day before)" in message


def test_little_gain_is_not_waited_for() -> None:
    assert nodes_of(plan_of(a_patient_job(), outlooks={"de": an_outlook(*[400.0] * 20, *[395.0] * 76)})) == ("de1",)


def test_a_cleaner_region_is_waited_for_only_if_it_can_be_reached() -> None:
    outlooks = {"de": an_outlook(*[300.0] * 96), "se": DIRTY_DAYS}
    waits = verdict_of(plan_of(a_patient_job(), of=nodes("de", "se"), outlooks=outlooks))
    assert "in se" in waits.message
    assert nodes_of(plan_of(a_patient_job(), of=nodes("de"), outlooks=outlooks)) == ("de1",)


def test_a_gang_goes_where_it_emits_least_if_boards_cost_the_same() -> None:
    outlooks = {"de": an_outlook(*[300.0] * 96), "se": an_outlook(*[30.0] * 96)}
    plan = plan_of(a_patient_job(), of=nodes("de", "se"), outlooks=outlooks)
    assert nodes_of(plan) == ("se1",)
    assert "on demand in se $64.00 and 0.25 kg CO2e an hour a worker" in verdict_of(plan).message


def test_who_waits_for_cleaner_hours_is_in_nobodys_way() -> None:
    large = a_patient_job("large", workers=2)
    small = a_job("small", gpus=8, created=NOW + 1)
    plan = plan_of(large, small, of=nodes("de"))
    assert nodes_of(plan, "small") == ("de1",)
    assert verdict_of(plan, "large").position is None


def test_nobody_gives_way_to_who_waits_for_cleaner_hours() -> None:
    low = running(a_job("low", gpus=8), "de1", pods=PodPhase.READY, admitted_at=NOW - 9000, started_at=NOW - 9000)
    plan = plan_of(low, a_patient_job("high", priority=10), used={"de1": {"nvidia.com/gpu": 8, "pods": 1}})
    assert only(plan, Stop) == []


def test_an_elastic_gang_grows_meanwhile() -> None:
    gang = running(
        a_job("gang", gpus=4, elastic=(1, 2, 1), estimated_seconds=30 * 24 * HOUR),
        "de1",
        pods=PodPhase.READY,
        admitted_at=NOW - 9000,
        started_at=NOW - 9000,
        saved_at=NOW - 1,
    )
    taken = {"de1": {"nvidia.com/gpu": 4, "pods": 1}}
    assert [stop.reason for stop in only(plan_of(gang, a_patient_job(gpus=4), used=taken), Stop)] == ["Resized"]


# Pauses


def a_running_job(budget: float = 0.05, **more: Any) -> Workload:
    """It has run for an hour of ten, saves checkpoints, and listens."""
    job = a_patient_job(
        carbon=terms(budget=budget, hours=36.0), estimated_seconds=10 * HOUR, checkpoints=True, created=NOW - HOUR
    )
    job = running(job, "de1", pods=PodPhase.READY, admitted_at=NOW - HOUR, started_at=NOW - HOUR)
    return replace(job, **{"listens": 1, **more})


TAKEN = {"de1": {"nvidia.com/gpu": 8, "pods": 1}}


def test_a_job_that_runs_into_dirty_hours_is_asked_to_save() -> None:
    plan = plan_of(a_running_job(), used=TAKEN)
    (asked,) = only(plan, AskToSave)
    assert (asked.request.reason, asked.request.node) == (PAUSED, "")
    assert verdict_of(plan).message.startswith("goes on 08:00 UTC: ")


def test_it_stops_once_it_has_saved() -> None:
    asked = SaveRequest("1-7", 1, PAUSED, "", NOW - 5)
    (stop,) = only(plan_of(a_running_job(save_request=asked, saved_for="1-7", saved_at=NOW), used=TAKEN), Stop)
    assert stop.reason == PAUSED


def test_it_is_not_a_rival_of_gangs_that_grow_and_waits_for_its_hour() -> None:
    paused = replace(a_running_job(), attempt=None, pods=(), started_at=0.0, worked_seconds=HOUR)
    assert verdict_of(plan_of(paused)).message.startswith("goes on 08:00 UTC: ")


def test_who_saves_no_checkpoints_goes_on() -> None:
    assert only(plan_of(a_running_job(checkpoints=False), used=TAKEN), Stop) == []


def test_who_has_just_started_goes_on() -> None:
    plan = plan_of(a_running_job(started_at=NOW - 60), used=TAKEN)
    assert (plan.actions, plan.wake_at) == ((), NOW + 540)


def test_a_pause_that_costs_more_than_the_budget_is_not_made() -> None:
    assert plan_of(a_running_job(budget=0.004), used=TAKEN).actions == ()


def test_a_pause_that_costs_more_than_carbon_is_worth_is_not_made() -> None:
    job = a_running_job()
    cheap = replace(job, carbon=terms(price=80.0, hours=36.0))
    dear = replace(job, carbon=terms(price=2000.0, hours=36.0))
    assert plan_of(cheap, used=TAKEN).actions == ()
    assert only(plan_of(dear, used=TAKEN), AskToSave)


def test_the_work_that_would_be_lost_counts_where_nobody_listens() -> None:
    unsaved = a_running_job(listens=0, started_at=NOW - 5 * HOUR, budget=1.0)
    assert only(plan_of(unsaved, used=TAKEN), Stop) == []
    saved = replace(unsaved, saved_at=NOW - 30)
    assert [stop.reason for stop in only(plan_of(saved, used=TAKEN), Stop)] == [PAUSED]


def test_a_deadline_forbids_the_pause() -> None:
    assert plan_of(a_running_job(deadline=NOW + 10 * HOUR), used=TAKEN).actions == ()


# Always

clusters = strategies.clusters(4)
others = st.integers(1, 4).flatmap(lambda n: st.tuples(*(strategies.workloads(f"w{i}") for i in range(n))))


@settings(max_examples=80, deadline=None)
@given(nodes=clusters, others=others, workers=st.integers(1, 4), priority=st.integers(-1, 1))
def test_who_waits_changes_nothing_for_anybody_else(
    nodes: list[Node], others: tuple[Workload, ...], workers: int, priority: int
) -> None:
    waits = a_patient_job("patient", gpus=1, workers=workers, priority=priority, created=NOW)
    outlooks = {"": DIRTY_DAYS}
    alone, beside = (planned(nodes, *jobs, now=NOW, outlooks=outlooks) for jobs in (others, (*others, waits)))
    assume(verdict_of(beside, "patient").reason == Reason.DEFERRED_FOR_CARBON)
    assert beside.actions == alone.actions
    assert {uid: v for uid, v in beside.verdicts.items() if uid != "uid-patient"} == alone.verdicts


curves = st.lists(st.floats(0, 1000), min_size=24, max_size=96).map(lambda grams: an_outlook(*grams))


@settings(max_examples=60, deadline=None)
@given(
    outlook=curves,
    seconds=st.floats(120, 30 * HOUR),
    slack=st.floats(0, 60 * HOUR),
    offset=st.floats(0, HOUR),
    price=st.sampled_from([None, 5.0, 500.0]),
    checkpoints=st.booleans(),
)
def test_whoever_can_keep_a_deadline_starts_in_time_to_keep_it(
    outlook: Outlook, seconds: float, slack: float, offset: float, price: float | None, checkpoints: bool
) -> None:
    now = NOW + offset
    share = 0.1 if price is None else None
    job = a_patient_job(
        created=now,
        estimated_seconds=seconds,
        carbon=terms(price or 0.0, share, None),
        checkpoints=checkpoints,
        deadline=now + seconds + slack,
    )
    for _ in range(500):
        plan = plan_of(job, now=now, outlooks={"de": outlook})
        if nodes_of(plan):
            break
        assert plan.wake_at is not None
        assert plan.wake_at > now
        now = min(plan.wake_at, now + HOUR)
    assert nodes_of(plan) == ("de1",)
    assert job.deadline is not None
    assert now + seconds <= job.deadline + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    outlook=curves,
    left=st.floats(HOUR, 20 * HOUR),
    slack=st.floats(0, 40 * HOUR),
    listens=st.booleans(),
    budget=st.floats(0, 1),
)
def test_nobody_pauses_who_would_miss_its_deadline_by_it(
    outlook: Outlook, left: float, slack: float, listens: bool, budget: float
) -> None:
    job = a_running_job(
        budget, listens=int(listens), estimated_seconds=left + HOUR, deadline=NOW + left + slack, saved_at=NOW - 60
    )
    plan = plan_of(job, used=TAKEN, outlooks={"de": outlook})
    if plan.actions:
        paused = replace(job, attempt=None, pods=(), started_at=0.0, worked_seconds=HOUR - 60)
        later = plan_of(paused, now=NOW + 60, outlooks={"de": outlook})
        start = later.wake_at if nodes_of(later) is None else NOW + 60
        assert start is not None
        assert start + left + 60 <= NOW + left + slack + GRID_SECONDS


@settings(max_examples=40, deadline=None)
@given(outlook=curves, seconds=st.floats(600, 20 * HOUR), hours=st.floats(0, 60))
def test_waiting_never_emits_more_than_running_at_once(outlook: Outlook, seconds: float, hours: float) -> None:
    plan = plan_of(a_patient_job(estimated_seconds=seconds, carbon=terms(hours=hours)), outlooks={"de": outlook})
    start = NOW if nodes_of(plan) else plan.wake_at
    assert start is not None
    grams = [outlook.curve.grams([(at, at + seconds)]) for at in (start, NOW)]
    assert grams[0] <= grams[1] * 1.15 + 1.0  # lengths are rounded up to an eighth


def test_a_plan_that_is_told_nothing_of_carbon_keeps_to_what_was_decided() -> None:
    decided = verdict_of(plan_of(a_patient_job()))
    job = replace(a_patient_job(), verdict=decided)
    plan = plan_of(job, outlooks={}, now=NOW + HOUR)
    assert (verdict_of(plan), plan.wake_at) == (decided, NIGHT)
    assert nodes_of(plan_of(job, outlooks={}, now=NIGHT)) == ("de1",)


def test_explain_says_what_would_hold_without_the_wait() -> None:
    job = a_patient_job()
    told = explain(a_snapshot(nodes(), job, outlooks={"de": DIRTY_DAYS}), Policy(), NOW, job)
    assert told.verdict.reason == Reason.DEFERRED_FOR_CARBON
    assert told.notes[0] == "it waits for cleaner hours: below is what would hold if it did not"
    assert told.notes[1].startswith("it would be placed: 1 worker on node de1")
