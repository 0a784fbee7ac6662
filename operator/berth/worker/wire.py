"""The progress endpoint over HTTPS: Kubeflow Trainer's protocol, with steps and checkpoints beside it."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
REPORT_SECONDS = 10.0
MOST_BYTES = 1 << 20


class NotAnswered(Exception):
    """The server gave no usable answer. `status` is that of the answer; 0: there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Server:
    """Where to report to. Token and CA are read for each request: both are replaced while a job runs."""

    url: str
    ca: Path | None = None
    token: Path | None = None

    def post(self, body: Json) -> Json:
        """Send a report; the answer. Raises NotAnswered."""
        return self._ask("POST", "", json.dumps(body).encode(), REPORT_SECONDS)

    def poll(self, after: str, seconds: float) -> Json:
        """Wait until a request newer than `after` is there, or the time is over. Raises NotAnswered."""
        return self._ask("GET", f"?after={after}&wait={seconds:.0f}", None, seconds + REPORT_SECONDS)

    def _ask(self, method: str, query: str, body: bytes | None, seconds: float) -> Json:
        """One request on a connection of its own. No proxies and no redirects: the token goes nowhere else."""
        try:
            address = urlsplit(self.url)
            connection = self._connection(address.scheme, address.hostname or "", address.port, seconds)
            try:
                headers = {"Content-Type": "application/json", **self._authorization()}
                connection.request(method, address.path + query, body, headers)
                answer = connection.getresponse()
                content = answer.read(MOST_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotAnswered(f"no answer from {self.url}: {error or type(error).__name__}") from error
        if answer.status >= 300:
            text = content[:200].decode(errors="replace").strip()
            raise NotAnswered(f"{self.url} answers {answer.status}: {text}", answer.status)
        return _decoded(content)

    def _connection(self, scheme: str, host: str, port: int | None, seconds: float) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=seconds)
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.read_text().strip()}"} if self.token else {}


def _decoded(content: bytes) -> Json:
    """What a server answered; servers that only know Kubeflow's protocol may answer anything."""
    try:
        answer = json.loads(content or b"{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
