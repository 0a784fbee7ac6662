"""Requests that can never be met name the field at fault and the way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.gpus import model_of_product
from tests.planning.builders import a_job, a_node, a_service, planned, verdict_of

NODES = [a_node("a", board="A100-80GB", mig={"1g.10gb": 7}), a_node("h"), a_node("l", board="L40S")]


@pytest.mark.parametrize(
    ("asked", "field", "remedy"),
    [
        ({"models": ("H100", "H100-8OGB")}, "spec.gpus.models[1]", 'did you mean "H100-80GB"?'),
        ({"models": ("TPU",)}, "spec.gpus.models[0]", "known: A100, "),
        ({"profile": "1g.11gbx"}, "spec.gpus.profile", "known: 1g.10gb, "),
        ({"profile": "2g.20gb", "models": ("A30",)}, "spec.gpus.profile", "1g.6gb"),
        ({"profile": "1g.10gb", "models": ("L40S",)}, "spec.gpus.profile", "no MIG at all"),
        ({"memory_gib": 500}, "spec.gpus.memory", "several boards"),
        ({"memory_gib": 60, "models": ("L40S",)}, "spec.gpus.memory", "46068 MiB"),
        ({"required": "row"}, "spec.topology.level", "region, zone, block, leaf, rack, nvlink, node"),
        ({"preferred": "row"}, "spec.topology.level", "rack"),
        ({"gpus": 8, "tensor": 3}, "spec.parallelism.tensor", "does not divide the 8 boards"),
        ({"gpus": 4, "tensor": 6}, "spec.parallelism.tensor", "not a multiple of the 4 boards"),
        ({"gpus": 4, "tensor": 8, "workers": 3}, "spec.parallelism.tensor", "multiple of 2"),
        ({"workers": 4, "groups": {2: "row"}}, "spec.topology.groups", "rack"),
        ({"workers": 4, "required": "rack", "groups": {2: "zone"}}, "spec.topology.groups", "use rack, nvlink, node"),
        ({"workers": 8, "groups": {4: "nvlink", 2: "rack"}}, "spec.topology.groups", "use nvlink, node"),
        ({"gpus": 8, "workers": 12, "tensor": 24, "groups": {4: "rack"}}, "spec.parallelism.tensor", "evenly"),
        ({"profile": "1g.10gb", "tensor": 2}, "spec.parallelism.tensor", "whole boards"),
        ({"queue": "missing"}, "spec.queueName", "default"),
    ],
)
def test_a_field_at_fault_is_named_with_its_remedy(asked: dict[str, Any], field: str, remedy: str) -> None:
    plan = planned(NODES, a_job(**asked))
    assert verdict_of(plan).reason == "Misconfigured"
    assert verdict_of(plan).message.startswith(f"{field}: ")
    assert remedy in verdict_of(plan).message
    assert plan.actions == ()


def test_a_replica_can_not_span_nodes() -> None:
    verdict = verdict_of(planned(NODES, a_service(gpus=4, tensor=8)), "service")
    assert verdict.reason == "Misconfigured"
    assert "ask for count 8" in verdict.message


def test_what_the_reader_of_the_spec_found_is_passed_on() -> None:
    job = replace(a_job(), request=None, problem="spec.template.spec.containers: there is none")
    assert verdict_of(planned(NODES, job)).message == "spec.template.spec.containers: there is none"


@pytest.mark.parametrize(
    ("asked", "reason", "words"),
    [
        ({"gpus": 16}, "NoMatchingGPU", "asks 16 boards of one node; the most that one offers is 8"),
        ({"models": ("B200",)}, "NoMatchingGPU", "no node has B200; of 3 nodes there are 1 with A100-80GB"),
        ({"profile": "2g.20gb"}, "NoFeasibleMigLayout", "A100-80GB offers 1g.10gb"),
        ({"profile": "1g.6gb"}, "NoMatchingGPU", "no node has boards with the profile 1g.6gb"),
        ({"memory_gib": 100}, "NoMatchingGPU", "102400 MiB"),
    ],
)
def test_what_no_node_offers_may_come_later(asked: dict[str, Any], reason: str, words: str) -> None:
    verdict = verdict_of(planned(NODES, a_job(**asked)))
    assert (verdict.reason, words in verdict.message) == (reason, True), verdict.message


def test_a_cluster_without_gpus_says_so() -> None:
    assert "none of 1 nodes has GPUs" in verdict_of(planned([a_node("n", board=None)], a_job())).message


def test_a_board_that_no_table_knows_can_be_asked_for_by_name() -> None:
    nodes = [replace(a_node("n"), board=model_of_product("NVIDIA-RTX-9", 24000))]
    assert verdict_of(planned(nodes, a_job(models=("RTX-9",)))).reason == "Placed"


def test_a_misconfigured_job_does_not_hold_up_the_others() -> None:
    plan = planned(NODES, a_job("bad", models=("TPU",)), a_job("good", created=1.0))
    assert verdict_of(plan, "good").reason == "Placed"


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        (
            {"workers": 3, "gpus": 8, "models": ("H100",)},
            "lower workers to 1 or add nodes: even if all were free, 1 would",
        ),
        ({"workers": 1, "gpus": 8, "models": ("L40S",)}, "A100-80GB has room now: add it to spec.gpus.models"),
    ],
)
def test_a_waiting_job_is_told_the_nearest_way_out(asked: dict[str, Any], remedy: str) -> None:
    plan = planned(NODES, a_job(**asked), used={"l": {"nvidia.com/gpu": 8}})
    assert remedy in verdict_of(plan).message


def test_a_job_that_would_fit_on_an_empty_cluster_is_told_to_wait() -> None:
    nodes = [a_node("n1"), a_node("n2")]
    plan = planned(nodes, a_job(workers=2, gpus=8), used={"n1": {"nvidia.com/gpu": 8}})
    assert "lower workers to 1 or wait" in verdict_of(plan).message
