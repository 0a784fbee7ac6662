"""An API over HTTP that has lists of objects, and the command line against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from berth.cli.main import app
from tests.adapters.servers import serving
from tests.control.builders import a_node

Json = dict[str, Any]
OTHERS = (
    *("nodes", "pods", "jobs", "deployments", "priorityclasses", "persistentvolumeclaims", "persistentvolumes"),
    *("configmaps", "gpunodes", "leases"),
)
OURS = {"trainingjobs": "TrainingJob", "inferenceservices": "InferenceService", "queues": "Queue"}


@dataclass
class Lists:
    """An API server that has lists of objects by plural name, and forbids some."""

    objects: dict[str, list[Json]] = field(default_factory=dict)
    forbidden: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()  # kinds of which not even a single object may be read

    def put(self, plural: str, *objects: Json, version: int = 5) -> None:
        """More objects of a kind."""
        for raw in objects:
            metadata = {"uid": f"uid-{raw['metadata']['name']}", "resourceVersion": str(version), "generation": 1}
            raw["metadata"] = {**metadata, **raw["metadata"]}
            self.objects.setdefault(plural, []).append(raw)

    async def answer(self, request: web.Request) -> web.Response:
        """One list, or one object."""
        parts = request.path.strip("/").split("/")
        plural = next(part for part in parts if part in (*OTHERS, *OURS))
        if plural in self.hidden or (plural in self.forbidden and parts[-1] == plural):
            message = f'{plural} is forbidden: User "ann" cannot list resource "{plural}"'
            return web.json_response({"kind": "Status", "message": message}, status=403)
        items = self.objects.get(plural, [])
        if parts[-1] != plural:
            found = next((raw for raw in items if raw["metadata"]["name"] == parts[-1]), None)
            return web.json_response(found or {"message": "not found"}, status=200 if found else 404)
        kind = OURS.get(plural, "Thing") + "List"
        return web.json_response({"kind": kind, "metadata": {"resourceVersion": "9"}, "items": items})


@dataclass
class Cli:
    """Commands on a kubeconfig of that server."""

    kubeconfig: Path
    lists: Lists

    async def __call__(self, *arguments: str) -> Result:
        """Run one."""
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, f"--kubeconfig={self.kubeconfig}"])


@asynccontextmanager
async def a_cluster(folder: Path) -> AsyncIterator[Cli]:
    """A cluster of two nodes with eight boards each, whose user works in the namespace "team"."""
    lists = Lists()
    lists.put("nodes", a_node("n1", boards=8), a_node("n2", boards=8))
    async with serving(lists.answer) as api:
        file = folder / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": "team"}
        file.write_text(
            yaml.safe_dump(
                {
                    "current-context": "x",
                    "clusters": [{"name": "c", "cluster": {"server": api.server}}],
                    "users": [{"name": "u", "user": {"token": "secret"}}],
                    "contexts": [{"name": "x", "context": context}],
                }
            )
        )
        yield Cli(file, lists)


def a_foreign_pod(name: str, *, node: str, boards: int = 1) -> Json:
    """A bound pod that Berth has nothing to do with."""
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(boards)}}}
    metadata = {"name": name, "namespace": "other"}
    return {"metadata": metadata, "spec": {"nodeName": node, "containers": [container]}, "status": {"phase": "Running"}}
