"""The operator may die at any moment: what it left is completed or undone by the next one."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import JOBS, PODS, TRAINING_JOBS, NotFound, Resource
from e2e.cluster.provider import Cluster
from e2e.harness import OperatorProcess, a_training_job, an_operator, make_fleet, until
from tests.integration.watching import Witness, a_witness, ended, node_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

KILLS = 30
JOBS_ARRIVING = 50
NODES = 24
SEED = 20261121
WAITS = {"WaitingForCapacity", "TopologyPlacementFailed", "WaitingForReservation"}  # for room, in three ways


async def test_killed_at_thirty_random_moments_it_leaves_nothing_half_done(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Any
) -> None:
    pool = {"name": "kill", "count": NODES, "board": "H100-80GB", "boardsPerNode": 8, "racks": {"nodesPerRack": 4}}
    await make_fleet(cluster.kubeconfig, pool)
    chance = random.Random(SEED)
    arriving = [_a_random_job(chance, namespace, number) for number in range(JOBS_ARRIVING)]
    deleted = {job["metadata"]["name"] for job in chance.sample(arriving, 8)}
    async with a_witness(api) as witness:
        operator = OperatorProcess(cluster.kubeconfig, tmp_path)
        for kill in range(KILLS):
            operator.start()
            if kill % 5:  # else it is killed while it starts
                operator.wait_ready()
            share = arriving[kill * JOBS_ARRIVING // KILLS : (kill + 1) * JOBS_ARRIVING // KILLS]
            await _create(api, namespace, share, within=chance.uniform(0.1, 2.0), chance=chance)
            if kill % 4 == 3:
                await _delete_one_of(api, namespace, deleted, witness)
            operator.kill()
        assert not witness.broken
        with an_operator(cluster.kubeconfig):
            await _settle(api, namespace, witness)
    assert not witness.broken
    assert len(await _listed(api, TRAINING_JOBS, namespace)) >= JOBS_ARRIVING - 8


async def test_it_leaves_when_its_pod_is_told_to_end_though_nobody_signals_it(cluster: Cluster, api: KubeApi) -> None:
    """As on a node whose kubelet is dead; the pod is one that stays because of a finalizer."""
    name, where = "operator-under-test", "berth-system"
    gate = {"schedulingGates": [{"name": "test.berth.dev/never"}], "containers": [{"name": "main", "image": "none"}]}
    metadata = {"name": name, "finalizers": ["test.berth.dev/stays"]}
    await api.create(PODS, where, {"metadata": metadata, "spec": gate})
    with an_operator(cluster.kubeconfig) as operator:
        await api.delete(PODS, where, name)

        async def left() -> bool:
            return not operator.alive

        await until(left, "the operator has left")
        assert operator.stop() == 0
        await api.merge(PODS, where, name, {"metadata": {"finalizers": None}})


async def _settle(api: KubeApi, namespace: str, witness: Witness) -> None:
    last: list[str] = []

    async def settled() -> bool:
        last[:] = await _unsettled(api, namespace, witness)
        return not last

    try:
        await until(settled, "every job runs whole, has ended, or waits, and no pod is left over", 120.0)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None


def _a_random_job(chance: random.Random, namespace: str, number: int) -> dict[str, Any]:
    workers, boards = chance.choice([(1, 1), (1, 8), (2, 4), (4, 8), (3, 2), (8, 1)])
    spec: dict[str, Any] = {"gpus": {"count": boards}}
    if workers == 4:
        spec["topology"] = {"level": "rack", "mode": "Required"}
    ends = {"kwok.berth.dev/run-seconds": str(chance.randint(3, 10))} if chance.random() < 0.5 else {}
    return a_training_job(f"job-{number}", namespace=namespace, workers=workers, annotations=ends, **spec)


async def _create(
    api: KubeApi, namespace: str, jobs: list[dict[str, Any]], *, within: float, chance: random.Random
) -> None:
    """Create the jobs at random moments of a time span, and let the span pass."""
    moments = sorted(chance.uniform(0, within) for _ in jobs)
    start = asyncio.get_running_loop().time()
    for moment, job in [*zip(moments, jobs, strict=True), (within, None)]:
        await asyncio.sleep(max(0.0, start + moment - asyncio.get_running_loop().time()))
        if job is not None:
            await api.create(TRAINING_JOBS, namespace, job)


async def _delete_one_of(api: KubeApi, namespace: str, names: set[str], witness: Witness) -> None:
    for name in sorted(names):
        if not all(map(ended, witness.members(name))):
            with suppress(NotFound):
                await api.delete(TRAINING_JOBS, namespace, name)
                names.discard(name)
                return


async def _unsettled(api: KubeApi, namespace: str, witness: Witness) -> list[str]:
    """What is on its way or was left behind: jobs that neither run, nor ended, nor wait for room; gangs placed in part;
    pods without an owner, or of jobs that do not run.

    All of it may be seen for a moment while jobs end and others take their room; what stays is a fault.
    """
    jobs = {job["metadata"]["name"]: job for job in await _listed(api, TRAINING_JOBS, namespace)}
    made = {job["metadata"]["uid"]: job["metadata"] for job in await _listed(api, JOBS, namespace)}
    found = [problem for name, job in jobs.items() if (problem := _problem(name, job, witness))]
    for pod in _alive(witness, namespace):
        owner = made.get(pod["metadata"]["ownerReferences"][0]["uid"])
        job = jobs.get(owner["ownerReferences"][0]["name"]) if owner else None
        if owner is None or job is None or job["metadata"]["uid"] != owner["ownerReferences"][0]["uid"]:
            found.append(f"pod {pod['metadata']['name']} has no owner")
        elif job.get("status", {}).get("state") != "Running":
            found.append(f"pod {pod['metadata']['name']} is alive, and its job does not run")
    return found


def _problem(name: str, job: dict[str, Any], witness: Witness) -> str:
    """What is wrong with a job, if anything."""
    status = job.get("status", {})
    state, verdict = status.get("state"), status.get("verdict", {})
    waits = state == "Pending" and verdict.get("reason") in WAITS
    if state not in ("Running", "Succeeded") and not waits:
        return f"{name} is {state}: {verdict.get('message')}"
    placed = sum(bool(node_of(pod)) for pod in witness.members(name, status.get("attempt")))
    return "" if placed in (0, job["spec"]["workers"]) else f"{name} is half placed: {placed}"


async def _listed(api: KubeApi, resource: Resource, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.request("GET", resource.path(namespace)))["items"]
    return items


def _alive(witness: Witness, namespace: str) -> list[dict[str, Any]]:
    return [p for p in witness.pods.values() if p["metadata"]["namespace"] == namespace and not ended(p)]
