"""A real Prometheus on loopback: installed programs, else Debian's package, unpacked into the build cache."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from e2e.cluster import processes
from e2e.cluster.control_plane import free_ports
from e2e.cluster.engine_packages import PackageError, unpack
from e2e.cluster.waiting import wait_until

START_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm" / "berth" / "files" / "rules.yaml"

Sample = dict[str, Any]


def program(name: str) -> Path:
    """`prometheus` or `promtool`. Raises PackageError where neither PATH nor apt-get has it."""
    if found := shutil.which(name):
        return Path(found)
    if shutil.which("apt-get") is None:
        raise PackageError(f"there is no `{name}` on PATH: install Prometheus 2.42 or newer")
    return unpack("prometheus") / "usr" / "bin" / name


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def query(self, expression: str) -> list[Sample]:
        """The series that an expression has now. Raises AssertionError for one that it can't evaluate."""
        found: list[Sample] = self._get("query", query=expression)["result"]
        return found

    def up(self) -> int:
        """How many targets answered their last scrape."""
        return sum(target["health"] == "up" for target in self._get("targets")["activeTargets"])

    def rules(self) -> list[Sample]:
        """All rules, with what became of their last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **query: str) -> Any:
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(f"{query or path}: {error.read().decode()}") from error


@contextmanager
def running(
    folder: Path, jobs: Mapping[str, Sequence[str]], *, rules: Path = RULES, interval: str = "1s"
) -> Iterator[Prometheus]:
    """Prometheus with these rules, scraping the `host:port`s of each job while the context lasts."""
    (port,) = free_ports(1)
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
            for job, targets in jobs.items()
        ],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    flags = [
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = processes.spawn(folder, "prometheus", [program("prometheus"), *flags])
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: _ready(prometheus.url), "Prometheus is ready", folder=folder, seconds=START_SECONDS)
        yield prometheus
    finally:
        processes.stop(folder, [process])


def promtool(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run promtool; what it printed. Raises AssertionError with it where it failed."""
    done = subprocess.run([program("promtool"), *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
