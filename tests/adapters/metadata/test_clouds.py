"""What is special about each cloud's metadata service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from berth.adapters.metadata import Cloud, azure, gce
from berth.control.notices import NoAnswer
from berth.model.nodes import Interruption
from tests.adapters.metadata.world import NAME, World, a_machine
from tests.control.fakes import HandClock

TOKEN = "latest/api/token"
EVENTS = "metadata/scheduledevents"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def ec2(clock: HandClock) -> AsyncIterator[World]:
    async with a_machine(Cloud.AWS, clock) as world:
        yield world


@pytest.fixture
async def engine() -> AsyncIterator[World]:
    async with a_machine(Cloud.GCE, time.time) as world:
        yield world


@pytest.fixture
async def azured() -> AsyncIterator[World]:
    async with a_machine(Cloud.AZURE, time.time) as world:
        yield world


async def test_one_token_of_ec2_serves_many_requests(ec2: World) -> None:
    for _ in range(5):
        await ec2.hear()
    assert ec2.machine.asked[TOKEN] == 1


async def test_a_token_of_ec2_is_renewed_before_it_ends(ec2: World, clock: HandClock) -> None:
    ec2.fails(token_seconds=100)
    await ec2.spot.ask()
    clock.advance(89)
    await ec2.spot.ask()
    assert ec2.machine.asked[TOKEN] == 1
    clock.advance(2)
    await ec2.spot.ask()
    assert ec2.machine.asked[TOKEN] == 2


async def test_a_token_that_ec2_refuses_is_renewed_at_once(ec2: World) -> None:
    await ec2.tell("spot")
    await ec2.spot.ask()
    ec2.machine.tokens.clear()
    assert await ec2.spot.ask() is not None
    assert ec2.machine.asked[TOKEN] == 2


async def test_ec2_that_refuses_every_token_gives_no_answer_and_is_not_asked_without_end(ec2: World) -> None:
    ec2.fails(path="meta-data", status=401)
    with pytest.raises(NoAnswer, match="401"):
        await ec2.spot.ask()
    assert ec2.machine.asked[TOKEN] == 2


@pytest.mark.parametrize("token", ["", "two\nlines", "Ärger"])
async def test_what_is_no_token_is_never_sent(ec2: World, token: str) -> None:
    ec2.fails(path=TOKEN, body=token)
    with pytest.raises(NoAnswer, match="no token"):
        await ec2.spot.ask()


async def test_an_action_of_ec2_without_a_time_counts_all_the_same(ec2: World) -> None:
    ec2.fails(path="instance-action", status=200, body='{"action": "stop", "time": "soon"}')
    assert await ec2.spot.ask() == Interruption("SpotInterruption", "EC2 instance metadata")


async def test_of_ec2s_scheduled_events_the_first_that_is_still_ahead_counts(ec2: World) -> None:
    days = {"canceled": "01", "completed": "02", "active": "04"}
    events = [f'{{"NotBefore": "{day} Jan 1970 00:00:00 GMT", "State": "{s}"}}' for s, day in days.items()]
    late = '{"NotBefore": "05 Jan 1970 00:00:00 GMT", "State": "active", "Code": "system-reboot"}'
    ec2.fails(path="scheduled", status=200, body=f"[{late},{','.join(events)}]")
    assert await ec2.sources[1].ask() == Interruption("Maintenance", "EC2 instance metadata", 3 * 86_400.0)


async def test_ec2s_advice_to_leave_is_logged_once(ec2: World, caplog: pytest.LogCaptureFixture) -> None:
    await ec2.tell("rebalance")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await ec2.hear() is None
    assert len([r for r in caplog.records if "advises" in r.getMessage()]) == 1


async def test_compute_engine_answers_as_soon_as_it_knows(engine: World) -> None:
    assert await engine.spot.ask() is None
    waiting = asyncio.create_task(engine.spot.ask())
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    began = time.monotonic()
    await engine.tell("spot")
    found = await waiting
    assert found is not None
    assert time.monotonic() - began < 0.5


async def test_compute_engine_says_the_old_value_after_a_while(engine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gce, "WAIT_SECONDS", 0.1)
    assert await engine.spot.ask() is None
    assert await engine.spot.ask() is None
    await engine.tell("spot")
    found = await engine.spot.ask()
    assert found is not None
    assert await engine.spot.ask() == found  # with the deadline that it had when it was heard first


async def test_after_a_mishap_compute_engine_is_asked_for_the_value_of_the_moment(engine: World) -> None:
    await engine.spot.ask()
    await engine.tell("spot")
    engine.fails(status=503, times=1)
    with pytest.raises(NoAnswer):
        await engine.spot.ask()
    assert await asyncio.wait_for(engine.spot.ask(), 1.0) is not None


async def test_something_else_at_compute_engines_address_is_not_believed(engine: World) -> None:
    engine.fails(path="preempted", status=200, body="MAYBE")
    with pytest.raises(NoAnswer, match="MAYBE"):
        await engine.spot.ask()


async def test_events_of_azure_for_other_machines_of_the_set_are_left_out(azured: World) -> None:
    await azured.tell("spot", resources=["vm-2", "vm-11"])
    assert await azured.spot.ask() is None
    await azured.tell("spot", resources=["vm-2", NAME.upper()])
    assert await azured.spot.ask() is not None
    assert azured.machine.asked["metadata/instance/compute/name"] == 1


async def test_an_event_of_azure_that_has_started_keeps_the_time_of_its_announcement(azured: World) -> None:
    await azured.tell("spot", seconds=30)
    announced = await azured.spot.ask()
    assert announced is not None
    assert azured.machine.notice is not None
    azured.machine.notice.started = True
    assert await azured.spot.ask() == announced


async def test_an_event_of_azure_that_is_heard_of_when_it_has_started_happens_now(azured: World) -> None:
    await azured.tell("termination", started=True)
    found = await azured.spot.ask()
    assert found is not None
    assert found.reason == "NodeTermination"
    assert abs(found.deadline - time.time()) < 5
    assert await azured.spot.ask() == found


async def test_the_first_answer_of_azure_may_take_long_and_later_ones_may_not(
    azured: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure, "REQUEST_SECONDS", 0.1)
    await azured.tell("spot")
    azured.fails(path=EVENTS, delay_seconds=0.5)
    assert await azured.spot.ask() is not None
    with pytest.raises(NoAnswer):
        await azured.spot.ask()


@pytest.mark.parametrize("name", ["", "x" * 100, "a\nb"])
async def test_without_its_name_no_event_of_azure_is_taken_for_the_machines_own(azured: World, name: str) -> None:
    await azured.tell("spot")
    azured.fails(path="compute/name", status=200, body=name)
    with pytest.raises(NoAnswer, match="no name"):
        await azured.spot.ask()
