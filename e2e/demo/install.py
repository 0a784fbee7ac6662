"""Puts Berth and a fake GPU fleet onto a cluster: with the real helm, and as it would be in production where it can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import processes
from e2e.cluster.binaries import ensure
from e2e.cluster.control_plane import free_ports, kubeconfig
from e2e.cluster.errors import ClusterError
from e2e.cluster.provider import Cluster, Provider, state_folder
from e2e.cluster.waiting import wait_until
from e2e.fakegpu.deploy import NAME as PLUGIN
from e2e.fakegpu.deploy import NAMESPACE as PLUGIN_NAMESPACE
from e2e.fakegpu.deploy import plugin_manifests
from e2e.fakegpu.fleet import load_fleet

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "berth"
EXAMPLES = ROOT / "docs" / "examples"
RELEASE, NAMESPACE = "berth", "berth-system"
FLEET = "demo"  # the fake fleet's preset
FLEET_SECONDS = 60  # 2 on idle cores
SERVED_SECONDS = 30  # discovery lists a definition about a second after it is established
DEFINITIONS = ("gpunodes", "inferenceservices", "queues", "trainingjobs")  # plurals
SAMPLES_IMAGE = "berth/samples:latest"  # as docs/examples name it
REAL_NODES = {"key": "type", "operator": "NotIn", "values": ["kwok"]}

Values = Mapping[str, Any]


def install(cluster: Cluster, provider: Provider, config: Values | None = None) -> None:
    """Install chart, operator and fleet, or what is missing of them. `config` is the operator's, beside the logs'.

    On kind the operator is a pod and the plugin a DaemonSet, from images built here. Fake nodes run no programs, so
    on the local provider the operator is a process, which has the permissions of the chart's service account.

    Raises:
        ClusterError: a step failed; the message ends with what it printed.
    """
    settings = {"logFormat": "text", **(config or {})}
    if provider is Provider.KIND:
        run_pods(cluster, settings)
    else:
        install_chart(cluster.kubeconfig, {"replicaCount": 0, "config": settings})
        run_operator(cluster)
    run_fleet(cluster)


def install_chart(target: Path, values: Values) -> None:
    """Install or upgrade the chart with the real helm; returns when the definitions are served."""
    command = ["upgrade", "--install", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--create-namespace"]
    _run([ensure("helm") / "helm", f"--kubeconfig={target}", *command, "--values=-"], stdin=json.dumps(values))
    wait_until_served(target)


def wait_until_served(target: Path) -> None:
    """Return once kubectl knows our kinds, which helm's own waiting does not tell."""
    wanted = {f"{plural}.berth.dev" for plural in DEFINITIONS}
    ask = ("api-resources", "--api-group=berth.dev", "--cached=false", "--output=name")
    wait_until(
        lambda: wanted <= set(kubectl(target, *ask).split()),
        "the definitions are served",
        folder=target.parent,
        seconds=SERVED_SECONDS,
    )


def run_pods(cluster: Cluster, config: Values) -> None:
    """Run the operator and, on real workers, the fake device plugin as pods from our images."""
    target, images = cluster.kubeconfig, _load_images(cluster)
    install_chart(target, {**_image_values(images["operator"]), "config": config})
    plugin = {"apiVersion": "v1", "kind": "List", "items": plugin_manifests(images["fakegpu"])}
    kubectl(target, "apply", "--filename=-", stdin=json.dumps(plugin))
    for resource, namespace in ((f"deployment/{RELEASE}", NAMESPACE), (f"daemonset/{PLUGIN}", PLUGIN_NAMESPACE)):
        kubectl(target, "rollout", "status", resource, f"--namespace={namespace}", "--timeout=120s")


def run_operator(cluster: Cluster) -> None:
    """Run the operator as a process with the chart's configuration and its service account's permissions."""
    folder = state_folder(cluster.name)
    if processes.find(folder, "operator") is not None:
        return
    credentials, config = folder / "operator.kubeconfig", folder / "operator.yaml"
    credentials.touch(mode=0o600)
    credentials.write_text(yaml.safe_dump(_service_account(cluster.kubeconfig)))
    content = r"--output=jsonpath={.data.config\.yaml}"
    config.write_text(kubectl(cluster.kubeconfig, "get", "configmap", RELEASE, f"--namespace={NAMESPACE}", content))
    metrics, health, progress = free_ports(3)
    environment = {
        "KUBECONFIG": str(credentials),
        "POD_NAME": "demo",
        "POD_IP": "192.0.2.1",  # nowhere: pods of such a cluster are fake, and call nobody
        "BERTH_PROGRESS_HOST": f"{RELEASE}-progress.{NAMESPACE}.svc",
        "BERTH_PROGRESS_PORT": str(progress),
        "BERTH_LEADER_ELECTION__NAMESPACE": NAMESPACE,
        "BERTH_METRICS_PORT": str(metrics),
        "BERTH_HEALTH_PORT": str(health),
    }
    command = [sys.executable, "-m", "berth.cli.main", "operator", f"--config={config}"]
    processes.spawn(folder, "operator", command, environment=environment)


def run_fleet(cluster: Cluster) -> None:
    """Create the fleet's fake nodes, and play their device plugins for as long as the cluster is there.

    Returns when each node has reported its boards.
    """
    folder = state_folder(cluster.name)
    if processes.find(folder, "fleet") is None:
        command = [sys.executable, "-m", "e2e.fakegpu", "fleet", f"--fleet={FLEET}"]
        environment = {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": str(ROOT)}
        processes.spawn(folder, "fleet", command, environment=environment)
    wanted = {f"gpunode.berth.dev/{member.name}" for member in load_fleet(FLEET).fake_nodes()}
    get = ("get", "gpunodes.berth.dev", "--output=name")
    wait_until(
        lambda: wanted <= set(kubectl(cluster.kubeconfig, *get).split()),
        "every fake node reports its boards",
        folder=folder,
        seconds=FLEET_SECONDS,
    )


def kubectl(target: Path, *arguments: str, stdin: str = "") -> str:
    """Run kubectl and return its output. Raises ClusterError when it fails."""
    return _run([ensure("kubectl") / "kubectl", f"--kubeconfig={target}", *arguments], stdin=stdin)


def _service_account(target: Path) -> dict[str, Any]:
    """A kubeconfig that has no more permissions than the operator's pod would have."""
    token = kubectl(target, "create", "token", RELEASE, f"--namespace={NAMESPACE}", "--duration=48h")
    cluster = yaml.safe_load(target.read_text())["clusters"][0]["cluster"]
    return kubeconfig(RELEASE, RELEASE, cluster, {"token": token})


def _load_images(cluster: Cluster) -> dict[str, str]:
    from e2e.cluster.engine import lease
    from e2e.cluster.images import build

    with lease() as engine:
        tags = build(engine)
        engine.docker("tag", tags["samples"], SAMPLES_IMAGE)
        cluster.load_image(tags["operator"], tags["fakegpu"], SAMPLES_IMAGE)
    return tags


def _image_values(image: str) -> Values:
    repository, _, tag = image.rpartition(":")
    terms = {"nodeSelectorTerms": [{"matchExpressions": [REAL_NODES]}]}
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    }


def _run(command: Sequence[str | Path], *, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise ClusterError(f"{words} failed:\n{done.stderr[-4000:]}")
    return done.stdout
