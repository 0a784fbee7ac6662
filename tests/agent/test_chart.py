"""What the chart makes of the node agent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import Manifest, Refusal, render, the


def an_agent(**values: Any) -> list[Manifest]:
    return render(agent={"enabled": True, **values})


def pod_of(manifests: list[Manifest]) -> Any:
    return the("DaemonSet", manifests)["spec"]["template"]["spec"]


def test_no_agent_unless_it_is_asked_for() -> None:
    names = {manifest["metadata"]["name"] for manifest in render()}
    assert not any("agent" in name for name in names)


def test_runs_on_every_node_with_gpus_and_nowhere_else() -> None:
    pod = pod_of(an_agent())
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod_of(an_agent(runtimeClassName=""))


def test_has_the_privileges_that_it_needs_and_no_more() -> None:
    pod = pod_of(an_agent())
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
        "appArmorProfile": {"type": "Unconfined"},
    }
    assert [volume["hostPath"]["path"] for volume in pod["volumes"]] == ["/var/lib/kubelet/pod-resources"]
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert pod["hostPID"]


def test_is_on_the_hosts_network_only_to_hear_of_its_nodes_end() -> None:
    assert pod_of(an_agent())["hostNetwork"]
    assert "hostNetwork" not in pod_of(an_agent(hostNetwork=False))
    assert "hostNetwork" not in pod_of(an_agent(interruptions="none"))


def test_is_told_whose_metadata_service_to_listen_to() -> None:
    (container,) = pod_of(an_agent())["containers"]
    assert "--interruptions=auto" in container["args"]
    assert not any(option.startswith("--metadata-endpoint") for option in container["args"])
    (container,) = pod_of(an_agent(interruptions="aws", metadataEndpoint="http://10.0.0.1:80"))["containers"]
    assert {"--interruptions=aws", "--metadata-endpoint=http://10.0.0.1:80"} <= set(container["args"])


def test_joins_dcgm_exporter_where_it_is_told_its_address() -> None:
    url = "http://$(NODE_IP):9400/metrics"
    (plain,), (joined,) = pod_of(an_agent())["containers"], pod_of(an_agent(dcgm={"url": url}))["containers"]
    assert not any(option.startswith("--dcgm-url") for option in plain["args"])
    assert f"--dcgm-url={url}" in joined["args"]
    assert "NODE_IP" in [each["name"] for each in joined["env"]]
    with pytest.raises(Refusal):
        an_agent(dcgm={"url": "10.0.0.1"})


@pytest.mark.parametrize("bad", [{"interruptions": "azrue"}, {"metadataEndpoint": "10.0.0.1"}, {"hostNetwork": "yes"}])
def test_settings_of_metadata_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        an_agent(**bad)


def test_one_that_only_reports_sees_no_process_of_its_node() -> None:
    pod = pod_of(an_agent(layouts=False))
    (container,) = pod["containers"]
    assert "hostPID" not in pod
    assert "appArmorProfile" not in container["securityContext"]
    assert "--report-only" in container["args"]
    assert "NVIDIA_MIG_MONITOR_DEVICES" in [each["name"] for each in container["env"]]


def test_its_rights_are_its_gpunode_and_the_sight_of_its_node() -> None:
    rules = the("ClusterRole", an_agent(), "berth-agent")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["gpunodes"], ["get", "list", "watch", "create"]),
        (["gpunodes/status"], ["patch"]),
        (["nodes"], ["get"]),
        (["pods"], ["list", "watch"]),
    ]


def test_the_operators_service_and_budget_do_not_take_agents_for_operators() -> None:
    manifests = render(agent={"enabled": True}, replicaCount=2)
    labels = the("DaemonSet", manifests)["spec"]["template"]["metadata"]["labels"]
    selector = the("Service", manifests, "berth-metrics")["spec"]["selector"]
    assert not selector.items() <= labels.items()
    assert the("PodDisruptionBudget", manifests)["spec"]["selector"]["matchLabels"] == selector


def test_another_kubelets_folder_is_followed_everywhere() -> None:
    pod = pod_of(an_agent(kubeletRoot="/var/lib/k0s/kubelet"))
    (container,) = pod["containers"]
    assert "--pod-resources=/var/lib/k0s/kubelet/pod-resources/kubelet.sock" in container["args"]
    assert container["volumeMounts"][0]["mountPath"] == "/var/lib/k0s/kubelet/pod-resources"


def test_a_value_that_is_misspelt_is_refused() -> None:
    with pytest.raises(Refusal, match="layout"):
        an_agent(layout=False)


def test_prometheus_finds_every_agent_by_annotation_by_service_and_by_monitor() -> None:
    manifests = render(agent={"enabled": True}, metrics={"serviceMonitor": {"enabled": True}})
    template = the("DaemonSet", manifests)["spec"]["template"]
    assert template["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": "8082"}
    service = the("Service", manifests, "berth-agent-metrics")
    monitor = the("ServiceMonitor", manifests, "berth-agent")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert (endpoint["port"], endpoint["honorLabels"]) == (port["name"], True)
    assert port["targetPort"] in [each["name"] for each in template["spec"]["containers"][0]["ports"]]


def test_no_agent_no_service_of_agents() -> None:
    assert not any("agent" in m["metadata"]["name"] for m in render(metrics={"serviceMonitor": {"enabled": True}}))
