"""`berth drain`: nodes are marked, what is on them is followed until it has gone, and all of it can be taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from berth.cli import draining
from berth.cli.draining import Drain, serving, training
from berth.cli.main import app
from berth.control.ports import (
    INFERENCE_SERVICES,
    NODES,
    PODS,
    TRAINING_JOBS,
    ApiError,
    Json,
    NotFound,
    Refused,
    Unavailable,
)
from tests.adapters.servers import serving as serving_http
from tests.cli.clusters import a_foreign_pod
from tests.control.builders import a_node, a_service, a_training_job
from tests.control.fakes import FakeApi
from tests.control.world import World

STATUS = {NotFound: 404, Refused: 403, Unavailable: 503}
DRAIN = "berth.dev/drain"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other closely."""
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.05)


@dataclass
class Story:
    """A cluster with an operator, whose node n1 is drained."""

    world: World
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drain = Drain(self.world.api, ["n1"], self.world.clock, self.lines.append)

    async def look(self) -> int:
        """What the command would tell now; how many pods of Berth's are left."""
        sight = await self.drain.look()
        self.drain._report(sight)
        return sight.left

    def told(self) -> list[str]:
        """What was told since the last time."""
        told, self.lines[:] = list(self.lines), []
        return told


async def a_job_on_n1(**spec: Any) -> Story:
    """One worker on the only node; then there is a second node."""
    world = World(a_node("n1"))
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, **spec))
    await world.settle()
    world.api.put(NODES, a_node("n2"))
    await world.settle()
    return Story(world)


async def test_a_job_is_followed_until_it_runs_elsewhere() -> None:
    story = await a_job_on_n1()
    await story.drain.begin()
    assert story.told() == ["n1: cordoned, and Berth is asked to empty it"]
    assert await story.look() == 1
    assert story.told() == ["TrainingJob team/llm: runs, 1 pod here: the operator has not asked it to leave yet"]
    while not story.world.status("llm").get("stopping"):
        await story.world.turn()
    await story.look()
    assert story.told() == ["TrainingJob team/llm: stops (Drain), 1 pod here: it may still save"]
    await story.world.settle()
    assert await story.look() == 0
    assert story.told() == ["TrainingJob team/llm: runs on n2 (0)"]


async def test_a_job_that_listens_is_seen_saving() -> None:
    story = await a_job_on_n1(checkpoint={"path": "/c"})
    story.world.api.edit(TRAINING_JOBS, "team", "llm", status={"listens": 1})
    await story.world.settle()
    await story.drain.begin()
    while not (request := story.world.status("llm").get("saveRequest")):
        await story.world.turn()
    await story.look()
    assert story.told()[1:] == [f"TrainingJob team/llm: saves, as it was asked at {request['time']}, 1 pod here"]
    saved = {"attempt": 1, "step": 7, "time": request["time"], "bytes": 1, "seconds": 1.0, "answers": request["id"]}
    story.world.api.edit(TRAINING_JOBS, "team", "llm", status={"checkpoint": saved})
    await story.look()
    assert story.told() == ["TrainingJob team/llm: has saved, and is stopped next, 1 pod here"]


async def test_a_job_without_another_place_waits_and_the_node_is_safe_all_the_same() -> None:
    story = await a_job_on_n1()
    story.world.api.edit(NODES, "", "n2", spec={"unschedulable": True})
    await story.drain.begin()
    await story.look()
    await story.world.settle()
    story.told()
    assert await story.look() == 0
    (line,) = story.told()
    assert line.startswith("TrainingJob team/llm: waits for a place: 0 of 1 workers fit")


async def test_a_service_without_a_spare_replica_holds_it_up_and_is_told_how_to_help() -> None:
    world = World(a_node("n1"))
    world.api.put(INFERENCE_SERVICES, a_service(replicas=1))
    await world.settle()
    story = Story(world)
    await story.drain.begin()
    await world.settle()
    assert await story.look() == 1
    assert story.told()[-1] == (
        "InferenceService team/chat: 1 replica here: its disruption budget, which needs 1 ready of 1, "
        "holds it up until another is ready: make room for one, or lower spec.availability.minAvailable"
    )


def a_pod(attempt: int = 1, *, ending: bool = False) -> Json:
    """A pod on the node."""
    end = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {}
    return {"metadata": {"labels": {"berth.dev/attempt": str(attempt)}, **end}}


