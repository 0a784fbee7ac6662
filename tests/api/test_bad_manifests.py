"""Bad input gets a clear error that names the field."""

from __future__ import annotations

import pytest

from berth.model.workloads import Kind
from tests.api.builders import converted
from tests.api.cluster import Api, Refusal
from tests.api.manifests import BadManifest, bad_manifests

REFUSED = bad_manifests("refused")
MISCONFIGURED = bad_manifests("misconfigured")
BY_OPERATOR = bad_manifests("misconfigured", "operator")


def named(bad: BadManifest) -> str:
    return bad.name


def test_there_are_many_ways_to_be_wrong() -> None:
    assert len(REFUSED) + len(MISCONFIGURED) + len(BY_OPERATOR) >= 100


@pytest.mark.parametrize("bad", MISCONFIGURED, ids=named)
def test_conversion_names_the_field_and_the_remedy(bad: BadManifest) -> None:
    workload = converted(_delivered(bad))
    field, _, message = workload.problem.partition(": ")
    assert field.startswith(bad.field)
    assert bad.message in message
    assert workload.request is None


@pytest.mark.parametrize("bad", [bad for bad in REFUSED + BY_OPERATOR if bad.manifest["kind"] in set(Kind)], ids=named)
def test_conversion_survives_whatever_reaches_it(bad: BadManifest) -> None:
    workload = converted(_delivered(bad))
    assert (workload.request is None) == bool(workload.problem)


@pytest.mark.parametrize("bad", BY_OPERATOR, ids=named)
def test_conversion_leaves_to_the_operator_what_only_it_can_know(bad: BadManifest) -> None:
    assert converted(_delivered(bad)).problem == ""


@pytest.mark.cluster
@pytest.mark.parametrize("bad", REFUSED, ids=named)
def test_the_api_server_refuses_and_names_the_field(api: Api, bad: BadManifest) -> None:
    with pytest.raises(Refusal) as refusal:
        api.create(bad.manifest, dry_run=True)
    assert bad.field in str(refusal.value)
    assert bad.message in str(refusal.value)


@pytest.mark.cluster
@pytest.mark.parametrize("bad", MISCONFIGURED + BY_OPERATOR, ids=named)
def test_the_api_server_lets_pass_what_its_schema_cannot_tell(api: Api, bad: BadManifest) -> None:
    api.create(bad.manifest, dry_run=True)


def _delivered(bad: BadManifest) -> dict[str, object]:
    metadata = {"namespace": "default", "uid": "u-1", **bad.manifest["metadata"]}
    return {**bad.manifest, "metadata": metadata}
