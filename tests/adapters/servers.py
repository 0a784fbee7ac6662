"""A tiny API server over HTTP, for what only a server can do: pages, watches, broken connections, odd answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes import client

from berth.adapters.kube import KubeApi

Json = dict[str, Any]


def a_claim(name: str, version: int, volume: str = "") -> Json:
    """A PersistentVolumeClaim of the namespace "team"."""
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"volumeName": volume} if volume else {}}


def gone(message: str = "too old resource version") -> Json:
    """The object of an ERROR event after a compaction."""
    return {"kind": "Status", "code": 410, "reason": "Expired", "message": message}


@dataclass
class ClaimServer:
    """Lists claims in pages, and sends each watch the lines that the test puts into its queue."""

    claims: list[Json] = field(default_factory=list)
    version: int = 100
    requests: list[dict[str, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)  # what each request wants, as its header Accept says
    refusals: list[int] = field(default_factory=list)  # statuses that the next requests are answered with
    watches: asyncio.Queue[asyncio.Queue[bytes | None]] = field(default_factory=asyncio.Queue)

    @property
    def lists(self) -> int:
        """How many lists were begun."""
        return sum("watch" not in query and "continue" not in query for query in self.requests)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        query = dict(request.query)
        self.requests.append(query)
        self.accepted.append(request.headers.get("Accept", ""))
        if self.refusals:
            status = self.refusals.pop(0)
            return web.json_response({"message": f"status {status}"}, status=status)
        return await self._watch(request) if "watch" in query else self._page(query)

    def _page(self, query: dict[str, str]) -> web.Response:
        start, limit = int(query.get("continue", "0")), int(query["limit"])
        token = str(start + limit) if start + limit < len(self.claims) else ""
        metadata = {"resourceVersion": str(self.version), "continue": token}
        return web.json_response({"metadata": metadata, "items": self.claims[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.watches.put_nowait(lines)
        while (line := await lines.get()) is not None:
            if line == b"":
                assert request.transport is not None
                request.transport.abort()
                break
            await response.write(line)
        return response


def event(kind: str, raw: Json) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": raw}).encode() + b"\n"


@asynccontextmanager
async def serving(answer: Any) -> AsyncIterator[KubeApi]:
    """A client of a server that answers every request like this."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield KubeApi(session, str(server.make_url("")).rstrip("/"), client.Configuration())
