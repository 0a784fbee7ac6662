"""How fast gangs hear that their nodes go away, and whether all of them run again elsewhere.

On the `local` provider: real API server, controller-manager, kube-scheduler and KWOK nodes; the operator as a process.
Jobs of two workers run; a part of the nodes is marked as a cloud would, within a few seconds. A client of the bench
long-polls the progress endpoint for each job, with its pod's own token, and answers a request with a checkpoint.

Nothing is taken from the operator's word but what is measured of it: when `status.saveRequest` is there, by a watch.
That all run again, and none twice at once, is told by watching pods.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console

from berth.adapters.kube import KubeApi, connect
from berth.control.checkpoints import AUDIENCE, CONFIG_MAP
from berth.control.ports import CONFIG_MAPS, NODES, PODS, TRAINING_JOBS, Resource
from berth.control.records import ATTEMPT_LABEL, NAME_LABEL
from berth.control.status import to_rfc3339
from e2e.bench.first_light import NAMESPACE, all_ready, cpu_seconds
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Cluster, Provider, running
from e2e.harness import OperatorProcess, a_training_job, an_operator, install, make_fleet, make_namespace, until, watch

TAINT = {"key": "aws-node-termination-handler/spot-itn", "value": "bench", "effect": "NoSchedule"}
ACCOUNTS = Resource("", "v1", "serviceaccounts")
WORKERS, BOARDS_PER_NODE = 2, 4
AT_ONCE = 32  # requests of the bench's own preparations
LIMIT_SECONDS = 300.0

app = typer.Typer()


@dataclass
class Job:
    """One job, as its pods, its status and its client show it."""

    name: str
    nodes: dict[int, set[str]] = field(default_factory=dict)  # of the running pods, by attempt
    live: set[str] = field(default_factory=set)  # uids of running pods that nobody told to end
    attempts: dict[str, int] = field(default_factory=dict)  # by uid of such a pod
    hit: float = 0.0  # when its first node was marked
    decided: float = 0.0  # when its status said so
    heard: float = 0.0  # when its client was asked to save
    moved: float = 0.0  # when all its workers ran again


@dataclass
class Storm:
    """What is known so far."""

    jobs: dict[str, Job]
    marked: dict[str, float] = field(default_factory=dict)  # when, by node
    broken: list[str] = field(default_factory=list)

    def see_pod(self, kind: str, pod: dict[str, Any]) -> None:
        """One event of a pod."""
        labels, uid = pod["metadata"].get("labels") or {}, pod["metadata"]["uid"]
        job = self.jobs.get(labels.get(NAME_LABEL, ""))
        if job is None:
            return
        attempt = int(labels.get(ATTEMPT_LABEL, "0"))
        runs = kind != "DELETED" and pod["status"].get("phase") == "Running"
        if runs and not pod["metadata"].get("deletionTimestamp"):
            job.live.add(uid)
            job.attempts[uid] = attempt
            job.nodes.setdefault(attempt, set()).add(pod["spec"]["nodeName"])
        else:
            job.live.discard(uid)
        if len({job.attempts[one] for one in job.live}) > 1 or len(job.live) > WORKERS:
            self.broken.append(f"{job.name} runs twice at once")
        if len(job.live) == WORKERS and attempt > 1 and not job.moved:
            job.moved = time.monotonic()
            if gone := job.nodes[attempt] & self.marked.keys():
                self.broken.append(f"{job.name} went to {', '.join(sorted(gone))}, which goes away")

    def see_status(self, raw: dict[str, Any]) -> None:
        """One state of a TrainingJob."""
        job = self.jobs.get(raw["metadata"]["name"])
        if job is not None and not job.decided and (raw.get("status") or {}).get("saveRequest"):
            job.decided = time.monotonic()

    def mark(self, node: str) -> None:
        """A node is being marked from now on."""
        self.marked[node] = time.monotonic()
        for job in self.jobs.values():
            if node in job.nodes.get(1, ()) and not job.hit:
                job.hit = self.marked[node]

    @property
    def affected(self) -> list[Job]:
        """The jobs that had a worker on a marked node."""
        return [job for job in self.jobs.values() if job.hit]


@app.command()
def main(
    jobs: Annotated[int, typer.Option(help="running jobs of two workers")] = 500,
    nodes: Annotated[int, typer.Option(help="KWOK nodes of 4 boards")] = 500,
    interrupted: Annotated[int, typer.Option(help="nodes that are taken back")] = 200,
    within: Annotated[float, typer.Option(help="seconds in which they are")] = 10.0,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Take nodes back. Exit status 1 where a gang heard of it after 5 s, ran twice at once or did not run again."""
    if jobs * WORKERS > (nodes - interrupted) * BOARDS_PER_NODE:
        raise typer.BadParameter("too few nodes are left for all jobs to run again")
    with running(Provider.LOCAL, name="interruptions", fake_nodes=0) as cluster:
        outcome = asyncio.run(_bench(cluster, jobs, nodes, interrupted, within))
    typer.echo(json.dumps(outcome)) if json_output else _show(outcome)
    late = max(outcome["decided"]["last"], outcome["heard"]["last"]) > 5
    raise typer.Exit(1 if late or outcome["broken"] or outcome["moved"]["count"] < outcome["affected"] else 0)


