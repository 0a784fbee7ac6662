"""The real helm on our chart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.binaries import ensure

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "berth"
DEFINITIONS = CHART / "files" / "crds"

Manifest = dict[str, Any]
Values = Mapping[str, Any]

EVERYTHING: Values = {
    "fullnameOverride": "harbour",
    "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicaCount": 2,
    "crds": {"keep": False},
    "workloadPriority": 7,
    "config": {"logFormat": "text", "leaderElection": {"name": "helm"}, "levels": [{"name": "rack", "labels": ["r"]}]},
    "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"cpu": "1500m", "memory": "1.5Gi"}},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "networkPolicy": {"enabled": True, "apiServerPorts": [8443]},
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "1m", "labels": {"team": "infra"}},
        "rules": {"enabled": True, "labels": {"team": "infra"}, "runbooks": "https://docs.example/runbooks"},
        "dashboards": {"enabled": True, "labels": {"team": "infra"}, "annotations": {"grafana_folder": "Berth"}},
    },
}


class Refusal(Exception):
    """helm said no; the message is its own."""


def helm(*arguments: str | Path, values: Values | None = None) -> str:
    """Run helm; its output. Raises Refusal."""
    command = [ensure("helm") / "helm", *arguments, *(["--values=-"] if values is not None else [])]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
    if done.returncode != 0:
        raise Refusal(done.stderr)
    return done.stdout


def render(chart: Path = CHART, **values: Any) -> list[Manifest]:
    """What the chart becomes as release "berth" in namespace "berth-system"."""
    rendered = helm("template", "berth", chart, "--namespace=berth-system", values=values)
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


def the(kind: str, manifests: list[Manifest], name: str | None = None) -> Manifest:
    """The one manifest of a kind, or of that kind and name."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"]))
    return found


def kinds(manifests: list[Manifest]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}
