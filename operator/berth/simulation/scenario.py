"""A scenario: fleet, queues, work, failures and policy, as YAML checked by pydantic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator
from pydantic.alias_generators import to_camel

from berth.api.common import Gpus, Parallelism, QueueName
from berth.api.config import Config, Section, snake
from berth.api.convert import to_queue
from berth.api.price_book import Book
from berth.api.queue import QueueSpec
from berth.api.schema import Fields
from berth.api.terms import Carbon, Spot
from berth.api.training_job import MOST_WORKERS, Elastic, Topology
from berth.model.prices import PriceBook
from berth.model.workloads import Queue
from berth.planning.snapshot import Policy
from berth.simulation.pools import Fleet, Name, Quantity, Seconds, suggestion

# What the operator's configuration says of the program around the planner, which a scenario has no use for.
_OF_THE_PROGRAM = ("log_format", "log_level", "leader_election", "metrics_port", "health_port", "mig_manager")
_TOLD_OTHERWISE = ("carbon", "prices", "prices_file")  # by fields of the scenario's own


class NamedQueue(QueueSpec):
    """A queue and its quota, in the words of the Queue object."""

    name: QueueName
    """Name of the queue."""


class Saves(Fields):
    """That a job saves its state, beside its work, and goes on from there. It also saves when it is told to stop."""

    every: Seconds
    """From one save to the next: so much is lost, at most, when a node goes without notice."""

    @model_validator(mode="after")
    def _takes_time(self) -> Saves:
        if not self.every:
            raise ValueError("every: must be more than 0")
        return self


class Shape(Fields):
    """What one workload asks for, in the words of TrainingJob and InferenceService."""

    kind: Literal["TrainingJob", "InferenceService"] = "TrainingJob"
    """Kind of the workload."""
    workers: int | None = Field(None, ge=1, le=MOST_WORKERS)
    """Workers of a TrainingJob, started all or none. Absent: 1."""
    replicas: int | None = Field(None, ge=1, le=MOST_WORKERS)
    """Replicas of an InferenceService, placed one by one. Absent: 1."""
    gpus: Gpus
    """GPUs of each worker or replica."""
    parallelism: Parallelism = Parallelism()
    """How the program splits its work."""
    topology: Topology | None = None
    """How close together a TrainingJob's nodes are."""
    elastic: Elastic | None = None
    """With how many workers a TrainingJob runs if not with `workers`. Its duration is that with `workers`: with half of
    them it runs for twice as long."""
    requests: dict[str, Quantity] = Field(default_factory=dict)
    """What each pod requests besides GPUs, such as {cpu: 8, memory: 64Gi}."""
    queue_name: QueueName | None = None
    """Queue that the workload is charged to. Absent: the policy's default queue."""
    priority: int = 0
    """Value of its PriorityClass: higher is served first."""
    estimated_runtime: Seconds | None = None
    """How long its user says that it runs. Absent: nothing is said."""
    deadline: Seconds | None = None
    """How long after its arrival a TrainingJob has to be done. Absent: whenever."""
    spot: Spot = "Allow"
    """Whether a TrainingJob may run on spot capacity."""
    carbon: Carbon | None = None
    """What emitting less is worth to a TrainingJob."""
    max_price_per_hour: float | None = Field(None, ge=0)
    """Dollars per hour that all boards of a TrainingJob may cost."""
    checkpoint: Saves | None = None
    """That a TrainingJob saves its state. Absent: it begins anew when it is stopped."""

    @model_validator(mode="after")
    def _members_of_its_kind(self) -> Shape:
        job = self.kind == "TrainingJob"
        if (self.replicas if job else self.workers) is not None:
            wrong, right = ("replicas", "workers") if job else ("workers", "replicas")
            raise ValueError(f"{wrong} is no field of {self.kind}: use {right}")
        of_jobs = ("elastic", "deadline", "carbon", "max_price_per_hour", "checkpoint")
        if not job and (none := [name for name in of_jobs if getattr(self, name) is not None]):
            raise ValueError(f"{to_camel(none[0])} is no field of InferenceService: leave it out")
        return self

    @property
    def members(self) -> int:
        """Workers or replicas."""
        return self.workers or self.replicas or 1


