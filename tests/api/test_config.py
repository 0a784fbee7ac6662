"""The configuration: one file, the environment over it, and errors that say where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from berth.api.config import Config, ConfigError, load
from berth.model.pools import NodePool
from berth.model.prices import CapacityType
from berth.model.topology import Level
from berth.planning.snapshot import Backfilling, Consolidating, Policy, QuietHours

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes config.yaml into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("config.yaml").write_text(text)
        return Path("config.yaml")

    return write


def test_the_defaults_are_the_planners_own() -> None:
    assert load().policy() == Policy()


def test_an_empty_file_is_all_defaults(written: Written) -> None:
    assert load(written("# nothing yet\n")) == load()


def test_fields_of_the_file_reach_the_policy(written: Written) -> None:
    config = load(
        written("""
levels:
  - {name: rack, labels: [example.com/rack]}
  - {name: node, labels: [kubernetes.io/hostname]}
gateTimeoutSeconds: 30
bindTimeoutSeconds: 5
avoidSeconds: 10
defaultQueue: shared
""")
    )
    assert config.policy() == Policy(
        levels=(Level("rack", ("example.com/rack",)), Level("node", ("kubernetes.io/hostname",))),
        gate_timeout_seconds=30,
        bind_timeout_seconds=5,
        avoid_seconds=10,
        default_queue="shared",
    )


def test_how_long_work_may_be_passed_can_be_set(written: Written) -> None:
    assert load(written("backfill: {mostWaitSeconds: 7200}")).policy().backfill == Backfilling(most_wait_seconds=7200)


def test_quiet_hours_may_span_midnight(written: Written) -> None:
    config = load(written("consolidation: {quietHours: '22:00-06:30', quietBudgetUsd: 250}"))
    assert config.policy().consolidation == Consolidating(quiet=QuietHours(22 * 3600, 6 * 3600 + 1800, 250.0))


def test_the_environment_wins_field_by_field(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_LOG_LEVEL", "debug")
    monkeypatch.setenv("BERTH_LEADER_ELECTION__LEASE_DURATION_SECONDS", "60")
    config = load(written("logLevel: error\nlogFormat: text\nleaderElection: {namespace: ops}\n"))
    assert (config.log_level, config.log_format) == ("debug", "text")
    assert (config.leader_election.namespace, config.leader_election.lease_duration_seconds) == ("ops", 60)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("# a comment\ncycleDebounceSeconds: -1", "config.yaml:2: cycleDebounceSeconds: must be greater than or equal"),
        ("cycleDebounceSeconds: -1", ", got -1"),
        ("gateTimeoutSeconds: 0", "config.yaml:1: gateTimeoutSeconds: must be greater than 0, got 0"),
        ("gateTimeoutSeconds: soon", "config.yaml:1: gateTimeoutSeconds: must be a valid number"),
        ("gateTimeoutSeconds: .inf", "config.yaml:1: gateTimeoutSeconds: must be"),
        ("logFormat: text\nlogFromat: json", "config.yaml:2: logFromat: unknown field"),
        ("logFormat: xml", "config.yaml:1: logFormat: must be 'json' or 'text', got 'xml'"),
        ("leaderElection:\n  renewSeconds: 3", "config.yaml:2: leaderElection.renewSeconds: unknown field"),
        (
            "leaderElection:\n  leaseDurationSeconds: 5",
            "config.yaml:1: leaderElection: retryPeriodSeconds < renewDeadl",
        ),
        ("levels:\n  - name: rack\n    labels: []", "config.yaml:3: levels[0].labels: "),
        ("levels:\n  - name: rack", "config.yaml:2: levels[0].labels: required, but missing"),
        ("levels: [{name: a, labels: [b]}, {name: a, labels: [c]}]", "config.yaml:1: levels: a is there twice"),
        ("metricsPort: 99999", "config.yaml:1: metricsPort: must be less than or equal to 65535"),
        (
            "consolidation:\n  quietHours: 10pm-6am\n  quietBudgetUsd: 100",
            "config.yaml:2: consolidation.quietHours: must be two times of day in UTC at least half an hour apart",
        ),
        (
            "consolidation: {quietHours: '23:50-00:10', quietBudgetUsd: 100}",
            "at least half an hour apart, as 22:00-06:00",
        ),
        ("consolidation: {quietHours: '24:00-06:00', quietBudgetUsd: 100}", "got '24:00-06:00'"),
        ("consolidation: {quietHours: '22:00-06:00'}", "consolidation: quietHours need a quietBudgetUsd above 0"),
        ("consolidation: {quietBudgetUsd: -1}", "consolidation.quietBudgetUsd: must be greater than or equal to 0"),
        ("- logFormat", "config.yaml: must hold fields and their values"),
        ("levels: [", "config.yaml: while parsing"),
        ("pools: [{name: a, labels: {b: c}}]", "config.yaml:1: pools[0].model: required, but missing"),
        (
            "pools:\n- {name: a, labels: {b: c}, model: L4x, boardsPerNode: 8, nodesMost: 1}",
            "config.yaml:2: pools[0].model: there is no model 'L4x': wanted one of ",
        ),
    ],
)
def test_errors_name_file_line_and_field(written: Written, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(written(text))
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("BERTH_LOG_LEVEL", "loud", "BERTH_LOG_LEVEL: logLevel: must be 'debug'"),
        ("BERTH_METRICS_PORT", "tcp://10.0.0.1:80", "BERTH_METRICS_PORT: metricsPort: must be a valid integer"),
        ("BERTH_LEVELS", "rack", 'environment: error parsing value for field "levels"'),
    ],
)
def test_errors_of_the_environment_name_the_variable(
    written: Written, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, error: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as raised:
        load(written(""))
    assert error in str(raised.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "config.yaml")


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().log_level = "debug"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("prices", "complaint"),
    [
        ("{source: openCost}", "source: openCost needs a url"),
        ("{source: json, url: prices.example}", "source: json needs a url"),
        ("{url: 'http://x'}", "set source to json or openCost"),
        ("{source: kubecost, url: 'http://x'}", "'none', 'json' or 'openCost'"),
        ("{source: json, url: 'http://x', pollSeconds: 0}", "prices.pollSeconds"),
    ],
)
def test_sources_of_prices_that_can_not_be_asked_are_refused(tmp_path: Path, prices: str, complaint: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"prices: {prices}")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert complaint in str(caught.value)


def test_labels_of_pools_stay_as_they_are_written(written: Written) -> None:
    config = load(
        written("""
pools:
- name: burst
  labels: {cloud.google.com/gke-nodepool: burst-H100}
  model: h100-80gb
  boardsPerNode: 8
  nodesMost: 4
  zone: europe-west4-a
  region: europe-west4
  capacityType: spot
  provisionSeconds: 300
""")
    )
    labels = (("cloud.google.com/gke-nodepool", "burst-H100"),)
    pool = NodePool("burst", labels, "H100-80GB", 8, 4, "europe-west4-a", "europe-west4", CapacityType.SPOT, 300.0)
    assert config.policy().pools == (pool,)


def test_two_pools_of_one_name_are_refused(written: Written) -> None:
    pool = "{name: a, labels: {b: c}, model: L40S, boardsPerNode: 8, nodesMost: 1}"
    with pytest.raises(ConfigError, match="pools: a is there twice: give each pool a name of its own"):
        load(written(f"pools: [{pool}, {pool}]"))
