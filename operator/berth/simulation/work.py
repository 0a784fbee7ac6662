"""The work of a scenario, drawn once from its seed: what arrives when, asks for what, and runs for how long."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from random import Random
from typing import Any

from pydantic import TypeAdapter, ValidationError

from berth.api.convert import to_carbon, to_request
from berth.api.problems import Misconfigured, first_problem, path
from berth.model.workloads import CarbonTerms, Kind, Request
from berth.planning.cohorts import Cohorts, defaults
from berth.planning.fleet import Fleet
from berth.planning.problems import problem_with, queue_problem
from berth.simulation.pools import Seconds
from berth.simulation.scenario import Lasting, Scenario, Shape, Stream

NAMESPACE = "simulated"  # of all workloads
Where = tuple[str | int, ...]
"""The path of a field of the scenario."""

_SECONDS: TypeAdapter[float] = TypeAdapter(Seconds)
_GPU_COLUMNS = ("count", "profile", "memory", "models")
_COLUMNS = ("at", "duration", "estimatedRuntime", "workers", "replicas", *_GPU_COLUMNS, "queueName", "priority")
_NUMBERS = ("workers", "replicas", "count", "priority")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A workload to come."""

    at: float  # seconds since the start
    name: str
    kind: Kind
    request: Request
    queue: str
    priority: int = 0
    duration: float | None = None  # seconds from when all its pods are ready; None: to the end
    estimate: float | None = None  # of these seconds, as its user states it; None: not stated
    deadline: float | None = None  # seconds after its arrival
    carbon: CarbonTerms | None = None
    max_usd_per_hour: float | None = None
    saves_every: float | None = None  # seconds; None: it saves nothing


@dataclass(frozen=True, slots=True)
class _Line:
    """When one workload of a stream arrives, and what a trace says of it beyond that."""

    at: float
    duration: float | None = None
    estimate: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    number: int = 0  # of the trace's line


@dataclass
class Drawing:
    """Draws a scenario's work. Each stream has a chance of its own, so that one more leaves the others as they were."""

    scenario: Scenario
    fleet: Fleet
    folder: Path  # of the traces
    cohorts: Cohorts
    _requests: dict[str, Request] = field(default_factory=dict)

    def arrivals(self) -> tuple[Arrival, ...]:
        """All that arrives before the horizon, in order. Raises Misconfigured."""
        found = list(self._singles())
        for i, stream in enumerate(self.scenario.streams):
            found += self._of_stream(stream, ("streams", i))
        return tuple(sorted((a for a in found if a.at < self.scenario.horizon), key=lambda a: (a.at, a.name)))

    def _singles(self) -> Iterator[Arrival]:
        for i, work in enumerate(self.scenario.workloads):
            duration = _drawn(work.duration, self._chance(work.name, "durations"))
            yield self._arrival(work.at, work.name, work, duration, work.estimated_runtime, ("workloads", i))

    def _of_stream(self, stream: Stream, where: Where) -> Iterator[Arrival]:
        shapes, durations = self._chance(stream.name, "shapes"), self._chance(stream.name, "durations")
        estimates = self._chance(stream.name, "estimates")
        weights = [shape.weight for shape in stream.mix]
        for i, mixed in enumerate(stream.mix):
            self._request(mixed, (*where, "mix", i))
        for i, line in enumerate(self._lines(stream, where)):
            drawn: Shape | None = shapes.choices(stream.mix, weights)[0] if stream.mix else None
            if drawn is None or line.columns:
                drawn = _overridden(drawn, line, (*where, "arrivals", "trace"))
            duration = _drawn(stream.duration, durations) if line.duration is None else line.duration
            estimate = drawn.estimated_runtime if line.estimate is None else line.estimate
            if estimate is None and stream.estimates is not None and duration is not None:
                estimate = duration * estimates.lognormvariate(log(stream.estimates.times), stream.estimates.sigma)
            name = f"{stream.name}-{i}"
            yield self._arrival(line.at, name, drawn, duration, estimate, (*where, "arrivals", "trace"))

    def _lines(self, stream: Stream, where: Where) -> Iterator[_Line]:
        arrivals = stream.arrivals
        since = arrivals.since or 0.0
        until = self.scenario.horizon if arrivals.until is None else min(arrivals.until, self.scenario.horizon)
        if arrivals.trace is not None:
            lines = _read(self.folder / arrivals.trace, (*where, "arrivals", "trace"))
            yield from (line for line in lines if since <= line.at <= until)
        elif arrivals.per_hour is not None:
            chance = self._chance(stream.name, "arrivals")
            at = since + chance.expovariate(arrivals.per_hour / 3600)
            while at <= until:
                yield _Line(at)
                at += chance.expovariate(arrivals.per_hour / 3600)
        else:
            yield from (_Line(at) for at in arrivals.at or () if since <= at <= until)

    def _chance(self, name: str, what: str) -> Random:
        return Random(f"{self.scenario.seed}/{name}/{what}")

    def _arrival(
        self, at: float, name: str, shape: Shape, duration: float | None, estimate: float | None, where: Where
    ) -> Arrival:
        return Arrival(
            at=at,
            name=name,
            kind=Kind(shape.kind),
            request=self._request(shape, where),
            queue=self._queue(shape),
            priority=shape.priority,
            duration=duration,
            estimate=estimate,
            deadline=shape.deadline,
            carbon=to_carbon(shape.model_dump(by_alias=True, include={"carbon"})),
            max_usd_per_hour=shape.max_price_per_hour,
            saves_every=shape.checkpoint.every if shape.checkpoint else None,
        )

    def _request(self, shape: Shape, where: Where) -> Request:
        """What a shape asks for, by the operator's own conversion and checks; the same object for equal shapes."""
        spec = _spec(shape)
        key = f"{shape.kind} {shape.queue_name} {spec}"
        if key not in self._requests:
            self._requests[key] = self._checked(shape, spec, where)
        return self._requests[key]

    def _queue(self, shape: Shape) -> str:
        default = self.scenario.planner_policy().default_queue
        return shape.queue_name or defaults(self.cohorts.queues).get(NAMESPACE, default)

    def _checked(self, shape: Shape, spec: Mapping[str, Any], where: Where) -> Request:
        kind, default = Kind(shape.kind), self.scenario.planner_policy().default_queue
        try:
            request = to_request(spec, kind)
        except Misconfigured as error:
            raise Misconfigured(_under(where, error.field), error.message) from error
        queue = queue_problem(self._queue(shape), NAMESPACE, self.cohorts, default)
        problem = queue or problem_with(request, kind, self.fleet)
        if problem:
            name, _, message = problem.partition(": ")
            raise Misconfigured(_under(where, name), message)
        return request


