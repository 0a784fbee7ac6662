"""Jobs that crash are restarted as often as they may be, and then fail for good. On a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import NODES, PODS, TRAINING_JOBS
from berth.control.status import condition, is_true
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until

pytestmark = pytest.mark.cluster


async def status(api: KubeApi, namespace: str, name: str = "llm") -> dict[str, Any]:
    """What a job's status says."""
    found: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, name)).get("status") or {}
    return found


async def pods_of(api: KubeApi, namespace: str, attempt: int) -> list[dict[str, Any]]:
    """The pods of an attempt, by rank."""
    pods = (await api.request("GET", PODS.path(namespace)))["items"]
    found = [pod for pod in pods if pod["metadata"]["labels"].get("berth.dev/attempt") == str(attempt)]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


async def crash(api: KubeApi, namespace: str, pod: dict[str, Any], code: int) -> None:
    """A worker ends by itself, as its kubelet would tell."""
    end = {"exitCode": code, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
    container = {"name": "train", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    told = {"phase": "Failed", "containerStatuses": [{**container, "state": {"terminated": end}}]}
    await api.merge(PODS, namespace, pod["metadata"]["name"], {"status": told}, subresource="status")


async def test_a_crash_loop_stops_and_each_operator_goes_on_counting(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "loops", "count": 1, "board": "GB200", "boardsPerNode": 4})

    async def restarted(times: int) -> bool:
        return (await status(api, namespace)).get("restarts") == times

    async def failed() -> bool:
        return is_true((await status(api, namespace)).get("conditions"), "Failed")

    job = a_training_job(
        "llm",
        namespace=namespace,
        gpus={"count": 1, "models": ["GB200"]},
        annotations={"kwok.berth.dev/exit-code": "134"},
        restart={"maxRestarts": 2, "backoff": "2s"},
    )
    with an_operator(cluster.kubeconfig):
        await api.create(TRAINING_JOBS, namespace, job)
        await until(lambda: restarted(1), "it is restarted once")
    with an_operator(cluster.kubeconfig):
        await until(failed, "it has failed for good")
        found = await status(api, namespace)
    assert (found["attempt"], found["restarts"]) == (3, 2)
    assert [crash["node"] for crash in found["failures"]["last"]] == ["loops-0"] * 3
    told = condition(found["conditions"], "Failed")
    assert told is not None
    assert told["message"] == (
        "worker 0 on loops-0 ended with exit code 134 (SIGABRT); "
        "it was restarted 2 times, and spec.restart.maxRestarts is 2"
    )
    await api.delete(NODES, "", "loops-0")


async def test_a_gang_of_which_one_worker_crashes_was_not_evicted_though_its_job_tells_the_others_to_end(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "falls", "count": 3, "board": "GB200", "boardsPerNode": 4})

    async def runs(attempt: int) -> bool:
        found = await status(api, namespace)
        return (found.get("state"), found.get("attempt")) == ("Running", attempt)

    job = a_training_job(
        "llm",
        namespace=namespace,
        workers=2,
        gpus={"count": 4, "models": ["GB200"]},
        annotations={"kwok.berth.dev/stop-seconds": "5"},
        restart={"backoff": "1s"},
    )
    with an_operator(cluster.kubeconfig):
        await api.create(TRAINING_JOBS, namespace, job)
        await until(lambda: runs(1), "it runs")
        first, _ = await pods_of(api, namespace, 1)
        await crash(api, namespace, first, 3)
        await until(lambda: runs(2), "it runs again")
        found = await status(api, namespace)
        assert found["restarts"] == 1
        [known] = found["failures"]["last"]
        assert (known["exitCode"], known["node"]) == (3, first["spec"]["nodeName"])
        again = [pod["spec"]["nodeName"] for pod in await pods_of(api, namespace, 2)]
        assert first["spec"]["nodeName"] not in again
    await api.delete(TRAINING_JOBS, namespace, "llm")
