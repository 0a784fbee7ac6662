"""Events on our objects: what people see in `kubectl describe`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from berth.control.ports import EVENTS, GROUP, VERSION, Api, ApiError, Clock, Json
from berth.control.status import to_rfc3339
from berth.model.workloads import Ref

log = logging.getLogger(__name__)

POSTED_AT_ONCE = 4  # a burst of news must not hold up what it is about
QUIET_SECONDS = 300.0  # the same event on the same object is not repeated within this time


@dataclass
class Recorder:
    """Posts events beside the work: nothing waits for them, and a lost one does no harm."""

    api: Api
    clock: Clock
    _last: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _most: int = 1000  # of these, before old ones are dropped: at every event it would take a burst's square
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _posting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(POSTED_AT_ONCE))

    def note(self, ref: Ref, reason: str, message: str, *, warning: bool = False) -> None:
        """Post an event, unless the same was posted lately."""
        now = self.clock()
        key = (ref.uid, reason, message)
        if now - self._last.get(key, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self._last[key] = now
        if len(self._last) > self._most:
            self._last = {k: at for k, at in self._last.items() if now - at < QUIET_SECONDS}
            self._most = 2 * len(self._last) + 1000
        task = asyncio.create_task(self._post(ref, self._body(ref, reason, message, warning, now)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, ref: Ref, body: Json) -> None:
        try:
            async with self._posting:
                await self.api.create(EVENTS, ref.namespace, body)
        except ApiError as error:
            log.info("no event %s on %s/%s: %s", body["reason"], ref.namespace, ref.name, error)

    @staticmethod
    def _body(ref: Ref, reason: str, message: str, warning: bool, now: float) -> Json:
        involved = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": ref.kind.value,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": ref.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{ref.name}.", "namespace": ref.namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "count": 1,
            "firstTimestamp": to_rfc3339(now),
            "lastTimestamp": to_rfc3339(now),
            "source": {"component": "berth"},
        }
