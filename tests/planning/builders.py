"""Keyword builders of small clusters and workloads; a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from berth.model.gpus import MODELS, BoardModel
from berth.model.nodes import Node
from berth.model.reasons import Verdict
from berth.model.workloads import (
    Attempt,
    Demand,
    Device,
    Elastic,
    Group,
    Kind,
    Placement,
    Pod,
    PodPhase,
    PodShape,
    Queue,
    Ref,
    Request,
    RunPhase,
    Topology,
    TopologyMode,
    Workload,
)
from berth.planning.actions import Action, Admit, Plan
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot

NOW = 1_000_000.0
GIB = 2**30
LABELS = {
    "zone": "topology.kubernetes.io/zone",
    "block": "network.topology.nvidia.com/spine",
    "leaf": "topology.k8s.aws/network-node-layer-2",
    "rack": "berth.dev/rack",
    "nvlink": "nvidia.com/gpu.clique",
}


def model(name: str) -> BoardModel:
    """A board model of the table."""
    return next(m for m in MODELS if m.name == name)


def a_node(
    name: str,
    *,
    gpus: int = 8,
    board: str | None = "H100-80GB",
    mig: Mapping[str, int] | None = None,
    cpu: int = 64,
    memory_gib: int = 512,
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    **more: Any,
) -> Node:
    """A node; `labels` may use the names of levels, `mig` maps profiles to instances."""
    allocatable = {"cpu": cpu * 1000, "memory": memory_gib * GIB, "pods": pods}
    if board:
        allocatable["nvidia.com/gpu"] = gpus
    for profile, count in (mig or {}).items():
        allocatable["nvidia.com/mig-" + profile.replace("+", ".")] = count
    return Node(
        name,
        {"kubernetes.io/hostname": name} | {LABELS.get(k, k): v for k, v in (labels or {}).items()},
        allocatable,
        board=model(board) if board else None,
        **more,
    )


def racks(*, count: int, nodes: int, gpus: int = 8, board: str = "H100-80GB", zone: str = "z1") -> list[Node]:
    """Racks "r1", "r2"... of nodes "r1n1"..., all in one zone."""
    return [
        a_node(f"r{r}n{n}", gpus=gpus, board=board, labels={"zone": zone, "rack": f"r{r}"})
        for r in range(1, count + 1)
        for n in range(1, nodes + 1)
    ]


def shape(*, cpu: int = 0, memory_gib: int = 0, **more: Any) -> PodShape:
    """What a member asks for besides GPUs."""
    requests = {"cpu": cpu * 1000, "memory": memory_gib * GIB}
    return PodShape(tuple(sorted((k, v) for k, v in requests.items() if v)), **more)


def a_job(
    name: str = "job",
    *,
    workers: int = 1,
    gpus: int | None = None,
    profile: str | None = None,
    memory_gib: float | None = None,
    models: tuple[str, ...] = (),
    tensor: int = 1,
    required: str = "",
    preferred: str = "",
    groups: Mapping[int, str] | None = None,
    pipeline: int = 1,
    elastic: tuple[int, ...] = (),
    pod: PodShape | None = None,
    created: float = 0.0,
    kind: Kind = Kind.TRAINING_JOB,
    **more: Any,
) -> Workload:
    """A pending TrainingJob; one board a worker unless said otherwise.

    `elastic` are the fewest and the most workers, and the step. `groups` maps sizes to the levels that each group
    requires; with a "?" behind it, the level is preferred.
    """
    memory = None if memory_gib is None else int(memory_gib * GIB)
    if gpus is None and profile is None and memory is None:
        gpus = 1
    topology = None
    if required or preferred or groups:
        mode = TopologyMode.REQUIRED if required else TopologyMode.PREFERRED
        inner = [_group(size, level) for size, level in sorted((groups or {}).items(), reverse=True)]
        topology = Topology(required or preferred or "region", mode, tuple(inner))
    demand = Demand(gpus, profile, memory, models)
    bounds = Elastic(*elastic) if elastic else None
    request = Request(workers, demand, pod or shape(), tensor, topology, pipeline, bounds)
    return Workload(Ref(kind, "team", name, f"uid-{name}"), created, request, **more)


def _group(size: int, level: str) -> Group:
    return Group(size, level.rstrip("?"), TopologyMode.PREFERRED if level.endswith("?") else TopologyMode.REQUIRED)


def a_service(name: str = "service", *, replicas: int = 1, **more: Any) -> Workload:
    """An InferenceService without a Deployment yet."""
    return a_job(name, workers=replicas, kind=Kind.INFERENCE_SERVICE, **more)


def a_pod(phase: PodPhase, *, index: int = 0, node: str = "", name: str = "", **more: Any) -> Pod:
    """A pod of attempt 1 of a job."""
    name = name or f"pod-{index}"
    more.setdefault("attempt", 1)
    return Pod(name, f"uid-{name}", phase, index=index, node=node, **more)


def running(
    job: Workload,
    *nodes: str,
    phase: RunPhase = RunPhase.RUNNING,
    pods: PodPhase | None = PodPhase.GATED,
    device: Device | None = None,
    admitted_at: float = NOW,
    stopping: str = "",
    **more: Any,
) -> Workload:
    """The job with attempt 1 placed on these nodes, and a pod in that phase for each member (None: no pods)."""
    device = device or Device("H100-80GB", "nvidia.com/gpu", (job.request and job.request.demand.count) or 1)
    attempt = Attempt(1, Placement(device, nodes), admitted_at, phase, stopping)
    made = [a_pod(pods, index=i, node=n) for i, n in enumerate(nodes)] if pods else []
    if pods is PodPhase.GATED:
        made = [replace(pod, node="") for pod in made]
    if pods is PodPhase.PINNED:
        made = [replace(pod, pinned_at=NOW) for pod in made]
    return replace(job, **{"attempt": attempt, "attempts_made": 1, "pods": tuple(made), **more})


def a_snapshot(
    nodes: Iterable[Node],
    *workloads: Workload,
    used: Mapping[str, Mapping[str, int]] | None = None,
    queues: Iterable[Queue] = (),
    **more: Any,
) -> Snapshot:
    """A snapshot; `used` are the room that pods of others take, by node."""
    return Snapshot({n.name: n for n in nodes}, used or {}, workloads, {q.name: q for q in queues}, **more)


def planned(
    nodes: Iterable[Node], *workloads: Workload, now: float = NOW, policy: Policy | None = None, **more: Any
) -> Plan:
    """The plan for a small cluster."""
    return plan(a_snapshot(nodes, *workloads, **more), policy or Policy(), now)


def nodes_of(plan: Plan, name: str = "job") -> tuple[str, ...] | None:
    """Where a plan admits a job; None where it does not."""
    return next((a.placement.nodes for a in plan.actions if isinstance(a, Admit) and a.ref.name == name), None)


def device_of(plan: Plan, name: str = "job") -> str | None:
    """The device on which a plan admits a job, as "model resource count"."""
    for action in plan.actions:
        if isinstance(action, Admit) and action.ref.name == name:
            device = action.placement.device
            return f"{device.model} {device.resource.removeprefix('nvidia.com/')} {device.count}"
    return None


def verdict_of(plan: Plan, name: str = "job") -> Verdict:
    """What a plan says of a workload."""
    return plan.verdicts[f"uid-{name}"]


def only(plan: Plan, kind: type[Action]) -> list[Any]:
    """The actions of one kind."""
    return [a for a in plan.actions if isinstance(a, kind)]
