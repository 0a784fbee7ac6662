"""Tokens and authorities of the progress endpoint, on a real API server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from berth.adapters.kube import KubeApi
from berth.adapters.tokens import Tokens
from berth.adapters.trust import CertificateAuthority
from berth.control.checkpoints import AUDIENCE, CONFIG_MAP
from berth.control.keeping import CONFIG_MAP as RATES
from berth.control.ports import CONFIG_MAPS, NODES, PODS, TRAINING_JOBS, Resource
from berth.control.progress import Caller
from berth.worker.wire import NotAnswered, Server
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Cluster
from e2e.harness import a_training_job, an_operator, make_fleet, until
from tests.control.fakes import HandClock

pytestmark = pytest.mark.cluster

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")


async def a_pod(api: KubeApi, namespace: str, name: str) -> dict[str, Any]:
    """A pod that stays where it is, with an account of its own."""
    await api.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": name}})
    spec = {
        "serviceAccountName": name,
        "schedulingGates": [{"name": "test.berth.dev/never"}],
        "containers": [{"name": "main", "image": "none"}],
    }
    return await api.create(PODS, namespace, {"metadata": {"name": name}, "spec": spec})


async def a_token(api: KubeApi, namespace: str, account: str, audience: str, pod: dict[str, Any] | None) -> str:
    """A token such as a projected volume holds."""
    bound = {"kind": "Pod", "apiVersion": "v1", "name": account, "uid": pod["metadata"]["uid"]} if pod else None
    spec = {"audiences": [audience], "expirationSeconds": 600, **({"boundObjectRef": bound} if bound else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await api.request("POST", SERVICE_ACCOUNTS.path(namespace, account, "token"), body)
    return str(answer["status"]["token"])


async def test_a_token_names_its_pod_for_our_audience_alone_and_while_the_pod_is_there(
    api: KubeApi, namespace: str
) -> None:
    clock = HandClock()
    tokens = Tokens(api, clock)
    pod = await a_pod(api, namespace, "member")
    token = await a_token(api, namespace, "member", AUDIENCE, pod)
    assert await tokens.caller(token) == Caller(namespace, "member", pod["metadata"]["uid"])
    other = await a_token(api, namespace, "member", "https://elsewhere", pod)
    assert await tokens.caller(other) is None
    unbound = await a_token(api, namespace, "member", AUDIENCE, None)
    assert await tokens.caller(unbound) is None
    assert await tokens.caller("nonsense") is None
    await api.request("DELETE", PODS.path(namespace, "member"), {"gracePeriodSeconds": 0})
    assert await tokens.caller(token) is not None, "remembered for a minute"

    async def forgotten() -> bool:
        clock.advance(60)
        return await tokens.caller(token) is None

    await until(forgotten, "the API server's own cache of tokens, of ten seconds, has forgotten it", 60.0)


async def test_an_authority_is_kept_and_made_known(api: KubeApi, namespace: str) -> None:
    def authority() -> CertificateAuthority:
        return CertificateAuthority(api, clock, namespace, ["berth.local"], lambda: [namespace])

    clock = HandClock(1_800_000_000.0)
    first = authority()
    await first.start()
    await first.renew()
    trusted = (await api.get(CONFIG_MAPS, namespace, CONFIG_MAP))["data"]["ca.crt"]
    second = authority()
    await second.start()
    clock.advance(250 * 86400)
    await second.renew()
    both = (await api.get(CONFIG_MAPS, namespace, CONFIG_MAP))["data"]["ca.crt"]
    assert both.startswith(trusted)
    assert both.count("BEGIN CERTIFICATE") == 2


async def test_a_job_reports_is_stopped_and_is_told_where_to_go_on(
    cluster: Cluster, api: KubeApi, namespace: str, tmp_path: Path
) -> None:
    """The operator as a process; what a program would say, said from here with its pod's own token."""
    [port] = free_ports(1)
    await make_fleet(cluster.kubeconfig, {"name": "saves", "count": 1, "board": "A100-80GB", "boardsPerNode": 1})
    job = a_training_job("llm", namespace=namespace, gpus={"count": 1, "models": ["A100-80GB"]}, checkpoint={})
    job["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "saves-0"}
    rates = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RATES}}
    await api.apply(CONFIG_MAPS, "berth-system", RATES, rates)
    with an_operator(cluster.kubeconfig, progressHost="localhost", progressPort=port) as operator:
        await api.create(TRAINING_JOBS, namespace, job)
        first = await running_pod(api, namespace, 1)
        server = await reached(api, namespace, first, tmp_path)
        checkpoint = {"step": 40, "time": "2026-01-01T00:00:00Z", "bytes": 7, "seconds": 2.0}
        answer = await asyncio.to_thread(
            server.post, {"berth": {"step": 45, "totalSteps": 90, "checkpoint": checkpoint}}
        )
        assert answer["intervalSeconds"] > 60
        told = await until(lambda: told_of(api, namespace), "the status says so")
        assert told["progress"]["summary"] == "50%"
        assert told["checkpoint"] == {"attempt": 1, **checkpoint}

        await api.merge(TRAINING_JOBS, namespace, "llm", {"spec": {"suspend": True}})
        await until(lambda: gone(api, namespace, first), "its pod is gone")
        await api.merge(TRAINING_JOBS, namespace, "llm", {"spec": {"suspend": False}})
        second = await running_pod(api, namespace, 2)
        before, after = (told_by(pod) for pod in (first, second))
        assert after["RESUME_FROM"] == before["CHECKPOINT_DIR"]
        assert after["CHECKPOINT_DIR"] == before["CHECKPOINT_DIR"].removesuffix("1") + "2"
        with pytest.raises(NotAnswered, match=r"no member of|is over|not valid"):
            await asyncio.to_thread(server.post, {"berth": {"checkpoint": checkpoint}})

        server = await reached(api, namespace, second, tmp_path)
        await asyncio.to_thread(server.post, {"berth": {"step": 41}})
        status = await until(lambda: restored(api, namespace), "the status says that it went on")
        (loss,) = status["losses"]["byReason"]
        assert (loss["reason"], loss["attempts"]) == ("Suspended", 1)
        told = await asyncio.to_thread(lambda: urlopen(operator.metrics, timeout=5).read().decode())
        for sample in ("berth_checkpoint_save_seconds_sum 2.0", "berth_restore_seconds_count 1.0"):
            assert sample in told
        assert 'berth_lost_gpu_seconds_total{reason="Suspended"}' in told
    kept = await api.get(CONFIG_MAPS, "berth-system", RATES)
    assert any(pool["product"] == "NVIDIA-A100-SXM4-80GB" for pool in json.loads(kept["data"]["rates.json"])["pools"])
    await api.delete(TRAINING_JOBS, namespace, "llm")
    await api.delete(NODES, "", "saves-0")


