"""Nodes that a pod may not use, whatever is free there."""

from __future__ import annotations

from typing import Any

import pytest

from berth.model.nodes import Taint
from berth.model.workloads import Requirement, Toleration
from berth.planning.feasibility import unwelcome, why_not
from tests.planning.builders import NOW, a_job, a_node, nodes_of, planned, shape, verdict_of

TAINT = Taint("team", "red", "NoSchedule")


@pytest.mark.parametrize(
    ("node", "cause"),
    [
        ({"ready": False}, "not ready"),
        ({"unschedulable": True}, "cordoned"),
        ({"excluded": "GPUs are shared by MPS"}, "left out (GPUs are shared by MPS)"),
        ({"taints": (TAINT,)}, "tainted"),
        ({"taints": (Taint("team", "red", "NoExecute"),)}, "tainted"),
        ({"taints": (Taint("team", "red", "PreferNoSchedule"),)}, ""),
        ({}, ""),
    ],
)
def test_a_node_names_its_first_cause(node: dict[str, Any], cause: str) -> None:
    assert why_not(a_node("n", **node), shape()) == cause


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration("team", "Equal", "red"), True),
        (Toleration("team", "Equal", "blue"), False),
        (Toleration("team", "Exists"), True),
        (Toleration("", "Exists"), True),
        (Toleration("other", "Exists"), False),
        (Toleration("team", "Equal", "red", "NoSchedule"), True),
        (Toleration("team", "Equal", "red", "NoExecute"), False),
    ],
)
def test_a_toleration_covers_its_key_value_and_effect(toleration: Toleration, tolerated: bool) -> None:
    cause = why_not(a_node("n", taints=(TAINT,)), shape(tolerations=(toleration,)))
    assert (cause == "") is tolerated


@pytest.mark.parametrize(
    ("requirement", "admitted"),
    [
        (Requirement("disk", "In", ("ssd", "nvme")), True),
        (Requirement("disk", "In", ("hdd",)), False),
        (Requirement("disk", "NotIn", ("ssd",)), False),
        (Requirement("other", "NotIn", ("ssd",)), True),
        (Requirement("disk", "Exists"), True),
        (Requirement("other", "Exists"), False),
        (Requirement("other", "DoesNotExist"), True),
        (Requirement("disk", "DoesNotExist"), False),
        (Requirement("generation", "Gt", ("3",)), True),
        (Requirement("generation", "Gt", ("4",)), False),
        (Requirement("generation", "Lt", ("5",)), True),
        (Requirement("generation", "Lt", ("4",)), False),
        (Requirement("disk", "Gt", ("3",)), False),
        (Requirement("other", "Lt", ("3",)), False),
        (Requirement("disk", "Near", ("ssd",)), False),
        (Requirement("metadata.name", "In", ("n",)), True),
        (Requirement("metadata.name", "NotIn", ("n",)), False),
    ],
)
def test_affinity_reads_labels_as_kubernetes_does(requirement: Requirement, admitted: bool) -> None:
    node = a_node("n", labels={"disk": "ssd", "generation": "4"})
    assert (why_not(node, shape(affinity=((requirement,),))) == "") is admitted


def test_any_affinity_term_suffices_and_an_empty_one_admits_nothing() -> None:
    ssd, hdd = Requirement("disk", "In", ("ssd",)), Requirement("disk", "In", ("hdd",))
    node = a_node("n", labels={"disk": "ssd"})
    assert why_not(node, shape(affinity=((hdd,), (ssd,)))) == ""
    assert why_not(node, shape(affinity=((hdd, ssd),))) == "outside the node affinity"
    assert why_not(node, shape(affinity=((),))) == "outside the node affinity"


def test_every_bound_volume_must_be_in_reach() -> None:
    here, there = Requirement("zone", "In", ("z1",)), Requirement("zone", "In", ("z2",))
    node = a_node("n", labels={})
    assert why_not(node, shape(volume_affinity=(((here,),), ((there,),)))) == "out of reach of a bound volume"


def test_a_node_selector_must_match() -> None:
    node = a_node("n", labels={"disk": "ssd"})
    assert why_not(node, shape(node_selector=(("disk", "ssd"),))) == ""
    assert why_not(node, shape(node_selector=(("disk", "hdd"),))) == "outside the node selector"


def test_a_tolerated_preference_is_none() -> None:
    node = a_node("n", taints=(Taint("team", "red", "PreferNoSchedule"),))
    assert unwelcome(node, shape())
    assert not unwelcome(node, shape(tolerations=(Toleration("team", "Exists"),)))


def test_a_node_that_refused_a_member_is_left_out_until_its_time_has_passed() -> None:
    job = a_job(avoid=(("n1", NOW + 60),))
    plan = planned([a_node("n1")], job)
    assert nodes_of(plan) is None
    assert verdict_of(plan).nodes == (("avoided after a refusal or a crash", 1),)
    assert plan.wake_at == NOW + 60
    assert nodes_of(planned([a_node("n1")], job, now=NOW + 60)) == ("n1",)


def test_the_verdict_counts_every_node_once() -> None:
    nodes = [
        a_node("a", taints=(TAINT,)),
        a_node("b", cpu=1),
        a_node("c", board="L40S"),
        a_node("d", board=None),
        a_node("e"),
        a_node("f", ready=False),
        a_node("g", gpus=4),
        a_node("h", pods=0),
    ]
    plan = planned(nodes, a_job(workers=3, gpus=8, models=("H100",), pod=shape(cpu=8)))
    assert verdict_of(plan).reason == "WaitingForCapacity"
    assert verdict_of(plan).fits == 1
    assert dict(verdict_of(plan).nodes) == {
        "tainted": 1,
        "lack cpu": 1,
        "hold other GPUs": 1,
        "without GPUs": 1,
        "not ready": 1,
        "offer too few GPUs": 1,
        "full of pods": 1,
    }
    assert verdict_of(plan).message.startswith("1 of 3 workers fit: 8 nodes, 1 full of pods, 1 hold other GPUs")
