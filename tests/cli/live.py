"""A cluster in memory whose operator goes on working, behind an API over HTTP, and the command line against it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from berth.cli.main import app
from berth.control.ports import (
    GPU_NODES,
    INFERENCE_SERVICES,
    NODES,
    PODS,
    TRAINING_JOBS,
    ApiError,
    Conflict,
    NotFound,
    Refused,
    Resource,
    Unavailable,
)
from tests.adapters.servers import serving
from tests.control.world import World

STATUS = {NotFound: 404, Conflict: 409, Refused: 403, Unavailable: 503}
SERVED = {r.plural: r for r in (NODES, PODS, TRAINING_JOBS, INFERENCE_SERVICES, GPU_NODES)}


@dataclass
class Live:
    """Commands on that cluster, whose user works in the namespace "team"."""

    world: World
    kubeconfig: Path

    async def __call__(self, *arguments: str) -> Result:
        """Run one, while the operator and the controllers work."""
        line = [*arguments, f"--kubeconfig={self.kubeconfig}"] if "--" not in arguments else self._before(arguments)
        command = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, app, line))
        while not command.done():
            await self.world.turn()
            self.world.run_controllers()
            self.world.clock.advance(0.2)
            await asyncio.sleep(0.01)
        return await command

    def _before(self, arguments: tuple[str, ...]) -> list[str]:
        at = arguments.index("--")
        return [*arguments[:at], f"--kubeconfig={self.kubeconfig}", *arguments[at:]]


@asynccontextmanager
async def living(world: World, folder: Path) -> AsyncIterator[Live]:
    """That cluster, and a kubeconfig for it."""

    async def answer(request: web.Request) -> web.Response:
        with suppress(KeyError):
            return await _answer(world, request)
        return web.json_response({"message": "the server could not find the requested resource"}, status=404)

    async with serving(answer) as api:
        file = folder / "kubeconfig"
        text = {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": api.server}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        }
        file.write_text(yaml.safe_dump(text))
        yield Live(world, file)


async def _answer(world: World, request: web.Request) -> web.Response:
    parts = request.path.strip("/").split("/")
    plural = next((part for part in reversed(parts) if part in SERVED), "")
    resource: Resource = SERVED[plural]
    name = parts[-1] if parts[-1] != plural else ""
    namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
    try:
        if request.method == "PATCH":
            body: dict[str, Any] = json.loads(await request.read())
            how = world.api.apply if "apply" in request.headers["Content-Type"] else world.api.merge
            return web.json_response(await how(resource, namespace, name, body))
        if name:
            return web.json_response(await world.api.get(resource, namespace, name))
        listed = await world.api.list(resource)
        items = [raw for raw in listed["items"] if not namespace or raw["metadata"].get("namespace") == namespace]
        return web.json_response({**listed, "items": items})
    except ApiError as error:
        return web.json_response({"message": str(error)}, status=STATUS[type(error)])
