"""The progress endpoint over HTTPS: Kubeflow Trainer's reports, and a long poll for requests.

    POST …/namespaces/{namespace}/trainingjobs/{name}/progress               a report
    GET  …/namespaces/{namespace}/trainingjobs/{name}/progress?after=&wait=  a request newer than `after`

See docs/checkpoints.md.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web

from berth.adapters.tokens import Tokens
from berth.control.checkpoints import PATH
from berth.control.ports import ApiError, Json
from berth.control.progress import Caller, Desk, Report, Saved, Stranger, Superseded

MOST_BYTES = 64 * 1024  # of a report
MOST_WAIT_SECONDS = 60.0
SHUTDOWN_SECONDS = 0.2  # that polls are left before they are cut off: another operator waits for the Lease
MOST_PROBLEM = 1024  # characters that a status keeps of a problem

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Checkpoint(msgspec.Struct, rename="camel"):
    step: Count
    time: datetime
    bytes: Count = 0
    seconds: Amount = 0.0


class _Ours(msgspec.Struct, rename="camel"):
    step: Count | None = None
    total_steps: Count | None = None
    checkpoint: _Checkpoint | None = None
    answers: str = ""
    problem: str = ""


class _TrainerStatus(msgspec.Struct, rename="camel"):
    progress_percentage: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    estimated_remaining_seconds: Count | None = None


class _Body(msgspec.Struct, rename="camel"):
    trainer_status: _TrainerStatus | None = None
    berth: _Ours | None = None


_decoder = msgspec.json.Decoder(_Body)


def read_report(content: bytes) -> Report:
    """The report in a body. Raises msgspec.MsgspecError, which says where it is wrong."""
    body = _decoder.decode(content)
    theirs, ours = body.trainer_status or _TrainerStatus(), body.berth or _Ours()
    found = ours.checkpoint
    return Report(
        step=ours.step,
        total=ours.total_steps,
        percent=theirs.progress_percentage,
        remaining_seconds=theirs.estimated_remaining_seconds,
        checkpoint=Saved(found.step, found.time.timestamp(), found.bytes, found.seconds) if found else None,
        answers=ours.answers,
        problem=ours.problem[:MOST_PROBLEM],
    )


@dataclass
class ProgressServer:
    """Knows who calls, and hands what they say to the desk."""

    desk: Desk
    tokens: Tokens

    async def post(self, request: web.Request) -> web.Response:
        """A report."""
        caller = await self._caller(request)
        try:
            report = read_report(await request.read())
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"the report can't be read: {error}\n") from error
        return _answer(self.desk.take(caller, request.match_info["name"], report))

    async def get(self, request: web.Request) -> web.Response:
        """A long poll."""
        caller = await self._caller(request)
        after, wait = request.query.get("after", ""), request.query.get("wait", "0")
        try:
            seconds = min(max(float(wait), 0.0), MOST_WAIT_SECONDS)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"wait must be a number of seconds, got {wait!r}\n") from error
        return _answer(await self.desk.next_request(caller, request.match_info["name"], after, seconds))

    async def _caller(self, request: web.Request) -> Caller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise web.HTTPUnauthorized(text="a bearer token is needed\n")
        try:
            caller = await self.tokens.caller(token.strip())
        except ApiError as error:
            raise web.HTTPServiceUnavailable(text=f"the token can't be checked now: {error}\n") from error
        if caller is None:
            raise web.HTTPUnauthorized(text="the token is not valid, not for this endpoint or not a pod's\n")
        if caller.namespace != request.match_info["namespace"]:
            raise web.HTTPForbidden(text="the pod is in another namespace\n")
        return caller


def _answer(body: Json) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


@web.middleware
async def _refusals(request: web.Request, handler: object) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[operator,no-any-return]
    except Stranger as error:
        raise web.HTTPForbidden(text=f"{error}\n") from error
    except Superseded as error:
        raise web.HTTPConflict(text=f"{error}\n") from error


@asynccontextmanager
async def serving(server: ProgressServer, port: int, context: ssl.SSLContext) -> AsyncIterator[None]:
    """Answer while the context lasts."""
    app = web.Application(client_max_size=MOST_BYTES, middlewares=[_refusals])
    app.add_routes([web.post(PATH, server.post), web.get(PATH, server.get)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()
