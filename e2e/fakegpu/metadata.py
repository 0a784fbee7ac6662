"""Fake metadata services: EC2's (version 2), Compute Engine's and Azure's, of any number of machines, in one server.

An agent that is pointed at `ADDRESS/machines/NODE` finds all three there, each with its own protocol: paths, headers,
tokens, ETags, long polls, documented answers and refusals. Tests say over HTTP what happens to a machine:

    PUT    /machines/NODE/notice  {"kind": "spot", "seconds": 120}    any field of `Notice`
    DELETE /machines/NODE/notice                                      all is well again
    PUT    /machines/NODE/fault   {"status": 503, "path": "preempted"}   any field of `Fault`; {}: none
    GET    /machines/NODE/asked                                       how often each path was asked for

On kind the server runs beside the fake device plugin on every worker. Agents that `on_simulated_boards` made listen to
it; on workers without an agent the plugin does, with the agent's own code, as in EC2. `Cloud` tells a worker's services
from anywhere that reaches the API server:

    async with connect(str(kubeconfig)) as kube:
        await Cloud(kube).notice(node, kind="spot", seconds=120)

or, where nothing is asynchronous, `tell(kubeconfig, node, kind="spot", seconds=120)`; `tell(kubeconfig, node)` ends it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web

from e2e.fakegpu.deploy import METADATA_PORT, NAME, NAMESPACE
from e2e.fakegpu.kube import ApiError, Kube, connect

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
AZURE_TYPES = {"spot": "Preempt", "termination": "Terminate", "maintenance": "Reboot", "freeze": "Freeze"}
SECONDS = 60.0  # that an agent or its pod may take to be there


class Notice(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is about to happen to a machine. Each cloud says of it what it documents; some know nothing of a kind."""

    kind: Literal["spot", "termination", "maintenance", "freeze", "rebalance"] = "spot"
    seconds: float = 120.0  # from now until it happens
    started: bool = False  # Azure: it happens already, and states no time
    resources: list[str] | None = None  # Azure: the machines that it happens to; None: this one