@pytest.mark.parametrize(
    ("status", "here", "expected"),
    [
        ({"attempt": 2, "placement": {"summary": "n2 (0)"}, "state": "Running"}, [a_pod(1)], "runs on n2 (0); 1 pod"),
        ({"attempt": 1, "state": "Pending"}, [a_pod(1)], "waits for a place: the operator has said nothing of it yet;"),
        ({"attempt": 2, "placement": {"summary": "n2 (0)"}, "state": "Admitted"}, [], "starts on n2 (0)"),
        ({"state": "Suspended"}, [], "is suspended"),
        ({"finishedAt": "2026-01-01T00:00:00Z", "state": "Succeeded"}, [], "has ended (Succeeded)"),
        ({}, [], "waits for a place: the operator has said nothing of it yet"),
    ],
)
def test_what_a_job_does_in_words(status: Json, here: list[Json], expected: str) -> None:
    assert training({"status": status}, here).startswith(expected)


@pytest.mark.parametrize(
    ("ready", "here", "expected"),
    [
        (3, [a_pod(), a_pod()], "2 replicas here: they leave as far as there is room elsewhere: 2 of 3 replicas fit"),
        (3, [a_pod(ending=True)], "1 replica here, told to end"),
        (2, [], "2 of 3 replicas are ready, none here"),
    ],
)
def test_what_a_service_does_in_words(ready: int, here: list[Json], expected: str) -> None:
    status = {"readyReplicas": ready, "verdict": {"message": "2 of 3 replicas fit"}}
    assert serving({"spec": {"replicas": 3}, "status": status}, here) == expected


# The command


@dataclass
class Server:
    """An API server over HTTP that keeps objects, and forbids some requests."""

    api: FakeApi
    forbidden: tuple[str, ...] = ()  # methods

    async def answer(self, request: web.Request) -> web.Response:
        """Get, list or patch one of ours."""
        parts = request.path.strip("/").split("/")
        known = {resource.plural: resource for resource in (NODES, PODS, TRAINING_JOBS, INFERENCE_SERVICES)}
        plural = next(part for part in parts if part in known)
        name = parts[-1] if parts[-1] != plural else ""
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
        if request.method in self.forbidden:
            message = f'{plural} "{name}" is forbidden: User "ann" cannot {request.method.lower()} resource "{plural}"'
            return web.json_response({"message": message}, status=403)
        try:
            if request.method == "PATCH":
                body = json.loads(await request.read())
                return web.json_response(await self.api.merge(known[plural], namespace, name, body))
            if not name:
                selector = request.query.get("fieldSelector", "")
                return web.json_response(await self.api.list(known[plural], fields=selector))
            return web.json_response(await self.api.get(known[plural], namespace, name))
        except ApiError as error:
            return web.json_response({"message": str(error)}, status=STATUS[type(error)])


