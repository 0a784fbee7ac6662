"""Whatever a spec holds, conversion answers with a request or a problem, and never fails."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.api.builders import a_template, a_training_job, converted

RICH = a_training_job(
    workers=2,
    gpus={"memory": "18Gi", "models": ["H100"], "container": "main"},
    parallelism={"tensor": 1},
    topology={"level": "rack", "mode": "Required"},
    maxRuntime="90m",
    template=a_template(
        container={
            "env": [{"name": "A", "value": "b"}],
            "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "1Gi"}},
        },
        metadata={"labels": {"a": "b"}, "annotations": {"a": "b"}},
        initContainers=[{"name": "prepare", "restartPolicy": "Always", "resources": {"requests": {"cpu": 1}}}],
        nodeSelector={"a": "b"},
        tolerations=[{"operator": "Exists"}],
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
                }
            },
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
        },
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        topologySpreadConstraints=[{"whenUnsatisfiable": "ScheduleAnyway"}],
        overhead={"cpu": "10m"},
        resources={"limits": {"cpu": 2}},
    ),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["-1", "1e9", "1Gi"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of everything inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*path, key), *places(inner, (*path, key)))]


PLACES = places(RICH["spec"], ("spec",))


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
def test_any_value_in_any_place_is_a_request_or_a_problem(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    job = copy.deepcopy(RICH)
    for place, value in changes:
        _put(job, place, value)
    workload = converted(job)
    assert (workload.request is None) == bool(workload.problem)


def test_unchanged_it_is_a_request() -> None:
    assert converted(RICH).problem == ""


def _put(holder: Any, place: tuple[Any, ...], value: Any) -> None:
    """Set a value deep inside, unless an earlier change has taken the place away."""
    with suppress(KeyError, IndexError, TypeError):
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
