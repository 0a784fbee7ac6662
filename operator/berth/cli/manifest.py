"""Manifests of workloads from flags, and what is wrong with them in terms of these flags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berth.api import inference_service, training_job
from berth.api.convert import to_request
from berth.api.problems import Misconfigured
from berth.control.ports import GROUP, VERSION, Json
from berth.model.workloads import Kind
from berth.planning.problems import tensor_problem

NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
ONE_OF = "say what each worker needs with just one of --gpus (whole boards), --profile (a MIG instance) and --memory"


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for on a command line; "", 0 and None: they did not say."""

    kind: Kind
    name: str
    namespace: str
    image: str
    command: Sequence[str] = ()
    gpus: int | None = None
    profile: str = ""
    memory: str = ""
    models: Sequence[str] = ()
    workers: int = 1  # replicas of a service
    tensor: int | None = None
    topology: str = ""
    queue: str = ""
    priority_class: str = ""
    spot: str = ""
    deadline: str = ""
    max_runtime: str = ""
    estimated_runtime: str = ""
    max_price: float | None = None
    checkpoint_claim: str = ""
    checkpoint_size: str = ""
    port: int | None = None
    cpu: str = ""
    ram: str = ""
    env: Sequence[str] = ()


class WrongFlags(Exception):
    """Flags that make no workload; the message names the flag and the remedy."""


FLAGS = {  # by the field that a flag sets
    "spec.gpus.count": "--gpus",
    "spec.gpus.profile": "--profile",
    "spec.gpus.memory": "--memory",
    "spec.gpus.models": "--model",
    "spec.gpus": "--gpus",
    "spec.workers": "--workers",
    "spec.replicas": "--workers",
    "spec.parallelism.tensor": "--tensor",
    "spec.topology.level": "--topology",
    "spec.queueName": "--queue",
    "spec.priorityClassName": "--priority-class",
    "spec.spot": "--spot",
    "spec.deadline": "--deadline",
    "spec.maxRuntime": "--max-runtime",
    "spec.estimatedRuntime": "--estimated-runtime",
    "spec.maxPricePerHour": "--max-price",
    "spec.checkpoint.claimTemplate.size": "--checkpoint-size",
    "spec.checkpoint.claimTemplate": "--checkpoint-size",
    "spec.checkpoint.claim": "--checkpoint-claim",
    "spec.port": "--port",
    "spec.template.spec.containers[0].image": "--image",
    "spec.template.spec.containers[0].resources.requests.cpu": "--cpu",
    "spec.template.spec.containers[0].resources.requests.memory": "--ram",
    "spec.template.spec.containers[0].env": "--env",
    "metadata.name": "NAME",
}
FIELD = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, FLAGS))})(?![\w.])")
JOBS_ONLY = {  # by attribute of Asked: what an InferenceService does not have
    "topology": "--topology",
    "spot": "--spot",
    "deadline": "--deadline",
    "max_runtime": "--max-runtime",
    "estimated_runtime": "--estimated-runtime",
    "max_price": "--max-price",
    "checkpoint_claim": "--checkpoint-claim",
    "checkpoint_size": "--checkpoint-size",
}


def manifest(asked: Asked) -> Json:
    """The workload as YAML would have it. Raises WrongFlags."""
    _check(asked)
    fields: Json = {
        "queueName": asked.queue,
        "priorityClassName": asked.priority_class,
        "gpus": _given(count=asked.gpus, profile=asked.profile, memory=asked.memory, models=list(asked.models)),
        "parallelism": _given(tensor=asked.tensor),
    }
    fields |= _job(asked) if asked.kind is Kind.TRAINING_JOB else {"replicas": asked.workers, "port": asked.port}
    fields |= {"template": {"spec": {"containers": [_container(asked)]}}}
    spec = _given(**fields)
    try:
        problem = tensor_problem(to_request(spec, asked.kind, name=asked.name), asked.kind)
    except Misconfigured as error:
        problem = str(error)
    if problem:
        raise WrongFlags(in_flags(problem))
    metadata = _given(name=asked.name, namespace=asked.namespace)
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": str(asked.kind), "metadata": metadata, "spec": spec}


def in_flags(message: str) -> str:
    """What an API server or a model says of fields, said of the flags that set them.

    >>> in_flags("spec.gpus.count: must be greater than or equal to 1")
    '--gpus (spec.gpus.count): must be greater than or equal to 1'
    """
    return FIELD.sub(lambda found: f"{FLAGS[found[0]]} ({found[0]})", message)


def _check(asked: Asked) -> None:
    longest = training_job.LONGEST_NAME if asked.kind is Kind.TRAINING_JOB else inference_service.LONGEST_NAME
    if not re.fullmatch(NAME, asked.name) or len(asked.name) > longest:
        raise WrongFlags(
            f"NAME: {asked.name!r} must be at most {longest} lower-case letters, digits and '-', begin with a letter"
        )
    if sum(bool(one) or one == 0 for one in (asked.gpus, asked.profile or None, asked.memory or None)) != 1:
        raise WrongFlags(ONE_OF)
    if asked.kind is Kind.TRAINING_JOB:
        if asked.port is not None:
            raise WrongFlags("--port: a TrainingJob has none: leave it out, or say --kind service")
        return
    for attribute, flag in JOBS_ONLY.items():
        if getattr(asked, attribute):
            raise WrongFlags(f"{flag}: an InferenceService has no such thing: leave it out, or say --kind job")


def _job(asked: Asked) -> Json:
    level, _, mode = asked.topology.partition(":")
    template = _given(size=asked.checkpoint_size)
    return {
        "workers": asked.workers,
        "topology": _given(level=level, mode=mode),
        "spot": asked.spot,
        "deadline": asked.deadline,
        "maxRuntime": asked.max_runtime,
        "estimatedRuntime": asked.estimated_runtime,
        "maxPricePerHour": asked.max_price,
        "checkpoint": _given(claim=asked.checkpoint_claim, claimTemplate=template),
    }


def _container(asked: Asked) -> Json:
    env = [dict(zip(("name", "value"), one.split("=", 1), strict=True)) for one in asked.env if "=" in one]
    if len(env) < len(asked.env):
        wrong = next(one for one in asked.env if "=" not in one)
        raise WrongFlags(f"--env: {wrong!r} has no value: write {wrong}=VALUE")
    requests = _given(cpu=asked.cpu, memory=asked.ram)
    resources = {"requests": requests} if requests else {}
    return _given(name="main", image=asked.image, command=list(asked.command), env=env, resources=resources)


def _given(**fields: Any) -> Json:
    """What somebody said something of."""
    return {key: value for key, value in fields.items() if value not in (None, "", [], {})}


def as_applied(raw: Mapping[str, Any], namespace: str) -> Json:
    """The same, in the namespace that it goes to."""
    return {**raw, "metadata": {**raw["metadata"], "namespace": raw["metadata"].get("namespace") or namespace}}
