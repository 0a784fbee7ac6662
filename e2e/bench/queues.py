"""How fast work of many queues is admitted, and whether quotas hold, beside plain Jobs without an operator.

Both halves use the same cluster (the `local` provider: real API server, controller-manager, kube-scheduler, KWOK
nodes), one after the other: plain Jobs first, then, on the emptied cluster, TrainingJobs in queues under the operator
as a process. Both arrive as the same stream: small, medium and large ones mixed by a seed.

A workload is admitted when the last of its pods is bound to a node. Quotas are checked by watching pods: the boards of
those that are bound and have not ended, by queue and by cohort, at every event. Nothing is taken from our own status.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from berth.adapters.kube import KubeApi, connect
from berth.control.ports import JOBS, PODS, QUEUES, TRAINING_JOBS, Conflict, Resource, Unavailable
from berth.control.records import NAME_LABEL
from e2e.bench.first_light import CONNECTIONS, GROUP_LABEL, NAMESPACE, all_ready, cpu_seconds, empty
from e2e.cluster.provider import Cluster, Provider, running
from e2e.harness import a_training_job, an_operator, install, make_fleet, make_namespace, until, watch

RUN_SECONDS = "kwok.berth.dev/run-seconds"
PATIENCE_SECONDS = 180.0  # without any workload starting or ending, before the run is given up
TELL_SECONDS = 10.0  # between two lines of how far a half is
PATIENT = {"leaseDurationSeconds": 90, "renewDeadlineSeconds": 60}  # two cores that do all this may answer late
COHORTS = 3
SEED = 42

app = typer.Typer()


@dataclass(frozen=True)
class Size:
    """A kind of workload: how many of all are so, and what each asks for."""

    name: str
    part: float
    workers: int
    boards: int  # each worker's
    run_seconds: int


SIZES = (Size("small", 0.70, 1, 1, 5), Size("medium", 0.22, 1, 5, 10), Size("large", 0.08, 4, 5, 20))


@dataclass(frozen=True)
class Item:
    """One workload of the stream."""

    name: str
    size: Size
    queue: str


@dataclass
class Seen:
    """What the pods showed."""

    items: dict[str, Item]
    limits: dict[str, int]  # boards by queue, and by cohort
    cohort_of: dict[str, str]
    created: dict[str, float] = field(default_factory=dict)
    bound: dict[str, set[str]] = field(default_factory=dict)  # pods ever bound, by workload
    admitted: dict[str, float] = field(default_factory=dict)  # seconds after creation
    ended: set[str] = field(default_factory=set)
    held: Counter[str] = field(default_factory=Counter)  # boards by queue, and by cohort
    most: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    last_change: float = field(default_factory=time.monotonic)
    _holding: dict[str, str] = field(default_factory=dict)  # queue by the uid of a pod that holds boards

    def take(self, kind: str, pod: dict[str, Any], name: str) -> None:
        """One event of a pod of ours."""
        item, uid = self.items[name], pod["metadata"]["uid"]
        phase = pod["status"].get("phase")
        if pod["spec"].get("nodeName"):
            self._bind(item, pod["metadata"]["name"])
        holds = bool(pod["spec"].get("nodeName")) and phase not in ("Succeeded", "Failed") and kind != "DELETED"
        if holds != (uid in self._holding):
            self._hold(item, uid, 1 if holds else -1)
        if phase == "Succeeded" and name not in self.ended:
            self.ended.add(name)
            self.last_change = time.monotonic()

    def _bind(self, item: Item, pod: str) -> None:
        there = self.bound.setdefault(item.name, set())
        there.add(pod)
        if len(there) == item.size.workers and item.name not in self.admitted:
            self.last_change = time.monotonic()
            self.admitted[item.name] = self.last_change - self.created[item.name]

    def _hold(self, item: Item, uid: str, sign: int) -> None:
        if sign > 0:
            self._holding[uid] = item.queue
        else:
            del self._holding[uid]
        for who in (item.queue, self.cohort_of[item.queue]):
            self.held[who] += sign * item.size.boards
            self.most[who] = max(self.most[who], self.held[who])
            if self.held[who] > self.limits[who]:
                self.broken.append(f"{who} held {self.held[who]} boards, {self.limits[who]} are its limit")


@app.command()
def main(
    workloads: Annotated[int, typer.Option(help="workloads in all")] = 5000,
    queues: Annotated[int, typer.Option(help="queues, in three cohorts")] = 30,
    nodes: Annotated[int, typer.Option(help="KWOK nodes of 8 boards")] = 1000,
    nominal: Annotated[int, typer.Option(help="boards that each queue owns")] = 40,
    borrowing: Annotated[int, typer.Option(help="boards that each may hold beyond these")] = 80,
    per_second: Annotated[float, typer.Option(help="workloads that arrive in a second")] = 20,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Admit a stream of workloads of 30 queues. Exit status 1 where a quota was exceeded."""
    if max(size.workers * size.boards for size in SIZES) > min(nominal + borrowing, queues // COHORTS * nominal):
        raise typer.BadParameter("the quotas of a queue, or of its cohort, are too small for the large workloads")
    stream = _stream(workloads, queues)
    with running(Provider.LOCAL, name="queues", fake_nodes=0) as cluster:
        outcome = asyncio.run(_compare(cluster, stream, nodes, nominal, borrowing, per_second))
    if json_output:
        typer.echo(json.dumps(outcome))
    else:
        _show(outcome)
    raise typer.Exit(1 if outcome["berth"]["broken"] else 0)


def _stream(workloads: int, queues: int) -> list[Item]:
    chance = random.Random(SEED)
    sizes = [size for size in SIZES for _ in range(round(workloads * size.part))][:workloads]
    sizes += [SIZES[0]] * (workloads - len(sizes))
    chance.shuffle(sizes)
    return [Item(f"w{i}-{size.name}", size, f"q{i % queues}") for i, size in enumerate(sizes)]


async def _compare(
    cluster: Cluster, stream: Sequence[Item], nodes: int, nominal: int, borrowing: int, per_second: float
) -> dict[str, Any]:
    pool = {"name": "bench", "count": nodes, "board": "H100-80GB", "boardsPerNode": 8, "racks": {"nodesPerRack": 4}}
    names = sorted({item.queue for item in stream})
    cohort_of = {queue: f"cohort{i % COHORTS}" for i, queue in enumerate(names)}
    sizes = Counter(cohort_of.values())
    limits = dict.fromkeys(names, nominal + borrowing) | {c: n * nominal for c, n in sizes.items()}
    unlimited = dict.fromkeys(limits, 10**9)

    async with connect(str(cluster.kubeconfig)) as api:
        await install(api)
        await make_namespace(api, NAMESPACE)
        await make_fleet(cluster.kubeconfig, pool)
        await until(lambda: all_ready(api, nodes), "all nodes are ready", 300, 0.5)
        plain = Seen({item.name: item for item in stream}, unlimited, cohort_of)
        began = time.monotonic()
        await _run(api, JOBS, stream, plain, _plain_job, GROUP_LABEL, per_second)
        plain_seconds = time.monotonic() - began
        await empty(api)
        await _make_queues(api, cohort_of, nominal, borrowing)
        berth = Seen({item.name: item for item in stream}, limits, cohort_of)
        with an_operator(cluster.kubeconfig, leaderElection=PATIENT) as operator:
            before, began = cpu_seconds(operator), time.monotonic()
            await _run(api, TRAINING_JOBS, stream, berth, _job, NAME_LABEL, per_second, lambda: operator.alive)
            seconds, cpu = time.monotonic() - began, cpu_seconds(operator) - before
    return {
        "plain": _summary(plain, plain_seconds),
        "berth": {**_summary(berth, seconds), "operator_cpu_seconds": cpu, "limits": limits},
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }


async def _make_queues(api: KubeApi, cohort_of: dict[str, str], nominal: int, borrowing: int) -> None:
    def body(name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "berth.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}

    quota = {"model": "H100", "nominal": nominal, "borrowingLimit": borrowing}
    for cohort in sorted(set(cohort_of.values())):
        await api.create(QUEUES, "", body(cohort))
    for queue, cohort in cohort_of.items():
        await api.create(QUEUES, "", body(queue, parent=cohort, quotas=[quota]))


async def _run(
    api: KubeApi,
    what: Resource,
    stream: Sequence[Item],
    seen: Seen,
    body_of: Callable[[Item], dict[str, Any]],
    label: str,
    per_second: float,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Let the stream arrive, and return once every workload has ended."""
    version = (await api.request("GET", PODS.path(NAMESPACE), query={"limit": "1"}))["metadata"]["resourceVersion"]
    following = asyncio.create_task(_follow(api, version, seen, label))
    arriving = asyncio.create_task(_arrive(api, what, stream, seen, body_of, per_second))
    began = told = time.monotonic()
    while not following.done():
        await asyncio.wait([following], timeout=1)
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            _tell(what, seen, told - began)
        if arriving.done() and arriving.exception():
            break
        if not alive() or time.monotonic() - seen.last_change > PATIENCE_SECONDS:
            raise AssertionError(f"{len(seen.ended)} of {len(stream)} ended; operator alive: {alive()}")
    arriving.result()
    following.result()


def _tell(what: Resource, seen: Seen, seconds: float) -> None:
    counts = f"{len(seen.created)} created, {len(seen.admitted)} admitted, {len(seen.ended)} ended"
    held = sum(seen.held[queue] for queue in seen.cohort_of)
    print(f"{what.plural}, {seconds:.0f} s: {counts}, {held} boards held", file=sys.stderr)


async def _arrive(
    api: KubeApi,
    what: Resource,
    stream: Sequence[Item],
    seen: Seen,
    body_of: Callable[[Item], dict[str, Any]],
    per_second: float,
) -> None:
    gate = asyncio.Semaphore(CONNECTIONS)

    async def create(item: Item) -> None:
        async with gate:
            seen.created[item.name] = time.monotonic()
            await _make(api, what, body_of(item))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for i, item in enumerate(stream):
            await asyncio.sleep(max(0.0, began + i / per_second - time.monotonic()))
            group.create_task(create(item))


async def _make(api: KubeApi, what: Resource, body: dict[str, Any]) -> None:
    """Create it, however often that takes: a busy API server may leave us without an answer."""
    while True:
        try:
            await api.create(what, NAMESPACE, body)
        except Conflict:
            return
        except Unavailable:
            continue
        return


async def _follow(api: KubeApi, version: str, seen: Seen, label: str) -> None:
    async for kind, pod in watch(api, PODS, version):
        name = (pod["metadata"].get("labels") or {}).get(label, "")
        if name in seen.items:
            seen.take(kind, pod, name)
            if len(seen.ended) == len(seen.items):
                return


def _job(item: Item) -> dict[str, Any]:
    size = item.size
    annotations = {RUN_SECONDS: str(size.run_seconds)}
    body = a_training_job(item.name, namespace=NAMESPACE, workers=size.workers, annotations=annotations)
    body["spec"] |= {"gpus": {"count": size.boards, "models": ["H100"]}, "queueName": item.queue}
    return body


def _plain_job(item: Item) -> dict[str, Any]:
    """The same pods as a plain Job, with no quota."""
    size = item.size
    template = _job(item)["spec"]["template"]
    resources = template["spec"]["containers"][0]["resources"]
    resources["limits"] = {"nvidia.com/gpu": str(size.boards)}
    template["metadata"]["labels"] = {GROUP_LABEL: item.name}
    template["spec"]["restartPolicy"] = "Never"
    spec = {"completions": size.workers, "parallelism": size.workers, "backoffLimit": 0, "template": template}
    spec["completionMode"] = "Indexed"
    metadata = {"name": item.name, "namespace": NAMESPACE}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _summary(seen: Seen, seconds: float) -> dict[str, Any]:
    waits: dict[str, list[float]] = {size.name: [] for size in SIZES}
    for name, waited in seen.admitted.items():
        waits[seen.items[name].size.name].append(waited)
    cuts = {name: quantiles(found, n=100, method="inclusive") for name, found in waits.items() if len(found) > 1}
    rows = {
        name: {"count": len(waits[name]), "mean": mean(waits[name]), "p50": cut[49], "p99": cut[98]}
        for name, cut in cuts.items()
    }
    return {
        "seconds": seconds,
        "admitted_per_second": len(seen.admitted) / seconds,
        "ended": len(seen.ended),
        "waits": rows,
        "most_boards": dict(seen.most),
        "broken": seen.broken[:20],
    }


def _show(outcome: dict[str, Any]) -> None:
    table = Table(title="seconds from creation until all pods are bound, by size; plain Jobs have no quota")
    for name in ("", "size", "count", "mean", "p50", "p99"):
        table.add_column(name, justify="right" if name not in ("", "size") else "left")
    for half, label in (("plain", "plain Jobs"), ("berth", "Berth")):
        for size, row in outcome[half]["waits"].items():
            table.add_row(label, size, str(row["count"]), *(f"{row[key]:.2f}" for key in ("mean", "p50", "p99")))
    for size, row in outcome["berth"]["waits"].items():
        plain = outcome["plain"]["waits"][size]
        table.add_row("ratio", size, "", *(f"{row[key] / plain[key]:.1f}" for key in ("mean", "p50", "p99")))
    console = Console()
    console.print(table)
    for half, label in (("plain", "plain Jobs"), ("berth", "Berth")):
        found = outcome[half]
        rate = f"{found['admitted_per_second']:.1f} admitted a second"
        console.print(f"{label}: {found['ended']} ended in {found['seconds']:.0f} s, {rate}")
    berth = outcome["berth"]
    tightest = max(berth["limits"], key=lambda who: berth["most_boards"].get(who, 0) / berth["limits"][who])
    console.print(
        f"quotas exceeded: {len(berth['broken'])}; {tightest} came closest to its limit, with"
        f" {berth['most_boards'].get(tightest, 0)} of {berth['limits'][tightest]} boards"
    )
    for line in berth["broken"]:
        console.print(line)
    console.print(f"operator: {berth['operator_cpu_seconds']:.1f} s of CPU; {outcome['machine']}")


if __name__ == "__main__":
    app()