async def _bench(cluster: Cluster, jobs: int, nodes: int, interrupted: int, within: float) -> dict[str, Any]:
    async with connect(str(cluster.kubeconfig)) as api:
        await install(api)
        await make_namespace(api, NAMESPACE)
        return await storm(api, cluster.kubeconfig, NAMESPACE, jobs, nodes, interrupted, within)


async def storm(
    api: KubeApi, kubeconfig: Path, namespace: str, jobs: int, nodes: int, interrupted: int, within: float
) -> dict[str, Any]:
    """Run the jobs, take the nodes back, and wait until all run again. Raises AssertionError where they don't."""
    pool = {"name": "storm", "count": nodes, "board": "L40S", "boardsPerNode": BOARDS_PER_NODE}
    await make_fleet(kubeconfig, pool)
    await until(lambda: all_ready(api, nodes), "all nodes are ready", 300, 0.5)
    seen = Storm({name: Job(name) for name in (f"storm-{i}" for i in range(jobs))})
    [port] = free_ports(1)
    with an_operator(kubeconfig, progressHost="localhost", progressPort=port) as operator:
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(_tasks())
            await _follow(api, namespace, seen, group)
            await _at_once([_create(api, namespace, name) for name in seen.jobs])
            await until(lambda: _all(seen, lambda job: len(job.live) == WORKERS), "all jobs run", LIMIT_SECONDS)
            await _listen(api, namespace, seen, group, stack)
            await until(lambda: _listening(api, namespace, jobs), "the statuses say that all listen", LIMIT_SECONDS)
            before, began = cpu_seconds(operator), time.monotonic()
            await _take_back(api, seen, interrupted, within)
            await until(lambda: _all(seen, lambda job: not job.hit or job.moved > 0.0), "all run again", LIMIT_SECONDS)
            seconds, cpu = time.monotonic() - began, cpu_seconds(operator) - before
            memory = _peak_mib(operator)
    return {
        "jobs": jobs,
        "nodes": nodes,
        "interrupted": interrupted,
        "affected": len(seen.affected),
        **{key: _summary(seen.affected, key) for key in ("decided", "heard", "moved")},
        "broken": seen.broken[:20],
        "seconds": seconds,
        "cores": cpu / seconds,
        "peak_mib": memory,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }


def _tasks() -> Any:
    """A group of tasks that are ended with the context."""

    class Group:
        async def __aenter__(self) -> list[asyncio.Task[None]]:
            self.tasks: list[asyncio.Task[None]] = []
            return self.tasks

        async def __aexit__(self, *_: object) -> None:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    return Group()


async def _follow(api: KubeApi, namespace: str, seen: Storm, group: list[asyncio.Task[None]]) -> None:
    async def pods(version: str) -> None:
        async for kind, pod in watch(api, PODS, version):
            if pod["metadata"]["namespace"] == namespace:
                seen.see_pod(kind, pod)

    async def statuses(version: str) -> None:
        async for _, raw in watch(api, TRAINING_JOBS, version):
            if raw["metadata"]["namespace"] == namespace:
                seen.see_status(raw)

    for what, follow in ((PODS, pods), (TRAINING_JOBS, statuses)):
        listed = await api.request("GET", what.path(namespace), query={"limit": "1"})
        group.append(asyncio.create_task(follow(listed["metadata"]["resourceVersion"])))


async def _create(api: KubeApi, namespace: str, name: str) -> None:
    job = a_training_job(name, namespace=namespace, workers=WORKERS, checkpoint={"graceSeconds": 30})
    job["spec"]["gpus"] = {"count": 1, "models": ["L40S"]}
    await api.create(TRAINING_JOBS, namespace, job)


