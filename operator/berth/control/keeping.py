"""Keeps what was seen of failures over restarts of the operator, in a ConfigMap beside it.

The chart makes the ConfigMap, empty, and deletes it: one that is not there is not made, so nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from berth.control.ports import CONFIG_MAPS, Api, ApiError, Clock, NotFound
from berth.control.rates import LOOK_SECONDS, Pool, Rates
from berth.planning.interval import AGES, Hazard

log = logging.getLogger(__name__)

CONFIG_MAP, KEY = "berth-failure-rates", "rates.json"
WRITE_SECONDS = 300.0  # between two writes; so much is lost in a crash
LAST_SECONDS = 2.0  # for the write at the end: nobody waits longer for the operator to leave
MOST_POOLS = 200  # that are kept, those that were seen for longest: some 30 KB
DIGITS = 1  # of seconds

Evidence = Mapping[Pool, tuple[tuple[float, ...], tuple[float, ...]]]


@dataclass
class Keeper:
    """Reads once, then writes every few minutes and at the end."""

    rates: Rates
    api: Api
    namespace: str  # the operator's own
    clock: Clock
    _kept: str = ""  # what was read or written last
    _written: float = 0.0

    async def run(self) -> None:
        """Read what is kept, and keep it up to date, for ever. Nothing is written over what could not be read."""
        while not await self.recall():  # noqa: ASYNC110 - it asks again, nothing tells us
            await asyncio.sleep(LOOK_SECONDS)
        self._written = self.clock()
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                self.rates.look()
                if self.clock() >= self._written + WRITE_SECONDS:
                    await self.keep()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self.keep()

    async def recall(self) -> bool:
        """Count what is kept; whether the API server answered. What is no such thing is left out."""
        try:
            found = await self.api.get(CONFIG_MAPS, self.namespace, CONFIG_MAP)
        except NotFound:
            log.info("rates of failure are not kept: there is no ConfigMap %s/%s", self.namespace, CONFIG_MAP)
            return True
        except ApiError as error:
            log.warning("rates of failure in ConfigMap %s/%s not read: %s", self.namespace, CONFIG_MAP, error)
            return False
        text = (found.get("data") or {}).get(KEY, "")
        try:
            self.rates.recall(from_text(text) if text else {})
            self._kept = text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("left out, ConfigMap %s/%s is not as Berth wrote it: %r", self.namespace, CONFIG_MAP, error)
        return True

    async def keep(self) -> None:
        """Write what was seen, if it is more than what is kept."""
        text = to_text(self.rates.evidence())
        self._written = self.clock()
        if text == self._kept:
            return
        try:
            await self.api.merge(CONFIG_MAPS, self.namespace, CONFIG_MAP, {"data": {KEY: text}})
            self._kept = text
        except NotFound:
            log.debug("rates of failure not kept: there is no ConfigMap %s/%s", self.namespace, CONFIG_MAP)
        except ApiError as error:
            log.warning("rates of failure not kept in ConfigMap %s/%s: %s", self.namespace, CONFIG_MAP, error)


def to_text(hazards: Mapping[Pool, Hazard]) -> str:
    """What was seen of each pool, without the belief that it began with."""
    seen = sorted(hazards.items(), key=lambda item: (-sum(item[1].seconds), item[0]))[:MOST_POOLS]
    pools = [
        {
            "spot": spot,
            "zone": zone,
            "product": product,
            "failures": list(hazard.failures),
            "seconds": [round(seconds, DIGITS) for seconds in hazard.seconds],
        }
        for (spot, zone, product), hazard in seen
    ]
    return json.dumps({"ages": list(AGES), "pools": pools})


def from_text(text: str) -> Evidence:
    """The inverse of `to_text`: failures and seconds of each pool. Raises ValueError, KeyError or TypeError."""
    read = json.loads(text)
    if tuple(read["ages"]) != AGES:
        raise ValueError(f"other ages: {read['ages']!r}")
    return {
        (bool(pool["spot"]), str(pool["zone"]), str(pool["product"])): (
            _amounts(pool["failures"]),
            _amounts(pool["seconds"]),
        )
        for pool in read["pools"][:MOST_POOLS]
    }


def _amounts(values: Any) -> tuple[float, ...]:
    amounts = tuple(float(value) for value in values)
    if len(amounts) != len(AGES) or not all(isfinite(amount) and amount >= 0 for amount in amounts):
        raise ValueError(f"no amounts: {values!r}")
    return amounts
