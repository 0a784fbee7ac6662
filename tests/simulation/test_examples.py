"""Every scenario of the documentation runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from berth.simulation.case import prepare
from berth.simulation.metrics import Result
from berth.simulation.run import simulate
from tests.simulation.builders import SCENARIOS

FILES = sorted(SCENARIOS.glob("*.yaml"))


def shortened(file: Path, hours: int, **changes: object) -> Result:
    """The first hours of a scenario."""
    fields = yaml.safe_load(file.read_text()) | {"horizon": f"{hours}h"} | changes
    return simulate(prepare(file.stem, fields, file.parent))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_example(file: Path) -> None:
    summary = shortened(file, 3).summary
    assert summary["workloads"]["succeeded"] > 5
    assert summary["utilisation"]["all"] > 0.05


def test_laying_boards_out_anew_places_what_the_first_layouts_could_not() -> None:
    file = SCENARIOS / "mig-pool.yaml"
    fleet = yaml.safe_load(file.read_text())["fleet"]
    for pool in fleet["pools"]:
        del pool["layoutsBy"]
    fixed, laid = shortened(file, 4, fleet=fleet).summary, shortened(file, 4).summary
    assert fixed["repartitions"] == 0 < laid["repartitions"]
    assert laid["workloads"]["placed"] > fixed["workloads"]["placed"]
    assert laid["pending"]["mean"] < fixed["pending"]["mean"] / 10
