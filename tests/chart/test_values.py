from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from berth import __version__
from berth.api.config import Config, PoolSetting, load
from tests.chart.helm import CHART, EVERYTHING, Refusal, helm, render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
BAD = {
    "an unknown value": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "an unknown field of the configuration": ({"config": {"gateTimeout": 5}}, "'/config': .*'gateTimeout' not allowed"),
    "a deeper one": ({"config": {"leaderElection": {"id": "a"}}}, "'/config/leaderElection': .*'id' not allowed"),
    "text for a number": ({"config": {"avoidSeconds": "2m"}}, "'/config/avoidSeconds': got string, want number"),
    "a time of nought": ({"config": {"gateTimeoutSeconds": 0}}, "'/config/gateTimeoutSeconds': exclusiveMinimum"),
    "an unknown log format": ({"config": {"logFormat": "xml"}}, "'/config/logFormat': value must be one of 'json'"),
    "a port too high": ({"config": {"healthPort": 70000}}, "'/config/healthPort': maximum: got 70,?000"),
    "a level without labels": ({"config": {"levels": [{"name": "rack"}]}}, "'/config/levels/0': missing property"),
    "no configuration at all": ({"config": None}, "missing property 'config'"),
    "replicas in words": ({"replicaCount": "two"}, "'/replicaCount': got string, want integer"),
    "half a digest": ({"image": {"digest": "sha256:abc"}}, "'/image/digest': 'sha256:abc' does not match pattern"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "'/image/pullPolicy': value must be one of"),
    "a misspelt amount": ({"resources": {"limits": {"memory": "1 GB"}}}, "'/resources/limits/memory'"),
    "a budget of nought": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "'/podDisruptionBudget/maxUnavailable'"),
    "a switch in words": ({"crds": {"keep": "yes"}}, "'/crds/keep': got string, want boolean"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        render(**values)
    assert re.search(message, str(refusal.value)), refusal.value


def test_lint_has_nothing_to_say() -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", CHART, "--strict")


def test_chart_and_operator_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_a_parent_chart_may_set_global_values() -> None:
    assert render(**{"global": {"team": "infra"}})


def test_the_values_state_the_defaults_of_the_configuration() -> None:
    assert _camel(Config().model_dump()) == VALUES["config"]


def test_the_schema_knows_exactly_the_fields_of_the_configuration() -> None:
    pool: dict[str, Any] = dict.fromkeys(PoolSetting.model_fields)
    fields = _camel(Config().model_dump() | {"pools": [pool]})
    assert sorted(_paths(fields)) == sorted(_properties(SCHEMA["properties"]["config"]))


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything set"])
def test_the_operator_takes_the_configuration_that_is_rendered(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    (text,) = (m["data"]["config.yaml"] for m in render(**values) if "config.yaml" in m.get("data", {}))
    file.write_text(text)
    assert load(file).log_format == values.get("config", {}).get("logFormat", "json")


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {to_camel(key): _camel(item) for key, item in value.items()}
    return [_camel(item) for item in value] if isinstance(value, list) else value


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields in a value; a list stands for its first item."""
    for key, item in value.items():
        yield prefix + key
        item = item[0] if isinstance(item, list) and item else item
        if isinstance(item, dict):
            yield from _paths(item, f"{prefix}{key}.")


def _properties(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, inner in schema.get("properties", {}).items():
        yield prefix + key
        yield from _properties(inner.get("items", inner), f"{prefix}{key}.")
