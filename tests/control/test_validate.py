"""Dry runs: what the API server says of a template, in the user's own paths, asked once for all that are alike."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control.ports import Refused, Unavailable
from berth.control.validate import LAUNCH_VARIABLES, REMEMBER_SECONDS, Validator
from berth.model.workloads import Kind, Ref
from tests.control.builders import a_ref, a_service, a_template, a_training_job
from tests.control.fakes import FakeApi, HandClock


def a_validator() -> tuple[Validator, FakeApi, HandClock]:
    """A validator with its API server and clock."""
    clock = HandClock()
    api = FakeApi(clock)
    return Validator(api, clock), api, clock


async def judged(refusal: str, *, of: str = "create jobs", **spec: Any) -> str:
    """The problem of a job when the API server refuses one of its dry runs like this."""
    validator, api, _ = a_validator()
    api.fail(of, Refused(refusal))
    return await validator.problem(a_ref(), a_training_job(**spec)["spec"])


async def test_what_the_api_server_takes_has_no_problem_and_nothing_is_made() -> None:
    validator, api, _ = a_validator()
    assert await validator.problem(a_ref(), a_training_job()["spec"]) == ""
    assert [str(call).split()[1] for call in api.calls] == ["jobs", "pods"]
    assert all(call.dry_run for call in api.calls)
    assert api.objects == {}


async def test_a_service_is_tried_as_a_deployment() -> None:
    validator, api, _ = a_validator()
    await validator.problem(a_ref("chat", kind=Kind.INFERENCE_SERVICE), a_service()["spec"])
    assert [str(call).split()[1] for call in api.calls] == ["deployments", "pods"]


@pytest.mark.parametrize(
    ("of", "refusal", "problem"),
    [
        (
            "create jobs",
            'Job.batch "berth-dry-run-1" is invalid: spec.template.spec.containers[0].image: Required value',
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            "create pods",
            'Pod "berth-dry-run-x" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 70000',
            "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000",
        ),
        (
            "create pods",
            'pods "berth-dry-run-x" is forbidden: error looking up service account team/me: not found',
            "spec.template.spec.serviceAccountName: ",
        ),
        ("create pods", 'Pod in version "v1" cannot be handled: strict decoding error: unknown field "spec.imag"', ""),
        ("create pods", "pods is forbidden: violates PodSecurity", "spec.template: pods is forbidden"),
    ],
)
async def test_a_refusal_names_the_field_as_the_user_wrote_it(of: str, refusal: str, problem: str) -> None:
    said = await judged(refusal, of=of)
    assert said.startswith(problem or "spec.template: ")
    assert "spec.template" in said


async def test_variables_are_counted_as_the_user_wrote_them() -> None:
    first = LAUNCH_VARIABLES
    said = await judged(f"Job is invalid: spec.template.spec.containers[1].env[{first + 2}].name: Required value")
    assert said == "spec.template.spec.containers[1].env[2].name: Required value"
    said = await judged("Pod is invalid: spec.initContainers[0].env[1].name: Required value", of="create pods")
    assert said == "spec.template.spec.initContainers[0].env[1].name: Required value"


@pytest.mark.parametrize(
    "refusal",
    [
        'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9',
        'pods "x" is forbidden: status unknown for quota: team, resources: pods',
        "unable to create new content in namespace team because it is being terminated",
    ],
)
async def test_what_passes_by_itself_is_no_problem_of_the_template(refusal: str) -> None:
    assert await judged(refusal) == ""


async def test_a_container_that_is_called_quota_may_still_be_wrong() -> None:
    assert await judged('Job is invalid: spec.template.spec.containers[0].name: Invalid value: "quota_"') != ""


async def test_alike_templates_are_asked_about_once_a_minute() -> None:
    validator, api, clock = a_validator()
    for number in range(5):
        await validator.problem(a_ref(f"job-{number}"), a_training_job(f"job-{number}", workers=number + 2)["spec"])
    assert len(api.calls) == 2
    clock.advance(REMEMBER_SECONDS)
    await validator.problem(a_ref(), a_training_job()["spec"])
    assert len(api.calls) == 4


@pytest.mark.parametrize(
    ("ref", "spec"),
    [
        (a_ref(), {"template": a_template(hostNetwork=True)}),
        (Ref(Kind.TRAINING_JOB, "other", "llm", "u"), {}),
    ],
    ids=["template", "namespace"],
)
async def test_another_template_or_namespace_is_asked_about(ref: Ref, spec: Any) -> None:
    validator, api, _ = a_validator()
    await validator.problem(a_ref(), a_training_job()["spec"])
    await validator.problem(ref, a_training_job(**spec)["spec"])
    assert len(api.calls) == 4


async def test_no_answer_is_remembered_as_none() -> None:
    validator, api, _ = a_validator()
    api.fail("create jobs", Unavailable("overloaded"))
    with pytest.raises(Unavailable):
        await validator.problem(a_ref(), a_training_job()["spec"])
    assert await validator.problem(a_ref(), a_training_job()["spec"]) == ""
