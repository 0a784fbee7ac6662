"""Google Compute Engine's metadata server: preemption, and maintenance of the host. It answers when a value changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from berth.adapters.metadata.service import REQUEST_SECONDS, Service, expect
from berth.control.interruptions import MAINTENANCE, SPOT
from berth.control.notices import NoAnswer, Notices
from berth.control.ports import Clock
from berth.model.nodes import Interruption

SOURCE = "Compute Engine metadata"
INSTANCE = "/computeMetadata/v1/instance/"
HEADERS = {"Metadata-Flavor": "Google"}
WAIT_SECONDS = 60  # for a change; the server then answers with the old value
PAUSE_SECONDS = 0.2  # after an answer, lest a server that does not wait be asked without end
PREEMPTION_SECONDS = 30.0  # from the notice to the end, which the server does not state


@dataclass(slots=True)
class Value:
    """One value of the instance's metadata, and what its words mean; None: nothing."""

    service: Service
    clock: Clock
    name: str
    key: str
    meanings: Mapping[str, Callable[[float], Interruption] | None]  # given the time when it was heard
    pause_seconds: float = PAUSE_SECONDS
    _etag: str = ""
    _heard: dict[str, Interruption | None] = field(default_factory=dict)  # by the value that the server has now

    async def ask(self) -> Interruption | None:
        """See Notices."""
        path = INSTANCE + self.key
        waiting = {"wait_for_change": "true", "timeout_sec": str(WAIT_SECONDS), "last_etag": self._etag}
        query, self._etag = waiting if self._etag else None, ""  # after a mishap ask for the value of that moment
        seconds = REQUEST_SECONDS + (WAIT_SECONDS if query else 0)
        answer = expect(await self.service.request(path, HEADERS, query=query, seconds=seconds), path, 200)
        value = answer.text.upper()
        if answer.headers.get("Metadata-Flavor") != "Google" or value not in self.meanings:
            raise NoAnswer(f"{path}: {value[:80]!r} is no answer of Compute Engine")
        self._etag = answer.headers.get("ETag", "")
        if value not in self._heard:
            meaning = self.meanings[value]
            self._heard = {value: meaning(self.clock()) if meaning else None}
        return self._heard[value]


def notices(service: Service, clock: Clock) -> Sequence[Notices]:
    """What to listen to. A machine with GPUs can't be migrated; of one that can nothing is lost."""

    def preempted(now: float) -> Interruption:
        return Interruption(SPOT, SOURCE, now + PREEMPTION_SECONDS)

    def maintained(_: float) -> Interruption:
        return Interruption(MAINTENANCE, SOURCE)

    ends = {"TRUE": preempted, "FALSE": None}
    events = {"TERMINATE_ON_HOST_MAINTENANCE": maintained, "MIGRATE_ON_HOST_MAINTENANCE": None, "NONE": None}
    return (
        Value(service, clock, "preemption by Compute Engine", "preempted", ends),
        Value(service, clock, "maintenance events of Compute Engine", "maintenance-event", events),
    )
