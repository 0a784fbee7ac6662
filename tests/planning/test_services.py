"""Services: a device, a Deployment that waits at its gates, and a node for each replica by itself."""

from __future__ import annotations

from dataclasses import replace

from berth.model.workloads import Device, Pod, PodPhase, Workload
from berth.planning.actions import Pin, Replace, Serve
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, only, planned, racks, verdict_of

H100 = Device("H100-80GB", "nvidia.com/gpu", 1)
SLICE = Device("A100-80GB", "nvidia.com/mig-2g.20gb", 1)


def gated(count: int) -> tuple[Pod, ...]:
    return tuple(a_pod(PodPhase.GATED, name=f"p{i}", attempt=0, created=float(i)) for i in range(count))


def served(*, replicas: int, pods: tuple[Pod, ...], device: Device = H100, **more: object) -> Workload:
    return replace(a_service(replicas=replicas, **more), pods=pods, served_device=device, served_generation=1)  # type: ignore[arg-type]


def test_a_new_service_gets_a_deployment_on_the_cheapest_device_that_holds_all_replicas() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=4, mig={"2g.20gb": 1}), a_node("l", board="L40S")]
    plan = planned(nodes, a_service(replicas=2, memory_gib=18))
    assert plan.actions == (Serve(a_service().ref, Device("L40S", "nvidia.com/gpu", 1), 2),)
    assert verdict_of(plan, "service").reason == "PendingEvaluation"


def test_a_service_that_fits_nowhere_still_gets_its_deployment() -> None:
    plan = planned([a_node("n1")], a_service(replicas=2), used={"n1": {"nvidia.com/gpu": 8}})
    assert plan.actions == (Serve(a_service().ref, H100, 2),)


def test_a_service_for_boards_that_are_not_there_gets_none() -> None:
    plan = planned([a_node("n1")], a_service(models=("L40S",)))
    assert plan.actions == ()
    assert verdict_of(plan, "service").reason == "NoMatchingGPU"


def test_a_changed_service_is_served_again_on_its_device() -> None:
    service = replace(served(replicas=3, pods=()), generation=2)
    assert planned([a_node("n1")], service).actions == (Serve(service.ref, H100, 3),)


def test_each_gated_replica_gets_the_tightest_node() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    plan = planned(nodes, served(replicas=2, pods=gated(2)), used={"n2": {"nvidia.com/gpu": 5}})
    assert [(p.pod, p.node) for p in only(plan, Pin)] == [("p0", "n2"), ("p1", "n2")]
    assert verdict_of(plan, "service").reason == "Placed"
    assert verdict_of(plan, "service").message == "2 of 2 replicas placed, 1 x H100-80GB each on n2"


def test_as_many_replicas_are_placed_as_fit() -> None:
    plan = planned([a_node("n1", gpus=2)], served(replicas=3, pods=gated(3)))
    assert len(only(plan, Pin)) == 2
    verdict = verdict_of(plan, "service")
    assert (verdict.reason, verdict.fits, verdict.wanted) == ("WaitingForCapacity", 2, 3)
    assert verdict.message.startswith("2 of 3 replicas placed, 1 x H100-80GB each on n1; 0 of 1 replicas fit: 1 nodes")


def test_what_one_replica_takes_is_not_promised_to_a_job() -> None:
    job = a_job("late", gpus=1, created=1.0)
    plan = planned([a_node("n1", gpus=1)], served(replicas=1, pods=gated(1)), job)
    assert [p.node for p in only(plan, Pin)] == ["n1"]
    assert verdict_of(plan, "late").reason == "WaitingForCapacity"


def test_running_replicas_keep_the_device_they_have() -> None:
    nodes = [a_node("h"), a_node("l", board="L40S")]
    pods = (a_pod(PodPhase.READY, name="p0", node="h", attempt=0), *gated(1))
    plan = planned(nodes, served(replicas=2, pods=pods), used={"h": {"nvidia.com/gpu": 1}})
    assert [p.node for p in only(plan, Pin)] == ["h"]


