"""The progress endpoint as a worker meets it: over TLS, with a token, by the worker's own client."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from berth.adapters.certificates import bundle, issue, new_authority
from berth.adapters.progress import ProgressServer, read_report, serving
from berth.adapters.tokens import Tokens
from berth.adapters.trust import _context, _load
from berth.control.checkpoints import AUDIENCE, PATH
from berth.control.ports import Json, Unavailable
from berth.control.progress import Caller, Report, Saved
from berth.worker import Manifest, Worker
from berth.worker.reports import Progress
from berth.worker.wire import NotAnswered, Server
from e2e.cluster.control_plane import free_ports
from tests.control.test_progress import CALLER, Office

PATIENCE_SECONDS = 20.0


@dataclass
class Reviewer:
    """An API server that knows some tokens."""

    known: dict[str, Json] = field(default_factory=dict)
    asked: list[Json] = field(default_factory=list)
    down: bool = False

    async def create(self, resource: Any, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        self.asked.append(dict(body))
        if self.down:
            raise Unavailable("overload")
        return {"status": self.known.get(body["spec"]["token"], {"authenticated": False})}


def a_review(caller: Caller = CALLER, **more: Any) -> Json:
    """What the API server says of a pod's token for us."""
    extra = {
        "authentication.kubernetes.io/pod-name": [caller.pod],
        "authentication.kubernetes.io/pod-uid": [caller.pod_uid],
    }
    user = {"username": f"system:serviceaccount:{caller.namespace}:default", "extra": extra}
    return {"authenticated": True, "audiences": [AUDIENCE], "user": user, **more}


@dataclass
class Endpoint:
    """The endpoint of a desk, and a client that trusts it."""

    office: Office
    reviewer: Reviewer
    port: int
    folder: Path

    def server(self, *, token: str = "good", name: str = "llm", namespace: str = "team", ca: str = "ca.crt") -> Server:
        """How a worker reaches it."""
        (self.folder / token).write_text(token)
        path = PATH.format(namespace=namespace, name=name)
        return Server(f"https://localhost:{self.port}{path}", self.folder / ca, self.folder / token)


@asynccontextmanager
async def an_endpoint(folder: Path) -> AsyncIterator[Endpoint]:
    authority, context = new_authority(time.time()), _context()
    (folder / "ca.crt").write_text(bundle([authority]))
    _load(context, issue(authority, ["localhost"], time.time()))
    office, reviewer = Office(), Reviewer({"good": a_review()})
    tokens = Tokens(reviewer, office.clock)  # type: ignore[arg-type]
    [port] = free_ports(1)
    async with serving(ProgressServer(office.desk, tokens), port, context):
        yield Endpoint(office, reviewer, port, folder)


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with an_endpoint(tmp_path) as endpoint:
        yield endpoint


async def post(server: Server, body: Json) -> Json:
    return await asyncio.to_thread(server.post, body)


async def refused(server: Server, body: Json | None = None) -> NotAnswered:
    with pytest.raises(NotAnswered) as refusal:
        await post(server, body if body is not None else {})
    return refusal.value


async def test_a_report_reaches_the_status(endpoint: Endpoint) -> None:
    report = Progress(45, 100, (("loss", 0.15),), 60.0, 0.0).to_json()
    report["berth"]["checkpoint"] = Manifest(40, 1_000_000.0, 7, 1.5, "step-40").summary()
    await post(endpoint.server(), report)
    status = await endpoint.office.written()
    assert (status["progress"]["step"], status["progress"]["percent"]) == (45, 45)
    assert status["checkpoint"]["step"] == 40


async def test_kubeflow_s_own_report_suffices(endpoint: Endpoint) -> None:
    metrics = [{"name": "loss", "value": "0.15"}]
    theirs = {"progressPercentage": 45, "estimatedRemainingSeconds": 120, "metrics": metrics, "lastUpdatedTime": "x"}
    assert await post(endpoint.server(), {"trainerStatus": theirs}) == {}
    assert (await endpoint.office.written())["progress"]["percent"] == 45


