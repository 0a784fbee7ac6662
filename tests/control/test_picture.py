"""The picture: the newest state of each object in whatever order answers and events come, and who holds what."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from berth.control.picture import REMEMBERED, Picture
from berth.control.ports import TRAINING_JOBS, Json
from berth.model.workloads import Attempt, Placement
from tests.control.builders import BOARD, a_node_record, a_pod_record, a_training_job

GATED: dict[str, Any] = {"gated": True}
PINNED: dict[str, Any] = {"hostname": "n1"}
BOUND: dict[str, Any] = {"node": "n1", "hostname": "n1", "phase": "Running"}


def a_raw(version: int, *, uid: str = "u-1", **spec: object) -> Json:
    """A TrainingJob as the API server had it at a version."""
    raw = a_training_job(**spec)  # type: ignore[arg-type]
    raw["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
    return raw


def boards(picture: Picture) -> dict[str, int]:
    """Boards taken from each node."""
    return {node: taken["nvidia.com/gpu"] for node, taken in picture.usage().items() if taken["nvidia.com/gpu"]}


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_the_newest_state_of_a_pod_wins_in_any_order(order: tuple[int, ...]) -> None:
    states = {1: GATED, 2: PINNED, 3: BOUND}
    picture = Picture()
    for version in order:
        picture.pods.put(a_pod_record(version=version, **states[version]))
    pod = picture.pods.get("team", "pod")
    assert pod is not None
    assert pod.meta.version == 3
    assert boards(picture) == {"n1": 1}


def test_the_newest_state_of_our_own_objects_wins_by_number_not_by_text() -> None:
    picture = Picture()
    for version in (9, 10, 8):
        picture.record(TRAINING_JOBS, a_raw(version))
    assert picture.workloads["u-1"]["metadata"]["resourceVersion"] == "10"


def test_the_answer_to_a_write_revives_no_deleted_pod() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=1, **GATED))
    picture.pods.drop("team", "pod", "uid-pod")
    picture.pods.update(a_pod_record(version=2, **PINNED))
    assert len(picture.pods) == 0
    assert boards(picture) == {}


def test_the_answer_to_a_write_touches_no_other_pod_of_that_name() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=5, uid="new", **GATED))
    picture.pods.update(a_pod_record(version=9, uid="old", **PINNED))
    assert boards(picture) == {}


def test_the_deletion_of_an_earlier_pod_touches_no_other_of_that_name() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=5, uid="new", **BOUND))
    picture.pods.drop("team", "pod", "old")
    assert boards(picture) == {"n1": 1}


@pytest.mark.parametrize("late", ["an answer", "a list"])
def test_nothing_revives_a_deleted_workload(late: str) -> None:
    picture = Picture()
    picture.record(TRAINING_JOBS, a_raw(1))
    picture.forget(TRAINING_JOBS, "u-1")
    if late == "a list":
        picture.resync(TRAINING_JOBS, [a_raw(2)], 3)
    else:
        picture.record(TRAINING_JOBS, a_raw(2))
    assert picture.workloads == {}


def test_remembers_only_so_many_deletions() -> None:
    picture = Picture()
    for number in range(REMEMBERED + 5):
        picture.forget(TRAINING_JOBS, f"u-{number}")
    assert len(picture._gone) == REMEMBERED


def test_a_list_forgets_what_it_lacks_but_not_what_came_after_it() -> None:
    picture = Picture()
    for uid, version in (("old", 5), ("kept", 6), ("young", 20)):
        picture.record(TRAINING_JOBS, a_raw(version, uid=uid))
    picture.resync(TRAINING_JOBS, [a_raw(6, uid="kept")], 10)
    assert set(picture.workloads) == {"kept", "young"}


def test_a_relist_forgets_the_pods_that_went_meanwhile_and_frees_their_room() -> None:
    picture = Picture()
    for name in ("a", "b"):
        picture.pods.put(a_pod_record(name, **BOUND))
    picture.pods.replace([a_pod_record("b", version=1, **BOUND)])
    assert boards(picture) == {"n1": 1}


def test_a_pod_made_again_under_its_name_counts_once_where_it_is_now() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=1, uid="old", **BOUND))
    picture.pods.replace([a_pod_record(version=7, uid="new", node="n2", boards=2)])
    assert boards(picture) == {"n2": 2}


def test_counts_bound_pinned_and_terminating_pods_of_anybody_but_no_ended_or_gated_ones() -> None:
    picture = Picture()
    picture.nodes.put(a_node_record("n1"))
    picture.pods.put(a_pod_record("bound", **BOUND))
    picture.pods.put(a_pod_record("pinned", **PINNED))
    picture.pods.put(a_pod_record("terminating", deleting=True, **BOUND))
    for name, phase in (("done", "Succeeded"), ("dead", "Failed")):
        picture.pods.put(a_pod_record(name, **BOUND | {"phase": phase}))
    picture.pods.put(a_pod_record("gated", **PINNED | GATED))
    picture.pods.put(a_pod_record("waiting"))
    assert picture.usage()["n1"] == {"nvidia.com/gpu": 3, "pods": 3}


def test_a_pod_that_ends_frees_its_room() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=1, **BOUND))
    picture.pods.put(a_pod_record(version=2, **BOUND | {"phase": "Succeeded"}))
    assert boards(picture) == {}


def test_a_pod_pinned_by_a_hostname_counts_on_the_node_that_has_it() -> None:
    picture = Picture()
    picture.nodes.put(a_node_record("ip-10-0-0-1.internal", labels={"kubernetes.io/hostname": "ip-10-0-0-1"}))
    picture.pods.put(a_pod_record(hostname="ip-10-0-0-1"))
    assert boards(picture) == {"ip-10-0-0-1.internal": 1}


def test_a_pin_on_its_way_counts_until_it_is_answered_and_then_only_if_it_was_done() -> None:
    picture = Picture()
    picture.pods.put(a_pod_record(version=1, owner="u-1", **GATED))
    picture.assume_pin("u-1", "uid-pod", "n1")
    assert boards(picture) == {"n1": 1}
    picture.assume_pin("u-1", "uid-pod", "")
    assert boards(picture) == {}


def test_a_pin_whose_event_comes_before_its_answer_counts_once() -> None:
    picture = Picture()
    picture.nodes.put(a_node_record("n1"))
    picture.pods.put(a_pod_record(version=1, owner="u-1", **GATED))
    picture.assume_pin("u-1", "uid-pod", "n1")
    picture.pods.put(a_pod_record(version=2, owner="u-1", **PINNED))
    assert boards(picture) == {"n1": 1}
    picture.assume_pin("u-1", "uid-pod", "")
    assert boards(picture) == {"n1": 1}


def test_an_admission_on_its_way_is_dropped_with_its_workload() -> None:
    picture = Picture()
    picture.record(TRAINING_JOBS, a_raw(1))
    picture.assume_attempt("u-1", Attempt(1, Placement(BOARD, ("n1",)), 0.0))
    picture.forget(TRAINING_JOBS, "u-1")
    assert picture.assumed_attempts == {}


def test_wakes_the_cycle_for_what_may_change_the_plan_and_not_for_heartbeats() -> None:
    picture = Picture()
    wakes: list[int] = []
    picture.wake = lambda: wakes.append(1)
    picture.nodes.put(a_node_record("n1", version=1))
    assert len(wakes) == 1
    picture.nodes.put(a_node_record("n1", version=2))
    assert len(wakes) == 1
    picture.nodes.put(a_node_record("n1", version=3, ready=False))
    picture.pods.put(a_pod_record())
    picture.record(TRAINING_JOBS, a_raw(1))
    assert len(wakes) == 4


def test_how_far_a_program_says_it_is_is_kept_but_is_no_reason_to_plan_anew() -> None:
    woken: list[int] = []
    picture = Picture(wake=lambda: woken.append(1))
    picture.record(TRAINING_JOBS, {**a_raw(1), "status": {"attempt": 1}})
    picture.changed.clear()
    for version, told in enumerate(("progress", "checkpoint", "checkpointProblem"), start=2):
        picture.record(TRAINING_JOBS, {**a_raw(version), "status": {"attempt": 1, told: {"step": version}}})
    assert len(woken) == 1
    assert picture.changed == {"u-1"}
    assert picture.workloads["u-1"]["status"]["checkpointProblem"] == {"step": 4}
    picture.record(TRAINING_JOBS, {**a_raw(5), "status": {"attempt": 2}})
    assert len(woken) == 2