def test_a_service_that_waits_goes_where_there_is_room() -> None:
    nodes = [a_node("a", board="A100-80GB", gpus=0, mig={"2g.20gb": 1}), a_node("l", board="L40S")]
    service = served(replicas=1, pods=gated(1), device=SLICE, memory_gib=18)
    plan = planned(nodes, service, used={"a": {"nvidia.com/mig-2g.20gb": 1}})
    assert plan.actions == (Serve(service.ref, Device("L40S", "nvidia.com/gpu", 1), 1),)


def test_a_replica_that_stays_unbound_is_replaced_and_its_node_shunned() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    stuck = a_pod(PodPhase.PINNED, name="p9", node="n1", attempt=0, pinned_at=NOW - 60, message="no room")
    service = served(replicas=2, pods=(stuck, *gated(1)))
    plan = planned(nodes, service, used={"n1": {"nvidia.com/gpu": 4}})
    assert plan.actions == (
        Replace(service.ref, "p9", "uid-p9", "no room"),
        Pin(service.ref, "p0", "uid-p0", "n2"),
    )


def test_a_node_that_refused_a_replica_is_shunned_for_a_while() -> None:
    refused = a_pod(PodPhase.FAILED, name="p9", node="n1", attempt=0, created=NOW - 10, refusal="OutOfcpu")
    service = served(replicas=1, pods=(refused, *gated(1)))
    used = {"n1": {"nvidia.com/gpu": 4}}
    plan = planned([a_node("n1"), a_node("n2")], service, used=used)
    assert [p.node for p in only(plan, Pin)] == ["n2"]
    assert plan.wake_at == NOW + 110
    later = planned([a_node("n1"), a_node("n2")], service, used=used, now=NOW + 110)
    assert [p.node for p in only(later, Pin)] == ["n1"]


def test_replicas_with_an_older_device_are_not_pinned() -> None:
    old = replace(gated(1)[0], device=SLICE)
    assert planned([a_node("n1")], served(replicas=1, pods=(old,))).actions == ()


def test_replicas_share_the_required_domain() -> None:
    nodes = racks(count=2, nodes=1, gpus=2)
    first = served(replicas=3, pods=gated(3), required="rack")
    assert {p.node for p in only(planned(nodes, first), Pin)} == {"r1n1"}
    pods = (a_pod(PodPhase.READY, name="r0", node="r2n1", attempt=0), *gated(1))
    second = served(replicas=2, pods=pods, required="rack")
    used = {"r2n1": {"nvidia.com/gpu": 1}}
    assert [p.node for p in only(planned(nodes, second, used=used), Pin)] == ["r2n1"]


def test_a_service_stays_on_a_dear_device_and_waits_there_when_a_cheap_one_comes() -> None:
    nodes = [a_node("h", gpus=1), a_node("l", board="L40S")]
    pods = (a_pod(PodPhase.READY, name="p0", node="h", attempt=0), *gated(1))
    verdict = verdict_of(planned(nodes, served(replicas=2, pods=pods), used={"h": {"nvidia.com/gpu": 1}}), "service")
    assert verdict.reason == "WaitingForCapacity"
    assert verdict.message.startswith("1 of 2 replicas placed, 1 x H100-80GB each on h; 0 of 1 replicas fit: 2 nodes")


def test_a_rollout_whose_new_replica_has_no_room_beside_the_old_one_says_so() -> None:
    pods = (a_pod(PodPhase.READY, name="old", node="n1", attempt=0), *gated(1))
    plan = planned([a_node("n1", gpus=1)], served(replicas=1, pods=pods), used={"n1": {"nvidia.com/gpu": 1}})
    verdict = verdict_of(plan, "service")
    assert (verdict.reason, verdict.fits, verdict.wanted) == ("WaitingForCapacity", 1, 1)
    assert "1 of 1 replicas placed" in verdict.message
    assert "new replica p0 has no room beside the old ones (0 of 1 replicas fit" in verdict.message
    assert verdict.message.endswith("free a board for it, or set spec.rollout.maxSurge to 0")


def test_a_rollout_with_room_for_its_new_replica_is_placed() -> None:
    pods = (a_pod(PodPhase.READY, name="old", node="n1", attempt=0), *gated(1))
    plan = planned([a_node("n1", gpus=2)], served(replicas=1, pods=pods), used={"n1": {"nvidia.com/gpu": 1}})
    assert [p.pod for p in only(plan, Pin)] == ["p0"]
    assert verdict_of(plan, "service").reason == "Placed"
