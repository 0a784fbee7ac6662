"""TrainingJob: a gang of workers, placed all or none."""

from __future__ import annotations

from itertools import pairwise
from math import gcd, lcm
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from berth.api.common import (
    ClaimName,
    ClaimStatus,
    Condition,
    DeviceStatus,
    Duration,
    Gpus,
    LevelName,
    Parallelism,
    PodTemplate,
    PriorityClassName,
    QueueName,
    StorageClassName,
    StorageQuantity,
    VerdictStatus,
    conditions_field,
)
from berth.api.crd import Column, CustomResource
from berth.api.schema import Fields, Reported, Schema, Text, Timestamp, list_map, rule, rules
from berth.api.terms import Carbon, Moment, Spot
from berth.api.usage import UsageStatus
from berth.model.topology import NVLINK_LEVEL

MOST_WORKERS = 10_000
# Pods of an Indexed Job have the host name <job>-<index>, at most 63 characters, and each attempt's Job is named
# <name>-<attempt>: room is left for 99,999 attempts and for the index of the last worker.
LONGEST_NAME = 63 - len("-99999") - len(f"-{MOST_WORKERS - 1}")

_FIXED = (
    "can't change while the job is not suspended: set spec.suspend to true (it may be in the same update), "
    "or make a new TrainingJob"
)
_CONTAINER = "names no container of spec.template: use the name of one of them, or leave it out for the first"
_TENSOR = "above 1 needs spec.gpus.count, and must divide workers x gpus.count: lower it or ask for more boards"
_PIPELINE = "must divide workers: use a divisor of it, or change spec.workers to a multiple"
_NESTED = "sizes must differ, and each must divide the next larger one, such as 2, 4 and 16: change one of them"
_GROUPS = "each size must divide workers: use a divisor of it, or change spec.workers to a multiple"
_ELASTIC = "minWorkers must be at most workers, and maxWorkers at least: change one of them"
_WHOLE_GROUPS = (
    "minWorkers and maxWorkers must be multiples of parallelism.pipeline, of each size in topology.groups and of the "
    "workers that parallelism.tensor spans: a gang grows and shrinks by whole groups"
)
_ONE_CLAIM = "can't be set beside claim: leave out one of them"
_GROUP_OF_INSTANCES = "level nvlink needs whole boards, since MIG instances share no NVLink: set spec.gpus.count"


class TopologyGroup(Fields):
    """Workers that stay closer together than the gang as a whole."""

    size: int = Field(ge=2, le=MOST_WORKERS)
    """Workers of each group: those of consecutive ranks, from rank 0 on. It divides the number of workers."""
    level: LevelName
    """Name of a level of the operator's configuration, such as nvlink: each group in one domain of that level. A node
    that has no label for the level shares a domain with none but those of its next closer labelled domain, else with
    itself."""
    mode: Literal["Required", "Preferred"] = "Preferred"
    """Required: wait until each group finds a domain. Preferred: keep the groups together where all of them can be,
    without putting the gang as a whole further apart."""


class Topology(Fields):
    """How close together the gang's nodes are."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.groups) || self.groups.all(one, self.groups.all(other, "
                "one.size % other.size == 0 || other.size % one.size == 0))",
                _NESTED,
                ".groups",
            )
        )
    )

    level: LevelName
    """Name of a level of the operator's configuration, such as rack: all members in one domain of that level."""
    mode: Literal["Required", "Preferred"] = "Preferred"
    """Required: wait until one domain holds all members. Preferred: else take the next broader level."""
    groups: list[TopologyGroup] | None = Field(None, max_length=4, json_schema_extra=list_map("size"))
    """Groups of workers that stay closer together, such as every 2 in one NVLink domain. Groups may lie in groups: each
    size divides the next larger one, on a level that is no broader."""

    @field_validator("groups")
    @classmethod
    def _nested(cls, groups: list[TopologyGroup] | None) -> list[TopologyGroup] | None:
        sizes = sorted(group.size for group in groups or ())
        if any(larger % smaller or larger == smaller for smaller, larger in pairwise(sizes)):
            raise ValueError(_NESTED)
        return groups


class TrainingParallelism(Parallelism):
    """How the program splits its work, as far as placement depends on it."""

    pipeline: int = Field(1, ge=1, le=MOST_WORKERS)
    """Stages of the pipeline: equal runs of consecutive ranks, as Megatron-LM and DeepSpeed number them. The workers of
    a stage are kept as close together as there is room, and each stage beside the next."""