def _spec(shape: Shape) -> dict[str, Any]:
    """The spec of the object that the shape stands for."""
    fields = shape.model_dump(by_alias=True, exclude_none=True, include={"gpus", "parallelism", "topology", "elastic"})
    container = {"name": "main", "image": "none", "resources": {"requests": dict(shape.requests)}}
    job = shape.kind == "TrainingJob"
    members = {"workers": shape.members, "spot": shape.spot} if job else {"replicas": shape.members, "port": 80}
    return fields | members | {"template": {"spec": {"containers": [container]}}}


def _under(where: Where, name: str) -> str:
    """A field of the object's spec, as the scenario names it."""
    inner = name.removeprefix("spec").removeprefix(".template.spec.containers[0].resources")
    return path(*where) + inner


def _drawn(duration: Lasting | None, chance: Random) -> float | None:
    if duration is None:
        return None
    if duration.exponential is not None:
        return chance.expovariate(1 / duration.exponential) if duration.exponential else 0.0
    if duration.lognormal is not None:
        return chance.lognormvariate(log(duration.lognormal), duration.sigma) if duration.lognormal else 0.0
    return duration.fixed


def _overridden(base: Shape | None, line: _Line, where: Where) -> Shape:
    """The shape drawn for a line of a trace, with what the line says in its stead."""
    fields = base.model_dump(by_alias=True, exclude_unset=True, exclude={"weight"}) if base else {}
    said: dict[str, Any] = {key: int(text) if key in _NUMBERS else text for key, text in line.columns.items()}
    gpus = {key: said.pop(key) for key in _GPU_COLUMNS if key in said}
    if "models" in gpus:
        gpus["models"] = gpus["models"].split()
    if any(key in gpus for key in ("count", "profile", "memory")):
        fields["gpus"] = gpus
    elif gpus:
        fields["gpus"] = fields.get("gpus", {}) | gpus
    if "replicas" in said:
        fields["kind"] = Kind.INFERENCE_SERVICE.value
    try:
        return Shape.model_validate(fields | said)
    except ValidationError as error:
        problem = first_problem(error)
        raise Misconfigured(path(*where), f"line {line.number}: {problem.field}: {problem.message}") from error


def _read(file: Path, where: Where) -> Iterator[_Line]:
    """The lines of a trace. Raises Misconfigured with the line at fault."""
    try:
        with file.open(newline="") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or ()
            if unknown := [name for name in names if name not in _COLUMNS]:
                known = ", ".join(_COLUMNS)
                raise Misconfigured(path(*where), f"{file.name} has a column {unknown[0]!r}: use some of {known}")
            if "at" not in names:
                raise Misconfigured(path(*where), f"{file.name} lacks the column `at`: add it")
            for row in reader:
                yield _line(row, reader.line_num, where)
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(path(*where), f"{file} can't be read: {error}") from error


def _line(row: Mapping[str, str | None], number: int, where: Where) -> _Line:
    given = {key: value.strip() for key, value in row.items() if key and value and value.strip()}

    def seconds(column: str) -> float:
        text = given.pop(column, "")
        try:
            return _SECONDS.validate_python(float(text) if text.replace(".", "", 1).isdigit() else text)
        except ValidationError as error:
            problem = first_problem(error)
            raise Misconfigured(path(*where), f"line {number}: {column}: {problem.message}, got {text!r}") from error

    for column in _NUMBERS:
        if column in given and not given[column].removeprefix("-").isdigit():
            message = f"line {number}: {column}: must be a whole number, got {given[column]!r}"
            raise Misconfigured(path(*where), message)
    at = seconds("at")
    duration, estimate = (seconds(column) if column in given else None for column in ("duration", "estimatedRuntime"))
    return _Line(at, duration, estimate, given, number)
