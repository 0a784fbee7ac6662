"""Story: no instance of the profile asked for is there; an idle board is laid out anew, and its neighbours work on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.conftest import example, state, verdict
from e2e.fakegpu.objects import HOLD
from e2e.harness import MIG_CONFIG
from e2e.kubectl import Json, Kubectl

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]

MIG_MANAGER = ("gpu-operator", "default-mig-parted-config")
CONFIG, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
WHOLE = {"devices": [0, 1], "mig-enabled": False, "mig-devices": {}}
PARTS = {"devices": [3], "mig-enabled": True, "mig-devices": {"2g.20gb": 2, "1g.10gb": 2}}
AT_FIRST = {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1}
LASTING = """
import os, time
begun = time.time()
while True:
    print(os.getpid(), begun, flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def node(kubectl: Kubectl) -> Iterator[str]:
    """A real node whose board 2 was laid out as 7x1g by its administrator; afterwards it is as it was."""
    names = kubectl("get", "nodes", "-l", "type!=kwok,nvidia.com/mig.capable=true", "-o", "name").split()
    name = sorted(names)[-1].removeprefix("node/")
    configure(kubectl, {"seven": {"1g.10gb": 7}, "at-first": AT_FIRST})
    kubectl("label", "node", name, "story=repartition")
    lay(kubectl, name, "seven")
    yield name
    kubectl("annotate", "node", name, f"{HOLD}-")
    kubectl("delete", "trainingjobs", "--all", "--wait=true")
    kubectl.wait("its boards are idle", lambda: not held(kubectl, name))
    lay(kubectl, name, "at-first")
    kubectl("label", "node", name, "story-")


def test_an_idle_board_is_laid_out_for_a_job_and_no_neighbour_notices(kubectl: Kubectl, node: str) -> None:
    neighbours = [lasting("whole", count=2), lasting("part", profile="2g.20gb")]
    kubectl.apply(*neighbours)
    for name in ("whole", "part"):
        kubectl.wait(f"{name} runs", lambda name=name: state(kubectl, name) == "Running")  # type: ignore[misc]
    kubectl.wait("their devices are known", lambda: len(held(kubectl, node)) == 3)
    kubectl.wait("they have said who they are", lambda: all(life(kubectl, name)[-1] for name in ("whole", "part")))
    before = {name: life(kubectl, name) for name in ("whole", "part")}
    assert boards(kubectl, node)[2] == ["1g.10gb"] * 7

    job = on_node(example("mig-1g", gpus={"profile": "3g.40gb"}))
    job["metadata"]["name"] = "half"
    kubectl("annotate", "node", node, f"{HOLD}=until the verdict was read")
    kubectl.apply(job)
    kubectl.wait("it waits for a board", lambda: verdict(kubectl, "half").get("reason") == "WaitingForRepartition")
    assert f"{node} (board 2 as " in verdict(kubectl, "half")["message"]
    kubectl("annotate", "node", node, f"{HOLD}-")
    kubectl.wait("it has succeeded", lambda: state(kubectl, "half") == "Succeeded", seconds=240)

    (pod,) = kubectl.pods("half")
    assert pod["spec"]["nodeName"] == node
    assert "devices MIG-" in kubectl("logs", pod["metadata"]["name"])
    assert "3g.40gb" in boards(kubectl, node)[2]  # and the rest as what else was asked for of late
    assert boards(kubectl, node)[3] == ["1g.10gb", "1g.10gb", "2g.20gb", "2g.20gb"]
    assert kubectl.get("node", node)["metadata"]["labels"][CONFIG].startswith("berth-")
    assert {name: life(kubectl, name) for name in ("whole", "part")} == before
    assert "# Written by the administrator." in configuration(kubectl)


def lasting(name: str, **gpus: object) -> Json:
    """A job that says who it is for ever."""
    job = on_node(example("one-gpu", gpus={**gpus, "models": ["H100"]}))
    job["metadata"]["name"] = name
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = ["python3", "-c", LASTING]
    pod["terminationGracePeriodSeconds"] = 1  # it knows no SIGTERM
    return job


def on_node(job: Json) -> Json:
    """The job, kept on the node of this story."""
    term = {"matchExpressions": [{"key": "story", "operator": "In", "values": ["repartition"]}]}
    job["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    }
    return job


def configure(kubectl: Kubectl, boards_2: dict[str, dict[str, int]]) -> None:
    """Give mig-manager a configuration with entries for board 2, the others as they are."""
    lines = ""
    for name, layout in boards_2.items():
        second = {"devices": [2], "mig-enabled": True, "mig-devices": layout}
        lines += f"  {name}: {json.dumps([WHOLE, second, PARTS])}\n"
    namespace, name = MIG_MANAGER
    data = {"config.yaml": MIG_CONFIG + lines}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(body))


def lay(kubectl: Kubectl, node: str, entry: str) -> None:
    """Have mig-manager lay out the node as an administrator would, and wait for the kubelet."""
    wanted = sorted({"seven": ["1g.10gb"] * 7}.get(entry) or [p for p, n in AT_FIRST.items() for _ in range(n)])

    def laid() -> bool:
        labels = kubectl.get("node", node)["metadata"]["labels"]
        if labels.get(CONFIG) != entry or labels.get(STATE) == "failed":  # the file lags behind the ConfigMap
            kubectl("label", "node", node, f"{CONFIG}-")
            kubectl("label", "node", node, f"{CONFIG}={entry}")
            return False
        return labels.get(STATE) == "success" and boards(kubectl, node)[2] == wanted

    kubectl.wait(f"the node is laid out as {entry}", laid, seconds=120)
    count = sum(len(found) for found in boards(kubectl, node).values())
    kubectl.wait("the kubelet offers its instances", lambda: offered(kubectl, node) == count)


def offered(kubectl: Kubectl, node: str) -> int:
    """MIG instances that the kubelet offers."""
    allocatable = kubectl.get("node", node)["status"]["allocatable"]
    return sum(int(n) for name, n in allocatable.items() if name.startswith("nvidia.com/mig-"))


def boards(kubectl: Kubectl, node: str) -> dict[int, list[str]]:
    """The profiles on each board, by its index, as the node reports them."""
    found = kubectl.get("gpunode", node)["status"]["boards"]
    return {b["index"]: sorted(i["profile"] for i in b.get("instances") or ()) for b in found}


def held(kubectl: Kubectl, node: str) -> list[str]:
    """Boards and instances that pods hold."""
    found = kubectl.get("gpunode", node)["status"]["boards"]
    return [d["uuid"] for b in found for d in (b, *(b.get("instances") or ())) if d.get("pod")]


def life(kubectl: Kubectl, job: str) -> tuple[str, int, str, set[str]]:
    """What would change were the job's process begun anew: its pod, restarts, start, and who its log says it is."""
    (pod,) = kubectl.pods(job)
    (container,) = pod["status"]["containerStatuses"]
    log = kubectl("logs", pod["metadata"]["name"])
    begun = container["state"]["running"]["startedAt"]
    return pod["metadata"]["uid"], container["restartCount"], begun, {*log.splitlines()}


def configuration(kubectl: Kubectl) -> str:
    """mig-manager's configuration."""
    namespace, name = MIG_MANAGER
    return kubectl("get", "configmap", name, f"--namespace={namespace}", r"--output=jsonpath={.data.config\.yaml}")
