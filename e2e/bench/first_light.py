"""How long gangs wait for their pods to run, beside the same pods created bare under plain kube-scheduler.

Both halves use the same cluster (the `local` provider: real API server, controller-manager, kube-scheduler, KWOK
nodes), the same pods and the same client, one after the other: bare pods first, then, on the emptied cluster,
TrainingJobs under the operator as a process. All are created at once. The time of a gang (or of a bare group of the
same pods) runs from its creation to the moment its last pod is Running.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from berth.adapters.kube import KubeApi, connect
from berth.control.ports import JOBS, NODES, PODS, TRAINING_JOBS, NotFound, Resource
from berth.control.records import NAME_LABEL
from e2e.cluster.provider import Cluster, Provider, running
from e2e.harness import OperatorProcess, a_training_job, an_operator, install, make_fleet, make_namespace, until, watch

NAMESPACE = "bench"
GROUP_LABEL = "bench/group"
CONNECTIONS = 64
LIMIT_SECONDS = 240.0

app = typer.Typer()


@dataclass(frozen=True)
class Result:
    """Seconds from creation to all Running, over the groups."""

    p50: float
    p99: float
    mean: float
    last: float

    @classmethod
    def of(cls, seconds: list[float]) -> Result:
        """Summarise."""
        cuts = quantiles(seconds, n=100, method="inclusive")
        return cls(p50=cuts[49], p99=cuts[98], mean=mean(seconds), last=max(seconds))


@app.command()
def main(
    gangs: Annotated[int, typer.Option(help="gangs (and groups of bare pods)")] = 200,
    members: Annotated[int, typer.Option(help="pods each")] = 4,
    gpus: Annotated[int, typer.Option(help="whole boards each pod asks for")] = 4,
    nodes: Annotated[int, typer.Option(help="KWOK nodes of 8 boards")] = 500,
    rounds: Annotated[int, typer.Option(help="times to run both halves")] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    limits: Annotated[bool, typer.Option(help="fail when p50 exceeds 4x or p99 exceeds 5x of bare pods")] = False,
) -> None:
    """Compare Berth's gangs with the same pods created bare."""
    with running(Provider.LOCAL, name="bench", fake_nodes=0) as cluster:
        outcome = asyncio.run(_compare(cluster, gangs, members, gpus, nodes, rounds))
    if json_output:
        typer.echo(json.dumps(outcome))
    else:
        _show(outcome, gangs, members, nodes)
    if limits and (outcome["ratio"]["p50"] > 4 or outcome["ratio"]["p99"] > 5):
        raise typer.Exit(1)


async def _compare(cluster: Cluster, gangs: int, members: int, gpus: int, nodes: int, rounds: int) -> dict[str, Any]:
    pool = {"name": "bench", "count": nodes, "board": "H100-80GB", "boardsPerNode": 8, "racks": {"nodesPerRack": 4}}
    bare: list[float] = []
    berth: list[float] = []
    cpu = 0.0
    async with connect(str(cluster.kubeconfig)) as api:
        await install(api)
        await make_namespace(api, NAMESPACE)
        await make_fleet(cluster.kubeconfig, pool)
        await until(lambda: all_ready(api, nodes), "all nodes are ready", LIMIT_SECONDS, 0.5)
        for _ in range(rounds):
            bare += await _bare(api, gangs, members, gpus)
            await empty(api)
            with an_operator(cluster.kubeconfig) as operator:
                before = cpu_seconds(operator)
                berth += await _berth(api, operator, gangs, members, gpus)
                cpu += cpu_seconds(operator) - before
                await empty(api)
    results = {"bare": Result.of(bare), "berth": Result.of(berth)}
    ratio = {
        key: asdict(results["berth"])[key] / asdict(results["bare"])[key] for key in ("p50", "p99", "mean", "last")
    }
    return {
        "bare": asdict(results["bare"]),
        "berth": asdict(results["berth"]),
        "ratio": ratio,
        "operator_cpu_seconds": cpu,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }


async def _bare(api: KubeApi, gangs: int, members: int, gpus: int) -> list[float]:
    pods = [(f"bare-{gang}", _bare_pod(gang, index, gpus)) for gang in range(gangs) for index in range(members)]
    return await _run(api, PODS, pods, members, lambda pod: pod["metadata"]["labels"].get(GROUP_LABEL, ""))


async def _berth(api: KubeApi, operator: OperatorProcess, gangs: int, members: int, gpus: int) -> list[float]:
    jobs = [
        (f"gang-{gang}", a_training_job(f"gang-{gang}", namespace=NAMESPACE, workers=members, gpus={"count": gpus}))
        for gang in range(gangs)
    ]
    name_of = lambda pod: pod["metadata"]["labels"].get(NAME_LABEL, "")  # noqa: E731
    return await _run(api, TRAINING_JOBS, jobs, members, name_of, lambda: operator.alive)


