"""Quantities, and what a pod takes from its node."""

from __future__ import annotations

import doctest
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.model import resources
from berth.model.resources import add, most, parse_quantity, pod_requests, to_units


def test_the_examples_in_the_module_hold() -> None:
    result = doctest.testmod(resources)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Fraction(0)),
        ("100m", Fraction(1, 10)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("1k", Fraction(1000)),
        ("1Ki", Fraction(1024)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("2E", Fraction(2 * 10**18)),
        ("2e3", Fraction(2000)),
        ("2E3", Fraction(2000)),
        ("1e-3", Fraction(1, 1000)),
        ("7n", Fraction(7, 10**9)),
        ("-1Mi", Fraction(-(2**20))),
        ("+3", Fraction(3)),
        (4, Fraction(4)),
    ],
)
def test_a_quantity_is_exact(text: str | int, expected: Fraction) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "ten", "1 Gi", "1gi", "1KI", "0x10", "1e", "--1", "1.2.3", "Gi", "NaN", "inf"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@given(st.integers(0, 10**6), st.sampled_from(["Ki", "Mi", "Gi", "k", "M", "G", ""]))
def test_a_suffix_multiplies(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == number * parse_quantity(f"1{suffix}")


def test_units_round_up_as_the_kubelet_does() -> None:
    assert to_units({"cpu": "1.0001", "memory": "0.5", "pods": "110"}) == {"cpu": 1001, "memory": 1, "pods": 110}
    assert to_units(None) == {}


def test_lists_add_and_compare_by_name() -> None:
    assert add({"cpu": 1}, {"cpu": 2, "pods": 1}) == {"cpu": 3, "pods": 1}
    assert most({"cpu": 1, "memory": 9}, {"cpu": 2}) == {"cpu": 2, "memory": 9}


def container(cpu: str, *, limit: str = "", **more: Any) -> dict[str, Any]:
    wants: dict[str, Any] = {"requests": {"cpu": cpu}} if cpu else {}
    if limit:
        wants["limits"] = {"cpu": limit}
    return {"resources": wants, **more}


def test_containers_add_up() -> None:
    assert pod_requests({"containers": [container("1"), container("500m"), {}]}) == {"cpu": 1500}


def test_a_limit_stands_in_for_a_missing_request() -> None:
    assert pod_requests({"containers": [container("", limit="2")]}) == {"cpu": 2000}
    assert pod_requests({"containers": [container("1", limit="2")]}) == {"cpu": 1000}


def test_an_init_container_counts_when_it_needs_more_than_what_runs_later() -> None:
    assert pod_requests({"initContainers": [container("3")], "containers": [container("1")]}) == {"cpu": 3000}
    assert pod_requests({"initContainers": [container("1")], "containers": [container("3")]}) == {"cpu": 3000}


def test_a_sidecar_runs_beside_all_that_follow() -> None:
    sidecar = container("1", restartPolicy="Always")
    spec = {"initContainers": [sidecar, container("4")], "containers": [container("2")]}
    assert pod_requests(spec) == {"cpu": 5000}
    spec = {"initContainers": [container("4"), sidecar], "containers": [container("2")]}
    assert pod_requests(spec) == {"cpu": 4000}
    spec = {"initContainers": [sidecar], "containers": [container("2")]}
    assert pod_requests(spec) == {"cpu": 3000}


def test_the_overhead_comes_on_top() -> None:
    assert pod_requests({"containers": [container("1")], "overhead": {"cpu": "250m"}}) == {"cpu": 1250}


def test_pod_level_resources_win() -> None:
    spec = {"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}
    assert pod_requests(spec) == {"cpu": 3000}


def test_extended_resources_are_pieces() -> None:
    spec = {"containers": [{"resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}}}]}
    assert pod_requests(spec) == {"nvidia.com/mig-1g.10gb": 1}