async def test_a_request_reaches_a_training_loop_and_its_checkpoint_comes_back(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    server = endpoint.server()
    environment = {
        "CHECKPOINT_DIR": str(tmp_path / "3"),
        "KUBEFLOW_TRAINER_SERVER_URL": server.url,
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(server.ca),
        "KUBEFLOW_TRAINER_SERVER_TOKEN": str(server.token),
    }
    desk, uid = endpoint.office.desk, endpoint.office.uid

    def train() -> None:
        with Worker(environ=environment) as berth:
            for step in itertools.count(1):
                berth.step(step, lambda folder: (folder / "model").write_text("weights"))
                if ended.wait(0.005):
                    return

    ended = threading.Event()
    training = asyncio.create_task(asyncio.to_thread(train))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while uid not in desk._jobs or not desk._jobs[uid].waiters:
                await asyncio.sleep(0.005)
            request = endpoint.office.ask("SpotInterruption")
            while desk._jobs[uid].answers != request:
                await asyncio.sleep(0.005)
    finally:
        ended.set()
        await training
    saved = desk.saved(uid)
    assert saved is not None
    assert (tmp_path / "3" / f"step-{saved.step}" / "model").read_text() == "weights"
    assert sorted(path.name for path in (tmp_path / "3").iterdir()) == ["latest.json", f"step-{saved.step}"]
    assert (await endpoint.office.written())["checkpoint"]["step"] == saved.step


@pytest.mark.parametrize(
    ("review", "message"),
    [
        ({"authenticated": False}, "not valid"),
        (a_review(audiences=["https://kubernetes.default.svc"]), "not for this endpoint"),
        (a_review(user={"username": "system:serviceaccount:team:default"}), "not a pod's|or not a pod"),
        (a_review(user={"username": "alice"}), "not a pod's|or not a pod"),
    ],
)
async def test_other_tokens_are_refused(endpoint: Endpoint, review: Json, message: str) -> None:
    endpoint.reviewer.known["other"] = review
    refusal = await refused(endpoint.server(token="other"))
    assert refusal.status == 401
    assert endpoint.reviewer.asked[-1]["spec"] == {"token": "other", "audiences": [AUDIENCE]}


async def test_without_a_token_nothing_is_asked(endpoint: Endpoint) -> None:
    known = endpoint.server()
    assert (await refused(Server(known.url, known.ca))).status == 401
    assert endpoint.reviewer.asked == []


async def test_a_pod_may_not_speak_for_others(endpoint: Endpoint) -> None:
    assert (await refused(endpoint.server(name="other"))).status == 403
    assert (await refused(endpoint.server(namespace="elsewhere"))).status == 403


async def test_a_member_of_an_old_attempt_is_told_so(endpoint: Endpoint) -> None:
    endpoint.reviewer.known["old"] = a_review(Caller("team", "llm-2-0", "uid-llm-2-0"))
    refusal = await refused(endpoint.server(token="old"))
    assert refusal.status == 409
    assert "attempt 2 of llm is over" in str(refusal)


async def test_while_tokens_can_t_be_checked_it_says_so_and_does_not_remember(endpoint: Endpoint) -> None:
    endpoint.reviewer.down = True
    assert (await refused(endpoint.server())).status == 503
    endpoint.reviewer.down = False
    assert await post(endpoint.server(), {}) == {}


async def test_a_token_is_checked_once_a_minute(endpoint: Endpoint) -> None:
    for seconds in (0, 30, 31):
        endpoint.office.clock.advance(seconds)
        await post(endpoint.server(), {})
    assert len(endpoint.reviewer.asked) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"berth": {"step": -1}}',
        b'{"berth": {"step": "many"}}',
        b'{"trainerStatus": {"progressPercentage": 101}}',
        b'{"berth": {"checkpoint": {"step": 1, "time": "yesterday"}}}',
        b'{"berth": {"checkpoint": {"time": "2026-01-01T00:00:00Z"}}}',
    ],
)
def test_a_report_that_states_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_report(body)


def test_what_a_report_does_not_say_is_not_known() -> None:
    assert read_report(b"{}") == Report()
    assert read_report(b'{"berth": {"checkpoint": {"step": 1, "time": "1970-01-01T00:00:01Z"}}}') == Report(
        checkpoint=Saved(1, 1.0, 0, 0.0)
    )


async def test_a_nonsense_report_and_a_nonsense_wait_are_told(endpoint: Endpoint) -> None:
    known = endpoint.server()
    assert (await refused(known, {"berth": {"step": -1}})).status == 400
    with pytest.raises(NotAnswered, match="wait must be a number"):
        await asyncio.to_thread(known._ask, "GET", "?wait=long", None, 10.0)


async def test_a_report_without_end_is_refused(endpoint: Endpoint) -> None:
    refusal = await refused(endpoint.server(), {"berth": {"problem": "x" * 100_000}})
    assert refusal.status in (0, 413)


async def test_a_client_that_trusts_another_authority_sends_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "other.crt").write_text(bundle([new_authority(time.time())]))
    refusal = await refused(endpoint.server(ca="other.crt"))
    assert isinstance(refusal.__cause__, ssl.SSLError)
    assert endpoint.reviewer.asked == []