@dataclass
class Cli:
    """Commands on a kubeconfig of that server."""

    server: Server
    kubeconfig: Path

    async def __call__(self, *arguments: str) -> Result:
        """Run one."""
        line = [*arguments, f"--kubeconfig={self.kubeconfig}"]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    def node(self, name: str) -> tuple[bool, str | None]:
        """Whether a node is cordoned, and since when it is drained."""
        raw = self.server.api.find(NODES, name)
        assert raw is not None
        annotations = raw["metadata"].get("annotations") or {}
        return bool(raw["spec"].get("unschedulable")), annotations.get(DRAIN)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """Two nodes, on the first of which a worker of a job is; nobody acts as operator."""
    world = World(a_node("n1"))
    world.api.put(TRAINING_JOBS, a_training_job(workers=1))
    await world.settle()
    world.api.put(NODES, a_node("n2"))
    server = Server(world.api)
    async with serving_http(server.answer) as api:
        file = tmp_path / "kubeconfig"
        text = {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": api.server}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        file.write_text(yaml.safe_dump(text))
        yield Cli(server, file)


async def test_an_empty_node_is_safe_and_pods_of_others_are_named(cli: Cli) -> None:
    daemon = a_foreign_pod("daemon", node="n2")
    daemon["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "uid": "u"}]
    ended = a_foreign_pod("ended", node="n2")
    ended["status"]["phase"] = "Succeeded"
    for pod in (a_foreign_pod("theirs", node="n2"), daemon, ended):
        cli.server.api.put(PODS, pod)
    result = await cli("drain", "n2")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "n2: cordoned, and Berth is asked to empty it",
        "n2: Berth does not move other/theirs",
        "n2: safe, nothing of Berth's work is left on it",
        "n2: 1 pod of others is still there: `kubectl drain n2 --ignore-daemonsets` evicts them",
    ]
    assert cli.node("n2")[0]
    assert cli.node("n1") == (False, None)


async def test_when_the_time_is_over_it_says_what_to_do_and_called_again_it_goes_on(cli: Cli) -> None:
    for beginning in ("n1: cordoned, and Berth is asked to empty it", "n1: is being drained since "):
        result = await cli("drain", "n1", "--timeout=1s")
        assert result.exit_code == 1
        assert result.output.startswith(beginning)
        assert "TrainingJob team/llm: runs, 1 pod here: the operator has not asked it to leave yet" in result.output
        assert "berth: not empty after 1s" in result.output
        assert "berth undrain n1" in result.output


async def test_without_waiting_the_nodes_are_only_marked(cli: Cli) -> None:
    result = await cli("drain", "n1", "n2", "n1", "--no-wait")
    assert (result.exit_code, len(result.output.splitlines())) == (0, 2)
    for name in ("n1", "n2"):
        cordoned, since = cli.node(name)
        assert cordoned
        assert since is not None


async def test_a_mark_that_is_there_stays_and_one_that_is_no_time_is_replaced(cli: Cli) -> None:
    cli.server.api.edit(NODES, "", "n1", metadata={"annotations": {DRAIN: "2026-01-01T00:00:00Z"}})
    cli.server.api.edit(NODES, "", "n2", metadata={"annotations": {DRAIN: "please"}})
    assert (await cli("drain", "n1", "n2", "--no-wait")).exit_code == 0
    assert cli.node("n1") == (True, "2026-01-01T00:00:00Z")
    assert cli.node("n2")[1] != "please"


async def test_it_is_taken_back_as_often_as_asked(cli: Cli) -> None:
    await cli("drain", "n1", "--no-wait")
    result = await cli("undrain", "n1")
    assert (result.exit_code, result.output) == (0, "n1: takes work again\n")
    assert cli.node("n1") == (False, None)
    result = await cli("undrain", "n1")
    assert result.exit_code == 0
    assert "n1: is not being drained by Berth, left as it is" in result.output


async def test_a_node_that_somebody_only_cordoned_stays_so(cli: Cli) -> None:
    cli.server.api.edit(NODES, "", "n1", spec={"unschedulable": True})
    assert (await cli("undrain", "n1")).exit_code == 0
    assert cli.node("n1") == (True, None)


@pytest.mark.parametrize("command", ["drain", "undrain"])
async def test_with_a_node_that_is_not_there_none_is_changed(cli: Cli, command: str) -> None:
    result = await cli(command, "n1", "n9")
    assert result.exit_code == 1
    assert result.output == "berth: there is no node n9: `kubectl get nodes` lists them; none was changed\n"
    assert cli.node("n1") == (False, None)


async def test_who_may_not_is_told_which_rights_are_needed(cli: Cli) -> None:
    cli.server.forbidden = ("PATCH",)
    result = await cli("drain", "n1")
    assert result.exit_code == 1
    assert 'User "ann" cannot patch resource "nodes"' in result.output
    assert "the rights to get and patch nodes, list pods" in result.output


@pytest.mark.parametrize("line", [["drain"], ["drain", "n1", "--timeout=soon"], ["drain", "n1", "--timeout=5"]])
async def test_a_wrong_command_line_changes_nothing(cli: Cli, line: list[str]) -> None:
    assert (await cli(*line)).exit_code == 2
    assert cli.node("n1") == (False, None)


async def test_an_api_server_that_is_busy_is_asked_on() -> None:
    story = await a_job_on_n1()
    story.drain.nodes = ["n2"]
    story.world.api.fail("list pods", Unavailable("overload"))
    assert await story.drain.follow(None)
    assert story.told() == [
        "the API server does not answer, asking on: overload",
        "n2: safe, nothing of Berth's work is left on it",
    ]
