"""Nodes are taken back, several at once: every gang hears of it, saves, and runs elsewhere. On a real API server."""

from __future__ import annotations

import pytest

from berth.adapters.kube import KubeApi
from e2e.bench.interruptions import storm
from e2e.cluster.provider import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_all_gangs_on_nodes_that_are_taken_back_save_and_run_elsewhere(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    """The bench of `make bench-interruptions` in small; how fast they hear is for an idle machine to say."""
    outcome = await storm(api, cluster.kubeconfig, namespace, jobs=16, nodes=16, interrupted=6, within=2.0)
    assert outcome["affected"] >= 6
    assert [outcome[what]["count"] for what in ("decided", "heard", "moved")] == [outcome["affected"]] * 3
    assert outcome["broken"] == []
