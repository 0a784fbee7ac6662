"""EC2's instance metadata, version 2: spot interruptions, scheduled events, and the advice to leave.

A session token comes first; a pod reaches the service only where its hop limit is 2 or more, or on the host's network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from berth.adapters.metadata.service import REQUEST_SECONDS, Answer, Service, expect
from berth.control.interruptions import MAINTENANCE, SPOT, http_moment, moment
from berth.control.notices import NoAnswer, Notices
from berth.control.ports import Clock
from berth.model.nodes import Interruption

log = logging.getLogger(__name__)

SOURCE = "EC2 instance metadata"
TOKEN = "/latest/api/token"
ACTION = "/latest/meta-data/spot/instance-action"
SCHEDULED = "/latest/meta-data/events/maintenance/scheduled"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
TOKEN_SECONDS = 21_600  # the longest that EC2 gives
SPOT_PAUSE_SECONDS = 1.0  # EC2 advises 5 s, of a notice of 120 s; a save is to be asked for within 2
SLOW_PAUSE_SECONDS = 30.0  # scheduled events are announced days ahead


@dataclass(slots=True)
class Session:
    """Requests with a token, which is renewed well before it ends, or when it is refused."""

    service: Service
    clock: Clock
    _token: str = ""
    _renew: float = 0.0  # when to get another
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, path: str) -> Answer | None:
        """What stands at a path; None: nothing. Raises NoAnswer."""
        answer = await self._get(path)
        if answer.status == 401:
            self._renew = 0.0
            answer = await self._get(path)
        return expect(answer, path, 200) if answer.status != 404 else None

    async def _get(self, path: str) -> Answer:
        async with self._lock:
            if self.clock() >= self._renew:
                await self._log_in()
        return await self.service.request(path, {"X-aws-ec2-metadata-token": self._token}, seconds=REQUEST_SECONDS)

    async def _log_in(self) -> None:
        wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        answer = await self.service.request(TOKEN, wanted, seconds=REQUEST_SECONDS, method="PUT")
        expect(answer, TOKEN, 200)
        token, given = answer.text, answer.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not token or not token.isascii() or not token.isprintable():
            raise NoAnswer(f"{TOKEN}: no token")
        lasts = min(int(given), TOKEN_SECONDS) if given.isascii() and given.isdigit() else TOKEN_SECONDS
        self._token, self._renew = token, self.clock() + 0.9 * lasts


class _Action(msgspec.Struct):
    action: str
    time: str = ""


@dataclass(frozen=True, slots=True)
class SpotInterruptions:
    """EC2 takes a spot instance back: it is terminated, stopped or hibernated."""

    session: Session
    name: str = "spot interruptions of EC2"
    pause_seconds: float = SPOT_PAUSE_SECONDS

    async def ask(self) -> Interruption | None:
        """See Notices."""
        answer = await self.session.get(ACTION)
        return Interruption(SPOT, SOURCE, moment(answer.read(_Action).time)) if answer else None


class _Event(msgspec.Struct, rename="pascal"):
    state: str = ""
    not_before: str = ""


@dataclass(frozen=True, slots=True)
class ScheduledEvents:
    """EC2 is going to reboot, stop or retire the instance, or to maintain its host: the first of these."""

    session: Session
    name: str = "scheduled events of EC2"
    pause_seconds: float = SLOW_PAUSE_SECONDS

    async def ask(self) -> Interruption | None:
        """See Notices."""
        answer = await self.session.get(SCHEDULED)
        events = answer.read(list[_Event]) if answer else []
        begins = [http_moment(event.not_before) for event in events if event.state == "active"]
        return Interruption(MAINTENANCE, SOURCE, min(begins)) if begins else None


@dataclass(slots=True)
class Rebalance:
    """EC2 deems an interruption likelier than usual, and none may follow: it is logged, and interrupts nothing.

    Work that left on such advice would often pay for a restart in vain; the notice itself leaves two minutes to save.
    """

    session: Session
    name: str = "rebalance recommendations of EC2"
    pause_seconds: float = SLOW_PAUSE_SECONDS
    _logged: str = ""

    async def ask(self) -> Interruption | None:
        """See Notices."""
        answer = await self.session.get(REBALANCE)
        noticed = str(answer.read(dict[str, Any]).get("noticeTime", "")) if answer else ""
        if noticed and noticed != self._logged:
            log.info("EC2 advises since %s to leave this instance; its work stays until it is interrupted", noticed)
        self._logged = noticed
        return None


def notices(service: Service, clock: Clock) -> Sequence[Notices]:
    """What to listen to."""
    session = Session(service, clock)
    return SpotInterruptions(session), ScheduledEvents(session), Rebalance(session)
