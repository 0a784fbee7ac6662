"""Probes and /metrics, asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from berth.adapters.health import STALE_SECONDS, Health, serve
from berth.adapters.metrics import Metrics
from berth.control.ports import NODES, PODS
from e2e.cluster.control_plane import free_ports
from tests.control.fakes import HandClock


class Probe:
    """Health with two watches, served on free ports."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.clock = HandClock()
        self.pods = SimpleNamespace(resource=PODS, last_event=self.clock())
        self.nodes = SimpleNamespace(resource=NODES, last_event=self.clock())
        watches: Any = [self.pods, self.nodes]
        self.health = Health(Metrics("1"), watches, self.clock)
        self.metrics_port, self.health_port = free_ports(2)
        self.session = session

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        port = self.metrics_port if path == "/metrics" else self.health_port
        async with self.session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    """A served Health."""
    async with aiohttp.ClientSession() as session:
        probe = Probe(session)
        async with serve(probe.health, probe.metrics_port, probe.health_port):
            yield probe


async def test_a_standby_is_alive_and_ready_however_long_it_waits(probe: Probe) -> None:
    probe.clock.advance(10 * STALE_SECONDS)
    assert await probe.get("/healthz") == (200, "ok\n")
    assert await probe.get("/readyz") == (200, "standing by\n")


async def test_an_operator_that_acts_is_alive_while_its_watches_are_heard(probe: Probe) -> None:
    probe.health.ready = True
    assert await probe.get("/readyz") == (200, "acting\n")
    probe.clock.advance(STALE_SECONDS)
    assert await probe.get("/healthz") == (200, "ok\n")


async def test_a_silent_watch_is_told_by_name(probe: Probe) -> None:
    probe.health.ready = True
    probe.clock.advance(STALE_SECONDS + 1)
    probe.nodes.last_event = probe.clock()
    assert await probe.get("/healthz") == (500, "silent watches: pods\n")


async def test_metrics_tell_how_long_each_watch_was_silent(probe: Probe) -> None:
    probe.clock.advance(12.0)
    probe.nodes.last_event = 0.0  # not listed yet
    status, text = await probe.get("/metrics")
    assert status == 200
    assert 'berth_watch_last_event_age_seconds{resource="pods"} 12.0' in text
    assert 'berth_watch_last_event_age_seconds{resource="nodes"} 0.0' in text
    assert "berth_cycle_duration_seconds_bucket" in text


async def test_what_is_not_served_is_not_found(probe: Probe) -> None:
    assert (await probe.get("/"))[0] == 404
