"""Story: a team takes back a board that it lent, and the borrower loses no step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import example, state, verdict
from e2e.kubectl import Json, Kubectl
from e2e.test_checkpoints import epochs, following, on_one_node, status

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]


@pytest.fixture
def lent(kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    """Two queues of one tree: the owner of one board, and a borrower that owns none."""
    tree, owner, borrower = (f"{kubectl.namespace}-{name}" for name in ("tree", "owner", "borrower"))
    quota = {"model": "H100", "nominal": 1}
    kubectl.apply(a_queue(tree), a_queue(owner, parent=tree, quotas=[quota]), a_queue(borrower, parent=tree))
    yield owner, borrower
    kubectl("delete", "queue", tree, owner, borrower)


def test_a_borrower_saves_when_its_board_is_reclaimed_and_goes_on_at_the_next_step(
    kubectl: Kubectl, lent: tuple[str, str]
) -> None:
    owner, borrower = lent
    kubectl.apply(on_one_node(kubectl, queueName=borrower))
    kubectl.wait("it runs", lambda: (status(kubectl).get("progress") or {}).get("step", 0) > 2)
    (pod,) = kubectl.pods("one-gpu")
    with following(kubectl, pod["metadata"]["name"]) as log:
        own = example("one-gpu", gpus={"count": 1, "models": ["H100"]}, queueName=owner)
        own["metadata"]["name"] = "own"
        kubectl.apply(own)
        told = log.communicate(timeout=120)[0]
    last = max(epochs(told))
    assert f"saved epoch {last}" in told
    evicted = next(c for c in status(kubectl)["conditions"] if c["type"] == "Evicted")
    assert (evicted["status"], evicted["reason"]) == ("True", "Reclaimed")

    kubectl.wait("the owner's job has ended", lambda: state(kubectl, "own") == "Succeeded")
    kubectl.wait("the borrower runs again", lambda: state(kubectl, "one-gpu") == "Running")
    assert verdict(kubectl, "one-gpu")["reason"] == "Placed"
    (again,) = kubectl.pods("one-gpu")
    kubectl.wait("it goes on", lambda: epochs(kubectl("logs", again["metadata"]["name"])))
    assert epochs(kubectl("logs", again["metadata"]["name"]))[0] == last + 1


def a_queue(name: str, **spec: Any) -> Json:
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}
