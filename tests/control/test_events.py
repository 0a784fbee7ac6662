"""Events: told once in a while, and never in the way."""

from __future__ import annotations

import asyncio
import logging

import pytest

from berth.control.events import POSTED_AT_ONCE, Recorder
from berth.control.ports import EVENTS, Refused
from tests.control.builders import a_ref
from tests.control.fakes import FakeApi, HandClock


def a_recorder() -> tuple[Recorder, FakeApi, HandClock]:
    """A recorder with its API server and clock."""
    clock = HandClock()
    api = FakeApi(clock)
    return Recorder(api, clock), api, clock


async def posted(api: FakeApi) -> list[tuple[str, str]]:
    """The events, once all are posted."""
    for _ in range(10):
        await asyncio.sleep(0)
    return api.events()


async def test_the_same_event_is_not_repeated_within_five_minutes() -> None:
    recorder, api, clock = a_recorder()
    for pause in (0.0, 200.0, 99.0, 1.0, 299.0):
        clock.advance(pause)
        recorder.note(a_ref(), "Admitted", "on n1")
    assert await posted(api) == [("Admitted", "on n1")] * 2  # at once, and 300 s later


async def test_another_message_or_object_is_another_event() -> None:
    recorder, api, _ = a_recorder()
    recorder.note(a_ref("a"), "Admitted", "on n1")
    recorder.note(a_ref("a"), "Admitted", "on n2")
    recorder.note(a_ref("b"), "Admitted", "on n1")
    assert len(await posted(api)) == 3


async def test_an_event_names_its_object_and_what_kind_of_news_it_is() -> None:
    recorder, api, _ = a_recorder()
    recorder.note(a_ref(), "Replaced", "x" * 5000, warning=True)
    await posted(api)
    (event,) = api.all(EVENTS)
    assert (event["type"], event["metadata"]["namespace"]) == ("Warning", "team")
    assert event["involvedObject"]["uid"] == "uid-llm"
    assert len(event["message"]) == 1024  # the API server takes no more


async def test_an_event_that_is_refused_does_no_harm_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder, api, _ = a_recorder()
    api.fail("create events", Refused("the namespace is being terminated"))
    with caplog.at_level(logging.INFO):
        recorder.note(a_ref(), "Admitted", "on n1")
        recorder.note(a_ref(), "Failed", "exit code 1")
        assert await posted(api) == [("Failed", "exit code 1")]
    assert caplog.messages == ["no event Admitted on team/llm: the namespace is being terminated"]


async def test_of_a_burst_few_are_posted_at_once_and_none_is_lost() -> None:
    recorder, api, _ = a_recorder()
    releases = [api.hold("create events") for _ in range(20)]
    for i in range(20):
        recorder.note(a_ref(f"job-{i}"), "Admitted", "on n1")
    assert await posted(api) == []
    assert api.held == POSTED_AT_ONCE
    for release in releases:
        release.set()
    for _ in range(20):
        await posted(api)
    assert len(api.events()) == 20
