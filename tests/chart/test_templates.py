from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.api.generate import manifests, stale
from berth.control.builders import PRIORITY_CLASS
from tests.chart.helm import CHART, DEFINITIONS, EVERYTHING, ROOT, Manifest, helm, kinds, render, the

KEEP = "helm.sh/resource-policy"


def pod_of(rendered: list[Manifest]) -> Manifest:
    pod: Manifest = the("Deployment", rendered)["spec"]["template"]["spec"]
    return pod


def rules(rendered: list[Manifest], *names: str) -> list[Manifest]:
    roles = [m for m in rendered if m["kind"] in ("Role", "ClusterRole")]
    return [rule for role in roles if not names or role["metadata"]["name"] in names for rule in role["rules"]]


def test_the_definitions_are_those_of_the_models() -> None:
    assert stale(DEFINITIONS) == [], "run `make crds`"
    assert stale(ROOT / "crds") == [], "run `make crds`"


def test_a_packaged_chart_brings_the_definitions(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    rendered = render(package)
    names = [m["metadata"]["name"] for m in rendered if m["kind"] == "CustomResourceDefinition"]
    assert sorted(names) == sorted(yaml.safe_load(text)["metadata"]["name"] for text in manifests().values())


def test_definitions_are_rendered_as_generated_but_for_their_metadata() -> None:
    rendered = {m["metadata"]["name"]: m["spec"] for m in render() if m["kind"] == "CustomResourceDefinition"}
    generated = [yaml.safe_load(text) for text in manifests().values()]
    assert rendered == {d["metadata"]["name"]: d["spec"] for d in generated}


@pytest.mark.parametrize(("keep", "policy"), [(True, "keep"), (False, None)])
def test_definitions_outlive_the_release_if_asked_to(keep: bool, policy: str | None) -> None:
    definition = the("CustomResourceDefinition", render(crds={"keep": keep}), "queues.berth.dev")
    assert definition["metadata"].get("annotations", {}).get(KEEP) == policy


def test_definitions_can_be_left_to_others() -> None:
    assert "CustomResourceDefinition" not in kinds(render(crds={"enabled": False}))


def test_the_pod_is_restricted() -> None:
    pod = pod_of(render())
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_service_links_do_not_set_our_variables() -> None:
    assert pod_of(render())["enableServiceLinks"] is False


def test_ports_follow_the_configuration() -> None:
    rendered = render(config={"metricsPort": 9000, "healthPort": 9001, "progressPort": 9002})
    ports = {port["name"]: port["containerPort"] for port in pod_of(rendered)["containers"][0]["ports"]}
    assert ports == {"metrics": 9000, "health": 9001, "progress": 9002}
    metrics, progress = (the("Service", rendered, f"berth-{name}")["spec"] for name in ("metrics", "progress"))
    assert metrics["ports"] == [{"name": "metrics", "port": 9000, "targetPort": "metrics"}]
    assert progress["ports"] == [{"name": "progress", "port": 9002, "targetPort": 9002}]


def test_the_progress_endpoint_is_where_the_acting_operator_says() -> None:
    rendered = render(fullnameOverride="harbour")
    assert "selector" not in the("Service", rendered, "harbour-progress")["spec"]
    environment = {e["name"]: e.get("value") for e in pod_of(rendered)["containers"][0]["env"]}
    assert environment["BERTH_PROGRESS_HOST"] == "harbour-progress.berth-system.svc"


@pytest.mark.parametrize(
    ("values", "restarts"),
    [({"config": {"logLevel": "debug"}}, True), ({"podDisruptionBudget": {"enabled": False}}, False)],
    ids=["the configuration", "anything else"],
)
def test_only_a_change_of_the_configuration_restarts_the_operator(values: dict[str, Any], restarts: bool) -> None:
    before, after = (the("Deployment", r)["spec"]["template"] for r in (render(), render(**values)))
    assert (before != after) is restarts


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "berth/operator:0.1.0"),
        ({"tag": "main"}, "berth/operator:main"),
        ({"tag": "main", "digest": "sha256:" + "a" * 64}, "berth/operator@sha256:" + "a" * 64),
    ],
    ids=["the chart's version", "a tag", "a digest before a tag"],
)
def test_the_image_is(image: dict[str, str], reference: str) -> None:
    assert pod_of(render(image=image))["containers"][0]["image"] == reference


