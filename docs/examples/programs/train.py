"""Trains a logistic regression on made-up data, data-parallel over the workers of a TrainingJob.

Each worker holds a share of the samples, computes the gradient on it, and all sum theirs through worker 0 (an
all-reduce over TCP, as a real one goes over NCCL). It reads what Berth sets: RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT; and it keeps the checkpoint contract of docs/checkpoints.md. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import FrameType

FEATURES = 8
RATE = 0.5
SAVED = 75  # the exit code that says: saved, restart me
REPORT_SECONDS = 5
POLL_SECONDS = 50  # that one question for save requests waits for its answer
CONNECT_SECONDS = 300  # workers may start at different times: images are pulled, names appear

Vector = list[float]
Sample = tuple[Vector, int]


class Group:
    """The workers of the job, in a star around worker 0."""

    def __init__(self, rank: int, size: int, address: str, port: int) -> None:
        self.rank = rank
        self.size = size
        self._peers = _accept(size - 1, port) if rank == 0 and size > 1 else []
        if rank > 0:
            self._peers = [_connect(address, port)]

    def sum(self, values: Vector) -> Vector:
        """The sum of all workers' values, at each worker."""
        if self.rank == 0:
            for peer in self._peers:
                values = [a + b for a, b in zip(values, _receive(peer, len(values)), strict=True)]
        else:
            _send(self._peers[0], values)
            values = _receive(self._peers[0], len(values))
        for peer in self._peers if self.rank == 0 else []:
            _send(peer, values)
        return values

    def close(self) -> None:
        """Close the connections."""
        for peer in self._peers:
            peer.close()


def _accept(count: int, port: int) -> list[socket.socket]:
    with socket.create_server(("", port), backlog=count) as server:
        server.settimeout(CONNECT_SECONDS)
        return [server.accept()[0] for _ in range(count)]


def _connect(address: str, port: int) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection((address, port))
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"no answer from {address}:{port}: {error}") from error
            time.sleep(0.5)


def _send(peer: socket.socket, values: Vector) -> None:
    peer.sendall(struct.pack(f"!{len(values)}d", *values))


def _receive(peer: socket.socket, count: int) -> Vector:
    data = b""
    while len(data) < 8 * count:
        chunk = peer.recv(8 * count - len(data))
        if not chunk:
            raise SystemExit("another worker left")
        data += chunk
    return list(struct.unpack(f"!{count}d", data))


def samples(rank: int, count: int) -> list[Sample]:
    """This worker's share of the data: points labelled by a hidden plane, the same for all workers."""
    plane = [(-1) ** i * (1 + i / FEATURES) for i in range(FEATURES)]
    draw = random.Random(1000 + rank)
    points = [[draw.gauss(0, 1) for _ in range(FEATURES)] for _ in range(count)]
    return [(point, int(_dot(plane, point) > 0)) for point in points]


def gradient(weights: Vector, data: list[Sample]) -> tuple[Vector, float]:
    """The gradient of the loss on `data`, and the loss, both summed over samples."""
    total, loss = [0.0] * FEATURES, 0.0
    for point, label in data:
        guess = 1 / (1 + math.exp(-max(-30.0, min(30.0, _dot(weights, point)))))
        loss -= math.log(guess if label else 1 - guess)
        for i, x in enumerate(point):
            total[i] += (guess - label) * x
    return total, loss


def _dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


