"""Answers predictions over HTTP, as the server of an InferenceService does. Standard library only.

GET /healthz says whether it serves; POST /predict takes {"inputs": [[...], ...]} and answers {"outputs": [...]}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

WEIGHTS = [(-1) ** i * (1 + i / 8) for i in range(8)]
DEVICES = os.environ.get("NVIDIA_VISIBLE_DEVICES", "none")


def predict(point: list[float]) -> float:
    """The probability of the positive class."""
    score = sum(w * float(x) for w, x in zip(WEIGHTS, point, strict=False))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Health and identity."""
        if self.path in ("/", "/healthz"):
            self._answer(200, {"status": "ok", "devices": DEVICES, "host": os.environ.get("HOSTNAME", "")})
        else:
            self._answer(404, {"error": f"no such path: {self.path}"})

    def do_POST(self) -> None:
        """Predictions."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/predict":
            self._answer(404, {"error": f"no such path: {self.path}"})
            return
        try:
            outputs = [round(predict(point), 6) for point in json.loads(body)["inputs"]]
        except (ValueError, KeyError, TypeError) as error:
            self._answer(400, {"error": f'send {{"inputs": [[1.0, 2.0], ...]}}: {error}'})
            return
        self._answer(200, {"outputs": outputs, "devices": DEVICES})

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged, probes are not."""
        if self.path != "/healthz":
            print(format % args, flush=True)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until SIGTERM, and finish what is under way."""
    parser = argparse.ArgumentParser(description="Serve predictions.")
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    server = ThreadingHTTPServer(("", port), Handler)

    def stop(signum: int, frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"serving on port {server.server_port}, devices {DEVICES}", flush=True)
    server.serve_forever()
    server.server_close()
    print("stopped by SIGTERM", flush=True)


if __name__ == "__main__":
    main()
