"""Who gives way to replicas that lack a place: as to gangs, but each of them may have its place by itself."""

from __future__ import annotations

from dataclasses import replace

from berth.model.workloads import Claim, Device, PodPhase, Queue, Workload
from berth.planning.actions import Pin, Plan, Stop
from berth.planning.plan import plan
from berth.planning.snapshot import Policy
from tests.planning.builders import NOW, a_job, a_node, a_pod, a_service, only, verdict_of
from tests.planning.occupied import occupied, on

BOTH = [a_node("n1"), a_node("n2")]


def a_web(*nodes: str, **more: object) -> Workload:
    """A service, made just now, with replicas of 8 boards: on these nodes, or at their gates where that is ""."""
    device = Device("H100-80GB", "nvidia.com/gpu", 8)
    pods = [
        a_pod(PodPhase.READY if node else PodPhase.GATED, node=node, name=f"web-{i}", attempt=0, device=device)
        for i, node in enumerate(nodes)
    ]
    spec = {"gpus": 8, "replicas": len(nodes), "served_device": device, "served_generation": 1, "created": NOW, **more}
    return replace(a_service("web", **spec), pods=tuple(pods))  # type: ignore[arg-type]


def decided(*workloads: Workload, queues: list[Queue] | None = None, now: float = NOW) -> Plan:
    """The plan for two nodes where these run, or wait."""
    return plan(occupied(BOTH, *workloads, queues=queues or ()), Policy(), now)


def stopped(made: Plan) -> list[str]:
    """The names of who is stopped."""
    return sorted(stop.ref.name for stop in only(made, Stop))


def pinned(made: Plan) -> list[str]:
    """The nodes that replicas are sent to."""
    return sorted(pin.node for pin in only(made, Pin))


def test_work_of_lower_priority_gives_way_to_all_that_lack_a_place() -> None:
    made = decided(a_web("", "", priority=5), *(on(a_job(n, gpus=8), f"n{i}") for i, n in enumerate("ab", 1)))
    assert stopped(made) == ["a", "b"]
    assert verdict_of(made, "web").reason == "WaitingForPreemption"
    assert verdict_of(made, "web").message.startswith("0 of 2 replicas placed, 8 x H100-80GB each; waits for team/a")


def test_a_single_replica_has_its_place_where_not_all_can() -> None:
    others = on(a_job("low", gpus=8), "n1"), on(a_job("high", gpus=8, priority=9), "n2")
    assert stopped(decided(a_web("", "", priority=5), *others)) == ["low"]


def test_nobody_gives_way_to_a_service_of_equal_priority() -> None:
    assert stopped(decided(a_web(""), *(on(a_job(n, gpus=8), f"n{i}") for i, n in enumerate("ab", 1)))) == []


def test_a_service_takes_back_what_its_queue_lent() -> None:
    queues = [Queue("root", {}), Queue("own", {"H100": 8}, parent="root"), Queue("lent", {"H100": 8}, parent="root")]
    borrowed = (on(a_job(n, gpus=8, queue="lent", priority=9), f"n{i}", hours=i) for i, n in enumerate("ab", 1))
    made = decided(a_web("", queue="own"), *borrowed, queues=queues)
    assert stopped(made) == ["a"]


def test_what_is_freed_is_kept_for_the_replica_and_then_given_to_it() -> None:
    web = a_web("n2", "", priority=5)
    late = a_job("late", gpus=8, priority=9, created=NOW + 1)
    ends = replace(on(a_job("v", gpus=8), "n1", stopping="Preempted"), gave_way_to=Claim(web.ref, 1))
    waits = decided(web, late, ends, now=NOW + 10)
    assert (pinned(waits), verdict_of(waits, "web").reason) == ([], "WaitingForPreemption")
    assert verdict_of(waits, "web").message.endswith("on n2; waits for team/v to stop")
    gone = replace(a_job("v", gpus=8), gave_way_to=Claim(web.ref, 1))
    freed = decided(web, late, gone, now=NOW + 10)
    assert pinned(freed) == ["n1"]
    assert verdict_of(freed, "late").reason == "WaitingForCapacity"


def test_a_service_borrows_nothing_that_an_owner_waits_for() -> None:
    queues = [Queue("root", {}), Queue("own", {"H100": 16}, parent="root"), Queue("lent", {"H100": 0}, parent="root")]
    held = on(a_job("held", gpus=8, queue="lent"), "n1", hours=1 / 60)  # too short yet to give way
    owner = a_job("owner", gpus=8, workers=2, queue="own", created=NOW)
    assert pinned(decided(a_web("", queue="lent", priority=9), held, owner, queues=queues)) == []
    assert pinned(decided(a_web("", queue="lent", priority=9), held, queues=queues)) == ["n2"]