class Checkpoints:
    """Saves by renaming, so that what has its final name is whole; resumes from the newest that is."""

    def __init__(self) -> None:
        folder, interval = os.environ.get("CHECKPOINT_DIR"), os.environ.get("CHECKPOINT_INTERVAL", "auto")
        self.folder = Path(folder) if folder else None
        self.earlier = [Path(part) for part in os.environ.get("RESUME_FROM", "").split(":") if part]
        self._interval = 60.0 if interval == "auto" else float(interval)  # saving this takes no time worth a formula
        self._next = time.monotonic() + self._interval

    def load(self) -> tuple[int, Vector]:
        """The epoch that was done last, and the weights after it."""
        for folder in [self.folder, *self.earlier] if self.folder else []:
            try:
                state = json.loads((folder / json.loads((folder / "latest.json").read_text())["path"]).read_text())
                print(f"resumed after epoch {state['epoch']} from {folder}", flush=True)
                return state["epoch"], state["weights"]
            except (OSError, ValueError, KeyError) as error:
                print(f"nothing to resume from in {folder}: {error}", flush=True)
        return 0, [0.0] * FEATURES

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.folder is not None and time.monotonic() >= self._next

    def save(self, epoch: int, weights: Vector) -> dict[str, object]:
        """Save, then name it in the manifest, which is what makes it count; the manifest."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        began, text = time.monotonic(), json.dumps({"epoch": epoch, "weights": weights})
        _write(self.folder / f"step-{epoch}.json", text)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        size, seconds = len(text), round(time.monotonic() - began, 3)
        manifest = {"step": epoch, "time": now, "bytes": size, "seconds": seconds}
        _write(self.folder / "latest.json", json.dumps({**manifest, "path": f"step-{epoch}.json"}))
        self._next = time.monotonic() + self._interval
        print(f"saved epoch {epoch}", flush=True)
        return manifest


def _write(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)


class Reports:
    """Tells Berth how far it is, every few seconds, and at once what was saved; hears when it is asked to save."""

    def __init__(self) -> None:
        self._url = os.environ.get("KUBEFLOW_TRAINER_SERVER_URL", "")
        self._next = 0.0
        self._asked = ""
        if self._url and os.environ.get("CHECKPOINT_DIR"):
            threading.Thread(target=self._listen, daemon=True).start()

    def send(self, epoch: int, total: int, saved: dict[str, object] | None, answers: str) -> None:
        """Send a report, if it is time for one. That nobody hears it is no reason to stop."""
        if not self._url or (saved is None and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + REPORT_SECONDS
        ours = {"step": epoch, "totalSteps": total}
        if saved:
            ours |= {"checkpoint": saved, "answers": answers}
        try:
            self._call("", json.dumps({"berth": ours}).encode(), REPORT_SECONDS)
        except (OSError, HTTPException, KeyError, ValueError) as error:
            print(f"not reported: {error}", flush=True)

    def asked(self) -> str:
        """The id of a request to save that was not told before; "": there is none."""
        asked, self._asked = self._asked, ""
        return asked

    def _listen(self) -> None:
        """Long-poll for ever: the answer comes as soon as there is a request, else after a while."""
        after = ""
        while True:
            try:
                answer = self._call(f"?after={after}&wait={POLL_SECONDS}", None, POLL_SECONDS + REPORT_SECONDS)
            except (OSError, HTTPException, KeyError, ValueError):
                time.sleep(REPORT_SECONDS)
                continue
            if request := answer.get("saveRequest"):
                after = self._asked = request["id"]
                print(f"asked to save: {request['reason']}", flush=True)

    def _call(self, query: str, body: bytes | None, seconds: float) -> dict[str, dict[str, str]]:
        token = Path(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        trusted = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
        request = urllib.request.Request(self._url + query, body, headers)
        with urllib.request.urlopen(request, timeout=seconds, context=trusted) as answer:
            told: dict[str, dict[str, str]] = json.load(answer)
        return told


stopping = threading.Event()


def stop(signum: int, frame: FrameType | None) -> None:
    """After the epoch under way, save and leave; at once, where nothing can be saved."""
    stopping.set()
    print("stopped by SIGTERM", flush=True)
    if not os.environ.get("CHECKPOINT_DIR"):
        sys.exit(143)  # which tells that SIGTERM was the cause


def main() -> None:
    """Train for the given number of epochs."""
    parser = argparse.ArgumentParser(description="Train a logistic regression.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=500, help="of each worker")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of rest after each epoch")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    print(f"worker {rank} of {size}, devices {os.environ.get('NVIDIA_VISIBLE_DEVICES', 'none')}", flush=True)
    group = Group(rank, size, os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "29500")))
    checkpoints, reports = Checkpoints(), Reports()
    done, weights = checkpoints.load() if rank == 0 else (0, [0.0] * FEATURES)
    done, *weights = group.sum([done, *weights])  # the others add nothing, so all resume from what worker 0 chose
    done = int(done)
    data, loss = samples(rank, options.samples), math.inf
    for epoch in range(done + 1, options.epochs + 1):
        step, local = gradient(weights, data)
        *step, summed, leave = group.sum([*step, local, float(stopping.is_set())])
        count = options.samples * size
        weights = [w - RATE * g / count for w, g in zip(weights, step, strict=True)]
        loss = summed / count
        print(f"epoch {epoch} loss {loss:.4f}", flush=True)
        if rank == 0:  # the weights are the same everywhere, so it saves for all
            asked = reports.asked()
            saved = checkpoints.save(epoch, weights) if leave or asked or checkpoints.due() else None
            reports.send(epoch, options.epochs, saved, asked)
        if leave:  # of any worker: all leave after the same epoch
            sys.exit(SAVED)
        stopping.wait(options.pause)
    group.close()
    print(f"done: loss {loss:.4f} after {options.epochs} epochs", flush=True)


if __name__ == "__main__":
    main()
