"""Story: a researcher applies a TrainingJob, and real processes train on exactly the devices asked for."""

from __future__ import annotations

import pytest

from e2e.conftest import example, state, verdict
from e2e.kubectl import Json, Kubectl

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]


def test_two_workers_on_two_nodes_succeed_and_each_sees_exactly_its_devices(kubectl: Kubectl) -> None:
    kubectl.apply(example("one-gpu", workers=2, gpus={"count": 2, "models": ["H100"]}))  # a node has two whole boards
    kubectl.wait("the job succeeded", lambda: state(kubectl, "one-gpu") == "Succeeded")

    pods = kubectl.pods("one-gpu")
    logs = [kubectl("logs", pod["metadata"]["name"]) for pod in pods]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert sorted(log.split(",")[0] for log in logs) == ["worker 0 of 2", "worker 1 of 2"]
    assert all("done: loss 0." in log for log in logs)
    assert [len(devices(log)) for log in logs] == [2, 2]
    assert len(set(devices(logs[0]) + devices(logs[1]))) == 4
    assert all(device.startswith("GPU-") for log in logs for device in devices(log))


def test_a_gang_that_does_not_fit_starts_no_pod_and_says_how_much_would(kubectl: Kubectl) -> None:
    gpus = {"count": 2, "models": ["H100"]}
    kubectl.apply(example("one-gpu", workers=5, gpus=gpus))  # more than there are boards, however these are laid out
    kubectl.wait("it is told", lambda: "2 of 5 workers fit" in verdict(kubectl, "one-gpu").get("message", ""))

    assert verdict(kubectl, "one-gpu")["reason"] == "WaitingForCapacity"
    assert kubectl.pods("one-gpu") == []


def test_a_waiting_gang_starts_when_room_comes_free(kubectl: Kubectl) -> None:
    hold(kubectl, "instances", workers=6, gpus={"profile": "2g.20gb"})  # some of each MIG board: none is laid out anew
    hold(kubectl, "boards", workers=2, gpus={"count": 2, "models": ["H100"]})
    kubectl.apply(example("one-gpu", gpus={"count": 1, "models": ["H100"]}))
    kubectl.wait("it waits", lambda: verdict(kubectl, "one-gpu").get("reason") == "WaitingForCapacity")

    kubectl("delete", "trainingjob", "boards")
    kubectl.wait("it succeeded", lambda: state(kubectl, "one-gpu") == "Succeeded")
    kubectl("delete", "trainingjob", "instances")
    kubectl.wait("all is free", lambda: not kubectl.pods("boards") and not kubectl.pods("instances"))


@pytest.mark.parametrize("sample", ["mig-1g", "by-memory"])
def test_a_job_on_a_mig_instance_sees_that_instance_alone(kubectl: Kubectl, sample: str) -> None:
    gpus = {"profile": "1g.10gb"} if sample == "mig-1g" else {"memory": "18Gi", "models": ["H100"]}
    kubectl.apply(example(sample, gpus=gpus))
    kubectl.wait("the job succeeded", lambda: state(kubectl, sample) == "Succeeded")

    (pod,) = kubectl.pods(sample)
    seen = devices(kubectl("logs", pod["metadata"]["name"]))
    assert len(seen) == 1
    assert seen[0].startswith("MIG-")


def test_suspending_stops_the_processes_and_resuming_starts_a_new_attempt(kubectl: Kubectl) -> None:
    job = example("one-gpu", gpus={"count": 1, "models": ["H100"]})
    job["spec"]["template"]["spec"]["containers"][0]["command"] += ["--epochs", "100000"]
    kubectl.apply(job)
    kubectl.wait("it runs", lambda: state(kubectl, "one-gpu") == "Running")

    suspend(kubectl, "one-gpu", True)
    kubectl.wait("it is suspended", lambda: state(kubectl, "one-gpu") == "Suspended")
    kubectl.wait("its pods are gone", lambda: not kubectl.pods("one-gpu"))
    suspend(kubectl, "one-gpu", False)
    kubectl.wait("it runs again", lambda: state(kubectl, "one-gpu") == "Running")
    assert kubectl.get("trainingjob", "one-gpu")["status"]["attempt"] == 2


def hold(kubectl: Kubectl, name: str, workers: int, gpus: Json) -> None:
    """Have a job run that does not end by itself."""
    job = example("one-gpu", workers=workers, gpus=gpus)
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["command"] += ["--epochs", "100000"]
    kubectl.apply(job)
    kubectl.wait(f"{name} are held", lambda: state(kubectl, name) == "Running")


def suspend(kubectl: Kubectl, name: str, value: bool) -> None:
    kubectl("patch", "trainingjob", name, "--type=merge", "-p", f'{{"spec": {{"suspend": {str(value).lower()}}}}}')


def devices(log: str) -> list[str]:
    """The devices that a worker's first line names."""
    return log.splitlines()[0].split("devices ")[1].split(",")