class Lasting(Fields):
    """How long workloads run once all their pods are ready: exactly one of fixed, exponential and lognormal."""

    fixed: Seconds | None = None
    """The same for all. `duration: 2h` is short for `duration: {fixed: 2h}`."""
    exponential: Seconds | None = None
    """The mean of an exponential distribution."""
    lognormal: Seconds | None = None
    """The median of a lognormal distribution."""
    sigma: float = Field(1.0, ge=0, le=5, allow_inf_nan=False)
    """Standard deviation of the logarithm, for lognormal."""

    @model_validator(mode="after")
    def _one_of(self) -> Lasting:
        if sum(given is not None for given in (self.fixed, self.exponential, self.lognormal)) != 1:
            raise ValueError("set exactly one of fixed, exponential (a mean) and lognormal (a median)")
        if "sigma" in self.model_fields_set and self.lognormal is None:
            raise ValueError("sigma belongs to lognormal: leave it out")
        return self


def _short(value: Any) -> Any:
    return {"fixed": value} if isinstance(value, str | int | float) else value


Duration = Annotated[Lasting, BeforeValidator(_short)]


class Single(Shape):
    """One workload."""

    name: Name
    """Name of the workload."""
    at: Seconds = 0.0
    """When it arrives, since the start."""
    duration: Duration | None = None
    """How long it runs. Absent: to the end of the scenario."""


class Weighted(Shape):
    """A shape and how often it is drawn."""

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """How often it is drawn, against the others of its stream."""


class Arrivals(Fields):
    """When the workloads of a stream arrive: exactly one of perHour, at and trace."""

    per_hour: float | None = Field(None, gt=0, le=1_000_000, allow_inf_nan=False)
    """Mean rate of a Poisson process."""
    at: list[Seconds] | None = None
    """Given times."""
    trace: str | None = None
    """CSV file, beside the scenario: a column `at`, and where they differ from the stream's own `duration`, `workers`,
    `estimatedRuntime`, `replicas`, `count`, `profile`, `memory`, `models` (separated by spaces), `queueName` and
    `priority`."""
    since: Seconds | None = Field(None, alias="from")
    """Nothing arrives before. Absent: the start."""
    until: Seconds | None = None
    """Nothing arrives after. Absent: the end."""

    @model_validator(mode="after")
    def _one_of(self) -> Arrivals:
        if sum(given is not None for given in (self.per_hour, self.at, self.trace)) != 1:
            raise ValueError("set exactly one of perHour (a rate), at (a list of times) and trace (a CSV file)")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("until must be later than from")
        return self


class Said(Fields):
    """What users say of how long their work runs, as a multiple of how long it does."""

    times: float = Field(1.0, gt=0, le=1000, allow_inf_nan=False)
    """The median of that multiple. Most users say too much: twice to five times is what traces show."""
    sigma: float = Field(0.0, ge=0, le=5, allow_inf_nan=False)
    """Standard deviation of its logarithm. 0: always the same multiple."""


class Stream(Fields):
    """Many workloads, by chance or from a trace."""

    name: Name
    """Name of the stream. Its workloads are `<name>-0`, `<name>-1` and so on."""
    arrivals: Arrivals
    """When they arrive."""
    duration: Duration | None = None
    """How long they run. Absent: as the trace says, else to the end of the scenario."""
    estimates: Said | None = None
    """What their users say of that, where shape and trace say nothing. Absent: nothing."""
    mix: list[Weighted] = Field([], max_length=100)
    """What they ask for, drawn by weight. A trace's columns win."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Stream:
        if not self.mix and self.arrivals.trace is None:
            raise ValueError("mix: give the stream one shape at least")
        return self


class Failure(Fields):
    """A node that goes down for a while."""

    node: str
    """Name of the node."""
    at: Seconds
    """When it goes down."""
    lasting: Seconds = Field(alias="for")
    """How long it stays down."""

    def overlaps(self, other: Failure) -> bool:
        """Whether the same node is down at the same time."""
        apart = self.at > other.at + other.lasting or other.at > self.at + self.lasting
        return self.node == other.node and not apart


class Delays(Fields):
    """How long a cluster takes for what the planner asks of it."""

    pods: Seconds = 2.0
    """From an admission, or an InferenceService's device, until the pods are there, gated."""
    binding: Seconds = 1.0
    """From a pin until kube-scheduler has bound the pod."""
    readiness: Seconds = 30.0
    """From the binding until the pod is ready: image, start, rendezvous."""
    termination: Seconds = 15.0
    """From a pod's eviction until it is gone."""
    node_loss: Seconds = 50.0
    """How long a node is down before its cluster notices. Pods that no gang minds are given up five minutes later."""
    relayout: Seconds = 30.0
    """How long boards are re-laid, while their node takes no new pods."""


