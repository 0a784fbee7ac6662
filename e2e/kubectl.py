"""The real kubectl, for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.binaries import ensure
from e2e.cluster.waiting import wait_until

TELLING = (  # what is asked for after a failure
    ("get", "trainingjobs,inferenceservices,jobs,pods", "--output=wide"),
    ("get", "trainingjobs,inferenceservices", "--output=jsonpath={range .items[*]}{.metadata.name}: {.status}{'\\n'}"),
    ("get", "events", "--sort-by=.lastTimestamp"),
    ("get", "pods,leases", "--all-namespaces", "--output=wide"),
    ("get", "nodes", "--output=custom-columns=NAME:.metadata.name,TAINTS:.spec.taints[*].key"),
    ("logs", "deployment/berth", "--namespace=berth-system", "--tail=100"),
)
Json = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl, on one cluster and in one namespace."""

    kubeconfig: Path
    namespace: str

    def __call__(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run it; what it printed. Raises AssertionError with what it complained about."""
        command = [str(ensure("kubectl") / "kubectl"), f"--kubeconfig={self.kubeconfig}", "-n", self.namespace]
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: Json) -> None:
        """Apply objects."""
        self("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str = "", *, selector: str = "") -> Json:
        """One object, or the list of a kind."""
        arguments = [kind, *([name] if name else []), *([f"--selector={selector}"] if selector else [])]
        answer: Json = yaml.safe_load(self("get", *arguments, "-o", "json"))
        return answer

    def pods(self, workload: str) -> list[Json]:
        """The pods of a workload."""
        items: list[Json] = self.get("pods", selector=f"berth.dev/name={workload}")["items"]
        return items

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 90) -> None:
        """Wait until the condition holds."""
        folder = self.kubeconfig.parent
        wait_until(lambda: bool(condition()), what, folder=folder, seconds=seconds)

    def testimony(self) -> list[tuple[str, str]]:
        """What the cluster says of how things stand: what was asked, and the answer."""
        return [(f"kubectl {' '.join(ask)}", self(*ask, check=False)[-12000:]) for ask in TELLING]