async def _listen(
    api: KubeApi, namespace: str, seen: Storm, group: list[asyncio.Task[None]], stack: AsyncExitStack
) -> None:
    """A client for each job, with the token of one of its pods."""
    trusted = (await api.get(CONFIG_MAPS, namespace, CONFIG_MAP))["data"]["ca.crt"]
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=trusted), limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    pods = (await api.request("GET", PODS.path(namespace)))["items"]
    first = {pod["metadata"]["labels"][NAME_LABEL]: pod for pod in pods if pod["metadata"]["name"].find("-1-0") > 0}

    async def start(job: Job) -> None:
        pod = first[job.name]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await api.request("POST", ACCOUNTS.path(namespace, "default", "token"), body)
        told = {v["name"]: v.get("value", "") for v in pod["spec"]["containers"][0]["env"]}
        headers = {"Authorization": f"Bearer {answer['status']['token']}"}
        group.append(asyncio.create_task(_poll(session, told["KUBEFLOW_TRAINER_SERVER_URL"], headers, job)))

    await _at_once([start(job) for job in seen.jobs.values()])


async def _poll(session: aiohttp.ClientSession, url: str, headers: dict[str, str], job: Job) -> None:
    """Wait for a request, and answer it with a checkpoint."""
    while not job.heard:
        async with session.get(url, params={"after": "", "wait": "50"}, headers=headers) as answer:
            body = await answer.json() if answer.status == 200 else {}
        if request := body.get("saveRequest"):
            job.heard = time.monotonic()
            checkpoint = {"step": 1, "time": to_rfc3339(time.time()), "bytes": 1, "seconds": 1.0}
            report = {"berth": {"step": 1, "checkpoint": checkpoint, "answers": request["id"]}}
            async with session.post(url, json=report, headers=headers) as answer:
                answer.raise_for_status()


async def _take_back(api: KubeApi, seen: Storm, count: int, within: float) -> None:
    """Mark nodes that hold workers, spread over the time."""
    held = sorted({node for job in seen.jobs.values() for node in job.nodes[1]})
    empty = sorted({f"storm-{i}" for i in range(count)} - set(held))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for i, node in enumerate([*held, *empty][:count]):
            await asyncio.sleep(max(0.0, began + i * within / count - time.monotonic()))
            seen.mark(node)
            group.create_task(api.merge(NODES, "", node, {"spec": {"taints": [TAINT]}}))


async def _listening(api: KubeApi, namespace: str, jobs: int) -> bool:
    listed = (await api.request("GET", TRAINING_JOBS.path(namespace)))["items"]
    return bool(sum((raw.get("status") or {}).get("listens") == 1 for raw in listed) == jobs)


async def _at_once(work: Sequence[Any]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(each: Any) -> None:
        async with gate:
            await each

    await asyncio.gather(*(one(each) for each in work))


async def _all(seen: Storm, holds: Callable[[Job], bool]) -> bool:
    return all(holds(job) for job in seen.jobs.values())


def _peak_mib(operator: OperatorProcess) -> float:
    assert operator.process is not None
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _summary(jobs: Sequence[Job], what: str) -> dict[str, float]:
    """Seconds from the mark on a job's first node."""
    waits = sorted(getattr(job, what) - job.hit for job in jobs if getattr(job, what))
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [0.0] * 99
    return {"count": len(waits), "p50": cuts[49], "p99": cuts[98], "last": waits[-1] if waits else 0.0}


def _show(outcome: dict[str, Any]) -> None:
    console = Console()
    about = f"{outcome['jobs']} jobs, {outcome['interrupted']} of {outcome['nodes']} nodes taken back"
    console.print(f"{about}: {outcome['affected']} jobs affected; seconds from the mark on their first node:")
    for key, label in (("decided", "decision in status"), ("heard", "long poll answered"), ("moved", "runs elsewhere")):
        row = outcome[key]
        console.print(
            f"  {label:20} {row['count']:4}  p50 {row['p50']:.2f}  p99 {row['p99']:.2f}  last {row['last']:.2f}"
        )
    console.print(
        f"operator: {outcome['cores']:.2f} cores over {outcome['seconds']:.0f} s, {outcome['peak_mib']:.0f} MiB"
    )
    for line in outcome["broken"]:
        console.print(line)
    console.print(outcome["machine"])


if __name__ == "__main__":
    app()
