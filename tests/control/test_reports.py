"""What statuses say, and when they are worth a write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.control.ports import Json
from berth.control.reports import difference, only_past, only_steady, queue_status, service_status, training_status
from berth.control.status import (
    avoid_from,
    avoid_status,
    from_rfc3339,
    is_true,
    losses_from,
    moved_from,
    past_from,
    placement_from,
    placement_status,
    ranks_from,
    ranks_text,
    resized_from,
    to_rfc3339,
    verdict_from,
    verdict_status,
    with_condition,
)
from berth.model.losses import Loss, Losses
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import (
    Attempt,
    Demand,
    Device,
    Elastic,
    Kind,
    Past,
    Placement,
    Pod,
    PodPhase,
    PodShape,
    Queue,
    Request,
    Resize,
    Workload,
)
from berth.planning.actions import QueueUsage
from berth.planning.fairness import Standing, counted
from tests.control.builders import BOARD, a_ref, a_service

NOW = 1_000_000.0
PLACED = Verdict("Placed", "2 workers on node n1")
WAITS = Verdict(Reason.WAITING_FOR_CAPACITY, "1 of 2 workers fit", 1, 2, (("holds other GPUs", 3),))


def a_workload(**more: Any) -> Workload:
    """A pending job of two workers."""
    return Workload(a_ref(), NOW - 60, Request(2, Demand(count=1), PodShape()), **more)


def admitted(*phases: PodPhase, **more: Any) -> Workload:
    """The job with an attempt, and pods in these phases."""
    pods = tuple(Pod(f"p{i}", f"u{i}", phase, attempt=1, index=i, node="n1") for i, phase in enumerate(phases))
    attempt = Attempt(1, Placement(BOARD, ("n1", "n1")), NOW, stopping=more.pop("stopping", ""))
    return a_workload(attempt=attempt, attempts_made=1, pods=pods, **more)


def conditions(status: Json) -> dict[str, str]:
    """The conditions' values by type."""
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_a_pending_job_says_why_it_waits() -> None:
    status = training_status(a_workload(), WAITS, {}, NOW)
    assert (status["state"], status["ready"], status["placement"]) == ("Pending", "0/2", None)
    assert status["verdict"]["nodes"] == [{"cause": "holds other GPUs", "count": 3}]
    assert conditions(status) == {"Admitted": "False"}


def test_a_move_in_quiet_hours_is_told_with_its_price_and_read_back() -> None:
    status = training_status(a_workload(moved=(NOW, 16.534)), WAITS, {}, NOW)
    assert status["moved"] == {"time": to_rfc3339(NOW), "usd": 16.53}
    assert moved_from(status["moved"]) == (NOW, 16.53)
    assert training_status(a_workload(), WAITS, {}, NOW)["moved"] is None


def test_another_number_of_workers_is_told_and_read_back() -> None:
    status = training_status(a_workload(resized=Resize(2, 4, 8)), WAITS, {}, NOW)
    assert status["resized"] == {"attempt": 2, "from": 4, "to": 8}
    assert resized_from(status["resized"]) == Resize(2, 4, 8)


def test_what_was_lost_is_told_by_reason_and_read_back() -> None:
    losses = Losses((Loss("Drain", 2, 30.0), Loss("NodeLost", 1, 12.5)))
    status = training_status(a_workload(losses=losses), WAITS, {}, NOW)
    assert status["losses"]["gpuSeconds"] == 42.5
    assert losses_from(status["losses"]) == losses
    assert training_status(a_workload(), WAITS, {}, NOW)["losses"] is None


def test_an_elastic_gang_counts_the_workers_that_it_has() -> None:
    request = Request(4, Demand(count=1), PodShape(), elastic=Elastic(2, 6))
    job = replace(admitted(PodPhase.READY, PodPhase.READY), request=request)
    status = training_status(job, PLACED, {}, NOW)
    assert (status["ready"], status["state"]) == ("2/2", "Running")
    assert training_status(replace(a_workload(), request=request), WAITS, {}, NOW)["ready"] == "0/4"


def test_a_job_is_admitted_then_running_once_all_its_pods_are_ready() -> None:
    half = training_status(admitted(PodPhase.READY, PodPhase.BOUND), PLACED, {}, NOW)
    assert (half["state"], half["ready"], half["startedAt"]) == ("Admitted", "1/2", None)
    assert conditions(half) == {"Admitted": "True", "PodsReady": "False"}
    whole = training_status(admitted(PodPhase.READY, PodPhase.READY), PLACED, half, NOW + 5)
    assert (whole["state"], whole["startedAt"]) == ("Running", to_rfc3339(NOW + 5))
    assert conditions(whole) == {"Admitted": "True", "PodsReady": "True"}


def test_the_start_is_told_once_and_kept() -> None:
    status = training_status(admitted(PodPhase.READY, started_at=NOW - 50), PLACED, {}, NOW)
    assert status["startedAt"] == to_rfc3339(NOW - 50)


