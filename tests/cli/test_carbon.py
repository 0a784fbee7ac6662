"""`berth carbon`: what is shown of zones, whatever the source does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from berth.cli.main import app


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose source is a file of two days of DE."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [f"{first + timedelta(hours=h):%Y-%m-%dT%H:%MZ},{400 - 100 * (5 <= h < 9)}" for h in range(-1, 48)]
    (tmp_path / "hours.csv").write_text("\n".join(["datetime_utc,DE", *hours]))
    (tmp_path / "berth.yaml").write_text(
        f"carbon:\n  source: file\n  file: {tmp_path}/hours.csv\n  zones:\n"
        "  - {zone: DE, regions: [eu-central-1]}\n  - {zone: FR, gramsPerKwh: 56}\n"
    )
    return tmp_path / "berth.yaml"


def carbon(config: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["carbon", f"--config={config}", *options])


def test_shows_each_zone_of_the_configuration_and_where_it_is_known_from(config: Path) -> None:
    result = carbon(config)
    assert result.exit_code == 0
    german, french = result.stdout.split("\n\n")
    assert "DE: 400 g/kWh now, 300 to 400 in 24 h" in german
    assert "█████▁▁▁▁█" in german
    assert "cleanest 4 h: " in german
    assert "300 g/kWh\n  file of hours, told 0 min ago: 24 h forecast" in german
    assert "FR: 56 g/kWh now" in french
    assert "no source: 24 h static table" in french
    assert "has no column 'FR'" in french


def test_json_has_every_hour_with_its_origin(config: Path) -> None:
    found = json.loads(carbon(config, "--zone", "eu-central-1", "--hours=2", "--output=json").stdout)["zones"]
    assert [(zone["zone"], zone["source"], zone["origins"], zone["problem"]) for zone in found] == [
        ("DE", "file of hours", {"forecast": 2}, "")
    ]
    assert [(hour["gramsPerKwh"], hour["origin"]) for hour in found[0]["hours"]] == [(400, "forecast")] * 2


def test_what_was_told_is_kept_when_the_source_is_gone(config: Path) -> None:
    carbon(config)
    (config.parent / "hours.csv").unlink()
    assert "told 0 min ago: 24 h forecast" in carbon(config, "--zone", "DE").stdout


def test_a_missing_credential_is_told_of_and_keeps_nobody_waiting(config: Path) -> None:
    config.write_text("carbon: {source: electricityMaps, url: 'http://127.0.0.1:9'}\n")
    result = carbon(config, "--zone=DE")
    assert result.exit_code == 0
    assert "no source: 24 h world mean" in result.stdout
    assert "Electricity Maps: needs a credential 'token': set credentialsFolder" in result.stdout


def test_a_zone_may_have_the_name_of_its_region(config: Path) -> None:
    config.write_text("carbon: {zones: [{zone: westeurope, regions: [westeurope], gramsPerKwh: 300}]}")
    assert "westeurope: 300 g/kWh now" in carbon(config).stdout


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("carbon: {source: wind}", "berth.yaml:1: carbon.source: "),
        ("carbon: {source: file}", "source: file needs the path of one in `file`"),
        ("carbon: {source: carbonAwareSdk}", "needs the url of its WebAPI"),
        ("carbon: {zones: [{zone: DE}, {zone: FR, regions: [DE]}]}", "zones: DE is there twice"),
        ("carbon: {zones: [{zone: DE, gramsPerKwh: -1}]}", "carbon.zones[0].gramsPerKwh"),
        ("logFormat: text", "no zone: name one with --zone"),
    ],
)
def test_says_what_is_wrong_with_the_configuration(config: Path, text: str, complaint: str) -> None:
    config.write_text(text)
    result = carbon(config)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert complaint in result.stderr
