"""Requests that can never be met as they stand: the field at fault, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from berth.model.gpus import MODELS, BoardModel
from berth.model.workloads import Demand, Group, Kind, Request
from berth.planning.cohorts import Cohorts
from berth.planning.fleet import Fleet
from berth.planning.options import MIB


def problem_with(request: Request, kind: Kind, fleet: Fleet) -> str:
    """What is wrong with a request, naming the field; "" where nothing is."""
    models = _known(fleet)
    return (
        _models_problem(request.demand, models)
        or _profile_problem(request.demand, models)
        or _memory_problem(request.demand, models)
        or _level_problem(request, fleet)
        or tensor_problem(request, kind)
    )


def queue_problem(queue: str, namespace: str, cohorts: Cohorts, default: str) -> str:
    """What is wrong with a queue for work of that namespace; "" where nothing is, or it is the default."""
    open_to_it = [q.name for q in cohorts.queues.values() if q.namespaces is None or namespace in q.namespaces]
    known = sorted({*open_to_it, default} if default not in cohorts.queues else open_to_it)
    if queue not in {*cohorts.queues, default}:
        return f'spec.queueName: there is no Queue "{queue}": create it or name one of {_listed(known)}'
    if problem := cohorts.problems.get(queue, ""):
        return f"spec.queueName: queue {queue} can't be used until it is put right ({problem})"
    if queue not in known:
        instead = f"name one of {_listed(known)}, or add it there" if known else "add it there"
        return f"spec.queueName: {namespace} is not in spec.namespaces of queue {queue}: {instead}"
    return ""


def _known(fleet: Fleet) -> tuple[BoardModel, ...]:
    named = {model.name: model for model in MODELS}
    return tuple({**{name: pool.model for name, pool in fleet.pools.items()}, **named}.values())


def _asked(demand: Demand, models: tuple[BoardModel, ...]) -> list[BoardModel]:
    return [m for m in models if not demand.models or any(m.answers_to(name) for name in demand.models)]


def _models_problem(demand: Demand, models: tuple[BoardModel, ...]) -> str:
    for i, name in enumerate(demand.models):
        if not any(model.answers_to(name) for model in models):
            known = sorted({m.name for m in models} | {m.family for m in models})
            return f'spec.gpus.models[{i}]: unknown GPU model "{name}": {_suggestion(name, known)}'
    return ""


def _profile_problem(demand: Demand, models: tuple[BoardModel, ...]) -> str:
    if demand.profile is None or any(m.profile(demand.profile) for m in _asked(demand, models)):
        return ""
    known = sorted({p.name for m in _asked(demand, models) for p in m.profiles})
    owners = sorted({m.name for m in models if m.profile(demand.profile)})
    if owners:
        asked = ", ".join(demand.models)
        return f'spec.gpus.profile: {asked} has no profile "{demand.profile}" ({_listed(owners)} have it): ' + (
            f"{_suggestion(demand.profile, known)}" if known else "it has no MIG at all"
        )
    return f'spec.gpus.profile: no GPU has a profile "{demand.profile}": {_suggestion(demand.profile, known)}'


def _memory_problem(demand: Demand, models: tuple[BoardModel, ...]) -> str:
    if demand.memory_bytes is None:
        return ""
    largest = max(_asked(demand, models), key=lambda m: (m.memory_mib, m.name))
    if demand.memory_bytes <= largest.memory_mib * MIB:
        return ""
    return (
        f"spec.gpus.memory: {demand.memory_bytes // MIB} MiB is more than one board has: the largest, {largest.name}, "
        f"has {largest.memory_mib} MiB: use `count` and spread the model over several boards"
    )


def _level_problem(request: Request, fleet: Fleet) -> str:
    known = [level.name for level in fleet.levels]
    if request.topology is None:
        return ""
    if request.topology.level not in known:
        return f'spec.topology.level: unknown level "{request.topology.level}": use one of {_listed(known)}'
    around = request.topology.level
    for group in request.topology.groups:
        if group.level not in known:
            return f'spec.topology.groups: unknown level "{group.level}": use one of {_listed(known)}'
        if known.index(group.level) < known.index(around):
            closer = _listed(known[known.index(around) :])
            return f"spec.topology.groups: groups of {group.size} on level {group.level} lie in {around}: use {closer}"
        around = group.level
    return ""


def tensor_problem(request: Request, kind: Kind) -> str:
    """What is wrong with how a request's boards are to share NVLink, whatever the fleet; "" where nothing is."""
    field, tensor, demand = "spec.parallelism.tensor", request.tensor, request.demand
    if tensor == 1:
        return ""
    if demand.profile is not None:
        return f"{field}: {tensor} boards can't share NVLink through MIG: ask for whole boards, or set it to 1"
    boards = demand.count or 1
    if tensor <= boards:
        return "" if boards % tensor == 0 else f"{field}: {tensor} does not divide the {boards} boards of a worker"
    if tensor % boards:
        return f"{field}: {tensor} is not a multiple of the {boards} boards of a worker"
    if kind is Kind.INFERENCE_SERVICE:
        return f"{field}: {tensor} is more than the {boards} boards of a replica: ask for count {tensor}"
    if any(group.size % (tensor // boards) and tensor // boards % group.size for group in _groups(request)):
        return (
            f"{field}: {tensor} boards are {tensor // boards} workers, which do not divide spec.topology.groups evenly"
        )
    if request.workers % (tensor // boards):
        return (
            f"{field}: {tensor} boards are {tensor // boards} workers of {boards}, and {request.workers} workers "
            f"can't be split into such groups: use a multiple of {tensor // boards}"
        )
    return ""


def _groups(request: Request) -> tuple[Group, ...]:
    return request.topology.groups if request.topology else ()


def _suggestion(wrong: str, known: list[str]) -> str:
    close = get_close_matches(wrong.lower(), [name.lower() for name in known], n=1)
    meant = next((name for name in known if close and name.lower() == close[0]), "")
    return (f'did you mean "{meant}"? ' if meant else "") + f"known: {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
