"""An elastic gang grows when boards fall idle, and shrinks when their owner wants some back. On a real API server."""

from __future__ import annotations

import pytest

from berth.adapters.kube import KubeApi
from berth.control.ports import JOBS, TRAINING_JOBS
from e2e.cluster.provider import Cluster
from e2e.harness import an_operator, make_fleet, until
from tests.integration.test_preemption import AT_ONCE, Site
from tests.integration.watching import a_witness

pytestmark = pytest.mark.cluster

NEVER_LONGER = {"minRuntimeSeconds": 0, "restartSeconds": 1}


async def test_it_grows_into_idle_boards_and_shrinks_for_their_owner(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make_fleet(cluster.kubeconfig, {"name": "elastic", "count": 3, "board": "B200", "boardsPerNode": 8})
    site = Site(api, namespace, "B200")
    await site.queues(nominal=24)

    async def runs_with(workers: int, attempt: int) -> bool:
        """Whether that many workers of that attempt are ready, and its Job is for as many."""
        status = await site.status("gang")
        if (status.get("attempt"), status.get("ready")) != (attempt, f"{workers}/{workers}"):
            return False
        spec = (await api.get(JOBS, namespace, f"gang-{attempt}"))["spec"]
        assert (spec["parallelism"], spec["completions"]) == (workers, workers)
        return True

    async with a_witness(api) as witness:
        with an_operator(cluster.kubeconfig, preemption=AT_ONCE, elastic=NEVER_LONGER):
            await site.make("other", "borrower")
            await until(lambda: site.runs("other"), "another job has a node")
            bounds = {"minWorkers": 1, "maxWorkers": 3}
            await site.make("gang", "borrower", workers=3, elastic=bounds, estimatedRuntime="30d")
            await until(lambda: runs_with(2, attempt=1), "the gang begins on the other two")
            await api.merge(TRAINING_JOBS, namespace, "other", {"spec": {"suspend": True}})
            await until(lambda: runs_with(3, attempt=2), "it grows into the third", 90.0)
            assert (await site.status("gang"))["resized"] == {"attempt": 2, "from": 2, "to": 3}
            await site.make("own", "owner")
            await until(lambda: site.runs("own"), "the owner has a node back", 90.0)
            await until(lambda: runs_with(2, attempt=3), "the gang goes on with the rest", 90.0)
            assert (await site.status("gang"))["resized"] == {"attempt": 3, "from": 3, "to": 2}
    assert not witness.broken
