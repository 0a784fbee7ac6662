"""Alerts: each fires when it should and is quiet when it should, as promtool finds, and has a runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.adapters.gpu_metrics import COUNTERS, GAUGES
from berth.adapters.metrics import Metrics
from e2e.cluster.engine_packages import PackageError
from e2e.monitoring.prometheus import RULES, program, promtool

ROOT = Path(__file__).resolve().parents[2]
BOOKS = ROOT / "docs" / "runbooks"
TESTS = Path(__file__).parent / "alerts"

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def test_who_has_neither_prometheus_nor_apt_is_told_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PackageError, match="install Prometheus"):
        program("promtool")


def test_promtool_finds_no_fault() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)


@pytest.mark.parametrize("name", NAMES)
def test_fires_when_it_should_and_is_quiet_when_it_should(name: str) -> None:
    promtool("test", "rules", f"{name}.yaml", cwd=TESTS)


@pytest.mark.parametrize("name", NAMES)
def test_has_a_case_in_which_it_fires_and_one_in_which_it_is_quiet(name: str) -> None:
    cases = [case for test in yaml.safe_load((TESTS / f"{name}.yaml").read_text())["tests"] for case in asked(test)]
    assert {case["alertname"] for case in cases} == {name}
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}
    severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}
    assert {alert["exp_labels"]["severity"] for case in cases for alert in case["exp_alerts"]} == severities


def asked(test: dict[str, Any]) -> list[dict[str, Any]]:
    """What a test asks of alerts."""
    found: list[dict[str, Any]] = test["alert_rule_test"]
    return found


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_says_how_bad_it_is_what_happened_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(name: str) -> None:
    text = (BOOKS / f"{name}.md").read_text()
    assert re.findall(r"^##? (.*)", text, re.MULTILINE) == [name, "What it means", "How to look", "What to do"]
    severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}
    assert f"Severity: {', '.join(sorted(severities))}." in text


def test_no_runbook_and_no_test_is_left_of_an_alert_that_is_gone() -> None:
    assert sorted(path.stem for path in BOOKS.glob("*")) == NAMES
    assert sorted(path.stem for path in TESTS.glob("*")) == NAMES


def test_runbooks_and_rules_name_metrics_that_exist() -> None:
    texts = [RULES.read_text(), *(path.read_text() for path in BOOKS.glob("*"))]
    named = {name for text in texts for name in re.findall(r"\b(?<!:)berth_[a-z_]+", text)}
    ours = {sample.name for metric in Metrics("1").registry.collect() for sample in metric.samples}
    ours |= {metric.name for metric in Metrics("1").registry.collect()} | {
        *GAUGES,
        *(f"{name}_total" for name in COUNTERS),
    }
    ours |= {f"{name}{end}" for name in [*ours] for end in ("_bucket", "_count", "_total")}
    recorded = {"berth_admission_slow", "berth_gpu_utilization"}  # parts of the names of recording rules
    assert named - ours - recorded == set()


def test_the_table_of_alerts_is_complete() -> None:
    table = (ROOT / "docs" / "metrics.md").read_text()
    for name in NAMES:
        assert f"| [`{name}`](runbooks/{name}.md) |" in table
