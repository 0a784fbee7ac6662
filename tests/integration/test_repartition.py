"""Boards are laid out anew through mig-manager, on a real API server, whoever dies or hangs amid it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from berth.adapters.kube import KubeApi
from berth.control.layouts import CONFIG_LABEL, PAUSED, STATE_LABEL
from berth.control.ports import GPU_NODES, NODES, PODS, TRAINING_JOBS, NotFound
from berth.control.records import LAYOUT_ANNOTATION
from e2e.cluster.provider import Cluster
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.migmanager import MigManager
from e2e.fakegpu.objects import HOLD
from e2e.harness import OperatorProcess, a_training_job, an_operator, make_mig_config, playing_fleet, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NODE = "parts-0"
SEVEN = {"layout": "all-1g.10gb"}
OPERAND = "nvidia.com/gpu.deploy.device-plugin"
PART, HALF = ({"profile": profile, "models": ["A100-80GB"]} for profile in ("1g.10gb", "3g.40gb"))


class Hanging(MigManager):
    """Hangs in its first change, its operands paused, as after a client that would not end; a new label frees it."""

    stuck = ""

    def step(self, now: float, config: str) -> bool:
        """As the other, but the first change has no end."""
        changed = super().step(now, config)
        if self.working and not self.stuck:
            self.stuck, self._done_at = self._handled, None
        return changed

    def labels(self) -> dict[str, str]:
        """As the other, but of operands that stay paused."""
        hangs = self.stuck and self.stuck == self._handled
        return {k: PAUSED if hangs and k == OPERAND else value for k, value in super().labels().items()}


@pytest.fixture
async def fleet(cluster: Cluster, api: KubeApi) -> AsyncIterator[KwokFleet]:
    """One node of two boards, both laid out as 7x1g, with a mig-manager."""
    await make_mig_config(api)
    pool = {"name": "parts", "count": 1, "board": "A100-80GB", "boardsPerNode": 2, "mig": [SEVEN]}
    async with playing_fleet(cluster.kubeconfig, pool, configDelaySeconds=1) as fleet:
        yield fleet
    for pod in (await api.list(PODS, fields=f"spec.nodeName={NODE}"))["items"]:
        await api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
    for resource in (NODES, GPU_NODES):
        with suppress(NotFound):
            await api.delete(resource, "", NODE)


async def test_an_operator_killed_amid_a_layout_leaves_it_to_the_next(
    cluster: Cluster, api: KubeApi, namespace: str, fleet: KwokFleet, tmp_path: Path
) -> None:
    operator = OperatorProcess(cluster.kubeconfig, tmp_path)
    operator.start()
    try:
        operator.wait_ready()
        await api.create(TRAINING_JOBS, namespace, a_training_job("neighbour", namespace=namespace, gpus=PART))
        await until(lambda: _is(api, namespace, "neighbour", "Running"), "the neighbour runs")
        await _hold(api, "until the operator is dead")
        await api.create(TRAINING_JOBS, namespace, a_training_job("half", namespace=namespace, gpus=HALF))
        await until(lambda: _node_says(api, STATE_LABEL, "pending"), "mig-manager is at work")
    finally:
        operator.kill()
    assert "relayout" in await _note(api)
    with an_operator(cluster.kubeconfig):
        await _hold(api, None)
        await until(lambda: _is(api, namespace, "half", "Running"), "the job runs")
        await until(lambda: _is_at_rest(api), "the node is noted as laid out")
    assert await _is(api, namespace, "neighbour", "Running")
    assert _boards(fleet)[0] == ["1g.10gb"] * 7
    assert "3g.40gb" in _boards(fleet)[1]


async def test_a_mig_manager_that_hangs_is_set_going_again(
    cluster: Cluster, api: KubeApi, namespace: str, fleet: KwokFleet
) -> None:
    played = fleet.nodes[NODE]
    hanging = played.manager = played.reporter.manager = Hanging(played.node, apply_seconds=1)
    with an_operator(cluster.kubeconfig, relayoutTimeoutSeconds=5):
        await api.create(TRAINING_JOBS, namespace, a_training_job("half", namespace=namespace, gpus=HALF))
        await until(lambda: _node_says(api, OPERAND, PAUSED), "its operands are paused")
        await until(lambda: _is(api, namespace, "half", "Running"), "the job runs")
        await until(lambda: _node_says(api, OPERAND, "true"), "its operands are back")
    assert (await api.get(NODES, "", NODE))["metadata"]["labels"][CONFIG_LABEL] != hanging.stuck


async def _hold(api: KubeApi, why: str | None) -> None:
    """Keep the node's mig-manager from ending its work, or no longer."""
    await api.merge(NODES, "", NODE, {"metadata": {"annotations": {HOLD: why}}})


def _boards(fleet: KwokFleet) -> list[list[str]]:
    return [sorted(board.profiles().elements()) for board in fleet.nodes[NODE].node.boards]


async def _is(api: KubeApi, namespace: str, name: str, state: str) -> bool:
    found = await api.get(TRAINING_JOBS, namespace, name)
    return bool(found.get("status", {}).get("state") == state)


async def _node_says(api: KubeApi, label: str, value: str) -> bool:
    found = await api.get(NODES, "", NODE)
    return bool(found["metadata"]["labels"].get(label) == value)


async def _note(api: KubeApi) -> dict[str, Any]:
    found = await api.get(NODES, "", NODE)
    note: dict[str, Any] = json.loads(found["metadata"]["annotations"].get(LAYOUT_ANNOTATION, "{}"))
    return note


async def _is_at_rest(api: KubeApi) -> bool:
    note = await _note(api)
    return list(note) == ["laid"] and max(note["laid"].values()) <= time.time()
