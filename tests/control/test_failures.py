"""Jobs that crash, from the API server's state alone: what is told of it, and what another operator makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from berth.control import last_words
from berth.control.last_words import LINES, MOST_CHARACTERS, tail
from berth.control.ports import JOBS, PODS, TRAINING_JOBS, Unavailable
from tests.control.builders import a_node, a_training_job
from tests.control.world import World

LAST_LINES = "step 7\nTraceback (most recent call last):\nRuntimeError: NaN in the loss"


async def a_running_job(*nodes: str, **spec: Any) -> World:
    world = World(*(a_node(name) for name in nodes or ("n1",)))
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, boards=4, **spec))
    await world.settle()
    return world


def says(world: World, text: str) -> None:
    """The pods said this before they ended."""
    for pod in world.api.all(PODS):
        world.api.logs[pod["metadata"]["name"], ""] = text


async def crashed(world: World, code: int = 1) -> None:
    """The job's worker crashes, and all that follows from it until it runs again is done."""
    world.end_pods(code)
    await world.settle()
    world.clock.advance(301.0)
    await world.settle()


def condition(world: World, kind: str) -> Any:
    return next(c for c in world.status("llm")["conditions"] if c["type"] == kind)


async def test_a_crash_loop_ends_and_its_last_words_are_told() -> None:
    world = await a_running_job(restart={"maxRestarts": 2})
    for restarts in (1, 2):
        await crashed(world)
        status = world.status("llm")
        assert (status["state"], status["restarts"], status["attempt"]) == ("Running", restarts, restarts + 1)
    says(world, f"{LAST_LINES}\n")
    await crashed(world, 134)
    status = world.status("llm")
    expected = (
        "worker 0 on n1 ended with exit code 134 (SIGABRT); it was restarted 2 times, and "
        f"spec.restart.maxRestarts is 2\nThe last lines of its log:\n{LAST_LINES}"
    )
    assert (status["state"], status["restarts"]) == ("Failed", 2)
    assert condition(world, "Failed")["message"] == status["verdict"]["message"] == expected
    assert ("Failed", expected) in world.api.events()
    assert [crash["attempt"] for crash in status["failures"]["last"]] == [1, 2, 3]


async def test_a_restart_tells_the_last_words_too_and_they_stay_while_it_waits() -> None:
    world = await a_running_job()
    says(world, LAST_LINES)
    world.end_pods(1)
    await world.settle()
    status = world.status("llm")
    assert status["state"] == "Pending"
    assert LAST_LINES in status["verdict"]["message"]
    assert LAST_LINES in condition(world, "Evicted")["message"]
    assert condition(world, "Evicted")["reason"] == "Restarted"


async def test_a_log_that_cannot_be_read_holds_nothing_up() -> None:
    world = await a_running_job(restart={"maxRestarts": 0})
    world.api.fail("get pods/log", Unavailable("the kubelet does not answer"))
    world.end_pods(1)
    await world.settle()
    told = "worker 0 on n1 ended with exit code 1; spec.restart.maxRestarts is 0"
    assert (world.status("llm")["state"], world.status("llm")["verdict"]["message"]) == ("Failed", told)


async def test_a_log_that_does_not_come_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "WAIT_SECONDS", 0.0)
    world = await a_running_job(restart={"maxRestarts": 0})
    world.api.hold("get pods/log")
    world.end_pods(1)
    await world.settle()
    assert world.status("llm")["state"] == "Failed"


async def test_a_job_that_saves_and_asks_for_it_is_restarted_and_not_counted() -> None:
    world = await a_running_job(restart={"maxRestarts": 0})
    for attempt in (2, 3):
        await crashed(world, 75)
        status = world.status("llm")
        assert (status["state"], status["attempt"], status["restarts"]) == ("Running", attempt, 0)


async def test_it_runs_elsewhere_after_a_crash() -> None:
    world = await a_running_job("n1", "n2")
    world.end_pods(1)
    await world.settle()
    world.clock.advance(10.0)
    await world.settle()
    assert world.pins() == {"llm-2-0": "n2"}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_node_on_which_two_jobs_crashed_is_avoided_by_another_operator_too(restarted: bool) -> None:
    world = World(a_node("n1"), a_node("n2"))
    for name in ("a", "b"):
        world.api.put(TRAINING_JOBS, a_training_job(name, workers=1, boards=2, restart={"maxRestarts": 0}))
    await world.settle()
    world.end_pods(1)
    await world.settle()
    if restarted:
        await world.restart()
    world.api.put(TRAINING_JOBS, a_training_job(workers=1, boards=4))
    await world.settle()
    assert world.pins()["llm-1-0"] == "n2"
    assert world.status("llm")["verdict"]["message"].endswith("n1 is avoided: a and b crashed there lately")
    assert len(world.api.all(JOBS)) == 3


def test_of_long_lines_something_of_each_is_left() -> None:
    shown = tail("\n".join(letter * 5000 for letter in "abcdefg"))
    assert len(shown) <= MOST_CHARACTERS
    assert shown.endswith("g")
    assert tail("\n".join("abcdefg")) == "\n".join("abcdefg"[-LINES:])
