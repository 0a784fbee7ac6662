"""`berth explain` on recorded situations: the right cause, and every remedy that it names works when it is tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.situations import Json, Recorded, at, job, node, queue, rack, running

SPOT = {"karpenter.sh/capacity-type": "spot"}


def a_status(raw: Json, **status: Any) -> Json:
    """A job with a status."""
    return {**raw, "status": status}


def tainted(raw: Json) -> Json:
    """A node that a team keeps for itself."""
    return {**raw, "spec": {"taints": [{"key": "team", "value": "red", "effect": "NoSchedule"}]}}


def a_class(name: str, value: int) -> Json:
    """A PriorityClass."""
    return {"kind": "PriorityClass", "metadata": {"name": name}, "value": value}


def giving_way(name: str, on: str) -> list[Json]:
    """A job that is being stopped for "llm"."""
    raw, made, *pods = running(name, on)
    claim = {"kind": "TrainingJob", "namespace": "team", "name": "llm", "uid": "uid-llm", "attempt": 1}
    raw["status"] |= {"state": "Stopping", "stopping": "Preempted", "stoppingSince": at(-0.01), "gaveWayTo": claim}
    made["spec"]["suspend"] = True
    return [raw, made, *pods]


def deferred() -> Json:
    """A job that the operator lets wait for cleaner hours."""
    verdict = {"reason": "DeferredForCarbon", "message": "starts 18:00 UTC: 50 instead of 400 g/kWh", "until": at(6)}
    return a_status(job(carbon={"pricePerTonne": 100, "maxDelay": "12h"}), verdict=verdict)


RACK = {"level": "rack", "mode": "Required"}
TWO_RACKS = [*rack("r1", node("n1")), *rack("r2", node("n2"))]
FULL = [node("n1"), *running("a", "n1")]
SITUATIONS: dict[str, tuple[list[Json], str, str, set[str]]] = {  # objects, reason, words of the cause, ways out
    "the queue's quota is in use": (
        [
            node("n1"),
            node("n2"),
            queue("red", quota={"H100": 8}),
            *running("a", "n1", queueName="red"),
            job(queueName="red"),
        ],
        "WaitingForQuota",
        "queue red has 0 of 8 left",
        {"MoreQuota", "FreeWorkloads", "HigherPriority"},
    ),
    "the quota is too small for ever": (
        [node("n1"), node("n2"), queue("red", quota={"H100": 8}), job(queueName="red", workers=2)],
        "ExceedsMaxQuota",
        "queue red has 8 boards in all",
        {"MoreQuota", "FewerMembers"},
    ),
    "the queue may not spend so much": (
        [node("n1"), queue("red", maxPricePerHour=10), job(queueName="red")],
        "ExceedsMaxQuota",
        "spec.maxPricePerHour of queue red is $10.00",
        {"HigherPrice"},
    ),
    "the queue is stopped": (
        [node("n1"), queue("red", stopPolicy="Hold"), job(queueName="red")],
        "QueueStopped",
        "queue red is stopped",
        {"QueueGoesOn"},
    ),
    "no rack holds the gang": (
        [*TWO_RACKS, job(workers=2, topology=RACK)],
        "TopologyPlacementFailed",
        "1 of 2 workers fit in one rack",
        {"LooserTopology", "FewerMembers", "MoreNodes"},
    ),
    "no board is laid out so": (
        [node("n1", "A100-80GB", boards=0, mig={"1g.10gb": 7}), job(gpus={"profile": "3g.40gb"})],
        "NoFeasibleMigLayout",
        "A100-80GB offers 1g.10gb",
        {"AnotherDevice", "MoreNodes"},
    ),
    "spot capacity alone will do, and there is none": (
        [node("n1"), job(spot="Only")],
        "WaitingForCapacity",
        "1 on demand (spec.spot is Only)",
        {"Spot"},
    ),
    "spot capacity alone will do, and it is full": (
        [node("n1", **SPOT), node("n2"), *running("a", "n1"), job(spot="Only")],
        "WaitingForCapacity",
        "1 lack free GPUs, 1 on demand (spec.spot is Only)",
        {"Spot", "FreeWorkloads", "MoreNodes", "HigherPriority", "MoveWorkloads"},
    ),
    "spot capacity will not do": (
        [node("n1", **SPOT), job(spot="Never")],
        "WaitingForCapacity",
        "1 on spot capacity (spec.spot is Never)",
        {"Spot"},
    ),
    "cleaner hours are to come": ([node("n1"), deferred()], "DeferredForCarbon", "starts 18:00 UTC", {"WithoutCarbon"}),
    "its user suspended it": (
        [node("n1"), job(suspend=True)],
        "Suspended",
        "spec.suspend is true",
        {"Resume"},
    ),
    "room is kept for a larger gang": (
        [node("n1"), node("n2"), *running("a", "n1", maxRuntime="4h"), job("big", hours=-5.0, workers=2), job()],
        "WaitingForReservation",
        "the room is kept for team/big",
        {"Shorter", "MoreNodes"},
    ),
    "it may not cost so much": (
        [node("n1"), job(maxPricePerHour=10)],
        "ExceedsMaxPrice",
        "spec.maxPricePerHour is $10.00",
        {"HigherPrice"},
    ),
    "the fleet has no such GPU": (
        [node("n1"), job(gpus={"count": 8, "models": ["B200"]})],
        "NoMatchingGPU",
        "no node has B200",
        {"AnotherDevice", "MoreNodes"},
    ),
    "the only node refused it just now": (
        [node("n1"), a_status(job(), avoid=[{"node": "n1", "until": at(0.1)}])],
        "WaitingForCapacity",
        "1 avoided after a refusal or a crash",
        {"Time", "MoreNodes"},
    ),
    "the nodes are kept for another team": (
        [tainted(node("n1")), job()],
        "WaitingForCapacity",
        "1 tainted",
        {"Toleration"},
    ),
    "it is about to have another stopped": (
        [*FULL, a_class("high", 10), job(priorityClassName="high")],
        "WaitingForPreemption",
        "waits for team/a to stop, which loses",
        {"FreeWorkloads", "MoreNodes"},
    ),
    "another is being stopped for it": (
        [node("n1"), *giving_way("a", "n1"), a_class("high", 10), job(priorityClassName="high")],
        "WaitingForPreemption",
        "waits for team/a to stop",
        {"FreeWorkloads", "MoreNodes"},
    ),
    "everything is full": (
        [*FULL, job()],
        "WaitingForCapacity",
        "1 lack free GPUs",
        {"FreeWorkloads", "MoreNodes", "HigherPriority"},
    ),
}


def fewer_members(cluster: Recorded, told: Json) -> None:
    cluster.spec["workers"] = told["members"]


def another_device(cluster: Recorded, told: Json) -> None:
    device = told["device"]
    profile = device["resource"].partition("mig-")[2]
    what = {"profile": profile} if profile else {"count": device["count"]}
    cluster.spec["gpus"] = {**what, "models": [device["model"]]}


def looser_topology(cluster: Recorded, told: Json) -> None:
    cluster.spec["topology"] = {"level": told["level"], "mode": told["mode"]}


def free_workloads(cluster: Recorded, told: Json) -> None:
    for one in told["workloads"]:
        cluster.remove(one["name"])


def move_workloads(cluster: Recorded, told: Json) -> None:
    for move in told["moves"]:
        cluster.remove(move["name"])
        cluster.objects.extend(Recorded(running(move["name"], *move["to"])).objects)


def higher_priority(cluster: Recorded, told: Json) -> None:
    cluster.objects.append(Recorded([a_class("told", told["priority"])]).objects[0])
    cluster.spec["priorityClassName"] = "told"


def more_quota(cluster: Recorded, told: Json) -> None:
    (quota,) = cluster.find("Queue", told["queue"])["spec"]["quotas"]
    quota["nominal"] = told["nominal"]


def more_nodes(cluster: Recorded, told: Json) -> None:
    device, like = told["device"], next(o for o in cluster.objects if o["kind"] == "Node")
    for i in range(told["count"]):
        profile = device["resource"].partition("mig-")[2]
        mig = {profile: 8} if profile else {}
        new = node(f"new-{i}", told["model"], boards=0 if profile else 8, mig=mig)
        new["metadata"]["labels"] = {**like["metadata"]["labels"], **new["metadata"]["labels"]}
        cluster.objects.extend(Recorded([new]).objects)


def higher_price(cluster: Recorded, told: Json) -> None:
    spec = cluster.find("Queue", told["queue"])["spec"] if "queue" in told else cluster.spec
    spec["maxPricePerHour"] = told["maxPricePerHour"]


def queue_goes_on(cluster: Recorded, told: Json) -> None:
    cluster.find("Queue", told["queue"])["spec"]["stopPolicy"] = told["stopPolicy"]


def toleration(cluster: Recorded, told: Json) -> None:
    cluster.spec["template"]["spec"]["tolerations"] = [told["toleration"]]


def set_field(field: str) -> Callable[[Recorded, Json], None]:
    def change(cluster: Recorded, told: Json) -> None:
        cluster.spec[field] = told[field]

    return change


def wait(cluster: Recorded, told: Json) -> None:
    cluster.now += told["seconds"] + 1


TRIES: dict[str, Callable[[Recorded, Json], None]] = {
    "FewerMembers": fewer_members,
    "AnotherDevice": another_device,
    "LooserTopology": looser_topology,
    "FreeWorkloads": free_workloads,
    "HigherPriority": higher_priority,
    "MoveWorkloads": move_workloads,
    "MoreQuota": more_quota,
    "MoreNodes": more_nodes,
    "HigherPrice": higher_price,
    "QueueGoesOn": queue_goes_on,
    "Toleration": toleration,
    "Spot": set_field("spot"),
    "Shorter": set_field("estimatedRuntime"),
    "Resume": set_field("suspend"),
    "WithoutCarbon": set_field("carbon"),
    "Time": wait,
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_cause_is_right_and_every_remedy_places_it(name: str, tmp_path: Path) -> None:
    objects, reason, words, ways = SITUATIONS[name]
    told = Recorded(objects).explained(tmp_path)
    assert told["verdict"]["reason"] == reason
    assert words in told["verdict"]["message"]
    assert {remedy["way"] for remedy in told["remedies"]} == ways
    for remedy in told["remedies"]:
        cluster = Recorded(objects)
        TRIES[remedy["way"]](cluster, remedy)
        after = cluster.explained(tmp_path)["verdict"]
        if remedy["way"] == "HigherPriority":  # others are stopped for it first
            assert after["reason"] == "WaitingForPreemption", remedy
            (victim,) = remedy["workloads"]
            cluster.remove(victim["name"])
            after = cluster.explained(tmp_path)["verdict"]
        assert after["reason"] == "Placed", (remedy["message"], after)


MISTAKES: dict[str, tuple[Json, list[Json], str, Callable[[Json], Any]]] = {
    "a GPU model is misspelt": (
        job(gpus={"count": 8, "models": ["H1000"]}),
        [],
        'spec.gpus.models[0]: unknown GPU model "H1000": did you mean "H100"?',
        lambda spec: spec["gpus"].update(models=["H100"]),
    ),
    "the queue does not exist": (
        job(queueName="rde"),
        [queue("red")],
        'spec.queueName: there is no Queue "rde": create it or name one of default, red',
        lambda spec: spec.update(queueName="red"),
    ),
    "the tensor group does not divide the boards": (
        job(parallelism={"tensor": 3}),
        [],
        "spec.parallelism.tensor: 3 does not divide the 8 boards of a worker",
        lambda spec: spec.update(parallelism={"tensor": 4}),
    ),
    "a level is unknown": (
        job(topology={"level": "row"}),
        [],
        'spec.topology.level: unknown level "row": use one of region, zone',
        lambda spec: spec.update(topology={"level": "zone"}),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_by_field_and_what_is_said_instead_is_right(name: str, tmp_path: Path) -> None:
    wrong, more, words, mend = MISTAKES[name]
    cluster = Recorded([node("n1"), *more, wrong])
    told = cluster.explained(tmp_path)
    assert told["state"] == "Misconfigured"
    assert words in told["verdict"]["message"]
    mend(cluster.spec)
    assert cluster.explained(tmp_path)["verdict"]["reason"] == "Placed"


def test_who_backs_off_says_when_it_is_tried_again(tmp_path: Path) -> None:
    cluster = Recorded([node("n1"), a_status(job(), notBefore=at(0.1))])
    told = cluster.explained(tmp_path)
    assert told["notes"][0].startswith("it is tried again in 6 min")
    cluster.now += 361
    assert cluster.explained(tmp_path)["verdict"]["reason"] == "Placed"
