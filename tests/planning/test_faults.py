"""One workload that can't be planned stops no other."""

from __future__ import annotations

from berth.model.reasons import Reason
from berth.model.workloads import Device
from tests.planning.builders import a_job, a_node, nodes_of, planned, running, verdict_of

NONE_OF_IT = Device("H100-80GB", "nvidia.com/gpu", 0)  # as only a status written by others states it


def test_a_gang_whose_record_makes_no_sense_stops_no_other() -> None:
    wild = running(a_job("wild"), "n1", device=NONE_OF_IT)
    assert nodes_of(planned([a_node("n1")], wild, a_job())) == ("n1",)


def test_a_gang_whose_record_makes_no_sense_says_so_and_does_nothing() -> None:
    plan = planned([a_node("n1")], running(a_job("wild"), "n1", device=NONE_OF_IT))
    assert plan.actions == ()
    assert verdict_of(plan, "wild").reason == Reason.PENDING_EVALUATION
    assert isinstance(plan.faults["uid-wild"], ZeroDivisionError)
