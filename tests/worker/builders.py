"""Checkpoints on a real file system, and a progress server that tests speak for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from berth.worker import Manifest, Store

Json = dict[str, Any]
PATIENCE_SECONDS = 20.0


def weights(text: str = "weights") -> Callable[[Path], None]:
    """What writes a checkpoint of two files, one in a folder."""

    def write(folder: Path) -> None:
        (folder / "model.bin").write_text(text)
        (folder / "optimizer").mkdir(exist_ok=True)
        (folder / "optimizer" / "state.bin").write_text(text * 2)

    return write


def saved(folder: Path, *steps: int, clock: Callable[[], float] = time.time) -> list[Manifest]:
    """Checkpoints of these steps in a folder."""
    store = Store(folder, keep=10, clock=clock)
    return [store.save(step, weights(f"step {step}")) for step in steps]


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a folder with their contents."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def until(holds: Callable[[], Any]) -> Any:
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
    return found


@dataclass
class ProgressServer:
    """Keeps the reports, and answers a poll once there is a request newer than the one known."""

    reports: list[Json] = field(default_factory=list)
    polls: list[Json] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    answer: Json = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)  # statuses that the next reports get
    no_polls: bool = False
    url: str = ""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._request = ""
        self._ended = False

    def ask_for_a_save(self, name: str) -> None:
        """Make a request."""
        with self._changed:
            self._request = name
            self._changed.notify_all()

    def end(self) -> None:
        """Answer all polls."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def checkpoints(self) -> list[int]:
        """Steps that were reported as durable."""
        return [r["berth"]["checkpoint"]["step"] for r in list(self.reports) if "checkpoint" in r["berth"]]

    def report(self, body: Json) -> int:
        """The status for a report."""
        if self.refusals:
            return self.refusals.pop(0)
        self.reports.append(body)
        return 200

    def poll(self, query: Json) -> Json:
        """The answer to a poll."""
        self.polls.append(query)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._request != query.get("after", [""])[0])
            return {"saveRequest": {"id": self._request}} if self._request else {}


def _handler(server: ProgressServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.tokens.append(self.headers.get("Authorization", ""))
            status = server.report(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send(status, server.answer)

        def do_GET(self) -> None:
            if server.no_polls:
                self._send(405, {})
            else:
                self._send(200, server.poll(parse_qs(urlsplit(self.path).query, keep_blank_values=True)))

        def _send(self, status: int, body: Json) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def a_progress_server() -> Iterator[ProgressServer]:
    """A server on a port of its own."""
    known = ProgressServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(known))
    server.daemon_threads = True
    known.url = f"http://127.0.0.1:{server.server_port}/status"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.end()
        server.shutdown()
        server.server_close()
        thread.join()
