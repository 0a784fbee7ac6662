"""How often nodes fail, from what the picture shows."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control.picture import Picture
from berth.control.progress import Saved
from berth.control.rates import LOOK_SECONDS, Rates
from berth.control.records import GPUNodeRecord
from berth.control.status import placement_status
from berth.model.nodes import Interruption, Taint
from berth.model.workloads import Placement
from berth.planning.interval import HOUR, SPOT, STEADY, Hazard, daly, next_interval
from tests.control.builders import BOARD, a_node_record, meta
from tests.control.fakes import HandClock

SPOT_LABEL = {"karpenter.sh/capacity-type": "spot"}
SAVED = Saved(10, 0.0, 1, 30.0)


class Fleet:
    """Some nodes, and the rates that they show."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.picture = Picture()
        self.rates = Rates(self.picture, self.clock)
        self.version = 0

    def put(self, name: str, *, spot: bool = True, **more: Any) -> None:
        self.version += 1
        labels = SPOT_LABEL if spot else {}
        self.picture.nodes.put(a_node_record(name, version=self.version, labels=labels, **more))

    def mtbf(self, *nodes: str) -> float:
        return self.rates.mtbf(Placement(BOARD, nodes))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, looking on the way."""
        self.clock.advance(seconds)
        self.mtbf()


def a_running_job(*nodes: str, **checkpoint: Any) -> dict[str, Any]:
    return {"spec": {"checkpoint": {"path": "/c", **checkpoint}}, "status": {"placement": placed(*nodes)}}


def placed(*nodes: str) -> dict[str, Any]:
    return placement_status(Placement(BOARD, nodes))


def test_nodes_that_are_not_spot_are_believed_to_last() -> None:
    fleet = Fleet()
    fleet.put("n1", spot=False)
    fleet.put("n2")
    assert fleet.mtbf("n1") == pytest.approx(STEADY.mtbf)
    assert fleet.mtbf("n2") == pytest.approx(SPOT.mtbf)


def test_a_gang_fails_as_often_as_its_worst_nodes_do_together() -> None:
    fleet = Fleet()
    fleet.put("n1", spot=False)
    fleet.put("n2")
    assert fleet.mtbf("n1", "n2") == pytest.approx(SPOT.mtbf / 2)


def test_a_node_that_goes_away_counts_and_one_that_was_drained_does_not() -> None:
    for cordoned, failures in ((False, 3.0), (True, 2.0)):
        fleet = Fleet()
        fleet.put("n1", unschedulable=cordoned)
        fleet.put("n2")
        fleet.pass_time(1)
        fleet.pass_time(6 * HOUR)
        fleet.picture.nodes.drop("", "n1")
        fleet.pass_time(6 * HOUR)
        assert fleet.rates._worst([]) == Hazard(STEADY)
        seen = fleet.rates._hazards[(True, "", "")].overall
        assert seen.failures == failures
        assert seen.seconds == pytest.approx(SPOT.seconds + 24 * HOUR, rel=0.01)


@pytest.mark.parametrize(
    ("mark", "cordoned", "failures"),
    [
        ({"taints": (Taint("aws-node-termination-handler/spot-itn", "3a1b", "NoSchedule"),)}, True, 3.0),
        ({"taints": (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)}, True, 3.0),
        ({"annotations": {"berth.dev/drain": "1970-01-12T13:00:00Z"}}, True, 2.0),
        ({"annotations": {"berth.dev/drain": "1970-01-12T13:00:00Z"}}, False, 2.0),
        ({"annotations": {"berth.dev/maintenance": "1970-01-12T13:00:00Z"}}, False, 2.0),
    ],
)
def test_what_interrupts_a_node_says_whether_it_failed(mark: dict[str, Any], cordoned: bool, failures: float) -> None:
    for leaves in ("gone", "not ready"):
        fleet = Fleet()
        fleet.put("n1")
        fleet.put("n2")
        fleet.pass_time(61)
        fleet.put("n1", unschedulable=cordoned, **mark)
        fleet.pass_time(61)
        if leaves == "gone":
            fleet.picture.nodes.drop("", "n1")
        else:
            fleet.put("n1", unschedulable=cordoned, ready=False, **mark)
        fleet.pass_time(61)
        assert fleet.rates._hazards[(True, "", "")].overall.failures == failures, leaves


def test_what_its_agent_heard_counts_too() -> None:
    fleet = Fleet()
    fleet.put("n1", unschedulable=True)
    fleet.put("n2")
    heard = Interruption("SpotInterruption", "EC2 instance metadata", fleet.clock() + 120)
    fleet.picture.gpu_nodes.put(GPUNodeRecord(meta("n1", namespace=""), interruption=heard))
    fleet.pass_time(61)
    fleet.picture.gpu_nodes.drop("", "n1")
    fleet.picture.nodes.drop("", "n1")
    fleet.pass_time(61)
    assert fleet.rates._hazards[(True, "", "")].overall.failures == 3


def test_a_node_that_is_not_ready_has_failed_and_begins_anew_when_it_is() -> None:
    fleet = Fleet()
    fleet.put("n1")
    fleet.pass_time(61)
    fleet.put("n1", ready=False)
    fleet.pass_time(61)
    fleet.put("n1")
    fleet.pass_time(61)
    assert fleet.rates._hazards[(True, "", "")].overall.failures == 3
    assert fleet.rates._seen["n1"].began == fleet.clock()


def test_nodes_that_were_there_before_the_operator_have_their_age_which_is_no_evidence() -> None:
    """Of those that did not last so long nothing is known."""
    fleet = Fleet()
    fleet.put("n1", created=fleet.clock() - 100 * HOUR)
    assert fleet.mtbf("n1") == SPOT.mtbf
    assert fleet.rates._seen["n1"].began == fleet.clock() - 100 * HOUR
    fleet.pass_time(HOUR)
    assert fleet.rates._hazards[(True, "", "")].seconds == (0.0, 0.0, 0.0, HOUR)


def test_the_interval_follows_the_save_time_the_nodes_and_their_number() -> None:
    fleet = Fleet()
    fleet.put("n1")
    fleet.put("n2")
    assert fleet.rates.interval(a_running_job("n1"), SAVED) == pytest.approx(daly(30, SPOT.mtbf))
    two = fleet.rates.interval(a_running_job("n1", "n2"), SAVED)
    assert two == pytest.approx(next_interval(Hazard(SPOT), 30, members=2))


@pytest.mark.parametrize(
    ("job", "saved"),
    [
        (a_running_job("n1", interval="15m"), SAVED),
        (a_running_job("n1"), None),
        ({"spec": {}, "status": {"placement": placed("n1")}}, SAVED),
        ({"spec": {"checkpoint": {"path": "/c"}}, "status": {}}, SAVED),
        ({"spec": {"checkpoint": {"path": "/c"}}, "status": {"placement": {"device": 1}}}, SAVED),
    ],
    ids=["the user fixed it", "no save was measured", "nothing is saved", "nothing runs", "somebody wrote the status"],
)
def test_there_is_none_where(job: dict[str, Any], saved: Saved | None) -> None:
    assert Fleet().rates.interval(job, saved) is None


def test_how_often_spot_nodes_are_taken_back_is_told_by_region_and_board() -> None:
    fleet = Fleet()
    here = {"topology.kubernetes.io/region": "de", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    fleet.picture.nodes.put(a_node_record("a", version=1, labels={**SPOT_LABEL, **here}))
    fleet.picture.nodes.put(a_node_record("b", version=1, labels=here))
    assert fleet.rates.taken_back() == {("de", "H100-80GB"): pytest.approx(SPOT.per_second)}
    fleet.picture.nodes.put(a_node_record("a", version=2, labels={**SPOT_LABEL, **here}, ready=False))
    fleet.picture.nodes.put(a_node_record("c", version=1, labels={**SPOT_LABEL, **here}))
    fleet.clock.advance(61.0)
    assert fleet.rates.taken_back()["de", "H100-80GB"] > 1.3 * SPOT.per_second


REGION_EAST = {"topology.kubernetes.io/region": "east", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
EAST = "east", "H100-80GB"


class SpotFleet(Fleet):
    """Spot nodes in one region."""

    def put(self, name: str, *, spot: bool = True, **more: Any) -> None:
        self.version += 1
        labels = {**REGION_EAST, **(SPOT_LABEL if spot else {})}
        self.picture.nodes.put(a_node_record(name, version=self.version, labels=labels, **more))


def test_spot_capacity_is_there_while_a_node_of_it_is_ready() -> None:
    fleet = SpotFleet()
    fleet.put("steady", spot=False)
    assert fleet.rates.spot() == {}
    fleet.put("n1")
    fleet.put("n2")
    fleet.pass_time(LOOK_SECONDS)
    fleet.put("n2", ready=False)
    fleet.pass_time(HOUR)
    assert fleet.rates.spot()[EAST].up
    fleet.put("n1", ready=False)
    fleet.pass_time(HOUR)
    seen = fleet.rates.spot()[EAST]
    assert (seen.up, seen.ups.ends, seen.age_hours) == (False, 1, 0.0)
    fleet.pass_time(HOUR)
    assert fleet.rates.spot()[EAST].age_hours == pytest.approx(1.0)
    fleet.put("n1")
    fleet.pass_time(HOUR)
    seen = fleet.rates.spot()[EAST]
    assert (seen.up, seen.downs.ends) == (True, 1)


def test_spot_capacity_that_is_away_for_a_day_is_forgotten() -> None:
    fleet = SpotFleet()
    fleet.put("n1")
    fleet.pass_time(LOOK_SECONDS)
    fleet.put("n1", ready=False)
    fleet.put("steady", spot=False)
    fleet.pass_time(HOUR)
    fleet.pass_time(23 * HOUR)
    assert EAST in fleet.rates.spot()
    fleet.pass_time(HOUR)
    fleet.pass_time(HOUR)
    assert fleet.rates.spot() == {}


def test_spot_nodes_that_leave_by_themselves_are_not_awaited() -> None:
    fleet = SpotFleet()
    fleet.put("steady", spot=False)
    fleet.put("n1")
    fleet.pass_time(HOUR)
    fleet.put("n1", unschedulable=True)
    fleet.pass_time(HOUR)
    fleet.put("n1", unschedulable=True, ready=False)
    fleet.pass_time(HOUR)
    assert fleet.rates.spot() == {}