async def running_pod(api: KubeApi, namespace: str, attempt: int) -> dict[str, Any]:
    """The pod of an attempt, once the job runs."""

    async def find() -> dict[str, Any] | None:
        status = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
        if status.get("state") != "Running" or status.get("attempt") != attempt:
            return None
        pods = (await api.request("GET", PODS.path(namespace)))["items"]
        return next((pod for pod in pods if pod["metadata"]["labels"].get("berth.dev/attempt") == str(attempt)), None)

    found: dict[str, Any] = await until(find, f"attempt {attempt} runs")
    return found


async def reached(api: KubeApi, namespace: str, pod: dict[str, Any], folder: Path) -> Server:
    """The endpoint as the pod's environment and volumes have it."""
    name, environment = pod["metadata"]["name"], told_by(pod)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod["metadata"]["uid"]}
    spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await api.request("POST", SERVICE_ACCOUNTS.path(namespace, "default", "token"), body)
    (folder / "token").write_text(answer["status"]["token"])
    (folder / "ca.crt").write_text((await api.get(CONFIG_MAPS, namespace, CONFIG_MAP))["data"]["ca.crt"])
    return Server(environment["KUBEFLOW_TRAINER_SERVER_URL"], folder / "ca.crt", folder / "token")


def told_by(pod: dict[str, Any]) -> dict[str, str]:
    """A pod's environment."""
    return {v["name"]: v.get("value", "") for v in pod["spec"]["containers"][0]["env"]}


async def told_of(api: KubeApi, namespace: str) -> dict[str, Any] | None:
    """The status, once it tells of progress and a checkpoint."""
    status: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
    return status if {"progress", "checkpoint"} <= set(status) else None


async def restored(api: KubeApi, namespace: str) -> dict[str, Any] | None:
    """The status, once it tells how long the second attempt took to go on."""
    status: dict[str, Any] = (await api.get(TRAINING_JOBS, namespace, "llm")).get("status") or {}
    return status if (status.get("restore") or {}).get("attempt") == 2 else None


async def gone(api: KubeApi, namespace: str, pod: dict[str, Any]) -> bool:
    """Whether there is no such pod any more."""
    pods = (await api.request("GET", PODS.path(namespace)))["items"]
    return all(other["metadata"]["uid"] != pod["metadata"]["uid"] for other in pods)
