"""Listens to what the cloud says of the node's end, and writes it into the GPUNode at once.

It does so beside the agent's rounds: a metadata service that is slow, or gone, holds nothing up. What was heard last
counts until the service says otherwise, over a restart of the agent too, since the GPUNode has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from berth.agent.agent import Seen, seen_of
from berth.agent.report import INTERRUPTION, timestamp
from berth.control.interruptions import pressing
from berth.control.notices import NoAnswer, Notices
from berth.control.ports import GPU_NODES, Api, ApiError, Clock, Json
from berth.model.nodes import Interruption

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 5.0)  # after a failure: at first, and at most; a notice may be all of 30 s
WRITE_SECONDS = (0.2, 5.0)


@dataclass(slots=True)
class Listener:
    """Writes down what the sources of one node say: of several the one that comes first."""

    node: str
    api: Api
    clock: Clock
    _seen: Seen | None = None  # None: the GPUNode was not looked for yet
    _heard: dict[int, Interruption | None] = field(default_factory=dict)  # by the place of the source
    _sources: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, seen: Seen | None) -> None:
        """Take in a state of the GPUNode; None: it is gone, and will be made anew."""
        known = seen or Seen()
        if seen is None or self._seen is None or seen.version >= self._seen.version:
            self._seen = known
            self._woken.set()

    async def run(self, sources: Sequence[Notices]) -> None:
        """Listen for ever; one source that fails is asked again, and holds up no other."""
        self._sources = len(sources)
        self._woken.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            for place, source in enumerate(sources):
                group.create_task(self._listen(place, source))

    async def _listen(self, place: int, source: Notices) -> None:
        failures, complaint = 0, ""
        while True:
            try:
                found = await source.ask()
            except Exception as error:  # beyond NoAnswer it is a bug, which must not leave the node deaf
                if str(error) != complaint:
                    complaint = str(error)
                    bug = not isinstance(error, NoAnswer)
                    log.warning("node %s: %s: %s", self.node, source.name, error, exc_info=bug)
                await asyncio.sleep(_after(failures, RETRY_SECONDS))
                failures += 1
                continue
            if failures:
                log.info("node %s: %s: well again", self.node, source.name)
            failures, complaint = 0, ""
            if place not in self._heard or self._heard[place] != found:
                self._heard[place] = found
                self._woken.set()
            await asyncio.sleep(source.pause_seconds)

    async def _write(self) -> None:
        failures = 0
        while True:
            await self._woken.wait()
            self._woken.clear()
            change = self._change()
            if change is None:
                continue
            try:
                status = {"status": {INTERRUPTION: change or None}}
                written = await self.api.merge(GPU_NODES, "", self.node, status, subresource="status")
            except ApiError as error:
                log.warning("node %s: %s, not written down yet: %s", self.node, _told(change), error)
                await asyncio.sleep(_after(failures, WRITE_SECONDS))
                failures += 1
                self._woken.set()
                continue
            failures = 0
            log.warning("node %s: %s", self.node, _told(change))
            self.observe(seen_of(written))

    def _change(self) -> Json | None:
        """What to write, {} to remove what is there; None for nothing. Nothing is removed before all have answered."""
        found = min((heard for heard in self._heard.values() if heard), key=pressing, default=None)
        if self._seen is None or (found is None and len(self._heard) < self._sources):
            return None
        recorded = self._seen.status.get(INTERRUPTION)
        known: Mapping[str, object] = recorded if isinstance(recorded, Mapping) else {}
        if found is None:
            return {} if recorded is not None else None
        said = {"reason": found.reason, "source": found.source}
        deadline = timestamp(found.deadline) if found.deadline else None
        same = all(known.get(key) == value for key, value in said.items())
        if same and known.get("deadline") == deadline:
            return None
        noticed = known.get("noticedAt") if same else None
        return {**said, "noticedAt": noticed or timestamp(self.clock()), "deadline": deadline}


def _told(change: Json) -> str:
    if not change:
        return "not interrupted any more"
    return f"{change['reason']} by {change['deadline'] or 'a time that nobody states'}, says {change['source']}"


def _after(failures: int, seconds: tuple[float, float]) -> float:
    first, longest = seconds
    return min(longest, first * 2.0 ** min(failures, 16))