class Elastic(Fields):
    """How far the gang may shrink instead of being stopped or waiting, and grow into boards that nobody else wants."""

    min_workers: int = Field(ge=1, le=MOST_WORKERS)
    """Fewest workers to run with. At most workers; a multiple of parallelism.pipeline and of the sizes of groups."""
    max_workers: int = Field(ge=1, le=MOST_WORKERS)
    """Most workers to run with. At least workers, and such a multiple too."""


def _fixed(field: str, required: bool = True) -> Schema:
    """A rule that the field stays as it is, unless the job is suspended before or after the update."""
    same = f"self.{field} == oldSelf.{field}"
    if not required:
        same = f"(has(self.{field}) ? has(oldSelf.{field}) && {same} : !has(oldSelf.{field}))"
    return rule(f"self.suspend || oldSelf.suspend || {same}", _FIXED, f".{field}")


class ClaimTemplate(Fields):
    """A PersistentVolumeClaim that is made for the job."""

    size: StorageQuantity
    """How much room it asks for, such as 500Gi."""
    storage_class_name: StorageClassName | None = None
    """StorageClass of its volume. Absent: the cluster's default one."""
    access_modes: list[Literal["ReadWriteMany", "ReadWriteOnce"]] = Field(
        default=["ReadWriteMany"], min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """How nodes may mount it. With ReadWriteOnce all workers have to be on one node, and the next attempt where the
    volume can be mounted."""


class Checkpoint(Fields):
    """Where and how often the program saves its state, as docs/checkpoints.md has it."""

    model_config = ConfigDict(
        json_schema_extra=rules(rule("!has(self.claim) || !has(self.claimTemplate)", _ONE_CLAIM, ".claimTemplate"))
    )

    claim: ClaimName | None = None
    """PersistentVolumeClaim of the job's namespace, mounted at path in every container. Absent: claimTemplate, or the
    template mounts something there itself."""
    claim_template: ClaimTemplate | None = None
    """Makes the PersistentVolumeClaim <name>-checkpoints before the first attempt, mounted like claim. It is deleted
    with the job, and with it the checkpoints. Later changes of this field do not change it."""
    path: Annotated[str, Text(("^/[^:]*$",), "must be an absolute path without ':', such as /checkpoints", 256)] = (
        "/checkpoints"
    )
    """Folder in the containers. Each attempt saves below it, in a folder of its own, CHECKPOINT_DIR."""
    interval: Annotated[
        str,
        Text(
            ("^(auto|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$", "auto|[1-9]"),
            "must be auto, or a duration such as 15m or 1h30m",
            16,
        ),
    ] = "auto"
    """Time from the end of one save to the beginning of the next, such as 15m; auto: by the time that saves take, and
    by how often nodes like the gang's fail."""
    grace_seconds: int = Field(120, ge=1, le=600)
    """Seconds from SIGTERM to SIGKILL: a step and a save should fit. Spot capacity may give less."""

    @field_validator("claim_template")
    @classmethod
    def _one_claim(cls, made: ClaimTemplate | None, info: ValidationInfo) -> ClaimTemplate | None:
        if made is not None and info.data.get("claim") is not None:
            raise ValueError(_ONE_CLAIM)
        return made


class Restart(Fields):
    """What happens when an attempt ends badly, or gets on no more, as docs/failures.md has it."""

    max_restarts: int = Field(3, ge=0, le=1000)
    """Restarts after crashes, in all. The job fails with the next crash. Exits with 75, lost nodes, evictions and
    whatever else the program can't help do not count."""
    backoff: Duration = "10s"
    """Wait before a restart, such as 10s. It doubles with each attempt that ends in vain, up to 5 min, and begins anew
    after one that saved something new or ran for 10 min."""
    hang_timeout: Annotated[
        str,
        Text(
            ("^(auto|never|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$", "auto|never|[1-9]"),
            "must be auto, never, or a duration such as 30m or 1h30m",
            16,
        ),
    ] = "auto"
    """Time without reported progress after which the attempt is restarted elsewhere, such as 30m. The next such one
    in a row counts as a crash, unless something new was saved in between. auto: by the pace of the program, where it
    reports steps or a percentage. A duration counts from the start where a program reports nothing."""


class IdlePolicy(Fields):
    """What happens to a job whose boards do next to nothing, as docs/idle.md has it."""

    action: Literal["Report", "Warn", "Suspend"] = "Report"
    """Report: say so in status, an event and a metric. Warn: the event is a warning. Suspend: ask the workers to save
    too, then set spec.suspend."""
    after_minutes: int = Field(30, ge=10, le=100_000)
    """Minutes for which all boards have to be idle. They are seen as means of five minutes."""
    below_percent: int = Field(5, ge=5, le=50)
    """Utilization of a board, in percent of the time, below which it is idle."""


_NO_GROUPS = "!has(self.topology) || !has(self.topology.groups)"
_GROUPS_PATH = ".topology.groups"
_RIGID = "!has(self.elastic)"
_ELASTIC_PATH = ".elastic"
FIXED = ("workers", "elastic", "gpus", "parallelism", "topology", "queue_name", "template")


def _both(condition: str) -> str:
    """The condition for the fewest and for the most workers, written as N, of a job that is elastic."""
    return f"{_RIGID} || [self.elastic.minWorkers, self.elastic.maxWorkers].all(n, {condition})"


class TrainingJobSpec(Fields):
    """What is to run, and what it needs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _fixed("workers"),
            _fixed("elastic", required=False),
            _fixed("gpus"),
            _fixed("parallelism"),
            _fixed("topology", required=False),
            _fixed("queueName", required=False),
            _fixed("template"),
            rule(
                "!has(self.gpus.container) || "
                "self.template.spec.containers.exists(container, container.name == self.gpus.container)",
                _CONTAINER,
                ".gpus.container",
            ),
            rule(
                "self.parallelism.tensor == 1 || "
                "has(self.gpus.count) && self.workers * self.gpus.count % self.parallelism.tensor == 0",
                _TENSOR,
                ".parallelism.tensor",
            ),
            rule("self.workers % self.parallelism.pipeline == 0", _PIPELINE, ".parallelism.pipeline"),
            rule(f"{_NO_GROUPS} || self.topology.groups.all(g, self.workers % g.size == 0)", _GROUPS, _GROUPS_PATH),
            rule(
                f"{_RIGID} || self.elastic.minWorkers <= self.workers && self.workers <= self.elastic.maxWorkers",
                _ELASTIC,
                _ELASTIC_PATH,
            ),
            rule(_both("n % self.parallelism.pipeline == 0"), _WHOLE_GROUPS, _ELASTIC_PATH),
            rule(
                _both("!has(self.gpus.count) || n * self.gpus.count % self.parallelism.tensor == 0"),
                _WHOLE_GROUPS,
                _ELASTIC_PATH,
            ),
            rule(_both(f"{_NO_GROUPS} || self.topology.groups.all(g, n % g.size == 0)"), _WHOLE_GROUPS, _ELASTIC_PATH),
            rule(
                f"{_NO_GROUPS} || has(self.gpus.count) || self.topology.groups.all(g, g.level != '{NVLINK_LEVEL}')",
                _GROUP_OF_INSTANCES,
                _GROUPS_PATH,
            ),
        )
    )

    queue_name: QueueName | None = None
    """Queue whose quota the job is charged to. Absent: the label kueue.x-k8s.io/queue-name, else "default"."""
    priority_class_name: PriorityClassName | None = None
    """PriorityClass that orders the job among others in Berth. Its pods run under Berth's own class."""
    suspend: bool = False
    """Stop the job, or don't start it, until this is false again."""
    workers: int = Field(ge=1, le=MOST_WORKERS)
    """Pods of the gang, started all or none. With elastic, as many as it would like."""
    gpus: Gpus
    """GPUs of each worker."""
    parallelism: TrainingParallelism = TrainingParallelism()
    """How the program splits its work."""
    topology: Topology | None = None
    """How close together the gang's nodes are. Absent: as close as there is room for, at no cost to others."""
    elastic: Elastic | None = None
    """How many workers it may run with if not with as many as it would like. It is stopped and resumed with another
    number, so it needs checkpoints that can be resumed by more or fewer workers. Absent: only with workers."""
    max_runtime: Duration | None = None
    """Longest time that an attempt may run, from the moment all its pods are ready, such as 90m, 1h30m or 2d. The job
    fails when it is over. Absent: no limit."""
    estimated_runtime: Duration | None = None
    """How long an attempt is expected to run, from the moment all its pods are ready, such as 40m. It is no limit: work
    that ends in time may start before work that waits for more room. Absent: as long as jobs like it took, else
    maxRuntime."""
    deadline: Moment | None = None
    """When it has to be done, such as 2026-03-02T06:00:00Z. It waits for cleaner hours, and runs on spot capacity, only
    as far as that leaves time. Absent: whenever."""
    spot: Spot = "Allow"
    """Never: not on spot nodes. Allow: where it costs least, interruptions counted. Only: on nothing else. A change
    holds from the next attempt on."""
    max_price_per_hour: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = None
    """Dollars per hour that all its boards may cost, by the operator's prices. The job waits until there are boards for
    no more. Absent: no limit."""
    carbon: Carbon | None = None
    """What emitting less is worth. The job then waits for cleaner hours, and pauses where it saves checkpoints, if that
    pays and there is time. Absent: carbon plays no part."""
    checkpoint: Checkpoint | None = None
    """Where and how often the program saves its state; a change holds from the next attempt on. Absent: Berth knows of
    no checkpoints, and counts all work of an attempt as lost when it is stopped."""
    restart: Restart = Restart()
    """How often it is restarted after crashes, and when it counts as hung."""
    idle_policy: IdlePolicy = IdlePolicy()
    """When its boards count as idle, and what is done then. It takes node agents that measure them."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Seconds after its end until the job is deleted with all it made. Absent: kept."""
    template: PodTemplate
    """Template of the workers' pods."""

    @field_validator("elastic")
    @classmethod
    def _elastic_sizes(cls, elastic: Elastic | None, info: ValidationInfo) -> Elastic | None:
        rest = info.data
        if elastic is None or not rest.keys() >= {"workers", "gpus", "parallelism", "topology"}:
            return elastic
        if not elastic.min_workers <= rest["workers"] <= elastic.max_workers:
            raise ValueError(_ELASTIC)
        step = least_step(rest["gpus"], rest["parallelism"], rest["topology"])
        if elastic.min_workers % step or elastic.max_workers % step:
            raise ValueError(_WHOLE_GROUPS)
        return elastic


def least_step(gpus: Gpus, parallelism: TrainingParallelism, topology: Topology | None) -> int:
    """How many workers an elastic gang grows or shrinks by at least: its groups stay whole."""
    groups = [group.size for group in (topology.groups if topology else None) or ()]
    tensor = parallelism.tensor
    return lcm(*groups, parallelism.pipeline, tensor // gcd(tensor, gpus.count or 1))


class Assignment(Reported):
    """Members on one node."""

    node: str
    """Name of the node; empty: they wait for one of the pool."""
    ranks: str
    """Their ranks, such as 0-3,7."""


class PlacementStatus(Reported):
    """Which device and node each member has."""

    device: DeviceStatus
    """What each member's container requests."""
    domain: str | None = None
    """The smallest topology domain that holds all members, such as rack r1."""
    summary: str | None = None
    """The assignments in few words, for printing."""
    assignments: list[Assignment] = Field(json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Nodes and the ranks of the members on them."""
    pool: str | None = None
    """Pool of the operator's configuration whose nodes are to come for the members. Absent: all have their nodes."""


class Avoided(Reported):
    """A node that refused a member."""

    node: str
    """Name of the node."""
    until: Timestamp
    """When it may be tried again."""


class ShortfallStatus(Reported):
    """Nodes that did not come."""

    pool: str
    """Name of the pool."""
    time: Timestamp
    """When the job stopped waiting for them."""


class Moved(Reported):
    """A move in quiet hours."""

    time: Timestamp
    """When it was decided."""
    usd: float
    """What it cost: the work lost and the time to restart, at list price."""


class Resized(Reported):
    """Another number of workers, for which an attempt was stopped."""

    attempt: int
    """Number of the attempt that has them, or is to have them."""
    from_: int = Field(alias="from")
    """Workers of the attempt before."""
    to: int
    """Workers for which there was room when it was decided; how many they are in the end, the placement tells."""


class CrashStatus(Reported):
    """An attempt that ended by a worker of its own."""

    attempt: int
    """Number of the attempt."""
    time: Timestamp
    """When that worker ended."""
    node: str | None = None
    """Node of that worker. Absent: a gang that hung was on several."""
    exit_code: int | None = None
    """Exit code of its container."""
    reason: str | None = None
    """OOMKilled, the signal that ended it, such as SIGSEGV, or Hung."""


class FailuresStatus(Reported):
    """What is remembered of attempts that ended badly."""

    in_a_row: int
    """Attempts in a row that ended in vain: the wait before the next doubles with each."""
    saved_step: int | None = None
    """Last step of the newest checkpoint when the latest of them ended."""
    last: list[CrashStatus] = Field(default_factory=list, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """The latest crashes and hangs, oldest first, five at most. Nodes on which different jobs crashed are avoided."""


class LossStatus(Reported):
    """What one reason cost."""

    reason: str
    """Why attempts were stopped, such as SpotInterruption, or how they ended: Failed."""
    attempts: int
    """How many it ended."""
    gpu_seconds: float
    """Work of all their GPUs since the last durable checkpoint. A MIG instance is a part of a GPU."""


class LossesStatus(Reported):
    """Work that was done in vain, because attempts ended before it was saved."""

    gpu_seconds: float
    """All of it."""
    by_reason: list[LossStatus] = Field(json_schema_extra=list_map("reason"))
    """The same by what ended them."""


class RestoreStatus(Reported):
    """How long an attempt took to go on from a checkpoint."""

    attempt: int
    """Number of the attempt."""
    seconds: float
    """From the moment when all its pods were ready to the first progress that it reported."""


class ProgressStatus(Reported):
    """How far training is, as the program tells."""

    step: int | None = None
    """Steps done."""
    total_steps: int | None = None
    """Steps in all."""
    percent: int | None = None
    """Share that is done."""
    summary: str | None = None
    """The same for printing, such as 45%."""
    estimated_end: Timestamp | None = None
    """When the program expects to be done."""
    time: Timestamp
    """When it told so."""
    attempt: int | None = None
    """Number of the attempt that told so."""
    advanced_at: Timestamp | None = None
    """When it last made progress, or saved."""
    usual_seconds: float | None = None
    """Seconds that usually pass between two reports of progress. Absent: there were too few to tell."""
    longest_seconds: float | None = None
    """The longest that passed between two."""


class CheckpointStatus(Reported):
    """The last durable checkpoint."""

    attempt: int
    """Number of the attempt that saved it; its folder bears that number."""
    step: int
    """Last step that it holds."""
    time: Timestamp
    """When it became durable."""
    bytes: int
    """Its size."""
    seconds: float
    """How long the save took."""
    answers: str | None = None
    """Id of the save request that it was made for. Absent: of none."""


class SaveRequestStatus(Reported):
    """What the members of an attempt were asked: to save, and to go on until the attempt is stopped, if it is."""

    id: str
    """What a checkpoint that answers it names."""
    attempt: int
    """Number of the attempt."""
    reason: str
    """Why it has to leave: SpotInterruption, Maintenance, Drain, NodeTermination, BoardUnhealthy,
    DeadlineAtRisk, CheaperCapacity, PausedForCarbon or Idle. CheckpointRequested: somebody asked for it with the
    annotation berth.dev/checkpoint, and the attempt goes on."""
    node: str
    """The node that goes away first; empty: none does."""
    time: Timestamp
    """When they were asked."""
    deadline: Timestamp | None = None
    """When the node goes. Absent: nobody says."""


class IdleStatus(Reported):
    """The boards of the attempt do next to nothing."""

    since: Timestamp
    """Since when, as far as Berth knows."""
    told: bool
    """Whether that has been so for longer than spec.idlePolicy.afterMinutes."""


class TrainingJobStatus(Reported):
    """What became of the job."""

    observed_generation: int | None = None
    """metadata.generation that this status answers."""
    state: Literal["Pending", "Admitted", "Running", "Suspended", "Stopping", "Succeeded", "Failed"] | None = None
    """A word for printing. Programs read the conditions."""
    queue: str | None = None
    """Queue that the job is charged to."""
    attempt: int | None = None
    """Number of the latest attempt; its Job is named <name>-<attempt>. Absent: none yet."""
    ready: str | None = None
    """Ready workers of those that it has or, before that, would like, such as 3/4."""
    conditions: list[Condition] = conditions_field()
    """Admitted, PodsReady, Suspended, Evicted, Succeeded, Failed, Misconfigured, Idle."""
    verdict: VerdictStatus | None = None
    """Why the job is where it is."""
    placement: PlacementStatus | None = None
    """Where the latest attempt runs or ran; recorded before its pods start. Absent: no attempt holds room."""
    device: str | None = None
    """What each worker has, for printing, such as 8 x H100-80GB."""
    admitted_at: Timestamp | None = None
    """When the latest attempt was admitted; of one that waited for nodes of a pool, when it had them all."""
    started_at: Timestamp | None = None
    """When all pods of the latest attempt were ready first."""
    finished_at: Timestamp | None = None
    """When the job succeeded or failed for good."""
    stopping: str | None = None
    """Why the attempt is being stopped. Absent: it is not."""
    stopping_since: Timestamp | None = None
    """When that was decided."""
    losses: LossesStatus | None = None
    """What its attempts did in vain so far. Absent: nothing ended one before its time."""
    usage: UsageStatus | None = None
    """What it used so far, brought up to date every few minutes. Absent: nothing yet."""
    gave_way_to: ClaimStatus | None = None
    """For whom the job was stopped: its room is kept for that one until it has a place. Absent: for nobody, or the job
    has a place again."""
    avoid: list[Avoided] | None = Field(None, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Nodes that refused a member of this job lately."""
    shortfalls: list[ShortfallStatus] | None = Field(None, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Pools of nodes that failed this job lately, oldest first."""
    moved: Moved | None = None
    """Its last move in quiet hours: it counts against their budget."""
    resized: Resized | None = None
    """When its number of workers was last changed, or is being changed: until that attempt begins, the room of the
    fewer workers is kept for it."""
    restarts: int | None = None
    """Restarts after crashes so far; spec.restart.maxRestarts is the most."""
    hangs: int | None = None
    """Attempts that were stopped, since they made no progress any more."""
    failures: FailuresStatus | None = None
    """What is remembered of crashes and hangs. Absent: there were none."""
    not_before: Timestamp | None = None
    """A requeued job is not admitted before this moment."""
    finished_ranks: str | None = None
    """Ranks of the latest attempt that ended well, such as 0-3. Absent: none yet."""
    missing_since: Timestamp | None = None
    """Since when the latest attempt, whole before, lacks a pod. Absent: it lacks none."""
    progress: ProgressStatus | None = None
    """How far training is. Absent: the program tells nothing."""
    checkpoint: CheckpointStatus | None = None
    """The last durable checkpoint, of whichever attempt. Absent: none is known."""
    restore: RestoreStatus | None = None
    """The last time that an attempt went on from a checkpoint. Absent: none was measured."""
    listens: int | None = None
    """Number of the attempt whose workers ask for save requests. Absent: none did; SIGTERM is all that reaches them."""
    save_request: SaveRequestStatus | None = None
    """The last request to save, because a node goes away, the job is to pause, or somebody asked for it."""
    idle: IdleStatus | None = None
    """All of its boards are idle. Absent: one of them works, or nobody can say."""
    checkpoint_problem: str | None = None
    """Why the latest save failed. Absent: it did not."""
    worked_seconds: int | None = None
    """For how long earlier attempts worked towards the last durable checkpoint, as far as Berth knows."""
    spec_digest: str | None = None
    """Digest of the spec that the latest attempt was admitted with: after a change another attempt is made."""


TRAINING_JOB = CustomResource(
    kind="TrainingJob",
    plural="trainingjobs",
    short_name="tj",
    about="A gang of workers that train together: placed all or none, on GPUs that are close to each other.",
    spec=TrainingJobSpec,
    status=TrainingJobStatus,
    longest_name=LONGEST_NAME,
    name_remedy=(
        f"metadata.name must be at most {LONGEST_NAME} lower-case letters, digits and '-', and begin with a letter: "
        "pods are named <name>-<attempt>-<index>, and a host name has at most 63 characters"
    ),
    columns=(
        Column("Queue", ".status.queue", "Queue that the job is charged to"),
        Column("Workers", ".status.ready", "Ready workers of those that it has"),
        Column("State", ".status.state", "What the job is doing"),
        Column("Progress", ".status.progress.summary", "How far training is"),
        Column("Restarts", ".status.restarts", "Restarts after crashes", type="integer"),
        Column("Reason", ".status.verdict.reason", "Why"),
        Column("Placement", ".status.placement.summary", "Nodes and the ranks on them", wide=True),
        Column("Device", ".status.device", "What each worker has", wide=True),
        Column("Attempt", ".status.attempt", "Number of the latest attempt", type="integer", wide=True),
        Column("Saved", ".status.checkpoint.time", "Age of the last durable checkpoint", type="date", wide=True),
        Column("ETA", ".status.progress.estimatedEnd", "When the program expects to be done", wide=True),
    ),
)
