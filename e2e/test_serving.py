"""Story: an engineer applies an InferenceService, and it answers over HTTP behind its Service."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from e2e.conftest import example
from e2e.kubectl import Kubectl

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]


def test_a_service_answers_through_its_endpoints_on_its_mig_instance(kubectl: Kubectl) -> None:
    kubectl.apply(example("service-2g"))
    kubectl.wait("it is ready", lambda: ready(kubectl, "service-2g") == "True")

    kubectl.wait("it answers", lambda: ask(kubectl, "service-2g").get("status") == "ok")
    assert ask(kubectl, "service-2g")["devices"].startswith("MIG-")


def test_scaling_adds_replicas_with_instances_of_their_own(kubectl: Kubectl) -> None:
    kubectl.apply(example("service-2g"))
    kubectl.wait("it is ready", lambda: ready(kubectl, "service-2g") == "True")

    kubectl("scale", "inferenceservices.berth.dev/service-2g", "--replicas=3")
    kubectl.wait("three are ready", lambda: replicas(kubectl, "service-2g") == 3)
    seen: set[str] = set()

    def all_three() -> bool:
        seen.update(filter(None, [ask(kubectl, "service-2g").get("devices")]))
        return len(seen) == 3

    kubectl.wait("the Service reaches all three", all_three)


def ready(kubectl: Kubectl, name: str) -> str:
    conditions = kubectl.get("inferenceservices.berth.dev", name).get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == "Ready"), "")


def replicas(kubectl: Kubectl, name: str) -> int:
    return int(kubectl.get("inferenceservices.berth.dev", name).get("status", {}).get("readyReplicas", 0))


def ask(kubectl: Kubectl, name: str) -> dict[str, str]:
    """What the service says of itself, asked through the API server's proxy; nothing while it has no endpoints yet."""
    path = f"/api/v1/namespaces/{kubectl.namespace}/services/{name}:8080/proxy/healthz"
    answer: dict[str, str] = {}
    with suppress(json.JSONDecodeError):
        answer = json.loads(kubectl("get", "--raw", path, check=False))
    return answer
