"""Two operators contend for one Lease on an API server in memory, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berth.adapters.lease import Lease, LeaseLost
from berth.control.ports import LEASES, Json, Unavailable
from tests.control.fakes import FakeApi, HandClock

DURATION = 1.0  # the shortest that a Lease can state
DEADLINE = 0.4
RETRY = 0.05


def now() -> float:
    """Seconds of the loop."""
    return asyncio.get_running_loop().time()


@pytest.fixture
def api() -> FakeApi:
    """An API server without a Lease."""
    return FakeApi(HandClock())


def a_lease(api: FakeApi, identity: str = "one", **more: Any) -> Lease:
    """A contender's claim."""
    settings = {"duration_seconds": DURATION, "renew_deadline_seconds": DEADLINE, "retry_seconds": RETRY, **more}
    return Lease(api, "berth-system", "berth", identity, **settings)


def record(api: FakeApi) -> Json:
    """The Lease as it is."""
    found = api.find(LEASES, "berth", "berth-system")
    assert found is not None
    spec: Json = found["spec"]
    return spec


async def soon(lease: Lease, seconds: float = 5.0) -> float:
    """Acquire; how long that took."""
    start = now()
    async with asyncio.timeout(seconds):
        await lease.acquire()
    return now() - start


async def test_takes_a_lease_that_nobody_holds_at_once(api: FakeApi) -> None:
    assert await soon(a_lease(api)) < DURATION / 2
    assert record(api)["holderIdentity"] == "one"
    assert record(api)["leaseDurationSeconds"] == 1
    assert record(api)["leaseTransitions"] == 1


async def test_waits_while_another_renews(api: FakeApi) -> None:
    first, second = a_lease(api, "one", renew_deadline_seconds=0.9), a_lease(api, "two")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    with pytest.raises(TimeoutError):
        await soon(second, seconds=1.6 * DURATION)
    assert record(api)["holderIdentity"] == "one"
    holding.cancel()


async def test_takes_over_only_after_the_record_stood_still_for_a_whole_duration(api: FakeApi) -> None:
    await a_lease(api, "one").acquire()
    took = await soon(a_lease(api, "two"))
    assert DURATION <= took < 3 * DURATION
    assert record(api)["holderIdentity"] == "two"
    assert record(api)["leaseTransitions"] == 2


async def test_does_not_believe_the_time_that_the_record_states(api: FakeApi) -> None:
    await a_lease(api, "one").acquire()
    api.edit(LEASES, "berth-system", "berth", spec={"renewTime": "2001-01-01T00:00:00.000000Z"})
    assert await soon(a_lease(api, "two")) >= DURATION


async def test_of_two_that_take_at_once_one_gets_it(api: FakeApi) -> None:
    await a_lease(api, "old").acquire()
    leases = [a_lease(api, "one"), a_lease(api, "two")]
    tasks = [asyncio.create_task(lease.acquire()) for lease in leases]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(3 * RETRY)
    assert [len(done), sum(task.done() for task in waiting)] == [1, 0]
    for task in waiting:
        task.cancel()


async def test_a_release_lets_the_next_start_at_once(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    waiting = asyncio.create_task(soon(a_lease(api, "two")))
    await asyncio.sleep(2 * RETRY)
    await first.release()
    assert await waiting < DURATION


async def test_a_release_leaves_the_lease_of_another_alone(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    api.edit(LEASES, "berth-system", "berth", spec={"holderIdentity": "two"})
    await first.release()
    assert record(api)["holderIdentity"] == "two"


async def test_a_release_without_an_answer_ends_soon(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    api.hold("get leases")
    async with asyncio.timeout(2.0):
        await first.release()


async def test_is_lost_when_another_holds_it(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    api.edit(LEASES, "berth-system", "berth", spec={"holderIdentity": "two"})
    with pytest.raises(LeaseLost, match="held by two"):
        await asyncio.wait_for(first.hold(), DEADLINE)


async def test_is_lost_when_it_cannot_be_renewed_before_anybody_else_may_take_it(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    start = now()
    api.fail("merge leases", Unavailable("the API server is gone"), times=1000)
    with pytest.raises(LeaseLost):
        await first.hold()
    assert DEADLINE - 0.05 <= now() - start < DURATION


async def test_is_lost_when_the_api_server_answers_nothing_at_all(api: FakeApi) -> None:
    first = a_lease(api, "one")
    await first.acquire()
    start = now()
    api.hold("get leases")
    with pytest.raises(LeaseLost):
        await first.hold()
    assert now() - start < DURATION


async def test_a_short_failure_is_no_loss_even_right_after_the_first_acquisition(api: FakeApi) -> None:
    first = a_lease(api, "one", renew_deadline_seconds=0.9)
    await first.acquire()
    api.fail("get leases", Unavailable("overloaded"), times=2)
    before = record(api)["renewTime"]
    holding = asyncio.create_task(first.hold())
    async with asyncio.timeout(5.0):
        while record(api)["renewTime"] == before and not holding.done():
            await asyncio.sleep(RETRY)
    assert not holding.done()
    holding.cancel()


async def test_counts_its_time_from_when_a_renewal_was_sent(api: FakeApi) -> None:
    first = a_lease(api, "one", renew_deadline_seconds=0.8)
    await first.acquire()
    renewing = asyncio.create_task(first.hold())
    slow = api.hold("merge leases")
    await asyncio.sleep(0.6)
    start = now()
    slow.set()  # renewed, 0.6 s after it was sent
    await asyncio.sleep(0)
    api.fail("get leases", Unavailable("gone"), times=1000)
    with pytest.raises(LeaseLost):
        await renewing
    assert now() - start < 0.5
