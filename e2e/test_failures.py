"""Story: a job that hangs goes on elsewhere, where it was; one that crashes is restarted, but not for ever."""

from __future__ import annotations

import uuid

import pytest

from e2e.chaos import killed, operator_killed
from e2e.cluster.kind import SHARED_PATH
from e2e.conftest import ONE_BOARD, a_saving_job, example, state
from e2e.kubectl import Json, Kubectl
from e2e.test_checkpoints import epochs, status

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]

FREEZE = """
import os, pathlib, signal
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if (entry / "cmdline").read_bytes().split(b"\\0")[1:2] == [b"/programs/train.py"]:
        os.kill(int(entry.name), signal.SIGSTOP)
"""
CRASHES = "python3 /programs/train.py --epochs 3; echo 'RuntimeError: NaN in the loss'; exit 3"  # one stream: in order


@killed
def test_a_job_that_hangs_goes_on_elsewhere_where_it_was(kubectl: Kubectl, kill_after: float | None) -> None:
    kubectl.apply(a_job_that_is_known_to_hang())
    kubectl.wait("it saved", lambda: (status(kubectl).get("checkpoint") or {}).get("step", 0) > 2)
    (pod,) = kubectl.pods("one-gpu")
    kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", FREEZE)
    with operator_killed(kubectl, kill_after and HANG_SECONDS + kill_after):
        kubectl.wait("it was restarted", lambda: status(kubectl).get("hangs") == 1, seconds=180)
        kubectl.wait("it runs again", lambda: (state(kubectl, "one-gpu"), attempt(kubectl)) == ("Running", 2), 180)

    (again,) = [p for p in kubectl.pods("one-gpu") if p["metadata"]["labels"]["berth.dev/attempt"] == "2"]
    assert again["spec"]["nodeName"] != pod["spec"]["nodeName"]
    kubectl.wait("it goes on", lambda: epochs(kubectl("logs", again["metadata"]["name"])))
    found, log = status(kubectl), kubectl("logs", again["metadata"]["name"])
    assert f"resumed after epoch {epochs(log)[0] - 1} from " in log
    assert epochs(log)[0] > 3
    assert found["restarts"] == 0
    assert found["failures"]["last"][0]["reason"] == "Hung"


@killed
def test_a_crash_loop_ends_and_its_last_words_are_told(kubectl: Kubectl, kill_after: float | None) -> None:
    job = example("one-gpu", gpus=ONE_BOARD, restart={"maxRestarts": 2, "backoff": "1s"})
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", CRASHES]
    with operator_killed(kubectl, kill_after):
        kubectl.apply(job)
        kubectl.wait("it failed", lambda: state(kubectl, "one-gpu") == "Failed", seconds=180)

    found = status(kubectl)
    told = next(c["message"] for c in found["conditions"] if c["type"] == "Failed")
    first, *log = told.splitlines()
    assert (found["restarts"], found["attempt"]) == (2, 3)
    assert first.startswith("worker 0 on ")
    assert first.endswith(" ended with exit code 3; it was restarted 2 times, and spec.restart.maxRestarts is 2")
    assert log[0] == "The last lines of its log:"
    assert log[-1] == "RuntimeError: NaN in the loss"
    assert log[-2].startswith("done: loss 0.")
    listed = kubectl("get", "trainingjob", "one-gpu")
    assert "RESTARTS" in listed


HANG_SECONDS = 20


def a_job_that_is_known_to_hang() -> Json:
    """A job that saves every few seconds into a folder that each node has."""
    folder, restart = f"{SHARED_PATH}/{uuid.uuid4().hex}", {"hangTimeout": f"{HANG_SECONDS}s"}
    job = a_saving_job(folder, interval="2s", grace_seconds=5, restart=restart)
    job["spec"]["template"]["spec"]["shareProcessNamespace"] = True  # else its first process could not freeze itself
    return job


def attempt(kubectl: Kubectl) -> int:
    """The number of the job's attempt."""
    return int(status(kubectl).get("attempt") or 0)
