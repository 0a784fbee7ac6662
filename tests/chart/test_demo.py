from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
import yaml

from e2e.cluster import processes
from e2e.cluster.provider import state_folder
from e2e.demo.install import EXAMPLES
from tests.chart.helm import ROOT

pytestmark = pytest.mark.cluster


def demo(command: str, name: str, *options: str) -> str:
    """Run a command of the demo; what it prints."""
    words = [sys.executable, "-m", "e2e.demo", command, f"--name={name}", *options]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"COLUMNS": "160"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    demo("down", name)


def samples() -> list[str]:
    """The names of the workloads in docs/examples."""
    objects = [item for file in EXAMPLES.glob("*.yaml") for item in yaml.safe_load_all(file.read_text())]
    return [item["metadata"]["name"] for item in objects if item["kind"] != "Queue"]


def rows(printed: str) -> dict[str, str]:
    """The first line of each workload's row in the table, by its name."""
    lines = [line.split("│") for line in printed.splitlines() if line.startswith("│")]
    return {cells[1].strip(): " ".join(cells[2:]) for cells in lines}


def test_every_sample_is_placed_and_explained_and_nothing_stays(name: str) -> None:
    printed = rows(demo("up", name, "--provider=local"))
    for sample in samples():
        assert "Running" in printed[sample] or "Ready" in printed[sample], printed[sample]
        assert "Placed" in printed[sample]
    assert "ExceedsMaxQuota" in printed["beyond-quota"]
    assert "TopologyPlacementFailed" in printed["beyond-node"]
    assert "H100-80GB" in printed["nvlink-8"]
    assert "1g.10gb at slice" in printed["mig-1g"]

    started = processes.recorded(state_folder(name))
    assert {"operator", "fleet", "kube-apiserver"} <= {process.name for process in started}
    demo("down", name)
    assert [process for process in started if process.alive] == []
    assert not state_folder(name).exists()
