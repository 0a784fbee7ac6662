"""The operator's control loop on an API server in memory, beside controllers that are just good enough.

A life of the operator knows only what the API server holds: `restart` ends one at any point and begins another.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from berth.adapters.mig_manager import MigManager
from berth.adapters.node_agents import NodeAgents
from berth.adapters.records import (
    Claim,
    Deployment,
    GPUNode,
    Job,
    Node,
    Pod,
    PriorityClass,
    Volume,
    read_gpu_node,
    read_job,
    read_node,
    read_pod,
)
from berth.api.convert import to_queue, to_workload
from berth.control.apply import Applier
from berth.control.cycle import Cycle
from berth.control.events import Recorder
from berth.control.meter import Meter
from berth.control.observe import Convert, Observer
from berth.control.partition import Partitioner, Partitions
from berth.control.picture import Picture
from berth.control.ports import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    GPU_NODES,
    INFERENCE_SERVICES,
    JOBS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    SERVICES,
    TRAINING_JOBS,
    VOLUME_CLAIMS,
    VOLUMES,
    Json,
    Resource,
)
from berth.control.status import to_rfc3339
from berth.control.validate import Validator
from berth.model.nodes import Way
from berth.model.prices import PriceBook
from berth.planning.actions import Plan
from berth.planning.carbon import Outlook
from berth.planning.metering import Intensity
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from tests.control.builders import is_gated
from tests.control.fakes import Call, FakeApi, HandClock

CONFIG_MAP = ("gpu-operator", "default-mig-parted-config")
OURS = (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES)
HOSTNAME = "kubernetes.io/hostname"
INDEX = "batch.kubernetes.io/job-completion-index"


class NoGauges:
    """Metrics nobody reads."""

    def cycled(self, seconds: float, snapshot: Snapshot, plan: Plan, now: float) -> None:
        """Nothing."""


class World:
    """A cluster in memory, and the operator of the moment."""

    policy = Policy()

    def __init__(self, *nodes: Json) -> None:
        self.clock = HandClock()
        self.api = FakeApi(self.clock)
        self.api.witness = self._witness
        self.broken: list[str] = []  # promises that were broken at any moment
        self.unwilling: set[str] = set()  # nodes that kube-scheduler binds nothing to
        self.silent: set[str] = set()  # nodes that are not heard of: nobody ends their pods
        self.outlooks: Mapping[str, Outlook] = {}  # of carbon intensity, by region
        self.prices = PriceBook()
        self.intensity: Intensity = lambda region, hour: None  # as the meter is told
        self.listening: set[str] = set()  # jobs whose programs ask for save requests, and answer them
        for node in nodes:
            self.api.put(NODES, node)
        self._begin()

    def _begin(self) -> None:
        self.picture = Picture()
        self.recorder = Recorder(self.api, self.clock)
        observer = Observer(self.picture, Convert(to_workload, to_queue))
        self.meter = Meter(self.picture, observer, self.api, self.clock, book=lambda: self.prices)
        self.meter.intensity = lambda region, hour: self.intensity(region, hour)
        self.applier = Applier(self.api, self.picture, self.clock, self.recorder, read_pod, read_job, meter=self.meter)
        ways: dict[Way, Partitioner] = {
            Way.MIG_MANAGER: MigManager(self.api, lambda: self.picture.nodes, *CONFIG_MAP),
            Way.AGENT: NodeAgents(self.api),
        }
        self.cycle = Cycle(
            partitions=Partitions(self.api, self.picture, self.clock, ways, read_pod, read_node, read_gpu_node),
            picture=self.picture,
            observer=observer,
            applier=self.applier,
            validator=Validator(self.api, self.clock),
            policy=self.policy,
            plan=plan,
            clock=self.clock,
            gauges=NoGauges(),
            debounce_seconds=0.0,
        )
        self.picture.wake = self.cycle.wake

    async def restart(self) -> None:
        """The operator is gone, with all it was about to do; another one starts."""
        for task in _others():
            task.cancel()
        await asyncio.gather(*_others(), return_exceptions=True)
        self.api.dead = False
        self._begin()

    # Time passes

    async def settle(self, turns: int = 60) -> None:
        """Let everybody work until nothing changes any more, or until the operator is dead."""
        quiet = 0
        for _ in range(turns):
            before = self.api.version, len(self.api.calls)
            await self.turn()
            self.run_controllers()
            self.clock.advance(2.0)
            quiet = quiet + 1 if (self.api.version, len(self.api.calls)) == before else 0
            if quiet == 2 or self.api.dead:
                return
        raise AssertionError(f"still changing after {turns} turns: {self.api.said()[-12:]}")

    async def turn(self) -> float | None:
        """The watches catch up, and one cycle's work is done as far as it can be; when the cycle wants another."""
        self.watch()
        self.cycle.observer.outlooks = self.outlooks
        wake_at = self.cycle.once()
        await self.rest()
        return wake_at

    async def rest(self) -> None:
        """Let every task go on until it ends or waits for what does not come."""
        calls = -1
        while _others() and calls != len(self.api.calls):
            calls = len(self.api.calls)
            for _ in range(12):  # a call takes two or three steps of the loop
                await asyncio.sleep(0)

    def watch(self) -> None:
        """All watches catch up."""
        picture = self.picture
        stores: tuple[tuple[Resource, type[Any], Any], ...] = (
            (NODES, Node, picture.nodes),
            (GPU_NODES, GPUNode, picture.gpu_nodes),
            (PODS, Pod, picture.pods),
            (JOBS, Job, picture.jobs),
            (DEPLOYMENTS, Deployment, picture.deployments),
            (PRIORITY_CLASSES, PriorityClass, picture.priorities),
            (VOLUME_CLAIMS, Claim, picture.claims),
            (VOLUMES, Volume, picture.volumes),
        )
        for resource, struct, store in stores:
            store.replace([msgspec.convert(raw, struct, strict=False).read() for raw in self.api.all(resource)])
        for resource in OURS:
            picture.resync(resource, self.api.all(resource), self.api.version + 1)

    # What others do

    def run_controllers(self) -> None:
        """Job and Deployment controllers, kube-scheduler and kubelets each do what there is to do."""
        for job in self.api.all(JOBS):
            self._run_job(job)
        for deployment in self.api.all(DEPLOYMENTS):
            self._run_deployment(deployment)
        for pod in list(self.api.all(PODS)):
            self._run_pod(pod)
        for name in self.listening:
            self._run_program(name)

    def end_pods(self, exit_code: int = 0) -> None:
        """Every running pod ends by itself."""
        for pod in self.api.all(PODS):
            if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                ended = {"state": {"terminated": {"exitCode": exit_code}}}
                phase = "Failed" if exit_code else "Succeeded"
                self._set_status(PODS, pod, {"phase": phase, "conditions": [], "containerStatuses": [ended]})

    def _run_job(self, job: Json) -> None:
        pods = self._pods_of(job)
        alive = [p for p in pods if p["status"]["phase"] not in ("Succeeded", "Failed")]
        if any(c["status"] == "True" for c in (job.get("status") or {}).get("conditions", ())):
            return
        if job["spec"].get("suspend"):
            for pod in alive:
                self.api.remove(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
            return
        if any(p["status"]["phase"] == "Failed" for p in pods):
            self._set_status(JOBS, job, {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailed"}]})
            return
        present = {p["metadata"]["annotations"][INDEX] for p in pods}
        if all(p["status"]["phase"] == "Succeeded" for p in pods) and len(present) == job["spec"]["completions"]:
            self._set_status(JOBS, job, {"conditions": [{"type": "Complete", "status": "True"}]})
        for index in range(job["spec"]["completions"]):
            if str(index) not in present:
                self.make_pod(job, f"-{index}-", {INDEX: str(index)})

    def _run_deployment(self, deployment: Json) -> None:
        pods = [p for p in self._pods_of(deployment) if "deletionTimestamp" not in p["metadata"]]
        for _ in range(deployment["spec"]["replicas"] - len(pods)):
            self.make_pod(deployment, "-", {})
        for pod in sorted(pods, key=_removed_first)[: max(0, len(pods) - deployment["spec"]["replicas"])]:
            self.api.remove(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        ready = sum(p["status"]["phase"] == "Running" for p in pods)
        self._set_status(DEPLOYMENTS, deployment, {"replicas": len(pods), "readyReplicas": ready})

    def make_pod(self, owner: Json, suffix: str, annotations: Json) -> None:
        """What a Job's or Deployment's controller makes."""
        template, metadata = owner["spec"]["template"], owner["metadata"]
        kind, name = ("Job", metadata["name"]) if owner["kind"] == "Job" else ("ReplicaSet", f"{metadata['name']}-5d9b")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": metadata["name"] + suffix,
                "namespace": metadata["namespace"],
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"] | annotations,
                "ownerReferences": [{"kind": kind, "name": name, "uid": metadata["uid"], "controller": True}],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.api.put(PODS, pod)

    def _run_pod(self, pod: Json) -> None:
        """kube-scheduler binds it where its pin says, if its boards are free there; then it runs at once."""
        metadata, spec = pod["metadata"], pod["spec"]
        key = (PODS, metadata["namespace"], metadata["name"])
        if "deletionTimestamp" in metadata and spec.get("nodeName") not in self.silent:
            del self.api.objects[key]
            self.api.version += 1
        elif not spec.get("nodeName") and not is_gated(pod):
            able = (n for n in self._nodes_with(spec["nodeSelector"]) if n not in self.unwilling)
            node = next((name for name in able if self._has_room(name, pod)), None)
            if node is not None:
                self.api.edit(*key, spec={"nodeName": node})
                self._set_status(PODS, pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})

    def _run_program(self, name: str) -> None:
        """It listens from its start on, and saves when it is asked to."""
        status = self.status(name)
        attempt, asked = status.get("attempt"), status.get("saveRequest") or {}
        if status.get("state") == "Running" and status.get("listens") != attempt:
            self.api.edit(TRAINING_JOBS, "team", name, status={"listens": attempt})
        answered = (status.get("checkpoint") or {}).get("answers")
        if status.get("placement") and asked.get("attempt") == attempt and asked["id"] != answered:
            saved = {"attempt": attempt, "step": 7, "time": to_rfc3339(self.clock()), "bytes": 1, "seconds": 1.0}
            self.api.edit(TRAINING_JOBS, "team", name, status={"checkpoint": {**saved, "answers": asked["id"]}})

    def _set_status(self, resource: Resource, raw: Json, status: Json) -> None:
        self.api.edit(resource, raw["metadata"]["namespace"], raw["metadata"]["name"], status=status)

    def _pods_of(self, owner: Json) -> list[Json]:
        uid = owner["metadata"]["uid"]
        return [p for p in self.api.all(PODS) if any(o["uid"] == uid for o in p["metadata"].get("ownerReferences", ()))]

    def _nodes_with(self, labels: Mapping[str, str]) -> list[str]:
        nodes = (node["metadata"] for node in self.api.all(NODES))
        return [str(node["name"]) for node in nodes if labels.items() <= node["labels"].items()]

    def _has_room(self, node: str, pod: Json) -> bool:
        raw = self.api.find(NODES, node)
        assert raw is not None
        bound = [p for p in self.api.all(PODS) if p["spec"].get("nodeName") == node]
        held = sum(gpus_of(p) for p in bound if p["status"]["phase"] not in ("Succeeded", "Failed"))
        return int(raw["status"]["allocatable"]["nvidia.com/gpu"]) - held >= gpus_of(pod)

    # What must always hold

    def _witness(self, call: Call) -> None:
        if call.verb == "create" and call.resource == JOBS:
            self._check_decided(call.body)
        promised: Counter[str] = Counter()
        for pod in self.api.all(PODS):
            if pod["status"]["phase"] not in ("Succeeded", "Failed") and not is_gated(pod):
                promised[pod["spec"].get("nodeName") or pod["spec"]["nodeSelector"].get(HOSTNAME, "")] += gpus_of(pod)
        for node in self.api.all(NODES):
            name, has = node["metadata"]["labels"][HOSTNAME], int(node["status"]["allocatable"]["nvidia.com/gpu"])
            if promised[name] > has:
                self.broken.append(f"{promised[name]} boards promised on {name}, which has {has} (at {call})")

    def _check_decided(self, job: Mapping[str, Any]) -> None:
        owner = job["metadata"]["ownerReferences"][0]["name"]
        raw = self.api.find(TRAINING_JOBS, owner, job["metadata"]["namespace"])
        status = (raw or {}).get("status") or {}
        if f"{owner}-{status.get('attempt')}" != job["metadata"]["name"] or not status.get("placement"):
            self.broken.append(f"{job['metadata']['name']} was made before its decision was recorded")

    # What it comes to

    def status(self, name: str, resource: Resource = TRAINING_JOBS) -> Json:
        """The status of a workload."""
        raw = self.api.find(resource, name)
        assert raw is not None, f"{name} is gone"
        found: Json = raw.get("status") or {}
        return found

    def pins(self) -> dict[str, str]:
        """The node that each ungated pod is pinned to, by the pod's name without its random end."""
        return {
            p["metadata"]["name"].rpartition("-")[0]: p["spec"]["nodeSelector"][HOSTNAME]
            for p in self.api.all(PODS)
            if not is_gated(p) and HOSTNAME in (p["spec"].get("nodeSelector") or {})
        }

    def state(self) -> Any:
        """All that the operator made and said, without names, versions and times that chance decides."""
        made = {
            f"{resource.plural} {name}": _timeless(raw.get("spec"))
            for resource in (JOBS, SERVICES, DEPLOYMENTS, DISRUPTION_BUDGETS, VOLUME_CLAIMS)
            for (kind, _, name), raw in self.api.objects.items()
            if kind == resource
        }
        said = {
            f"{resource.plural} {raw['metadata']['name']}": _timeless(raw.get("status"))
            for resource in OURS
            for raw in self.api.all(resource)
        }
        pods = Counter(
            (p["metadata"]["name"].rpartition("-")[0], p["spec"].get("nodeName"), is_gated(p), p["status"]["phase"])
            for p in self.api.all(PODS)
        )
        return {"made": made, "said": said, "pods": sorted(map(str, pods.items()))}


TIMES = ("lastTransitionTime", "admittedAt", "startedAt", "stoppingSince", "finishedAt", "notBefore", "until", "time")
IDS = ("id", "answers")  # of save requests, by the moment
CLOCK = re.compile(r"(\d\d:)?\d\d:\d\d UTC|after \d+ s")  # when a job that waits is to start, how long it waited
BY_TIME = ("countedAt", "boardHours", "part", "gpuSeconds", "workedSeconds")  # by the moment of the count


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            k: "some time" if k in (*TIMES, *IDS, *BY_TIME) else _timeless(v)
            for k, v in value.items()
            if k not in ("berth.dev/uid", "usage")  # of work that runs, the latter is written some time
        }
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return CLOCK.sub("some time", value) if isinstance(value, str) else value


def gpus_of(pod: Mapping[str, Any]) -> int:
    """Whole boards that a pod asks for."""
    return sum(
        int(c.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)) for c in pod["spec"]["containers"]
    )


def _removed_first(pod: Mapping[str, Any]) -> tuple[bool, bool, int]:
    """In which order a ReplicaSet removes pods."""
    cost = pod["metadata"]["annotations"].get("controller.kubernetes.io/pod-deletion-cost", "0")
    return bool(pod["spec"].get("nodeName")), pod["status"]["phase"] == "Running", int(cost)


def _others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
