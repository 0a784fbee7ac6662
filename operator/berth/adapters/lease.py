"""Leader election by a Lease: exactly one operator acts.

The rules are those of client-go: whoever holds the Lease renews it; another may take it only after it has seen the
same record for a whole lease duration on its own clock, so clocks need not agree. A holder that can't renew for the
renew deadline must stop acting at once, before anybody else may start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from berth.control.ports import LEASES, Api, ApiError, Json, NotFound

log = logging.getLogger(__name__)


def _now() -> float:
    return asyncio.get_running_loop().time()  # monotonic


class LeaseLost(Exception):
    """Another operator may act from now on."""


@dataclass
class Lease:
    """This process's claim on the Lease."""

    api: Api
    namespace: str
    name: str
    identity: str
    duration_seconds: float
    renew_deadline_seconds: float
    retry_seconds: float
    _seen: tuple[str, str] = field(default=("", ""), init=False)  # holder and renewTime last observed
    _seen_at: float = field(default=0.0, init=False)  # when that was
    _renewed_at: float = field(default=0.0, init=False)  # when our last write that worked was sent

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        waiting = False
        while not await self._try_within(self.renew_deadline_seconds):
            if not waiting:
                log.info("waiting for the lease, held by %s", self._seen[0] or "nobody yet")
                waiting = True
            await asyncio.sleep(self.retry_seconds)
        log.info("holding the lease %s/%s as %s", self.namespace, self.name, self.identity)

    async def hold(self) -> None:
        """Renew for ever. Raises LeaseLost when that fails for the renew deadline."""
        while True:
            await asyncio.sleep(self.retry_seconds)
            left = self._renewed_at + self.renew_deadline_seconds - _now()
            if await self._try_within(max(left, 0.1)):
                continue
            since = _now() - self._renewed_at
            if self._seen[0] != self.identity or since >= self.renew_deadline_seconds:
                raise LeaseLost(f"not renewed for {since:.0f} s; held by {self._seen[0]}")

    async def release(self) -> None:
        """Let the next operator start without waiting for the Lease to run out; a courtesy that may fail."""
        try:
            async with asyncio.timeout(self.retry_seconds):
                found = await self.api.get(LEASES, self.namespace, self.name)
                if found["spec"].get("holderIdentity") == self.identity:
                    await self._replace(found, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            log.info("the lease was not released, it will run out: %s", error or "no answer")

    async def _try_within(self, seconds: float) -> bool:
        """Take or renew the Lease if we may; an answer that takes longer is none.

        What counts is when the write was sent: others may take over a lease duration after it was done.
        """
        sent = _now()
        try:
            async with asyncio.timeout(seconds):
                if not await self._try():
                    return False
        except TimeoutError:
            return False
        self._renewed_at = sent
        return True

    async def _try(self) -> bool:
        """One attempt; whether the Lease is ours."""
        try:
            try:
                found = await self.api.get(LEASES, self.namespace, self.name)
            except NotFound:
                await self.api.create(LEASES, self.namespace, {**self._body(), "spec": self._spec({})})
                self._observe(self.identity, "")
                return True
            spec = found.get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            self._observe(holder, spec.get("renewTime") or "")
            if holder not in ("", self.identity) and not self._ran_out(spec):
                return False
            await self._replace(found, self._spec(spec))
            self._observe(self.identity, "")
            return True
        except ApiError as error:
            log.warning("lease not renewed: %s", error)
            return False

    def _observe(self, holder: str, renewed: str) -> None:
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), _now()

    def _ran_out(self, spec: Mapping[str, Any]) -> bool:
        duration = float(spec.get("leaseDurationSeconds") or self.duration_seconds)
        return _now() - self._seen_at >= duration

    def _spec(self, old: Mapping[str, Any]) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = old.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self.duration_seconds)),
            "acquireTime": old.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (not ours),
        }

    def _body(self) -> Json:
        metadata = {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}

    async def _replace(self, found: Json, spec: Json) -> None:
        """Write under the resourceVersion that was read: of two takers one gets a Conflict."""
        version = found["metadata"]["resourceVersion"]
        await self.api.merge(
            LEASES, self.namespace, self.name, {"metadata": {"resourceVersion": version}, "spec": spec}
        )