class Fault(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How requests go wrong whose path has `path` in it; those of tests never do."""

    path: str = ""
    status: int = 0  # answered instead; 0: the right one
    body: str | None = None  # answered instead
    delay_seconds: float = 0.0
    close: bool = False  # the connection breaks
    token_seconds: int = 21_600  # the longest life of a token
    times: int = -1  # how many requests; -1: all


@dataclass
class Machine:
    """One machine, and what the services say of it."""

    name: str
    notice: Notice | None = None
    at: float = 0.0  # when it happens
    fault: Fault = field(default_factory=Fault)
    asked: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, float] = field(default_factory=dict)  # until when each holds
    incarnation: int = 1
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def tell(self, notice: Notice | None) -> None:
        """Something is about to happen, or nothing any more."""
        async with self.changed:
            self.notice, self.at = notice, time.time() + notice.seconds if notice else 0.0
            self.incarnation += 1
            self.changed.notify_all()

    def faces(self, *kinds: str) -> bool:
        """Whether one of these is about to happen."""
        return self.notice is not None and self.notice.kind in kinds


class Metadata:
    """The server's routes and its machines, which come into being when they are first spoken of."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.app = web.Application(middlewares=[self._with_faults])
        root = "/machines/{machine}"
        handlers: list[tuple[str, str, Handler]] = [
            ("PUT", "/notice", self._notice),
            ("DELETE", "/notice", self._notice),
            ("PUT", "/fault", self._fault),
            ("GET", "/asked", self._asked),
            ("PUT", "/latest/api/token", self._token),
            ("GET", "/latest/meta-data/{path:.*}", self._ec2),
            ("GET", "/computeMetadata/v1/instance/{key}", self._gce),
            ("GET", "/metadata/scheduledevents", self._azure_events),
            ("GET", "/metadata/instance/compute/name", self._azure_name),
        ]
        for method, path, handler in handlers:
            self.app.router.add_route(method, root + path, handler)

    def machine(self, name: str) -> Machine:
        """A machine by its name."""
        return self.machines.setdefault(name, Machine(name))

    def _of(self, request: web.Request) -> Machine:
        return self.machine(request.match_info["machine"])

    @web.middleware
    async def _with_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path.partition("/machines/")[2].partition("/")[2]
        if path in ("notice", "fault", "asked") or "machine" not in request.match_info:
            return await handler(request)
        machine = self._of(request)
        machine.asked[path] += 1
        fault = machine.fault
        if fault.path not in path or not fault.times:
            return await handler(request)
        fault.times -= fault.times > 0
        await asyncio.sleep(fault.delay_seconds)
        if fault.close and request.transport is not None:
            request.transport.close()
        if fault.status or fault.body is not None:
            return web.Response(
                status=fault.status or 200, text=fault.body or "", headers={"Metadata-Flavor": "Google"}
            )
        return await handler(request)

    async def _notice(self, request: web.Request) -> web.Response:
        told = msgspec.json.decode(await request.read(), type=Notice) if request.method == "PUT" else None
        await self._of(request).tell(told)
        return web.json_response({})

    async def _fault(self, request: web.Request) -> web.Response:
        machine = self._of(request)
        machine.fault = msgspec.json.decode(await request.read(), type=Fault)
        machine.tokens.clear()
        return web.json_response({})

    async def _asked(self, request: web.Request) -> web.Response:
        return web.json_response(self._of(request).asked)

    async def _token(self, request: web.Request) -> web.Response:
        machine, wanted = self._of(request), request.headers.get(TOKEN_TTL, "")
        if not wanted.isdigit() or not 1 <= int(wanted) <= 21_600:
            return web.Response(status=400, text="Bad Request")
        seconds = min(int(wanted), machine.fault.token_seconds)
        token = secrets.token_urlsafe(40)
        machine.tokens[token] = time.monotonic() + seconds
        return web.Response(text=token, headers={TOKEN_TTL: str(seconds)})

    async def _ec2(self, request: web.Request) -> web.Response:
        machine = self._of(request)
        until = machine.tokens.get(request.headers.get("X-aws-ec2-metadata-token", ""), 0.0)
        if until <= time.monotonic():
            return web.Response(status=401, text="Unauthorized")
        path, known = request.match_info["path"], web.json_response
        if path == "spot/instance-action" and machine.faces("spot"):
            return known({"action": "terminate", "time": _zulu(machine.at)})
        if path == "events/recommendations/rebalance" and machine.faces("rebalance", "spot"):
            return known({"noticeTime": _zulu(machine.at)})
        if path == "events/maintenance/scheduled":
            return known([_ec2_event(machine.at)] if machine.faces("maintenance") else [])
        return web.Response(status=404, text="Not Found")

    async def _gce(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, text="Missing Metadata-Flavor:Google header.")
        machine, key, query = self._of(request), request.match_info["key"], request.query
        if _gce_value(machine, key) is None:
            return web.Response(status=404, text="Not Found")
        if query.get("wait_for_change") == "true":
            known = query.get("last_etag") or _etag(_gce_value(machine, key))
            await self._change(machine, key, known, float(query.get("timeout_sec", 3600)))
        value = _gce_value(machine, key)
        return web.Response(text=value, headers={"Metadata-Flavor": "Google", "ETag": _etag(value)})

    async def _change(self, machine: Machine, key: str, known: str, seconds: float) -> None:
        async def changed() -> None:
            async with machine.changed:
                await machine.changed.wait_for(lambda: _etag(_gce_value(machine, key)) != known)

        try:
            await asyncio.wait_for(changed(), seconds)
        except TimeoutError:
            return

    async def _azure_events(self, request: web.Request) -> web.Response:
        if refused := _azure_refusal(request):
            return refused
        machine = self._of(request)
        events = []
        if machine.notice is not None and machine.notice.kind in AZURE_TYPES:
            events.append(_azure_event(machine, machine.notice))
        return web.json_response({"DocumentIncarnation": machine.incarnation, "Events": events})

    async def _azure_name(self, request: web.Request) -> web.Response:
        return _azure_refusal(request) or web.Response(text=self._of(request).name)


async def serve(port: int, host: str = "0.0.0.0") -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(Metadata().app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Cloud:
    """What the fake clouds of a kind cluster's workers say, told through the API server's proxy."""

    kube: Kube

    async def notice(self, node: str, **fields: Any) -> float:
        """Have something happen to a node soon, by the fields of `Notice`; the time when it was said, by this clock."""
        await self._put(node, "notice", fields)
        return time.time()

    async def clear(self, node: str) -> None:
        """Nothing happens to the node any more."""
        await self.kube.request("DELETE", f"{await self._server(node)}/notice")

    async def fault(self, node: str, **fields: Any) -> None:
        """Have a node's requests go wrong, by the fields of `Fault`; without any they go well."""
        await self._put(node, "fault", fields)

    async def _put(self, node: str, what: str, fields: Json) -> None:
        await self.kube.request("PUT", f"{await self._server(node)}/{what}", fields)

    async def _server(self, node: str) -> str:
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        until = time.monotonic() + SECONDS
        while True:
            listed = await self.kube.request(
                "GET", pods, labelSelector=f"app.kubernetes.io/name={NAME}", fieldSelector=f"spec.nodeName={node}"
            )
            for pod in listed["items"]:
                path = f"{pods}/{pod['metadata']['name']}:{METADATA_PORT}/proxy/machines/{node}"
                try:
                    await self.kube.request("GET", f"{path}/asked")
                except ApiError:
                    continue
                return path
            if time.monotonic() > until:
                raise AssertionError(f"no fake metadata service on {node}")
            await asyncio.sleep(0.5)


def tell(kubeconfig: Path, node: str, **fields: Any) -> float:
    """Have something happen to a worker soon, by the fields of `Notice`; without any nothing more. When it was said."""

    async def said() -> float:
        async with connect(str(kubeconfig)) as kube:
            if fields:
                return await Cloud(kube).notice(node, **fields)
            await Cloud(kube).clear(node)
            return time.time()

    return asyncio.run(said())


def _zulu(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ec2_event(at: float) -> Json:
    begins, ends = (datetime.fromtimestamp(each, UTC).strftime("%d %b %Y %H:%M:%S GMT") for each in (at, at + 3600))
    return {
        "NotBefore": begins,
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": ends,
        "State": "active",
    }


def _gce_value(machine: Machine, key: str) -> str | None:
    if key == "preempted":
        return "TRUE" if machine.faces("spot") else "FALSE"
    if key == "maintenance-event":
        if machine.faces("maintenance"):
            return "TERMINATE_ON_HOST_MAINTENANCE"
        return "MIGRATE_ON_HOST_MAINTENANCE" if machine.faces("freeze") else "NONE"
    return None


def _etag(value: str | None) -> str:
    return f"{hash(value) & (2**64 - 1):016x}"


def _azure_event(machine: Machine, notice: Notice) -> Json:
    times = "" if notice.started else format_datetime(datetime.fromtimestamp(machine.at, UTC), usegmt=True)
    return {
        "EventId": f"C7061BAC-AFDC-4513-B24B-AA5F13A1{machine.incarnation:04d}",
        "EventStatus": "Started" if notice.started else "Scheduled",
        "EventType": AZURE_TYPES[notice.kind],
        "ResourceType": "VirtualMachine",
        "Resources": [machine.name] if notice.resources is None else notice.resources,
        "NotBefore": times,
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }


def _azure_refusal(request: web.Request) -> web.Response | None:
    if request.headers.get("Metadata") != "true":
        return web.json_response({"error": "Bad request. Required metadata header not specified"}, status=400)
    if not request.query.get("api-version"):
        return web.json_response({"error": "Bad request. api-version was not specified in the request"}, status=400)
    return None
