"""What interrupts a node, and when."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.convert import to_queue, to_workload
from berth.control.interruptions import (
    DRAIN_ANNOTATION,
    MAINTENANCE_ANNOTATION,
    MAINTENANCE_LEAD_SECONDS,
    http_moment,
    interruption_of,
    lost_since,
    moment,
    reported,
    wakes_at,
)
from berth.control.observe import Convert, Observer
from berth.control.picture import Picture
from berth.control.records import GPUNodeRecord
from berth.model.nodes import Interruption, Taint
from tests.control.builders import a_node_record, meta

NOON = 1_772_452_800.0  # 2026-03-02T12:00:00Z
LEAD = MAINTENANCE_LEAD_SECONDS


def found(**fields: Any) -> Interruption | None:
    """What interrupts a node at noon."""
    return interruption_of(a_node_record("n1", **fields), None, NOON)


def heard(reason: str, deadline: float = 0.0) -> GPUNodeRecord:
    """A node's report, whose agent heard of this."""
    return GPUNodeRecord(meta("n1", namespace=""), interruption=Interruption(reason, "EC2 instance metadata", deadline))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("karpenter.sh/disrupted", "", "NodeTermination"),
        ("karpenter.sh/disruption", "disrupting", "NodeTermination"),
        ("aws-node-termination-handler/spot-itn", "3a1b", "SpotInterruption"),
        ("aws-node-termination-handler/scheduled-maintenance", "3a1b", "Maintenance"),
        ("aws-node-termination-handler/asg-lifecycle-termination", "3a1b", "NodeTermination"),
        ("aws-node-termination-handler/rebalance-recommendation", "3a1b", "NodeTermination"),
        ("ToBeDeletedByClusterAutoscaler", "1772452700", "NodeTermination"),
        ("cloud.google.com/impending-node-termination", "", "NodeTermination"),
        ("remediator.kubernetes.azure.com/unschedulable", "", "NodeTermination"),
        ("remediator.aks.microsoft.com/unschedulable", "", "NodeTermination"),
        ("cloudprovider.azure.microsoft.com/draining", "spot-eviction", "SpotInterruption"),
        ("node.kubernetes.io/out-of-service", "nodeshutdown", "NodeTermination"),
    ],
)
def test_a_taint_of_who_takes_a_node_away(key: str, value: str, reason: str) -> None:
    assert found(taints=(Taint(key, value, "NoSchedule"),)) == Interruption(reason, f"taint {key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DeletionCandidateOfClusterAutoscaler", "1772452700"),
        ("karpenter.sh/disruption", "candidate"),
        ("node.kubernetes.io/unschedulable", ""),
        ("node.kubernetes.io/out-of-service", "rack moved"),
        ("kubernetes.azure.com/scalesetpriority", "spot"),
        ("nvidia.com/gpu", "present"),
    ],
)
def test_a_taint_that_takes_no_node_away(key: str, value: str) -> None:
    assert found(taints=(Taint(key, value, "NoSchedule"),)) is None


def test_a_node_that_is_only_cordoned_is_not_interrupted() -> None:
    assert found(unschedulable=True) is None


@pytest.mark.parametrize(
    ("condition", "message", "reason", "deadline"),
    [
        (
            "VMEventScheduled",
            "Preempt Scheduled: Mon, 02 Mar 2026 12:00:30 GMT. For more",
            "SpotInterruption",
            NOON + 30,
        ),
        ("PreemptionScheduled", "Preempt Scheduled: Mon, 2 Mar 2026 12:00:30 GMT", "SpotInterruption", NOON + 30),
        ("VMEventScheduled", "Terminate Scheduled: Mon, 02 Mar 2026 12:05:00 GMT", "NodeTermination", NOON + 300),
        ("VMEventScheduled", "Redeploy Scheduled: Mon, 02 Mar 2026 12:10:00 GMT", "Maintenance", NOON + 600),
        ("VMEventScheduled", "Preempt Scheduled: . For more information", "SpotInterruption", 0.0),
        ("PreemptScheduled", "", "SpotInterruption", 0.0),
        ("RebootScheduled", "who knows when", "Maintenance", 0.0),
    ],
)
def test_an_event_that_aks_announces(condition: str, message: str, reason: str, deadline: float) -> None:
    assert found(announced=((condition, message),)) == Interruption(reason, f"condition {condition}", deadline)


@pytest.mark.parametrize(
    "message", ["", "Freeze Scheduled: Mon, 02 Mar 2026 12:00:30 GMT", "IMDS unavailable", "No event Scheduled: none"]
)
def test_an_event_that_loses_nothing_or_that_nobody_can_read(message: str) -> None:
    assert found(announced=(("VMEventScheduled", message),)) is None


def test_who_asks_for_a_drain_states_no_deadline() -> None:
    annotations = {DRAIN_ANNOTATION: "2026-03-02T11:59:00Z"}
    assert found(annotations=annotations) == Interruption("Drain", f"annotation {DRAIN_ANNOTATION}")


def test_planned_maintenance_counts_from_a_quarter_of_an_hour_before_it_begins() -> None:
    record = a_node_record("n1", annotations={MAINTENANCE_ANNOTATION: "2026-03-02T12:00:00Z"})
    planned = Interruption("Maintenance", f"annotation {MAINTENANCE_ANNOTATION}", NOON)
    assert interruption_of(record, None, NOON - LEAD - 1) is None
    assert wakes_at(record, None, NOON - LEAD - 1) == NOON - LEAD
    assert interruption_of(record, None, NOON - LEAD) == planned
    assert wakes_at(record, None, NOON - LEAD) is None
    assert interruption_of(record, None, NOON + 3600) == planned


