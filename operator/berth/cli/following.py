"""A workload that is followed until it is as somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from berth.control.ports import Api, NotFound, Resource, Unavailable
from berth.control.status import is_true
from berth.model.workloads import Kind

LOOK_SECONDS = 1.0

Raw = Mapping[str, Any]
Tell = Callable[[str], None]


class NotAsWanted(Exception):
    """What was waited for can't come any more, or did not in time; the message says why and what to do."""


async def follow(
    api: Api,
    resource: Resource,
    namespace: str,
    name: str,
    done: Callable[[Raw], bool],
    tell: Tell,
    seconds: float | None,
) -> Raw:
    """The object once `done` says so; whatever the operator says of it is told as it changes.

    `done` may raise NotAsWanted. Raises that as well where the time is over or the object is gone. A server that does
    not answer for a while is asked again.
    """
    told = ""
    try:
        async with asyncio.timeout(seconds):
            while True:
                with suppress(Unavailable):
                    raw = await api.get(resource, namespace, name)
                    if (now := summary(raw)) != told:
                        told = now
                        tell(told)
                    if done(raw):
                        return raw
                await asyncio.sleep(LOOK_SECONDS)
    except NotFound as error:
        raise NotAsWanted(f"{namespace}/{name} was deleted") from error
    except TimeoutError as error:
        why = told or "the operator has said nothing of it: see whether it runs (berth status)"
        raise NotAsWanted(f"not within {seconds:g} s; {why}") from error


def summary(raw: Raw) -> str:
    """What the operator last said of a workload, in a line; "" where it said nothing yet."""
    status = raw.get("status") or {}
    verdict = status.get("verdict") or {}
    if not verdict:
        return ""
    return f"{status.get('state') or 'Pending'}: {verdict.get('reason')}: {verdict.get('message')}"


async def found(api: Api, resource: Resource, namespace: str, name: str) -> Raw:
    """The object. Raises NotAsWanted where there is none, or ApiError."""
    try:
        return await api.get(resource, namespace, name)
    except NotFound as error:
        if f'"{name}" not found' not in str(error):
            raise
        listing = f"kubectl get {resource.plural} --namespace {namespace}"
        raise NotAsWanted(
            f"there is no {name} among the {resource.plural} of {namespace}: `{listing}` lists them"
        ) from error


def runs(raw: Raw) -> bool:
    """Whether all members run, or have ended well. Raises NotAsWanted where that can't come as things are."""
    status, spec = raw.get("status") or {}, raw["spec"]
    if status.get("observedGeneration") != raw["metadata"]["generation"]:
        return False
    if is_true(status.get("conditions"), "Misconfigured") or status.get("state") == "Failed":
        raise NotAsWanted(summary(raw))
    if raw["kind"] == Kind.TRAINING_JOB:
        return status.get("state") in ("Running", "Succeeded")
    return bool((status.get("readyReplicas") or 0) >= spec.get("replicas", 1))


def stopped(raw: Raw) -> bool:
    """Whether nothing of a suspended job runs any more, or it has ended."""
    status = raw.get("status") or {}
    seen = status.get("observedGeneration") == raw["metadata"]["generation"]
    return bool(seen and (status.get("finishedAt") or not status.get("placement")))


def stopped_words(raw: Raw) -> str:
    """What is left of a job that was stopped, in a line."""
    status, ref = raw.get("status") or {}, f"TrainingJob {raw['metadata']['namespace']}/{raw['metadata']['name']}"
    if status.get("finishedAt"):
        return f"{ref}: has ended ({status.get('state')}), there was nothing to suspend"
    saved = status.get("checkpoint")
    last = f"its last checkpoint is step {saved['step']}, of {saved['time']}" if saved else "no checkpoint is known"
    return f"{ref}: is suspended; {last}"
