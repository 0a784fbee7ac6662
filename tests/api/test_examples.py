"""The examples are accepted as they stand, and the programs in them do what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from berth.api.convert import to_queue
from berth.model.workloads import Demand, Topology, TopologyMode
from berth.planning.cohorts import Cohorts
from e2e.cluster.control_plane import free_ports
from tests.api.builders import EXAMPLES, converted, documents
from tests.api.cluster import Api

FILES = sorted(EXAMPLES.glob("*.yaml"))
PROGRAMS = EXAMPLES / "programs"
DEMANDS = {
    "one-gpu": (1, Demand(count=1), None),
    "nvlink-8": (1, Demand(count=8), None),
    "gang-rack": (4, Demand(count=8), Topology("rack", TopologyMode.REQUIRED)),
    "mig-1g": (1, Demand(profile="1g.10gb"), None),
    "elastic": (2, Demand(count=1), None),
    "by-memory": (1, Demand(memory_bytes=18 * 2**30), None),
    "service-2g": (1, Demand(profile="2g.20gb"), None),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_each_asks_for_what_it_is_named_after(name: str) -> None:
    (manifest,) = documents(EXAMPLES / f"{name}.yaml")
    workload = converted({**manifest, "metadata": {"namespace": "default", "uid": "u", **manifest["metadata"]}})
    assert workload.problem == ""
    assert workload.request is not None
    assert (workload.request.workers, workload.request.demand, workload.request.topology) == DEMANDS[name]


def test_queues_show_a_tree_that_lends_and_borrows() -> None:
    queues = {queue.name: queue for queue in map(to_queue, documents(EXAMPLES / "queues.yaml"))}
    assert Cohorts(queues).problems == {}
    assert Cohorts(queues).members("lab") == ["lab", "production", "research", "scavenger"]
    research = queues["research"]
    assert (research.nominal, research.borrowing, research.lending) == (
        {"H100": 16, "A100": 2},
        {"H100": 4},
        {"H100": 12},
    )
    assert (research.weight, research.default_of, queues["lab"].max_usd_per_hour) == (2, ("research",), 400)


@pytest.mark.cluster
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_api_server_takes_each(api: Api, file: Path) -> None:
    for manifest in documents(file):
        api.create(manifest, dry_run=True)


def test_workers_agree_on_the_same_model() -> None:
    (port,) = free_ports(1)
    group = [
        _start("train.py", RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for rank in range(3)
    ]
    outputs = [worker.communicate(timeout=60)[0] for worker in group]
    assert [worker.returncode for worker in group] == [0, 0, 0]
    last = {output.splitlines()[-1] for output in outputs}
    assert len(last) == 1
    assert last.pop().startswith("done: loss 0.")
    assert [output.splitlines()[0] for output in outputs] == [f"worker {r} of 3, devices GPU-7" for r in range(3)]


def test_training_learns() -> None:
    output = _start("train.py").communicate(timeout=60)[0]
    losses = [float(line.split()[-1]) for line in output.splitlines() if line.startswith("epoch")]
    assert len(losses) == 20
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_training_stops_when_asked_to() -> None:
    worker = _start("train.py", "--pause", "60")
    assert worker.stdout is not None
    while not worker.stdout.readline().startswith("epoch 1"):
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.communicate(timeout=30)[0] == "stopped by SIGTERM\n"
    assert worker.returncode == 143


def test_training_saves_when_stopped_and_goes_on_after_the_last_epoch(tmp_path: Path) -> None:
    """Of two workers one is told to stop, and both leave after the same epoch."""
    first = _pair(CHECKPOINT_DIR=str(tmp_path / "1"))
    assert first[1].stdout is not None
    while not first[1].stdout.readline().startswith("epoch 3"):
        assert first[1].poll() is None
    first[1].send_signal(signal.SIGTERM)
    told, other = (worker.communicate(timeout=60)[0].splitlines() for worker in first)
    assert [worker.returncode for worker in first] == [75, 75]
    assert told[-1].startswith("saved epoch ")
    last = int(told[-1].split()[-1])
    assert other[-1].startswith(f"epoch {last} ")

    second = _pair(CHECKPOINT_DIR=str(tmp_path / "2"), RESUME_FROM=str(tmp_path / "1"))
    assert second[0].stdout is not None
    assert [second[0].stdout.readline() for _ in range(3)][1:] == [
        f"nothing to resume from in {tmp_path}/2: [Errno 2] No such file or directory: '{tmp_path}/2/latest.json'\n",
        f"resumed after epoch {last} from {tmp_path}/1\n",
    ]
    assert second[0].stdout.readline().startswith(f"epoch {last + 1} ")
    for worker in second:
        worker.kill()
        worker.communicate()


def _pair(**environment: str) -> list[subprocess.Popen[str]]:
    (port,) = free_ports(1)
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = ("train.py", "--epochs", "100000", "--pause", "0.01")
    return [_start(*command, RANK=str(rank), **address, **environment) for rank in range(2)]


def test_the_server_tells_its_devices_and_predicts() -> None:
    with _server() as address:
        assert _ask(f"{address}/healthz")["devices"] == "GPU-7"
        outputs = _ask(f"{address}/predict", b'{"inputs": [[0, 0], [3, 0]]}')["outputs"]
    assert outputs[0] == 0.5 < outputs[1]


def test_the_server_explains_bad_requests() -> None:
    with _server() as address:
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            _ask(f"{address}/predict", b'{"input": []}')
        assert "inputs" in json.loads(refused.value.read())["error"]


@contextmanager
def _server() -> Iterator[str]:
    """The address of a running serve.py, which must end well when asked to."""
    server = _start("serve.py", "--port", "0")
    assert server.stdout is not None
    port = server.stdout.readline().split("port ")[1].split(",")[0]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert server.returncode == 0


def _ask(url: str, body: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=30) as answer:
        content: dict[str, Any] = json.load(answer)
        return content


def _start(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / program), *arguments],
        env={**os.environ, "NVIDIA_VISIBLE_DEVICES": "GPU-7", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