def _of_the_planner() -> type[Section]:
    """The fields of the operator's configuration that planning depends on, whichever there are."""
    others = (*_OF_THE_PROGRAM, *_TOLD_OTHERWISE)
    fields: dict[str, Any] = {
        name: (field.annotation, field) for name, field in Config.model_fields.items() if name not in others
    }
    return create_model("PolicySettings", __base__=Section, **fields)


if TYPE_CHECKING:
    PolicySettings = Section
else:
    PolicySettings = _of_the_planner()


class SeriesZone(Fields):
    """A column of a series, and where it holds."""

    zone: str
    """Name of the column."""
    regions: list[str] = Field(default_factory=list)
    """Regions of nodes that lie in it. Absent: the one of the same name."""


class CarbonSeries(Fields):
    """Carbon intensity hour by hour. Forecasts of 96 hours say the same: they are never wrong."""

    file: str
    """CSV beside the scenario, gzipped where its name ends in .gz: `datetime_utc`, then gCO2eq/kWh of each zone."""
    begins: str | None = None
    """The hour of the file at which the scenario starts, such as 2022-01-01T00:00Z. Absent: its first."""
    zones: list[SeriesZone] = Field(min_length=1)
    """The columns that are read."""


class Scenario(Fields):
    """A simulation, whole."""

    horizon: Seconds
    """How long it goes on."""
    seed: int = 0
    """What chance starts from: the same scenario and seed give the same output, byte for byte."""
    fleet: Fleet
    """The nodes."""
    queues: list[NamedQueue] = Field(default_factory=list)
    """Queues besides the default one."""
    workloads: list[Single] = Field(default_factory=list)
    """Workloads one by one."""
    streams: list[Stream] = Field(default_factory=list)
    """Workloads in numbers."""
    prices: Annotated[Book, BeforeValidator(snake)] | None = None
    """What boards cost: a price book, in the words of docs/carbon.md. Absent: list prices."""
    carbon: CarbonSeries | None = None
    """Carbon intensity hour by hour. Absent: nothing is known of it."""
    failures: list[Failure] = Field(default_factory=list)
    """Nodes that go down."""
    delays: Delays = Delays()
    """How fast the cluster is."""
    policy: Annotated[PolicySettings, BeforeValidator(snake)] = PolicySettings()
    """Settings of the operator's configuration that planning depends on, under the same names."""

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if self.horizon == 0:
            raise ValueError("horizon: must be more than 0")
        if not self.workloads and not self.streams:
            raise ValueError("there is no work: add workloads or streams")
        _distinct("fleet.pools", [pool.name for pool in self.fleet.pools])
        _distinct("queues", [queue.name for queue in self.queues])
        _distinct("workloads and streams", [*(w.name for w in self.workloads), *(s.name for s in self.streams)])
        nodes = {name for pool in self.fleet.pools for name in pool.node_names()}
        for i, failure in enumerate(self.failures):
            if failure.node not in nodes:
                raise ValueError(f"failures[{i}].node: no node {failure.node!r}: {suggestion(failure.node, nodes)}")
            if any(failure.overlaps(other) for other in self.failures[:i]):
                raise ValueError(f"failures[{i}].at: {failure.node} is down already then: give one longer failure")
        return self

    @property
    def config(self) -> Config:
        """The operator's configuration with the scenario's settings; the environment has no say in it."""
        given = {name: getattr(self.policy, name) for name in type(self.policy).model_fields}
        return Config.model_construct(**given)

    def planner_queues(self) -> dict[str, Queue]:
        """The queues, by name, as the planner sees them."""
        raw = {q.name: q.model_dump(by_alias=True, exclude={"name"}, exclude_none=True) for q in self.queues}
        return {name: to_queue({"metadata": {"name": name}, "spec": spec}) for name, spec in raw.items()}

    def planner_policy(self) -> Policy:
        """What the planner is told."""
        return replace(self.config.policy(), prices=self.prices.book() if self.prices else PriceBook())


def schema() -> dict[str, Any]:
    """The JSON schema of scenarios, under the names that files use."""
    found: dict[str, Any] = _in_camel_case(Scenario.model_json_schema())
    return found


def _in_camel_case(part: Any) -> Any:
    """A part of a schema with the fields of the configuration spelled as in its file."""
    if isinstance(part, dict):
        return {to_camel(key) if "_" in key else key: _in_camel_case(value) for key, value in part.items()}
    return [_in_camel_case(item) for item in part] if isinstance(part, list) else part


def _distinct(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what}: {name!r} is there twice: give each a name of its own")
        seen.add(name)
