"""Whatever goes wrong with any single write, and wherever the operator dies, the cluster ends in the same state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from berth.control.cycle import REFRESH_SECONDS
from berth.control.ports import (
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    JOBS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    TRAINING_JOBS,
    Json,
)
from berth.control.status import to_rfc3339
from berth.model.pools import NodePool
from berth.planning.carbon import Origin, Outlook
from berth.planning.snapshot import Policy
from tests.control.builders import a_node, a_queue, a_service, a_training_job
from tests.control.fakes import MISHAPS, Trouble
from tests.control.world import World

POOL = "karpenter.sh/nodepool"
Step = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """What happened before, what happens now, and the kinds of write by which the operator answers."""

    before: Step
    now: Step
    least_writes: int


async def nothing(world: World) -> None:
    """A cluster with two empty nodes."""


async def a_gang_arrives(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job())


async def a_gang_that_wants_a_claim_arrives(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(checkpoint={"claimTemplate": {"size": "1Ti"}}))


async def a_gang_runs(world: World) -> None:
    await a_gang_arrives(world)
    await world.settle()


async def its_user_suspends_it(world: World) -> None:
    world.api.edit(TRAINING_JOBS, "team", "llm", spec={"suspend": True})


async def its_workers_end_well(world: World) -> None:
    world.end_pods()


async def a_gang_runs_that_may_not_be_restarted(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(restart={"maxRestarts": 0}))
    await world.settle()


async def a_gang_runs_that_goes_on_soon(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(restart={"backoff": "1s"}))
    await world.settle()


async def a_worker_fails(world: World) -> None:
    world.end_pods(exit_code=1)


async def a_gang_with_a_ttl_has_ended(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job(ttlSecondsAfterFinished=60))
    await world.settle()
    world.end_pods()
    await world.settle()


async def a_minute_passes(world: World) -> None:
    world.clock.advance(61.0)


async def a_gang_is_pinned_where_nothing_gets_bound(world: World) -> None:
    world.unwilling = {"n1"}
    await a_gang_arrives(world)
    await world.settle()


async def its_job_is_deleted(world: World) -> None:
    world.api.remove(JOBS, "team", "llm-1")


async def a_service_arrives(world: World) -> None:
    world.api.put(INFERENCE_SERVICES, a_service())


async def a_service_runs(world: World) -> None:
    await a_service_arrives(world)
    await world.settle()


async def its_replicas_grow(world: World) -> None:
    world.api.edit(INFERENCE_SERVICES, "team", "chat", spec={"replicas": 3})


async def a_lesser_gang_has_all_boards(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job("lesser", workers=3, boards=4))
    await world.settle()
    world.clock.advance(302.0)  # its guaranteed runtime


async def an_urgent_gang_arrives(world: World) -> None:
    world.api.put(PRIORITY_CLASSES, {"metadata": {"name": "urgent"}, "value": 100})
    world.api.put(TRAINING_JOBS, a_training_job("urgent", workers=2, boards=4, priorityClassName="urgent"))


async def replicas_have_borrowed_all_boards(world: World) -> None:
    for name, nominal in (("owner", 8), ("borrower", 0)):
        queue = a_queue(name, H100=nominal)
        world.api.put(QUEUES, {**queue, "spec": {**queue["spec"], "parent": "root"}})
    world.api.put(QUEUES, a_queue("root"))
    world.api.put(INFERENCE_SERVICES, a_service(replicas=3, boards=4, queueName="borrower"))
    await world.settle()
    world.clock.advance(302.0)


async def their_owner_wants_some_back(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job("own", workers=2, boards=4, queueName="owner"))


def an_elastic_gang() -> Json:
    """One that runs for long, with a node for each of one to three workers."""
    bounds = {"minWorkers": 1, "maxWorkers": 3}
    return a_training_job("elastic", workers=3, boards=4, elastic=bounds, estimatedRuntime="30d")


async def an_elastic_gang_has_all_boards(world: World) -> None:
    world.api.put(TRAINING_JOBS, an_elastic_gang())
    await world.settle()
    world.clock.advance(302.0)


async def another_has_boards_that_an_elastic_gang_would_like(world: World) -> None:
    world.api.put(TRAINING_JOBS, a_training_job("other", workers=1, boards=4))
    await world.settle()
    world.api.put(TRAINING_JOBS, an_elastic_gang())
    await world.settle()
    world.clock.advance(602.0)


async def the_other_is_deleted(world: World) -> None:
    world.api.remove(TRAINING_JOBS, "team", "other")


async def an_elastic_gang_has_more_than_it_would_like(world: World) -> None:
    bounds = {"minWorkers": 1, "maxWorkers": 3}
    world.api.put(TRAINING_JOBS, a_training_job("elastic", workers=2, boards=4, elastic=bounds))
    await world.settle()
    world.clock.advance(602.0)
    saved = {"attempt": 1, "step": 7, "time": to_rfc3339(world.clock() + 300.0), "bytes": 1, "seconds": 1.0}
    world.api.edit(TRAINING_JOBS, "team", "elastic", status={"checkpoint": saved})
    world.api.put(TRAINING_JOBS, a_training_job("equal", workers=1, boards=4))
    await world.settle()


async def a_gang_that_listens_runs(world: World) -> None:
    world.listening.add("llm")
    await a_gang_runs(world)


async def a_patient_gang_that_listens_runs(world: World) -> None:
    world.listening.add("llm")
    world.outlooks = {"": an_outlook(world, [100.0] * 48)}
    carbon = {"budget": "50%", "maxDelay": "1d"}
    world.api.put(TRAINING_JOBS, a_training_job(carbon=carbon, estimatedRuntime="4h", checkpoint={}))
    await world.settle()
    world.clock.advance(602.0)


async def the_next_hours_turn_dirty(world: World) -> None:
    world.outlooks = {"": an_outlook(world, [500.0] * 6 + [50.0] * 42)}


def an_outlook(world: World, grams: list[float]) -> Outlook:
    """These hours from the current one on."""
    return Outlook(int(world.clock() // 3600), tuple(grams), (Origin.FORECAST,) * len(grams))


async def its_node_is_taken_back(world: World) -> None:
    taint = {"key": "aws-node-termination-handler/spot-itn", "value": "1", "effect": "NoSchedule"}
    world.api.edit(NODES, "", "n1", spec={"taints": [taint]})


async def its_node_is_not_heard_of(world: World) -> None:
    at = to_rfc3339(world.clock() - 30.0)
    unknown = {"type": "Ready", "status": "Unknown", "lastTransitionTime": at}
    world.api.edit(NODES, "", "n1", status={"conditions": [unknown]})
    world.silent.add("n1")


async def four_minutes_pass(world: World) -> None:
    world.clock.advance(241.0)


async def its_replicas_get_fewer(world: World) -> None:
    world.api.edit(INFERENCE_SERVICES, "team", "chat", spec={"replicas": 1})


async def a_service_runs_that_can_spare_no_replica(world: World) -> None:
    world.api.put(INFERENCE_SERVICES, a_service(replicas=1))
    await world.settle()


async def a_gang_waits_for_nodes(world: World) -> None:
    pools = ((name, ((POOL, name),)) for name in ("first", "second"))
    made = (NodePool(name, labels, "H100-80GB", 8, nodes_most=2, provision_seconds=60.0) for name, labels in pools)
    world.policy = world.cycle.policy = Policy(pools=tuple(made))
    world.api.put(TRAINING_JOBS, a_training_job(workers=2, boards=8))
    await world.settle()


async def its_nodes_come(world: World) -> None:
    for name in ("new1", "new2"):
        node = a_node(name, boards=8)
        node["metadata"]["labels"][POOL] = "first"
        world.api.put(NODES, node)


STORIES = {
    "admitted": Story(nothing, a_gang_arrives, 6),  # status, Service, Job, two pins, status
    "admitted with a claim": Story(nothing, a_gang_that_wants_a_claim_arrives, 7),
    "stopped and released": Story(a_gang_runs, its_user_suspends_it, 5),  # status, Job, Job, Service, status
    "succeeded": Story(a_gang_runs, its_workers_end_well, 1),
    "failed": Story(a_gang_runs_that_may_not_be_restarted, a_worker_fails, 1),
    "restarted": Story(a_gang_runs_that_goes_on_soon, a_worker_fails, 11),  # the stop, and an admission
    "expired": Story(a_gang_with_a_ttl_has_ended, a_minute_passes, 1),
    "moved": Story(a_gang_is_pinned_where_nothing_gets_bound, a_minute_passes, 4),  # status, eviction, pin, status
    "made again": Story(a_gang_runs, its_job_is_deleted, 3),
    "served": Story(nothing, a_service_arrives, 6),  # Service, budget, Deployment, two pins, status
    "scaled": Story(a_service_runs, its_replicas_grow, 5),
    "made smaller": Story(a_service_runs, its_replicas_get_fewer, 5),  # two that go first... Deployment, status
    "replaced first": Story(a_service_runs_that_can_spare_no_replica, its_node_is_taken_back, 9),
    "nodes came": Story(a_gang_waits_for_nodes, its_nodes_come, 1),
    "nodes did not come": Story(a_gang_waits_for_nodes, a_minute_passes, 10),  # the stop, and the next pool
    "preempted": Story(a_lesser_gang_has_all_boards, an_urgent_gang_arrives, 9),  # five of them stop the lesser
    "shrunk": Story(an_elastic_gang_has_all_boards, an_urgent_gang_arrives, 14),  # two admissions after the stop
    "given back": Story(an_elastic_gang_has_more_than_it_would_like, four_minutes_pass, 14),
    "interrupted": Story(a_gang_runs, its_node_is_taken_back, 9),  # stopped, released and admitted anew
    "asked to save": Story(a_gang_that_listens_runs, its_node_is_taken_back, 10),
    "paused": Story(a_patient_gang_that_listens_runs, the_next_hours_turn_dirty, 7),  # asked to save, stopped, released
    "lost": Story(a_gang_runs, its_node_is_not_heard_of, 9),
    "grown": Story(another_has_boards_that_an_elastic_gang_would_like, the_other_is_deleted, 12),
    "reclaimed": Story(replicas_have_borrowed_all_boards, their_owner_wants_some_back, 9),  # status, two evictions...
}


async def told(story: Story, *, mishap: tuple[Any, bool] | None = None, at: int = 0) -> tuple[World, int]:
    """The world at the end of a story in which one write went wrong, and the number of writes that it took."""
    world = World(a_node("n1"), a_node("n2"), a_node("n3"))
    await story.before(world)
    before = world.api.changes
    if mishap is not None:
        world.api.fail_change(before + at, mishap[0], applied=mishap[1])
    await story.now(world)
    await world.settle()
    if world.api.dead:
        await world.restart()
        await world.settle()
    writes = world.api.changes - before
    world.clock.advance(REFRESH_SECONDS)  # then all have been told where they are
    await world.settle()
    return world, writes


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_ends_the_same_whatever_happens_at_any_single_write(name: str, mishap: str) -> None:
    smooth, writes = await told(STORIES[name])
    assert smooth.broken == []
    assert writes >= STORIES[name].least_writes
    for at in range(1, writes + 1):
        world, _ = await told(STORIES[name], mishap=MISHAPS[mishap], at=at)
        assert world.broken == [], f"{mishap} write {at}"
        assert world.state() == smooth.state(), f"{mishap} write {at}"


@pytest.mark.parametrize(("name", "sizes"), [("shrunk", (3, 1)), ("given back", (3, 2)), ("grown", (2, 3))])
async def test_the_job_of_each_attempt_has_as_many_workers_as_were_placed(name: str, sizes: tuple[int, int]) -> None:
    world, _ = await told(STORIES[name])
    made = (call for call in world.api.calls if (call.verb, call.resource) == ("create", JOBS) and call.number)
    specs = [call.body["spec"] for call in made if call.name.startswith("elastic")]
    assert tuple(spec["parallelism"] for spec in specs) == sizes
    assert tuple(spec["completions"] for spec in specs) == sizes
    assert [_world_size(spec) for spec in specs] == [str(size) for size in sizes]
    assert world.status("elastic")["ready"] == f"{sizes[1]}/{sizes[1]}"
    assert world.status("elastic")["resized"] == {"attempt": 2, "from": sizes[0], "to": sizes[1]}


@pytest.mark.parametrize("name", STORIES)
async def test_a_new_operator_finds_nothing_to_do_after_a_smooth_story(name: str) -> None:
    world, _ = await told(STORIES[name])
    world.clock.advance(REFRESH_SECONDS)  # then those that wait have been told when they start, as of now
    await world.settle()
    writes = world.api.changes
    await world.restart()
    await world.settle()
    assert world.api.said()[writes:] == []


async def test_dies_and_dies_again_at_every_write_and_still_gets_there() -> None:
    smooth, _ = await told(STORIES["admitted"])
    world = World(a_node("n1"), a_node("n2"), a_node("n3"))
    await a_gang_arrives(world)
    lives = 0
    while True:
        world.api.troubles = [Trouble(lambda call: call.number > 0, applied=True)]
        await world.settle()
        if not world.api.dead:
            break
        lives += 1
        await world.restart()
    assert lives >= 6
    assert world.broken == []
    assert world.state() == smooth.state()


async def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    world = World(a_node("n1"))
    world.api.put(TRAINING_JOBS, a_training_job(workers=3))
    await world.settle()
    assert world.api.all(JOBS) == []
    assert world.api.all(PODS) == []
    assert world.status("llm")["verdict"]["reason"] == "WaitingForCapacity"


async def test_what_a_deleted_workload_had_made_goes_and_its_room_is_used_again() -> None:
    world = World(a_node("n1"))
    world.api.put(TRAINING_JOBS, a_training_job("first", workers=1))
    await world.settle()
    world.api.put(TRAINING_JOBS, a_training_job("second", workers=1))
    await world.settle()
    assert world.status("second")["state"] == "Pending"
    world.api.remove(TRAINING_JOBS, "team", "first")
    await world.settle()
    assert world.status("second")["state"] == "Running"
    assert [job["metadata"]["name"] for job in world.api.all(JOBS)] == ["second-1"]
    assert world.broken == []


async def test_a_deployment_that_someone_deletes_is_made_again() -> None:
    world = World(a_node("n1"))
    await a_service_runs(world)
    before = world.state()
    world.api.remove(DEPLOYMENTS, "team", "chat")
    await world.settle()
    assert world.state() == before


def _world_size(job: Mapping[str, Any]) -> str:
    environment = job["template"]["spec"]["containers"][0]["env"]
    return next(str(variable["value"]) for variable in environment if variable["name"] == "WORLD_SIZE")
