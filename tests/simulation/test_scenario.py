"""Bad scenarios are refused with the line, the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.planning.snapshot import Policy
from berth.simulation.case import ScenarioError, load

Fields = dict[str, Any]


def good() -> Fields:
    return {
        "horizon": "1d",
        "fleet": {"pools": [{"name": "dgx", "model": "H100-80GB", "nodes": 2}]},
        "workloads": [{"name": "a", "gpus": {"count": 8}, "duration": "2h"}],
    }


def top(**fields: Any) -> Callable[[Fields], None]:
    return lambda scenario: scenario.update(fields)


def pool(**fields: Any) -> Callable[[Fields], None]:
    return lambda scenario: scenario["fleet"]["pools"][0].update(fields)


def work(**fields: Any) -> Callable[[Fields], None]:
    return lambda scenario: scenario["workloads"][0].update(fields)


def stream(**fields: Any) -> Callable[[Fields], None]:
    base = {"name": "s", "arrivals": {"perHour": 1}, "mix": [{"gpus": {"count": 1}}]}
    return lambda scenario: scenario.update(streams=[base | fields])


BAD = {
    "no horizon": (lambda scenario: scenario.pop("horizon"), "1: horizon: required, but missing"),
    "a horizon in words": (top(horizon="a week"), "1: horizon: must be seconds, or a duration"),
    "no work": (top(workloads=[]), "there is no work: add workloads or streams"),
    "an unknown field": (work(colour="red"), "12: workloads[0].colour: unknown field"),
    "two demands": (work(gpus={"count": 1, "profile": "1g.10gb"}), "9: workloads[0].gpus: set exactly one of count"),
    "an unknown model": (
        work(gpus={"count": 1, "models": ["H1000"]}),
        'workloads[0].gpus.models[0]: unknown GPU model "H1000": did',
    ),
    "a model that the fleet's table lacks": (
        pool(model="H100"),
        "fleet.pools[0]: model 'H100' is not known: did you mean",
    ),
    "too many instances": (
        pool(mig=[{"layout": {"1g.10gb": 8}}]),
        "mig[0].layout: one H100-80GB can't hold it (its profiles: 1g.10gb",
    ),
    "a board that is not there": (
        pool(mig=[{"boards": [8], "layout": {}}]),
        "mig[0].boards: board 8 of nodes with boards 0 to 7",
    ),
    "a board with two layouts": (
        pool(mig=[{"layout": {}}, {"boards": [1], "layout": {}}]),
        "board 1 has a layout already",
    ),
    "leaves without racks": (
        pool(topology={"racksPerLeaf": 2}),
        "topology: racksPerLeaf and clique need racks: set nodesPerRack",
    ),
    "CPU in words": (pool(cpu="many"), "7: fleet.pools[0].cpu: must be an amount such as 8, 500m or 64Gi"),
    "an unknown level": (
        work(topology={"level": "rak"}),
        'workloads[0].topology.level: unknown level "rak": use one of region',
    ),
    "a service with workers": (
        work(kind="InferenceService", workers=2),
        "workers is no field of InferenceService: use replicas",
    ),
    "an elastic service": (
        work(kind="InferenceService", elastic={"minWorkers": 1, "maxWorkers": 2}),
        "elastic is no field of InferenceService: leave it out",
    ),
    "a gang above its most": (
        work(workers=3, elastic={"minWorkers": 1, "maxWorkers": 2}),
        "workloads[0].elastic: minWorkers must be at most workers",
    ),
    "a queue that is not there": (work(queueName="team"), 'workloads[0].queueName: there is no Queue "team"'),
    "a tensor group that does not divide": (
        work(parallelism={"tensor": 3}),
        "workloads[0].parallelism.tensor: 3 does not divide",
    ),
    "two kinds of duration": (
        work(duration={"fixed": 1, "exponential": 1}),
        "workloads[0].duration: set exactly one of fixed",
    ),
    "a rate below zero": (
        stream(arrivals={"perHour": -1}),
        "15: streams[0].arrivals.perHour: must be greater than 0, got -1",
    ),
    "no arrivals": (stream(arrivals={}), "streams[0].arrivals: set exactly one of perHour"),
    "an end before the beginning": (
        stream(arrivals={"perHour": 1, "from": "2h", "until": "1h"}),
        "until must be later than from",
    ),
    "no shapes": (stream(mix=[]), "streams[0]: mix: give the stream one shape at least"),
    "a trace that is not there": (stream(arrivals={"trace": "none.csv"}), "streams[0].arrivals.trace: "),
    "a shape that no draw shows": (
        stream(mix=[{"gpus": {"count": 1}}, {"weight": 1e-9, "gpus": {"memory": "900Gi"}}]),
        "streams[0].mix[1].gpus.memory: 921600 MiB is more",
    ),
    "one name twice": (stream(name="a"), "workloads and streams: 'a' is there twice: give each a name of its own"),
    "a node that is not there": (
        top(failures=[{"node": "dgx-2", "at": 0, "for": 1}]),
        "13: failures[0].node: no node 'dgx-2': did you mean dgx-",
    ),
    "a node that is down twice": (
        top(failures=[{"node": "dgx-1", "at": 5, "for": 9}, {"node": "dgx-1", "at": 9, "for": 9}]),
        "17: failures[1].at: dgx-1 is down already then: give one longer failure",
    ),
    "a policy below zero": (
        top(policy={"gateTimeoutSeconds": -1}),
        "13: policy.gateTimeoutSeconds: must be greater than 0, got -1",
    ),
    "a policy of the program": (top(policy={"logLevel": "info"}), "13: policy.logLevel: unknown field"),
}


@pytest.mark.parametrize("name", BAD)
def test_names_the_field_of(tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    scenario = good()
    change(scenario)
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(scenario, sort_keys=False))
    with pytest.raises(ScenarioError) as caught:
        load(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}:")


@pytest.mark.parametrize("text", ["horizon: [", "- 1", ""])
def test_says_what_is_wrong_with_a_file_that_holds_no_fields(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ScenarioError, match=r"bad\.yaml"):
        load(file)


def test_says_that_a_file_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_the_policy_is_the_operators_and_the_environment_has_no_say_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_BIND_TIMEOUT_SECONDS", "1")
    file = tmp_path / "good.yaml"
    levels = [{"name": "hall", "labels": ["example.com/hall"]}]
    file.write_text(yaml.safe_dump(good() | {"policy": {"gateTimeoutSeconds": 77, "levels": levels}}))
    policy = load(file).scenario.planner_policy()
    assert (policy.gate_timeout_seconds, policy.bind_timeout_seconds) == (77, Policy().bind_timeout_seconds)
    assert [(level.name, level.labels) for level in policy.levels] == [("hall", ("example.com/hall",))]
