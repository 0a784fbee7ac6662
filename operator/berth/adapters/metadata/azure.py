"""Azure's scheduled events: of all machines of a scale set or availability set, so those of others are left out.

The first request of a machine switches the service on for it, which may take two minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from berth.adapters.metadata.service import REQUEST_SECONDS, Answer, Service, expect
from berth.control.interruptions import AZURE_EVENTS, http_moment
from berth.control.notices import NoAnswer, Notices
from berth.control.ports import Clock
from berth.model.nodes import Interruption

SOURCE = "Azure scheduled events"
HEADERS = {"Metadata": "true"}
EVENTS = "/metadata/scheduledevents"
NAME = "/metadata/instance/compute/name"
FIRST_SECONDS = 150.0  # that the first answer may take
PAUSE_SECONDS = 1.0  # as Azure advises; a preempted machine has 30 s
AHEAD = ("Scheduled", "Started")  # what has ended is listed no more


class _Event(msgspec.Struct, rename="pascal"):
    event_id: str = ""
    event_type: str = ""
    event_status: str = ""
    resources: list[str] | None = None
    not_before: str = ""


class _Document(msgspec.Struct, rename="pascal"):
    events: list[_Event] = []


@dataclass(slots=True)
class ScheduledEvents:
    """Azure takes a spot machine back, deletes, reboots or moves the machine: the first of these."""

    service: Service
    clock: Clock
    name: str = "scheduled events of Azure"
    pause_seconds: float = PAUSE_SECONDS
    _machine: str = ""
    _answered: bool = False
    _deadlines: dict[str, float] = field(default_factory=dict)  # by event

    async def ask(self) -> Interruption | None:
        """See Notices."""
        if not self._machine:
            self._machine = await self._own_name()
        seconds = REQUEST_SECONDS if self._answered else FIRST_SECONDS
        answer = await self._get(EVENTS, {"api-version": "2020-07-01"}, seconds)
        found = [event for event in answer.read(_Document).events if self._matters(event)]
        self._answered = True
        self._deadlines = {event.event_id: self._deadline(event) for event in found}
        heard = [Interruption(AZURE_EVENTS[e.event_type], SOURCE, self._deadlines[e.event_id]) for e in found]
        return min(heard, key=lambda each: (each.deadline, each.reason), default=None)

    def _matters(self, event: _Event) -> bool:
        ours = self._machine in (name.lower() for name in event.resources or ())
        return ours and event.event_type in AZURE_EVENTS and event.event_status in AHEAD

    def _deadline(self, event: _Event) -> float:
        """What has started states no time any more: that of its announcement counts, or now."""
        return http_moment(event.not_before) or self._deadlines.get(event.event_id) or self.clock()

    async def _own_name(self) -> str:
        answer = await self._get(NAME, {"api-version": "2021-02-01", "format": "text"}, REQUEST_SECONDS)
        if not answer.text or len(answer.text) > 80 or not answer.text.isprintable():
            raise NoAnswer(f"{NAME}: no name of a machine")
        return answer.text.lower()

    async def _get(self, path: str, query: dict[str, str], seconds: float) -> Answer:
        return expect(await self.service.request(path, HEADERS, query=query, seconds=seconds), path, 200)


def notices(service: Service, clock: Clock) -> Sequence[Notices]:
    """What to listen to."""
    return (ScheduledEvents(service, clock),)
