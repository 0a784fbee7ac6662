"""What workloads use, kept in their statuses: sums, and the moment that they count to, in one write.

A job's sums follow from its status and from how long it has held its boards since, so a crash loses none of them. They
go into each status write, that which ends an attempt included; of what just runs, they are written every few minutes.
A service's pods come and go: what it held between two looks is kept here until it is written, and a crash loses that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from zlib import crc32

from berth.control.observe import Observer
from berth.control.picture import Picture, version_of
from berth.control.ports import INFERENCE_SERVICES, TRAINING_JOBS, Api, ApiError, Clock, Json
from berth.control.usages import usage_status
from berth.model.prices import Place, PriceBook, place_of
from berth.model.usage import Usage
from berth.model.workloads import Kind, Workload
from berth.planning.metering import Holds, Intensity, Tariff, holds, metered, useful_seconds, without_reruns

log = logging.getLogger(__name__)

LOOK_SECONDS = 15.0  # between two looks at the pods of services: so much is missed of one that goes
WRITE_SECONDS = 300.0  # between two writes of one workload's usage, at least; twice that at most
WRITES = 8  # at once
MOST_PLACES = 10_000  # of nodes that are gone, beyond those that are there


@dataclass
class _Service:
    """What a service used until the last look, and how it was then."""

    usage: Usage
    workload: Workload


@dataclass
class Meter:
    """Keeps `status.usage`."""

    picture: Picture
    observer: Observer
    api: Api
    clock: Clock
    book: Callable[[], PriceBook]  # the prices of the moment
    intensity: Intensity = lambda region, hour: None
    stale_seconds: float = 180.0  # after which what an agent measured says nothing of now
    _services: dict[str, _Service] = field(default_factory=dict)  # by uid
    _places: dict[str, Place] = field(default_factory=dict)  # of nodes, by name, those that are gone included

    def status(self, w: Workload, ended_by: str = "") -> Json:
        """The status fields to write beside others, with the usage until now.

        `ended_by`: why the attempt that the workload still has did not end well. Never raises: what goes wrong here
        must keep no status from being written.
        """
        try:
            usage = self._service(w) if w.ref.kind is Kind.INFERENCE_SERVICE else self._job(w, ended_by)
        except Exception:
            log.exception("usage of %s/%s is not counted", w.ref.namespace, w.ref.name)
            return {}
        return {"usage": usage_status(usage)} if usage.bought and usage != w.usage else {}

    async def run(self) -> None:
        """Look and write for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look at all workloads once, and write what is due."""
        now, due, limit = self.clock(), list[str](), asyncio.Semaphore(WRITES)
        for w in self.observer.workloads:
            if w.ref.kind is Kind.INFERENCE_SERVICE:
                self.status(w)
            if not w.deleting and self._written(w) and now >= self._written(w) + _pause(w.ref.uid):
                due.append(w.ref.uid)
        self._forget()
        await asyncio.gather(*(self._write(uid, limit) for uid in due))

    def _written(self, w: Workload) -> float:
        """Until when the usage of a workload is written down that uses something; 0: it uses nothing."""
        if w.ref.kind is Kind.TRAINING_JOB:
            return max(w.usage.until, w.attempt.admitted_at) if w.attempt is not None and not w.finished else 0.0
        known = self._services.get(w.ref.uid)
        return (w.usage.until or w.created) if known and known.usage.total != w.usage.total else 0.0

    async def _write(self, uid: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            raw, w = self.picture.workloads.get(uid), self.observer.current(uid)
            if raw is None or w is None or w.deleting or not (fields := self.status(w)):
                return
            resource = TRAINING_JOBS if w.ref.kind is Kind.TRAINING_JOB else INFERENCE_SERVICES
            body = {"metadata": {"uid": uid, "resourceVersion": str(version_of(raw))}, "status": fields}
            try:
                answer = await self.api.merge(resource, w.ref.namespace, w.ref.name, body, subresource="status")
            except ApiError as error:  # the next look tries again
                log.info("usage of %s/%s not written: %s", w.ref.namespace, w.ref.name, error)
                return
            if uid in self.picture.workloads:  # so that the next decision is made from this very state
                self.picture.record(resource, answer)

    def _job(self, w: Workload, ended_by: str) -> Usage:
        now, tariff = float(int(self.clock())), self._tariff()
        if w.attempt is None or w.finished or now <= w.usage.until:
            return w.usage
        found = metered(w.usage, self._holds(w, w.usage, now), tariff, now, w.created)
        if not ended_by:
            return found
        whole = self._holds(w, replace(w.usage, until=w.attempt.admitted_at), now)
        return without_reruns(found, whole, tariff, ended_by, useful_seconds(w), w.created)

    def _service(self, w: Workload) -> Usage:
        now = float(int(self.clock()))
        known = self._services.get(w.ref.uid)
        if known is None:
            before = w.usage if w.usage.until else replace(w.usage, until=now)
            known = self._services[w.ref.uid] = _Service(before, w)
        if now > known.usage.until:
            held = self._holds(known.workload, known.usage, now)
            known.usage = metered(known.usage, held, self._tariff(), now, None)
        known.workload = w
        return known.usage

    def _holds(self, w: Workload, usage: Usage, now: float) -> Holds:
        return holds(w, lambda node, model: self._place(node, model, usage), self._watts, usage.until, now)

    def _watts(self, node: str, pod: str) -> float | None:
        """What each board draws that a pod holds, or has an instance of, on average; None: nobody measures it."""
        report = self.picture.gpu_nodes.get("", node)
        if report is None or report.observed + self.stale_seconds <= self.clock():
            return None
        held = [b.watts for b in report.boards if pod == b.holder or any(pod == i.holder for i in b.instances)]
        known = [watts for watts in held if watts is not None]
        return sum(known) / len(known) if known and len(known) == len(held) else None

    def _tariff(self) -> Tariff:
        return Tariff(self.book(), self.intensity)

    def _place(self, node: str, model: str, usage: Usage) -> Place:
        """Of a node that is gone, what it was; of one that was never seen, that of the workload's last such boards."""
        record = self.picture.nodes.get("", node)
        if record is not None:
            self._places[node] = place_of(record.meta.labels)
        if node in self._places:
            return self._places[node]
        last = next((one for one in reversed(usage.bought) if one.model == model), None)
        return Place(last.region, last.capacity) if last else Place()

    def _forget(self) -> None:
        workloads, nodes = self.picture.workloads, self.picture.nodes
        self._services = {uid: one for uid, one in self._services.items() if uid in workloads}
        if len(self._places) > len(nodes) + MOST_PLACES:
            self._places = {name: place for name, place in self._places.items() if nodes.get("", name)}


def _pause(uid: str) -> float:
    """Between two writes: not the same for all, so that gangs that start together are not written together."""
    return WRITE_SECONDS * (1 + crc32(uid.encode()) / 2**32)
