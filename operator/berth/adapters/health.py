"""/healthz, /readyz and /metrics over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from berth.adapters.metrics import Metrics
from berth.adapters.reflector import Reflector
from berth.control.ports import Clock

STALE_SECONDS = 420.0  # a watch is renewed every 300 s, and bookmarks come about every 60 s


@dataclass
class Health:
    """What probes and Prometheus are told."""

    metrics: Metrics
    reflectors: Sequence[Reflector[Any]]
    clock: Clock
    ready: bool = False  # holds the Lease and has a whole picture

    def stale(self) -> list[str]:
        """Watches that have been silent for too long."""
        if not self.ready:
            return []
        now = self.clock()
        return [r.resource.plural for r in self.reflectors if now - r.last_event > STALE_SECONDS]

    async def healthz(self, request: web.Request) -> web.Response:
        """Alive: a standby that waits for the Lease is; one whose watches are silent is not."""
        stale = self.stale()
        return (
            web.Response(status=500, text=f"silent watches: {', '.join(stale)}\n")
            if stale
            else web.Response(text="ok\n")
        )

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready to act, or standing by: both may serve, so that a rollout does not wait for the Lease."""
        return web.Response(text="acting\n" if self.ready else "standing by\n")

    async def exposition(self, request: web.Request) -> web.Response:
        """Metrics in Prometheus' text format."""
        now = self.clock()
        for reflector in self.reflectors:
            age = now - reflector.last_event if reflector.last_event else 0.0
            self.metrics.silence.labels(reflector.resource.plural).set(age)
        self.metrics.look()
        content = generate_latest(self.metrics.registry)
        return web.Response(body=content, headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serve(health: Health, metrics_port: int, health_port: int) -> AsyncIterator[None]:
    """Answer on both ports while the context lasts."""
    runners: list[web.AppRunner] = []
    try:
        for port, routes in (
            (metrics_port, [web.get("/metrics", health.exposition)]),
            (health_port, [web.get("/healthz", health.healthz), web.get("/readyz", health.readyz)]),
        ):
            app = web.Application()
            app.add_routes(routes)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, port=port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
