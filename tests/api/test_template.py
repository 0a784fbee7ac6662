"""Templates may say anything that Berth and Kubernetes do not say themselves."""

from __future__ import annotations

from typing import Any

import pytest

from berth.api.convert import to_request
from berth.model.workloads import Kind
from tests.api.builders import a_service_spec, a_spec, a_template

FINE: dict[str, dict[str, Any]] = {
    "host network": a_template(hostNetwork=True),
    "its own restart policy": a_template(restartPolicy="Never"),
    "preferred anti-affinity": a_template(
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}
    ),
    "spread where it can": a_template(topologySpreadConstraints=[{"whenUnsatisfiable": "ScheduleAnyway"}]),
    "a network device of the same vendor": a_template(container={"resources": {"limits": {"nvidia.com/hostdev": 1}}}),
    "a container that hides all GPUs": a_template(
        container={"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}
    ),
    "variables that only look alike": a_template(container={"env": [{"name": "MY_RANK"}, {"name": "RANKS"}]}),
    "fractions of a core": a_template(container={"resources": {"requests": {"cpu": 0.5, "memory": "1e9"}}}),
    "fields that Berth does not read": a_template(dnsPolicy="Default", container={"tty": True}),
    "labels of the user": a_template(metadata={"labels": {"app": "x"}, "annotations": {"example.com/berth.dev": "y"}}),
}


@pytest.mark.parametrize("name", FINE)
def test_a_job_may_have(name: str) -> None:
    assert to_request(a_spec(template=FINE[name]), Kind.TRAINING_JOB).workers == 1


def test_a_service_may_set_what_only_jobs_are_given() -> None:
    template = a_template(container={"env": [{"name": "RANK", "value": "0"}]}, subdomain="chat", restartPolicy="Always")
    assert to_request(a_service_spec(template=template), Kind.INFERENCE_SERVICE).workers == 1


def test_the_gpus_may_go_to_a_container_by_name() -> None:
    template = a_template(initContainers=[{"name": "prepare"}])
    spec = a_spec(gpus={"count": 1, "container": "main"}, template=template)
    assert to_request(spec, Kind.TRAINING_JOB).demand.count == 1