def test_pods_of_an_earlier_attempt_and_terminating_ones_are_not_ready_workers() -> None:
    workload = admitted(PodPhase.READY, PodPhase.READY)
    old, leaving = replace(workload.pods[0], attempt=0), replace(workload.pods[1], terminating=True)
    assert training_status(replace(workload, pods=(old, leaving)), PLACED, {}, NOW)["ready"] == "0/2"


def test_what_must_outlive_the_pods_is_kept_with_the_attempt() -> None:
    short = training_status(admitted(PodPhase.SUCCEEDED, spec_digest="abc"), PLACED, {}, NOW)
    assert (short["finishedRanks"], short["missingSince"], short["specDigest"]) == ("0", to_rfc3339(NOW), "abc")
    gone = training_status(a_workload(spec_digest="abc"), WAITS, short, NOW)
    assert (gone["finishedRanks"], gone["missingSince"], gone["specDigest"]) == (None, None, None)


def test_a_stopping_job_is_evicted_for_a_reason_that_goes_when_it_is_admitted_again() -> None:
    stopping = training_status(admitted(stopping="Suspended"), Verdict("Suspended", "stop"), {}, NOW)
    assert (stopping["state"], stopping["stopping"]) == ("Stopping", "Suspended")
    assert conditions(stopping) == {"Admitted": "False", "PodsReady": "False", "Evicted": "True"}
    again = training_status(admitted(), PLACED, stopping, NOW)
    assert conditions(again) == {"Admitted": "True", "PodsReady": "False", "Evicted": "False"}
    assert again["stopping"] is None


@pytest.mark.parametrize("outcome", ["Succeeded", "Failed"])
def test_a_finished_job_keeps_where_it_ran(outcome: str) -> None:
    finished = admitted(PodPhase.SUCCEEDED, PodPhase.SUCCEEDED, finished=outcome, finished_at=NOW)
    status = training_status(finished, Verdict(outcome, "all ended"), {}, NOW)
    assert (status["state"], status["finishedAt"]) == (outcome, to_rfc3339(NOW))
    assert "placement" not in status
    assert is_true(status["conditions"], outcome)


def test_what_is_misconfigured_says_so_and_stops_saying_so() -> None:
    problem = Verdict(Reason.MISCONFIGURED, "spec.gpus.count: must be at least 1")
    wrong = training_status(a_workload(), problem, {}, NOW)
    (condition,) = (c for c in wrong["conditions"] if c["type"] == "Misconfigured")
    assert (condition["status"], condition["message"]) == ("True", problem.message)
    assert conditions(training_status(a_workload(), WAITS, wrong, NOW))["Misconfigured"] == "False"


def test_a_service_says_where_it_listens_and_how_many_are_ready() -> None:
    workload = replace(a_workload(served_device=BOARD), ref=a_ref("chat", kind=Kind.INFERENCE_SERVICE))
    status = service_status(workload, WAITS, {}, a_service()["spec"], None, NOW)
    assert status["url"] == "http://chat.team.svc:8080"
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)
    assert status["selector"] == "berth.dev/kind=InferenceService,berth.dev/name=chat"
    assert conditions(status) == {"Ready": "False", "Admitted": "False"}


QUEUE = {"metadata": {"name": "red"}}
WEEK = 168.0


def test_a_queue_says_what_is_used_of_what_it_may_have() -> None:
    has = QueueUsage(2, 1, {"H100": "9/4", "A30": "1"}, borrowed={"A30": "1"}, lent={"H100": "2"})
    status = queue_status(Queue("red", {"H100": 8}), has, QUEUE, WEEK, NOW)
    assert status["usage"] == [
        {"model": "A30", "used": "1", "nominal": None, "borrowed": "1"},
        {"model": "H100", "used": "9/4", "nominal": 8, "lent": "2"},
    ]
    assert conditions(status) == {"Ready": "True"}


def test_a_queue_says_what_is_wrong_with_it() -> None:
    has = QueueUsage(0, 0, {}, problem="spec.parent: no", stopped="it is stopped", not_default="team goes to blue")
    status = queue_status(Queue("red"), has, QUEUE, WEEK, NOW)
    assert [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]] == [
        ("Ready", "False", "Misconfigured", "spec.parent: no"),
        ("DefaultTaken", "True", "AnotherIsOlder", "team goes to blue"),
    ]
    held = queue_status(Queue("red"), replace(has, problem=""), QUEUE, WEEK, NOW)
    assert held["conditions"][0]["reason"] == "QueueStopped"


def use(hours: float, boards: float, at: float = NOW) -> QueueUsage:
    return QueueUsage(0, 0, {}, standing=Standing(0.25, 0.5, Past(at, {"H100-80GB": hours}, {"H100-80GB": boards})))