async def _run(
    api: KubeApi,
    what: Resource,
    objects: list[tuple[str, dict[str, Any]]],
    members: int,
    group_of: Callable[[dict[str, Any]], str],
    alive: Callable[[], bool] = lambda: True,
) -> list[float]:
    """Create everything at once; seconds from each group's creation to its last pod's Running."""
    created: dict[str, float] = {}
    running_pods: dict[str, set[str]] = {}
    seconds: dict[str, float] = {}
    groups = {group for group, _ in objects}
    version = (await api.request("GET", PODS.path(NAMESPACE), query={"limit": "1"}))["metadata"]["resourceVersion"]
    following = asyncio.create_task(_follow(api, version, group_of, members, created, running_pods, seconds, groups))
    gate = asyncio.Semaphore(CONNECTIONS)

    async def create(group: str, body: dict[str, Any]) -> None:
        async with gate:
            created.setdefault(group, time.monotonic())
            await api.create(what, NAMESPACE, body)

    await asyncio.gather(*(create(group, body) for group, body in objects))
    ends = time.monotonic() + LIMIT_SECONDS
    while not following.done():
        await asyncio.wait([following], timeout=1)
        if not alive() or time.monotonic() > ends:
            raise AssertionError(
                f"{len(seconds)} of {len(groups)} groups run, operator alive: {alive()}: {await _late(api)}"
            )
    following.result()
    return list(seconds.values())


async def _follow(
    api: KubeApi,
    version: str,
    group_of: Callable[[dict[str, Any]], str],
    members: int,
    created: dict[str, float],
    running_pods: dict[str, set[str]],
    seconds: dict[str, float],
    groups: set[str],
) -> None:
    async for _, pod in watch(api, PODS, version):
        group = group_of(pod)
        if group in groups and pod["status"].get("phase") == "Running":
            there = running_pods.setdefault(group, set())
            there.add(pod["metadata"]["name"])
            if len(there) == members and group not in seconds:
                seconds[group] = time.monotonic() - created[group]
                if len(seconds) == len(groups):
                    return


async def _late(api: KubeApi) -> list[str]:
    """A few of the pods that don't run, and what is said of them."""
    pods = (await api.request("GET", PODS.path(NAMESPACE)))["items"]
    late = [pod for pod in pods if pod["status"].get("phase") != "Running"]
    shown = [
        f"{p['metadata']['name']} on {p['spec'].get('nodeName')}: {p['status'].get('conditions')}" for p in late[:3]
    ]
    return [f"{len(late)} of {len(pods)} pods don't run", *shown]


def _bare_pod(gang: int, index: int, gpus: int) -> dict[str, Any]:
    template = a_training_job("x")["spec"]["template"]["spec"]
    container = template["containers"][0]
    container["resources"]["requests"]["nvidia.com/gpu"] = str(gpus)
    container["resources"]["limits"] = {"nvidia.com/gpu": str(gpus)}
    metadata = {"name": f"bare-{gang}-{index}", "namespace": NAMESPACE, "labels": {GROUP_LABEL: f"bare-{gang}"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template}


async def all_ready(api: KubeApi, nodes: int) -> bool:
    """Whether so many nodes are ready and offer boards."""
    listed = await api.list(NODES)
    ready = [
        node
        for node in listed["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        and int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) > 0
    ]
    return len(ready) >= nodes


async def empty(api: KubeApi) -> None:
    """Delete all that a half made, and wait until its pods are gone, and the Jobs that would make more."""
    gate = asyncio.Semaphore(CONNECTIONS)  # a request that waits for a connection times out
    for resource in (TRAINING_JOBS, JOBS, PODS):
        names = [item["metadata"]["name"] for item in (await api.request("GET", resource.path(NAMESPACE)))["items"]]
        await asyncio.gather(*(_delete(api, resource, name, gate) for name in names))

    async def gone() -> bool:
        found = [await api.request("GET", kind.path(NAMESPACE), query={"limit": "1"}) for kind in (JOBS, PODS)]
        return not any(listed["items"] for listed in found)

    await until(gone, "the pods are gone", LIMIT_SECONDS, 0.5)


async def _delete(api: KubeApi, resource: Resource, name: str, gate: asyncio.Semaphore) -> None:
    options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    async with gate:
        with suppress(NotFound):
            await api.request("DELETE", resource.path(NAMESPACE, name), options)


def cpu_seconds(operator: OperatorProcess) -> float:
    """What the operator has used of a core so far."""
    assert operator.process is not None
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _show(outcome: dict[str, Any], gangs: int, members: int, nodes: int) -> None:
    table = Table(title=f"{gangs} gangs of {members} pods on {nodes} KWOK nodes, seconds until all of a gang run")
    for name in ("", "p50", "p99", "mean", "last"):
        table.add_column(name, justify="right" if name else "left")
    for row, label in (("bare", "bare pods"), ("berth", "Berth"), ("ratio", "ratio")):
        table.add_row(label, *(f"{outcome[row][key]:.2f}" for key in ("p50", "p99", "mean", "last")))
    console = Console()
    console.print(table)
    console.print(f"operator: {outcome['operator_cpu_seconds']:.1f} s of CPU; {outcome['machine']}")


if __name__ == "__main__":
    app()
