"""The fleet on KWOK: creates the nodes, then plays kubelet device manager and node agent for all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from e2e.fakegpu.fleet import Fleet
from e2e.fakegpu.kube import CONNECTIONS, ApiError, Kube
from e2e.fakegpu.migmanager import DelayedConfig, MigManager
from e2e.fakegpu.node import Node, Refused
from e2e.fakegpu.objects import NodeObject, PodObject, follow_config
from e2e.fakegpu.reporter import Gate, Reporter
from e2e.fakegpu.status import COLLECTION, restore

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
WRITE_INTERVAL_SECONDS = 1.0  # per node: a burst of pods costs one GPUNode write
WRITERS = 8  # at most so many writes at once, so that the fleet never crowds out what is tested


@dataclass(slots=True)
class Played:
    """One KWOK node and all that we simulate of it."""

    node: Node
    manager: MigManager
    reporter: Reporter
    exists: bool = False
    allocatable: dict[str, int] = field(default_factory=dict)  # of GPU resources, in the API
    dirty: bool = True
    next_write: float = 0.0

    def due(self, now: float) -> bool:
        """Whether something is to be written, and may be."""
        return self.exists and now >= self.next_write and (self.dirty or self.reporter.due(now))

    async def write(self, kube: Kube, now: float) -> bool:
        """Bring the API up to date with the simulation; False if some of it has to wait."""
        await self.write_resources(kube)
        return await self.reporter.write(kube, now)

    async def write_resources(self, kube: Kube) -> None:
        """Set capacity and allocatable as a kubelet would."""
        allocatable = self.node.allocatable()
        if allocatable != self.allocatable:
            counts = {"capacity": _text(self.node.capacity()), "allocatable": _text(allocatable)}
            await kube.merge(f"/api/v1/nodes/{self.node.member.name}/status", {"status": counts})
            self.allocatable = allocatable


def _text(counts: dict[str, int]) -> dict[str, str]:
    return {name: str(count) for name, count in counts.items()}


class KwokFleet:
    """All fake nodes of a fleet file."""

    def __init__(self, kube: Kube, fleet: Fleet, taint: dict[str, str] | None = None) -> None:
        """`taint` is a Taint object that every node gets, to keep ordinary pods of mixed clusters away."""
        self.kube = kube
        self.fleet = fleet
        self.taint = taint
        self.config = DelayedConfig(fleet.mig_manager.config_delay_seconds)
        self._gate = Gate()
        self.nodes = {member.name: self._played(Node.of(fleet, member)) for member in fleet.fake_nodes()}
        self._pods: set[str] = set()  # uids of the pods that have devices
        self.refused: dict[str, tuple[PodObject, str]] = {}  # uid -> pod that must be told, and the message
        self._waiting: list[PodObject] | None = []  # pods of the first listing, until all are in

    def _played(self, node: Node) -> Played:
        manager = MigManager(node, self.fleet.mig_manager.apply_seconds)
        return Played(node, manager, Reporter(node, manager, self._gate))

    async def create(self) -> None:
        """Create every node with its labels and resources; those that exist are brought up to date."""
        await self._recall()
        await _limited(CONNECTIONS, [self._create(played) for played in self.nodes.values()])

    async def _create(self, played: Played) -> None:
        # one write for a new node; of one that exists, the API server ignores the status
        played.reporter.base = _manifest(played.node, self.taint)
        node = await played.reporter.apply_node(self.kube)
        self.observe_node("ADDED", msgspec.convert(node, NodeObject))
        await played.write_resources(self.kube)

    async def run(self) -> None:
        """Play the nodes until cancelled. Call `create` before."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_nodes())
            group.create_task(follow_config(self.kube, self.fleet.mig_manager, self.config))
            group.create_task(self._follow_pods())
            group.create_task(self._tick())

    async def _recall(self) -> None:
        """Take layouts and holders from the GPUNodes of an earlier run, as hardware outlives its drivers."""
        try:
            listed = await self.kube.request("GET", COLLECTION)
        except ApiError as error:
            log.info("no GPUNodes to start from: %s", error)
            return
        for item in listed["items"]:
            played = self.nodes.get(item["metadata"]["name"])
            if played is not None:
                for holder, ids in restore(played.node, item.get("status") or {}).items():
                    played.node.adopt(holder, ids)

    async def _follow_nodes(self) -> None:
        async for kind, node in self.kube.watch("/api/v1/nodes", NodeObject):
            if node is not None:
                self.observe_node(kind, node)

    def observe_node(self, kind: str, node: NodeObject) -> None:
        """Take one event of a node: its label, its annotation, and what the API says of its resources."""
        played = self.nodes.get(node.metadata.name)
        if played is None:
            return
        played.exists = kind != "DELETED"
        if not played.exists:
            played.reporter.forget()
        played.manager.label(node.mig_config)
        played.manager.held = node.held
        played.node.set_unhealthy(node.unhealthy)
        played.node.load = node.load
        known = played.node.capacity()
        played.allocatable = {n: int(v) for n, v in node.status.allocatable.items() if n in known}
        played.reporter.uid = node.metadata.uid
        played.dirty = True

    async def _follow_pods(self) -> None:
        async for kind, pod in self.kube.watch("/api/v1/pods", PodObject, fieldSelector="spec.nodeName!="):
            if pod is not None and self._waiting is not None:
                self._waiting.append(pod)
            elif pod is not None:
                self.observe_pod(kind, pod)
            elif self._waiting is not None:
                self._settle(self._waiting)
                self._waiting = None

    def _settle(self, pods: list[PodObject]) -> None:
        """Take the pods of the first listing, oldest first, and drop what pods of an earlier run held."""
        live = {pod.holder for pod in pods if not pod.ended}
        for played in self.nodes.values():
            for holder in set(played.node.holders.values()) - live:
                played.node.release(holder)
        for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
            self.observe_pod("ADDED", pod)

    def observe_pod(self, kind: str, pod: PodObject) -> None:
        """Take one event of a bound pod: hand out devices, refuse it, or take its devices back."""
        played = self.nodes.get(pod.spec.node_name)
        if played is None:
            return
        if kind == "DELETED" or pod.ended:
            if pod.metadata.uid in self._pods:
                self._pods.remove(pod.metadata.uid)
                played.dirty |= played.node.release(pod.holder)
            self.refused.pop(pod.metadata.uid, None)
        elif pod.metadata.uid in self.refused:
            self.refused[pod.metadata.uid] = (pod, self.refused[pod.metadata.uid][1])
        elif pod.metadata.uid not in self._pods and (requests := pod.devices()):
            self._admit(played, pod, requests)

    def _admit(self, played: Played, pod: PodObject, requests: dict[str, int]) -> None:
        if pod.holder not in played.node.holders.values():
            try:
                played.node.admit(pod.holder, requests)
            except Refused as refusal:
                self.refused[pod.metadata.uid] = (pod, str(refusal))
                return
        self._pods.add(pod.metadata.uid)
        played.dirty = True

    def advance(self, now: float) -> None:
        """Let mig-manager work on every node until `now`."""
        config = self.config.read(now)
        for played in self.nodes.values():
            played.dirty |= played.manager.step(now, config)

    async def _tick(self) -> None:
        await self.config.mounted.wait()  # a pod starts with its files
        while True:
            now = time.monotonic()
            self.advance(now)
            await self.flush(now)
            await asyncio.sleep(TICK_SECONDS)

    async def flush(self, now: float) -> None:
        """Write what changed, of nodes whose last write is long enough ago, and tell refused pods."""
        due = [played for played in self.nodes.values() if played.due(now)]
        await _limited(WRITERS, [self._write(played, now) for played in due])
        # KWOK writes Running without looking, so a word before that would be overwritten
        told = [uid for uid, (pod, _) in self.refused.items() if pod.status.phase != "Pending"]
        await _limited(WRITERS, [self._refuse(uid) for uid in told])

    async def _write(self, played: Played, now: float) -> None:
        played.dirty, played.next_write = False, now + WRITE_INTERVAL_SECONDS
        try:
            if not await played.write(self.kube, now):
                played.dirty = True
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s: %s", played.node.member.name, error)
            played.dirty = True

    async def _refuse(self, uid: str) -> None:
        pod, message = self.refused[uid]
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/status"
        status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message}
        try:
            await self.kube.merge(path, {"metadata": {"uid": uid}, "status": status})
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s: %s", path, error)  # told again at the next tick, unless it is gone by then


async def _limited(most: int, jobs: list[Coroutine[Any, Any, None]]) -> None:
    """Run all jobs, at most so many at a time."""
    gate = asyncio.Semaphore(most)

    async def one(job: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await job

    await asyncio.gather(*map(one, jobs))


def _manifest(node: Node, taint: dict[str, str] | None) -> dict[str, Any]:
    """A Node without its GPU labels, as a kubelet registers itself. KWOK makes it ready once it plays it."""
    name, pool = node.member.name, node.member.pool
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    host = {"cpu": pool.cpu, "memory": pool.memory, "ephemeral-storage": pool.ephemeral_storage}
    host["pods"] = str(pool.pods)
    return {
        "metadata": {"labels": labels | {"type": "kwok"}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "spec": {"taints": [taint]} if taint else {},
        "status": {
            "capacity": host | _text(node.capacity()),
            "allocatable": host | _text(node.allocatable()),
            "addresses": [{"type": "Hostname", "address": name}],
        },
    }
