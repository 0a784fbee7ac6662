from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from e2e.cluster.provider import Provider, running
from e2e.cluster.waiting import wait_until
from e2e.demo.install import DEFINITIONS, kubectl, wait_until_served
from tests.chart.helm import CHART, EVERYTHING, Values, helm, render

pytestmark = pytest.mark.cluster

NAMESPACE = "berth-system"
JOB = {
    "apiVersion": "berth.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "kept"},
    "spec": {
        "workers": 1,
        "gpus": {"count": 1},
        "template": {"spec": {"containers": [{"name": "train", "image": "berth/samples"}]}},
    },
}
RIGHTS = {  # user, verb, resource -> whether the user, who has the role of that name, may
    ("edit", "create", "trainingjobs.berth.dev"): True,
    ("edit", "update", "inferenceservices.berth.dev/scale"): True,
    ("edit", "create", "queues.berth.dev"): False,
    ("admin", "delete", "trainingjobs.berth.dev"): True,
    ("admin", "patch", "trainingjobs.berth.dev/status"): False,
    ("admin", "patch", "gpunodes.berth.dev"): False,
    ("view", "list", "gpunodes.berth.dev"): True,
    ("view", "get", "queues.berth.dev"): True,
    ("view", "create", "trainingjobs.berth.dev"): False,
}
LEFT = (
    "all,configmaps,serviceaccounts,roles,rolebindings,leases,poddisruptionbudgets,"
    "clusterroles,clusterrolebindings,priorityclasses,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
GONE_SECONDS = 180  # the API server may look for objects of a kind that goes for a minute, and once more after that
ROLES_SECONDS = 60  # the cluster's roles take our rules up a moment after they are there


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    """A cluster with two fake nodes, whose namespace for the operator takes restricted pods only."""
    with running(Provider.LOCAL, fake_nodes=2) as cluster:
        kubectl(cluster.kubeconfig, "create", "namespace", NAMESPACE)
        label = "pod-security.kubernetes.io/enforce=restricted"
        kubectl(cluster.kubeconfig, "label", "namespace", NAMESPACE, label)
        yield cluster.kubeconfig


def release(kubeconfig: Path, command: str, values: Values | None = None) -> str:
    """Install or upgrade the release, and wait for pods and kinds; or uninstall it, and wait until all is gone."""
    chart = [] if command == "uninstall" else [CHART, "--wait"]
    printed = helm(command, "berth", *chart, f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}", values=values)
    if command == "uninstall":  # not with --wait, which at times returns while there still is a Deployment
        gone = partial(is_gone, kubeconfig)
        wait_until(gone, "all of the release is gone", folder=kubeconfig.parent, seconds=GONE_SECONDS)
    else:  # a kind that goes before its storage is there takes the API server a minute to remove
        wait_until_served(kubeconfig)
        kubectl(kubeconfig, "get", ",".join(DEFINITIONS), "--all-namespaces")
    return printed


def is_gone(kubeconfig: Path) -> bool:
    """Whether nothing is left of the release but definitions that are kept."""
    selector = "--selector=app.kubernetes.io/name=berth"
    left = kubectl(kubeconfig, "get", LEFT, "--all-namespaces", selector, "--output=name")
    leaving = "--output=jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}"
    return not left and not kubectl(kubeconfig, "get", "crds", selector, leaving)


def definitions(kubeconfig: Path) -> tuple[str, ...]:
    """Plurals of our definitions that are there and not on their way out."""
    listed = json.loads(kubectl(kubeconfig, "get", "crds", "--output=json"))["items"]
    ours = [crd for crd in listed if crd["spec"]["group"] == "berth.dev"]
    return tuple(sorted(crd["spec"]["names"]["plural"] for crd in ours if "deletionTimestamp" not in crd["metadata"]))


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything set"])
def test_the_server_takes_every_manifest(kubeconfig: Path, values: Values) -> None:
    foreign = ("ServiceMonitor", "PrometheusRule")  # of the Prometheus operator
    served = [m for m in render(**values) if m["kind"] not in foreign]
    everything = {"apiVersion": "v1", "kind": "List", "items": served}
    command = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
    answer = kubectl(kubeconfig, *command, stdin=json.dumps(everything))
    assert answer.count("(server dry run)") == len(served)


def test_a_release_is_upgraded_and_leaves_kept_definitions_with_their_objects(kubeconfig: Path) -> None:
    notes = release(kubeconfig, "install", {})
    kubectl(kubeconfig, "apply", "--filename=-", stdin=json.dumps(JOB))
    sample = textwrap.dedent(notes.split("<<'EOF'\n")[1].split("  EOF")[0])
    assert "hello created" in kubectl(kubeconfig, "apply", "--filename=-", "--dry-run=server", stdin=sample)
    release(kubeconfig, "upgrade", {"replicaCount": 2, "config": {"logLevel": "debug"}})
    ready = kubectl(kubeconfig, "get", "deployment", "berth", f"-n={NAMESPACE}", "-o=jsonpath={.status.readyReplicas}")
    assert ready == "2"
    release(kubeconfig, "uninstall")
    assert definitions(kubeconfig) == DEFINITIONS
    assert kubectl(kubeconfig, "get", "trainingjobs", "--output=name") == "trainingjob.berth.dev/kept\n"

    release(kubeconfig, "install", {"crds": {"keep": False}})  # it takes over what the first one left
    release(kubeconfig, "uninstall")
    assert definitions(kubeconfig) == ()


def test_a_release_leaves_nothing(kubeconfig: Path) -> None:
    release(kubeconfig, "install", {"crds": {"keep": False}})
    assert not is_gone(kubeconfig)
    release(kubeconfig, "uninstall")
    assert definitions(kubeconfig) == ()


@pytest.mark.parametrize(("right", "allowed"), RIGHTS.items(), ids=map(" ".join, RIGHTS))
def test_the_clusters_roles_know_our_objects(roles: Path, right: tuple[str, str, str], allowed: bool) -> None:
    assert may(roles, *right) is allowed


def may(kubeconfig: Path, user: str, verb: str, resource: str) -> bool:
    """What the API server says of a user's right."""
    plural, _, subresource = resource.partition("/")
    group = plural.partition(".")[2]
    asked = {"group": group, "resource": plural.removesuffix(f".{group}"), "subresource": subresource, "verb": verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked | {"namespace": "default"}},
    }
    command = ("create", "--filename=-", "--output=jsonpath={.status.allowed}")
    return kubectl(kubeconfig, *command, stdin=json.dumps(review)) == "true"


@pytest.fixture(scope="module")
def roles(kubeconfig: Path) -> Iterator[Path]:
    """Users who bear the name of the role that they have in the whole cluster."""
    release(kubeconfig, "install", {"replicaCount": 0})
    for role in ("view", "edit", "admin"):
        kubectl(kubeconfig, "create", "clusterrolebinding", f"test-{role}", f"--clusterrole={role}", f"--user={role}")
    wait_until(
        lambda: all(may(kubeconfig, *right) for right, allowed in RIGHTS.items() if allowed),
        "the cluster's roles have our rules",
        folder=kubeconfig.parent,
        seconds=ROLES_SECONDS,
    )
    yield kubeconfig
    release(kubeconfig, "uninstall")