def test_maintenance_that_the_cloud_announces_weeks_ahead_counts_no_earlier() -> None:
    record = a_node_record("n1")
    assert interruption_of(record, heard("Maintenance", NOON), NOON - 7 * 86_400) is None
    assert wakes_at(record, heard("Maintenance", NOON), NOON - 7 * 86_400) == NOON - LEAD
    assert interruption_of(record, heard("Maintenance", NOON), NOON - 1) is not None
    assert interruption_of(record, heard("Maintenance"), NOON) is not None


def test_of_several_the_nearest_deadline_counts() -> None:
    spot = a_node_record("n1", taints=(Taint("aws-node-termination-handler/spot-itn", "", "NoSchedule"),))
    assert interruption_of(spot, heard("SpotInterruption", NOON + 120), NOON) == Interruption(
        "SpotInterruption", "EC2 instance metadata", NOON + 120
    )
    planned = {MAINTENANCE_ANNOTATION: "2026-03-02T12:05:00Z", DRAIN_ANNOTATION: "2026-03-02T11:59:00Z"}
    both = interruption_of(a_node_record("n1", annotations=planned), heard("SpotInterruption", NOON + 30), NOON)
    assert both == Interruption("SpotInterruption", "EC2 instance metadata", NOON + 30)


@pytest.mark.parametrize("text", ["", "soon", "12:00", "2026-03-02", "2026-03-02T12:00:00", "true", "99999-01-01"])
def test_an_annotation_that_states_no_time_interrupts_nothing(text: str) -> None:
    assert found(annotations={MAINTENANCE_ANNOTATION: text, DRAIN_ANNOTATION: text}) is None


@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    assert moment(text) >= 0.0
    assert http_moment(text) >= 0.0
    found(announced=(("VMEventScheduled", f"Preempt Scheduled: {text}"),))


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_status_is_an_interruption_or_none(status: object) -> None:
    assert reported(status) is None
    assert reported({"reason": status, "source": status, "deadline": status}) is None


def test_a_node_is_lost_from_when_its_condition_ready_left_true() -> None:
    assert lost_since(a_node_record("n1", ready=False, unready_since=100.0)) == 100.0
    assert lost_since(a_node_record("n1", ready=True, unready_since=100.0)) == 0.0
    assert lost_since(a_node_record("n1", ready=False)) == 0.0


def an_observer(**fields: Any) -> Observer:
    """An observer of one node."""
    picture = Picture()
    picture.nodes.put(a_node_record("n1", **fields))
    return Observer(picture, Convert(to_workload, to_queue))


def test_the_observer_asks_to_be_woken_for_maintenance_and_sees_it_though_nothing_changed() -> None:
    observer = an_observer(annotations={MAINTENANCE_ANNOTATION: "2026-03-02T12:00:00Z"})
    assert observer.snapshot(NOON - 3600).nodes["n1"].interruption is None
    assert observer.wake_at == NOON - LEAD
    assert observer.snapshot(NOON - LEAD - 1).nodes["n1"].interruption is None
    assert observer.snapshot(NOON - LEAD).nodes["n1"].interruption is not None
    assert observer.wake_at is None


def test_the_observer_forgets_maintenance_that_is_called_off_and_nodes_that_are_gone() -> None:
    planned = {MAINTENANCE_ANNOTATION: "2026-03-02T12:00:00Z"}
    observer = an_observer(annotations=planned)
    observer.snapshot(NOON - 3600)
    observer.picture.nodes.put(a_node_record("n1", version=2))
    observer.snapshot(NOON - 3600)
    assert observer.wake_at is None
    observer.picture.nodes.put(a_node_record("n1", version=3, annotations=planned))
    observer.snapshot(NOON - 3600)
    observer.picture.nodes.drop("", "n1")
    observer.snapshot(NOON - 3600)
    assert observer.wake_at is None


def test_an_annotation_that_cannot_be_read_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = {MAINTENANCE_ANNOTATION: "tonight"}
    observer = an_observer(annotations=bad)
    with caplog.at_level(logging.WARNING):
        for version in range(2, 5):
            observer.snapshot(NOON)
            observer.picture.nodes.put(
                a_node_record("n1", version=version, annotations=bad, labels={"v": f"{version}"})
            )
    (record,) = caplog.records
    assert "tonight" in record.getMessage()


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": {DRAIN_ANNOTATION: "2026-03-02T11:59:00Z"}},
        {"taints": (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)},
        {"announced": (("PreemptScheduled", ""),)},
        {"ready": False, "unready_since": 100.0},
    ],
)
def test_what_interrupts_a_node_wakes_the_cycle(fields: dict[str, Any]) -> None:
    woken: list[None] = []
    picture = Picture(wake=lambda: woken.append(None))
    picture.nodes.put(a_node_record("n1"))
    woken.clear()
    picture.nodes.put(a_node_record("n1", version=2, **fields))
    assert woken
    assert picture.changed_nodes == {"n1"}


def test_what_an_agent_hears_wakes_the_cycle_though_its_heartbeats_do_not() -> None:
    woken: list[None] = []
    picture = Picture(wake=lambda: woken.append(None))
    report = heard("SpotInterruption", NOON + 120)
    picture.gpu_nodes.put(replace(report, interruption=None))
    woken.clear()
    for version in (2, 3):
        picture.gpu_nodes.put(replace(report, meta=meta("n1", namespace="", version=version), observed=version * 60.0))
        assert len(woken) == 1