def test_what_was_used_is_written_and_read_back() -> None:
    status = queue_status(Queue("red"), use(12.5, 8), QUEUE, WEEK, NOW)
    assert (status["fairShare"]["part"], status["fairShare"]["due"]) == ("0.25", "0.50")
    assert past_from(status["fairShare"]) == Past(NOW, {"H100-80GB": 12.5}, {"H100-80GB": 8})


def test_what_was_used_is_written_again_only_when_it_can_not_be_worked_out() -> None:
    written = queue_status(Queue("red"), use(12.5, 8), QUEUE, WEEK, NOW)
    raw = {**QUEUE, "status": written}
    later = counted(past_from(written["fairShare"]), NOW + 7200, WEEK)["H100-80GB"]
    same = queue_status(Queue("red"), use(later, 8, NOW + 7200), raw, WEEK, NOW + 7200)
    assert difference(written, same) == {}
    fewer = queue_status(Queue("red"), use(later, 7, NOW + 7200), raw, WEEK, NOW + 7200)
    assert only_past(difference(written, fewer))
    assert past_from(fewer["fairShare"]).boards == {"H100-80GB": 7}


def test_only_fields_that_differ_are_written_and_null_is_absence() -> None:
    old = {"state": "Pending", "verdict": {"reason": "A"}, "kept": 1}
    new = {"state": "Pending", "verdict": {"reason": "A", "fits": None}, "placement": None, "ready": "0/2"}
    assert difference(old, new) == {"ready": "0/2"}
    assert difference({"placement": {"a": 1}}, {"placement": None}) == {"placement": None}


def test_a_status_that_was_written_differs_no_more() -> None:
    for workload, verdict in ((a_workload(), WAITS), (admitted(PodPhase.READY, PodPhase.READY), PLACED)):
        written = {k: v for k, v in training_status(workload, verdict, {}, NOW).items() if v is not None}
        later = replace(workload, started_at=NOW if workload.attempt else 0.0)
        assert difference(written, training_status(later, verdict, written, NOW + 100)) == {}


def test_numbers_of_a_waiting_workload_can_wait_and_reasons_cannot() -> None:
    old = training_status(a_workload(), WAITS, {}, NOW)

    def steady(workload: Workload, verdict: Verdict) -> bool:
        return only_steady(difference(old, training_status(workload, verdict, old, NOW)), old)

    assert steady(a_workload(), replace(WAITS, message="0 of 2 workers fit", fits=0))
    assert not steady(a_workload(), replace(WAITS, reason=Reason.WAITING_FOR_QUOTA))
    assert not steady(a_workload(), replace(WAITS, wanted=3))
    assert not steady(admitted(), PLACED)
    assert not steady(replace(a_workload(), generation=2), WAITS)


def test_the_time_of_a_transition_moves_only_with_the_value() -> None:
    first = with_condition((), "Admitted", False, "A", now=NOW, generation=1)
    same = with_condition(first, "Admitted", False, "B", "changed", now=NOW + 5, generation=2)
    other = with_condition(same, "Admitted", True, "B", now=NOW + 9, generation=2)
    assert [c[0]["lastTransitionTime"] for c in (first, same, other)] == [
        to_rfc3339(NOW),
        to_rfc3339(NOW),
        to_rfc3339(NOW + 9),
    ]
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("B", 2)


@given(st.lists(st.sampled_from(["n1", "n2", "n3", "n4", "n5"]), min_size=1, max_size=40), st.integers(1, 16))
def test_a_placement_survives_being_written_down(nodes: list[str], count: int) -> None:
    placement = Placement(Device("H100-80GB", "nvidia.com/gpu", count), tuple(nodes))
    assert placement_from(placement_status(placement)) == placement


@given(st.sets(st.integers(0, 2000), min_size=1))
def test_ranks_survive_being_written_down(ranks: set[int]) -> None:
    assert ranks_from(ranks_text(sorted(ranks))) == sorted(ranks)


@given(
    st.sampled_from(list(Reason)), st.text(), st.none() | st.integers(0), st.lists(st.tuples(st.text(), st.integers()))
)
def test_a_verdict_survives_being_written_down(
    reason: Reason, message: str, fits: int | None, nodes: list[tuple[str, int]]
) -> None:
    verdict = Verdict(reason, message, fits, fits, tuple(nodes))
    written = {key: value for key, value in verdict_status(verdict).items() if value is not None}
    assert verdict_from(written) == verdict


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 4_000_000_000))))
def test_avoided_nodes_survive_being_written_down(avoid: list[tuple[str, int]]) -> None:
    assert avoid_from(avoid_status((node, float(until)) for node, until in avoid)) == tuple(avoid)


def test_no_time_is_zero() -> None:
    assert from_rfc3339(None) == from_rfc3339("") == 0.0


@pytest.mark.parametrize("status", [{}, {"device": {}}, {"device": {"model": "a", "resource": "b", "count": 1}}])
def test_a_placement_that_is_none_raises(status: Json) -> None:
    with pytest.raises((KeyError, ValueError)):
        placement_from(status)
