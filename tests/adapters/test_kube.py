"""The client: each answer of a server becomes the error that says what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from berth.adapters.kube import KubeApi, connect, error_of
from berth.control.ports import (
    JOBS,
    PODS,
    QUEUES,
    SERVICES,
    TRAINING_JOBS,
    ApiError,
    Conflict,
    NotFound,
    Refused,
    Unavailable,
)
from tests.adapters.servers import serving


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (409, Conflict),
        (410, Conflict),
        (412, Conflict),
        (422, Refused),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_what_a_status_means(status: int, error: type[ApiError]) -> None:
    found = error_of(status, b'{"kind": "Status", "message": "because"}')
    assert type(found) is error
    assert str(found) == "because"


@pytest.mark.parametrize("content", [b"", b"<html>502</html>", b"[]", b"\xff", b'{"code": 502}'])
def test_an_error_in_other_words_than_the_api_s(content: bytes) -> None:
    assert isinstance(error_of(502, content), Unavailable)


class Server:
    """Answers everything with an empty object, and keeps what was asked."""

    def __init__(self, body: bytes = b"{}") -> None:
        self.body = body
        self.asked: list[tuple[str, str, dict[str, str], str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """One request."""
        body = await request.read()
        kind = request.headers.get("Content-Type", "")
        self.asked.append((request.method, request.path, dict(request.query), kind, json.loads(body) if body else None))
        return web.Response(body=self.body, content_type="application/json")


async def test_writes_name_their_manager_and_say_what_kind_of_patch_they_are() -> None:
    server = Server()
    async with serving(server.answer) as api:
        await api.get(QUEUES, "", "red")
        await api.create(JOBS, "team", {"a": 1})
        await api.create(JOBS, "team", {"a": 1}, dry_run=True)
        await api.apply(SERVICES, "team", "chat", {})
        await api.merge(TRAINING_JOBS, "team", "llm", {"status": {}}, subresource="status")
        await api.merge_lists(PODS, "team", "p", {})
    manager = {"fieldManager": "berth"}
    assert [asked[:4] for asked in server.asked] == [
        ("GET", "/apis/berth.dev/v1alpha1/queues/red", {}, "application/json"),
        ("POST", "/apis/batch/v1/namespaces/team/jobs", manager, "application/json"),
        (
            "POST",
            "/apis/batch/v1/namespaces/team/jobs",
            manager | {"dryRun": "All", "fieldValidation": "Strict"},
            "application/json",
        ),
        ("PATCH", "/api/v1/namespaces/team/services/chat", manager | {"force": "true"}, "application/apply-patch+yaml"),
        (
            "PATCH",
            "/apis/berth.dev/v1alpha1/namespaces/team/trainingjobs/llm/status",
            manager,
            "application/merge-patch+json",
        ),
        ("PATCH", "/api/v1/namespaces/team/pods/p", manager, "application/strategic-merge-patch+json"),
    ]


async def test_who_counts_requests_is_told_of_each_answer_and_of_none(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({}, status=404 if request.path.endswith("/gone") else 200)

    told: list[tuple[str, str]] = []

    def count(method: str, code: str) -> None:
        told.append((method, code))

    async with serving(answer) as server, connect(a_kubeconfig(tmp_path, server.server), count) as api:
        await api.get(QUEUES, "", "red")
        with pytest.raises(NotFound):
            await api.delete(QUEUES, "", "gone")
    with pytest.raises(Unavailable):
        async with connect(a_kubeconfig(tmp_path, "http://127.0.0.1:1"), count) as api:
            await api.get(QUEUES, "", "red")
    assert told == [("GET", "200"), ("DELETE", "404"), ("GET", "none")]


def a_kubeconfig(folder: Path, server: str) -> str:
    """A kubeconfig for whoever answers at this address, without credentials."""
    named = {"clusters": {"cluster": {"server": server}}, "users": {"user": {}}}
    named["contexts"] = {"context": {"cluster": "it", "user": "it"}}
    body = {each: [{"name": "it", **content}] for each, content in named.items()}
    path = folder / "kubeconfig"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "it", **body}))
    return str(path)


async def test_deletions_and_evictions_mean_one_very_object() -> None:
    server = Server()
    async with serving(server.answer) as api:
        await api.delete(JOBS, "team", "llm-1", uid="u-1")
        await api.evict("team", "p", uid="u-2")
    (method, _, _, _, deletion), (_, path, _, _, eviction) = server.asked
    assert method == "DELETE"
    assert deletion == {"propagationPolicy": "Background", "preconditions": {"uid": "u-1"}}
    assert path == "/api/v1/namespaces/team/pods/p/eviction"
    assert eviction["deleteOptions"] == {"preconditions": {"uid": "u-2"}}


async def test_a_log_is_read_as_it_is_and_not_in_full() -> None:
    server = Server("loss 0.1\nkaputt \udcff\n".encode(errors="surrogateescape"))
    async with serving(server.answer) as api:
        assert await api.log("team", "llm-1-0", container="train", lines=5, most_bytes=9) == "loss 0.1\nkaputt \ufffd\n"
        await api.log("team", "llm-1-0", container="", lines=5, most_bytes=9)
    limits = {"tailLines": "5", "limitBytes": "9"}
    path = "/api/v1/namespaces/team/pods/llm-1-0/log"
    assert [asked[:3] for asked in server.asked] == [
        ("GET", path, {**limits, "container": "train"}),
        ("GET", path, limits),
    ]


async def test_an_answer_that_is_no_json_is_none() -> None:
    async with serving(Server(b"<html>").answer) as api:
        with pytest.raises(Unavailable, match="no JSON"):
            await api.get(PODS, "team", "p")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serving(Server().answer) as api:
        nowhere = KubeApi(api.session, "http://127.0.0.1:1", api.credentials)
        with pytest.raises(Unavailable, match="GET /api/v1/namespaces/team/pods/p"):
            await nowhere.get(PODS, "team", "p")


async def test_sends_the_token_of_the_moment() -> None:
    async with serving(Server().answer) as api:
        assert api.authorization() == {}
        for token in ("one", "two"):
            api.credentials.api_key["authorization"] = f"Bearer {token}"
            assert api.authorization() == {"Authorization": f"Bearer {token}"}
