"""What the chart makes for Prometheus and Grafana."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from e2e.monitoring.prometheus import RULES
from tests.chart.helm import CHART, Refusal, kinds, render, the

DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))


def test_nothing_of_it_unless_asked_for() -> None:
    rendered = render(agent={"enabled": True})
    assert kinds(rendered) & {"ServiceMonitor", "PrometheusRule"} == set()
    assert not any("dashboard" in manifest["metadata"]["name"] for manifest in rendered)


def test_rules_are_those_of_the_file() -> None:
    rule = the("PrometheusRule", render(metrics={"rules": {"enabled": True, "labels": {"release": "prometheus"}}}))
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("base", ["https://docs.example/berth/runbooks", "https://docs.example/berth/runbooks/"])
def test_runbooks_are_where_the_values_say(base: str) -> None:
    rule = the("PrometheusRule", render(metrics={"rules": {"enabled": True, "runbooks": base}}))
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    for alert in alerts:
        address = f"https://docs.example/berth/runbooks/{alert['alert']}.md"
        assert alert["annotations"]["runbook_url"] == address


def test_each_dashboard_is_a_config_map_that_grafanas_sidecar_finds() -> None:
    rendered = render(metrics={"dashboards": {"enabled": True, "annotations": {"grafana_folder": "Berth"}}})
    for file in DASHBOARDS:
        found = the("ConfigMap", rendered, f"berth-dashboard-{file.stem}")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["annotations"] == {"grafana_folder": "Berth"}
        assert json.loads(found["data"][file.name]) == json.loads(file.read_text())
    assert len(DASHBOARDS) == 4


@pytest.mark.parametrize(
    "bad",
    [
        {"rules": {"enabled": "yes"}},
        {"rules": {"enabled": True, "runbooks": ""}},
        {"dashboards": {"folder": "Berth"}},
        {"serviceMonitor": {"enabled": True, "interval": "30"}},
    ],
)
def test_values_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        render(metrics=bad)
