"""A workload that is followed until it is as somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from berth.control.ports import Api, NotFound, Resource, Unavailable

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
