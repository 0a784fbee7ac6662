"""Reports over HTTP: in time, nothing durable lost, and no secret told to others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from berth.worker import Manifest
from berth.worker.reports import Progress, Reporter, Requests
from berth.worker.wire import NotAnswered, Server
from tests.worker.builders import ProgressServer, a_progress_server, until


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    with a_progress_server() as server:
        yield server


def a_manifest(step: int) -> Manifest:
    return Manifest(step, 0.0, 10, 1.0, f"step-{step}")


def some_progress(step: int) -> Progress:
    return Progress(step, 100, (), None, 0.0)


def test_progress_is_told_at_most_every_five_seconds_and_the_newest(server: ProgressServer) -> None:
    reporter = Reporter(Server(server.url), lambda answer: None)
    reporter.progress(some_progress(1))
    until(lambda: len(server.reports) == 1)
    for step in range(2, 50):
        reporter.progress(some_progress(step))
    reporter.close()  # which tells the last, at once
    assert [report["berth"]["step"] for report in server.reports] == [1, 49]


def test_what_is_durable_is_told_at_once(server: ProgressServer) -> None:
    reporter = Reporter(Server(server.url), lambda answer: None)
    reporter.progress(some_progress(1))
    until(lambda: len(server.reports) == 1)
    reporter.saved(a_manifest(2))
    until(lambda: server.checkpoints() == [2])
    reporter.close()
    checkpoint = {"step": 2, "time": "1970-01-01T00:00:00Z", "bytes": 10, "seconds": 1.0}
    assert server.reports[-1] == {"berth": {"checkpoint": checkpoint}}


def test_what_is_durable_is_told_again_until_it_is_heard(
    server: ProgressServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berth.worker.reports.RETRY_SECONDS", (0.01, 0.02))
    server.refusals = [503, 401, 503]
    reporter = Reporter(Server(server.url), lambda answer: None)
    reporter.saved(a_manifest(2), "r1")
    until(lambda: server.checkpoints() == [2])
    reporter.close()
    assert server.reports[-1]["berth"]["answers"] == "r1"


def test_leaving_does_not_wait_for_a_server_that_does_not_answer(server: ProgressServer) -> None:
    server.refusals = [503] * 1000
    reporter = Reporter(Server(server.url), lambda answer: None)
    reporter.saved(a_manifest(2))
    until(lambda: len(server.refusals) < 1000)
    reporter.close()
    assert not reporter._thread.is_alive()


def test_the_token_is_read_for_each_request_since_it_is_replaced(tmp_path: Path, server: ProgressServer) -> None:
    token = tmp_path / "token"
    known = Server(server.url, token=token)
    for text in ("one\n", "two\n"):
        token.write_text(text)
        known.post({"berth": {}})
    assert server.tokens == ["Bearer one", "Bearer two"]


def test_a_poll_names_the_request_that_is_known(server: ProgressServer) -> None:
    told: list[Any] = []
    requests = Requests(Server(server.url), told.append)
    server.ask_for_a_save("r1")
    until(lambda: told)
    until(lambda: len(server.polls) == 2)
    requests.close()
    assert [poll["after"] for poll in server.polls] == [[""], ["r1"]]


def test_a_server_that_knows_only_reports_is_asked_once(server: ProgressServer) -> None:
    server.no_polls = True
    requests = Requests(Server(server.url), lambda answer: None)
    requests._thread.join(20)
    assert not requests._thread.is_alive()


@pytest.mark.parametrize(
    "server",
    [
        Server("https://127.0.0.1:1/status"),
        Server("nonsense"),
        Server("https://127.0.0.1:1/", ca=Path("/none")),
        Server("http://127.0.0.1:1/", token=Path("/none")),
    ],
)
def test_no_answer_is_one_kind_of_error(server: Server) -> None:
    with pytest.raises(NotAnswered, match="no answer from"):
        server.post({})