def test_one_replica_needs_neither_budget_nor_spread() -> None:
    rendered = render()
    assert "PodDisruptionBudget" not in kinds(rendered)
    assert "topologySpreadConstraints" not in pod_of(rendered)


def test_two_replicas_avoid_sharing_a_node_and_leave_one_by_one() -> None:
    rendered = render(replicaCount=2)
    assert the("PodDisruptionBudget", rendered)["spec"]["maxUnavailable"] == 1
    assert pod_of(rendered)["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"


def test_extras_come_only_when_asked_for() -> None:
    extras = {"NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule"}
    assert kinds(render()) & extras == set()
    assert kinds(render(**EVERYTHING)) & extras == extras


def test_workloads_run_under_a_class_that_never_preempts() -> None:
    found = the("PriorityClass", render(workloadPriority=7), PRIORITY_CLASS)
    assert (found["value"], found["preemptionPolicy"], found["globalDefault"]) == (7, "Never", False)


def test_no_rule_has_a_wildcard() -> None:
    for rule in rules(render(**EVERYTHING)):
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], rule


@pytest.mark.parametrize(
    "resource", ["secrets", "serviceaccounts", "pods/exec", "clusterroles", "nodes/status", "gpunodes/status"]
)
def test_the_operator_may_do_nothing_with(resource: str) -> None:
    assert all(resource not in rule["resources"] for rule in rules(render(), "berth", "berth-lease"))


def test_of_config_maps_the_operator_may_write_two_that_have_names() -> None:
    rendered = render(config={"migManager": {"namespace": "gpus", "configMap": "parts"}})
    assert [r for r in rules(rendered, "berth", "berth-lease") if "configmaps" in r["resources"]] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["parts"], "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["berth-progress-ca"], "verbs": ["patch"]},
    ]


def test_of_secrets_and_addresses_the_operator_may_write_its_own_in_its_namespace() -> None:
    rendered = render()
    assert the("Role", rendered, "berth-progress")["metadata"]["namespace"] == "berth-system"
    named = [rule["resourceNames"] for rule in rules(rendered, "berth-progress") if rule["verbs"] != ["create"]]
    assert named == [["berth-progress-ca"], ["berth-progress"], ["berth-failure-rates"]]


def test_what_is_known_of_failures_is_kept_in_the_release_and_never_overwritten_by_it() -> None:
    kept = the("ConfigMap", render(), "berth-failure-rates")
    assert "data" not in kept


def test_what_the_operator_may_patch_of_nodes_is_limited_by_a_policy() -> None:
    rendered = render()
    verbs = {verb for rule in rules(rendered, "berth") if "nodes" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch", "patch"}
    policy = the("ValidatingAdmissionPolicy", rendered, "berth-node-layouts")["spec"]
    assert "system:serviceaccount:berth-system:berth" in policy["matchConditions"][0]["expression"]
    binding = the("ValidatingAdmissionPolicyBinding", rendered, "berth-node-layouts")["spec"]
    assert (binding["policyName"], binding["validationActions"]) == ("berth-node-layouts", ["Deny"])


def test_only_its_own_lease_is_the_operators() -> None:
    rendered = render(config={"leaderElection": {"name": "captain", "namespace": "bridge"}})
    own = [rule for rule in rules(rendered, "berth-lease") if rule["verbs"] != ["create"]]
    assert the("Role", rendered, "berth-lease")["metadata"]["namespace"] == "bridge"
    assert own == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["captain"],
            "verbs": ["get", "patch"],
        }
    ]


def test_who_may_explain_may_only_read() -> None:
    verbs = {verb for rule in rules(render(), "berth-explain") for verb in rule["verbs"]}
    assert verbs == {"get", "list"}


def test_users_write_workloads_and_nothing_else_of_ours() -> None:
    writes = [
        rule for rule in rules(render(), "berth-view", "berth-edit") if not {"get", "list", "watch"} >= {*rule["verbs"]}
    ]
    assert {resource for rule in writes for resource in rule["resources"]} == {
        "trainingjobs",
        "inferenceservices",
        "inferenceservices/scale",
    }


def test_viewers_see_everything_of_ours() -> None:
    view = the("ClusterRole", render(), "berth-view")
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {"trainingjobs", "inferenceservices", "queues", "gpunodes"} <= {*view["rules"][0]["resources"]}
