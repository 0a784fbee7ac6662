"""`berth operator` on the command line."""

from __future__ import annotations

import pytest
from kubernetes.config import ConfigException
from typer.testing import CliRunner

from berth.adapters import kube
from berth.cli.main import app


def test_says_in_one_line_that_it_finds_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise ConfigException("no configuration found")

    monkeypatch.setattr(kube.config, "load_kube_config", none)
    monkeypatch.setattr("berth.cli.main.configure", lambda *_: None)  # else later tests log into this one's output
    done = CliRunner().invoke(app, ["operator"])
    assert (done.exit_code, done.stderr) == (2, "berth: no configuration found\n")
