"""What an attempt is told of saving, resuming and reporting."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control import builders
from berth.control.checkpoints import NOTHING, PATH, Telling, Told, earlier
from berth.control.ports import Json, Refused
from berth.model.workloads import Placement
from tests.control.builders import BOARD, a_ref, a_template, a_training_job, placed

REF = a_ref(uid="0123456789abcdef")
SAVES = {"claim": "disk", "path": "/saved", "interval": "15m", "graceSeconds": 45}
TOLD = Told("https://berth-progress.berth-system.svc:8443", durable=0, mtbf_seconds=43200.4)


def pod_of(number: int = 3, told: Told = NOTHING, **spec: Any) -> Json:
    """The spec of an attempt's pods."""
    made = builders.job(REF, a_training_job(**spec)["spec"], number, placed(), told)
    found: Json = made["spec"]["template"]["spec"]
    return found


def told_to(pod: Json, container: int = 0) -> dict[str, str]:
    """What a container's environment says of checkpoints and reports."""
    variables = pod["containers"][container]["env"]
    return {v["name"]: v["value"] for v in variables if v["name"].startswith(("CHECKPOINT", "RESUME", "KUBEFLOW"))}


def test_where_to_save_how_often_and_what_to_resume_from() -> None:
    pod = pod_of(checkpoint=SAVES, told=TOLD)
    told = told_to(pod)
    assert {key: value for key, value in told.items() if not key.startswith("KUBEFLOW")} == {
        "CHECKPOINT_DIR": "/saved/llm-01234567/3",
        "RESUME_FROM": "/saved/llm-01234567/2:/saved/llm-01234567/1",
        "CHECKPOINT_INTERVAL": "900",
        "CHECKPOINT_GRACE_SECONDS": "45",
        "CHECKPOINT_MTBF_SECONDS": "43200",
    }
    assert pod["terminationGracePeriodSeconds"] == 45
    assert {"name": "berth-checkpoints", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
    assert {"name": "berth-checkpoints", "mountPath": "/saved"} in pod["containers"][0]["volumeMounts"]


def test_the_first_attempt_has_nothing_to_resume_from() -> None:
    assert "RESUME_FROM" not in told_to(pod_of(1, checkpoint={}, told=TOLD))


def test_a_claim_that_is_made_for_the_job_is_mounted_like_one_of_its_user() -> None:
    pod = pod_of(checkpoint={"path": "/saved", "claimTemplate": {"size": "1Ti"}})
    assert {"name": "berth-checkpoints", "persistentVolumeClaim": {"claimName": "llm-checkpoints"}} in pod["volumes"]
    assert {"name": "berth-checkpoints", "mountPath": "/saved"} in pod["containers"][0]["volumeMounts"]


def test_a_claim_is_made_as_its_template_says_and_goes_with_the_job() -> None:
    plain = builders.volume_claim(REF, {"claimTemplate": {"size": 10_000}})
    assert plain["spec"] == {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10000"}}}
    assert [owner["uid"] for owner in plain["metadata"]["ownerReferences"]] == [REF.uid]
    asked = {"size": "1Ti", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]}
    made = builders.volume_claim(REF, {"claimTemplate": asked})
    assert (made["spec"]["storageClassName"], made["spec"]["accessModes"]) == ("fast", ["ReadWriteOnce"])


def test_without_a_claim_the_template_mounts_what_it_likes() -> None:
    pod = pod_of(checkpoint={"path": "/disk/"})
    assert told_to(pod)["CHECKPOINT_DIR"] == "/disk/llm-01234567/3"
    assert told_to(pod)["CHECKPOINT_INTERVAL"] == "auto"
    assert "volumes" not in pod


def test_without_checkpoints_and_endpoint_nothing_is_added() -> None:
    pod = pod_of()
    assert told_to(pod) == {}
    assert not {"volumes", "terminationGracePeriodSeconds"} & set(pod)


def test_every_job_is_told_where_to_report() -> None:
    pod = pod_of(told=TOLD)
    assert told_to(pod) == {
        "KUBEFLOW_TRAINER_SERVER_URL": TOLD.endpoint + PATH.format(namespace="team", name="llm"),
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": "/var/run/berth/ca.crt",
        "KUBEFLOW_TRAINER_SERVER_TOKEN": "/var/run/berth/token",
    }
    (volume,) = pod["volumes"]
    token, trusted = volume["projected"]["sources"]
    assert token == {
        "serviceAccountToken": {"audience": "berth.dev/progress", "expirationSeconds": 3600, "path": "token"}
    }
    assert trusted["configMap"]["name"] == "berth-progress-ca"
    assert trusted["configMap"]["optional"] is True, "a pod must not wait for it"


def test_what_the_template_sets_and_mounts_itself_stays() -> None:
    container = {
        "name": "main",
        "image": "x",
        "env": [{"name": "CHECKPOINT_INTERVAL", "value": "60"}, {"name": "KUBEFLOW_TRAINER_SERVER_URL", "value": "me"}],
        "volumeMounts": [{"name": "own", "mountPath": "/saved/"}],
    }
    template = a_template(containers=[container, {"name": "side", "image": "y"}], volumes=[{"name": "own"}])
    pod = pod_of(checkpoint=SAVES, told=TOLD, template=template)
    assert told_to(pod)["CHECKPOINT_INTERVAL"] == "60"
    assert told_to(pod)["KUBEFLOW_TRAINER_SERVER_URL"] == "me"
    assert [m["name"] for m in pod["containers"][0]["volumeMounts"]] == ["own", "berth-progress"]
    assert [m["name"] for m in pod["containers"][1]["volumeMounts"]] == ["berth-progress", "berth-checkpoints"]
    assert pod["volumes"][0] == {"name": "own"}


def test_the_user_s_variables_keep_their_place_behind_the_launcher_s() -> None:
    """The API server names them by position."""
    template = a_template(containers=[{"name": "main", "image": "x", "env": [{"name": "MINE", "value": "1"}]}])
    names = [v["name"] for v in pod_of(checkpoint=SAVES, told=TOLD, template=template)["containers"][0]["env"]]
    assert names.index("MINE") == len(pod_of(template=template)["containers"][0]["env"]) - 1


@pytest.mark.parametrize(
    ("number", "durable", "expected"),
    [(1, 0, []), (2, 0, [1]), (4, 2, [3, 2, 1]), (40, 39, list(range(39, 7, -1))), (40, 5, [*range(39, 7, -1), 5])],
)
def test_attempts_to_resume_from_are_the_latest_and_the_one_that_is_known_to_have_saved(
    number: int, durable: int, expected: list[int]
) -> None:
    assert earlier(number, durable) == expected


class Closed:
    """An authority that can't be made known."""

    async def publish(self, namespace: str) -> None:
        raise Refused(f"no ConfigMaps in {namespace}")


async def test_a_namespace_that_can_t_be_written_keeps_no_job_from_running() -> None:
    telling = Telling("https://berth", Closed(), lambda placement: 60.0)
    raw = {"status": {"checkpoint": {"attempt": 2}}}
    assert await telling.prepare(REF, raw, Placement(BOARD, ("n1",))) == Told("https://berth", 2, 60.0)
