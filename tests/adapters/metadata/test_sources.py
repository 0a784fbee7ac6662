"""What all three clouds' sources have in common: against documented answers, and against everything else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.adapters import metadata
from berth.adapters.metadata import Cloud, aws, azure, cloud_of, gce, service
from berth.adapters.metadata.service import Answer, Service
from berth.control.notices import NoAnswer
from berth.model.nodes import Interruption
from e2e.cluster.control_plane import free_ports
from tests.adapters.metadata.world import SPOT_PATH, World, a_machine

EVERY = list(Cloud)


@pytest.fixture(params=EVERY)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return Cloud(request.param)


@pytest.fixture
async def world(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(gce, "WAIT_SECONDS", 0.1)  # for a change that does not come
    async with a_machine(cloud, time.time) as world:
        yield world


def seconds_left(found: Interruption | None) -> float:
    """Until an interruption that there is."""
    assert found is not None
    return found.deadline - time.time()


async def test_says_nothing_of_a_machine_to_which_nothing_happens(world: World) -> None:
    assert await world.hear() is None


async def test_says_that_a_spot_machine_is_taken_back_and_when(cloud: Cloud, world: World) -> None:
    await world.tell("spot", seconds=30)
    found = await world.hear()
    assert found is not None
    assert found.reason == "SpotInterruption"
    assert 28 < seconds_left(found) < 31


async def test_says_the_same_as_often_as_it_is_asked(world: World) -> None:
    await world.tell("spot")
    first = await world.hear()
    world.fails(status=503, times=1)
    with pytest.raises(NoAnswer):
        await world.hear()
    assert await world.hear() == first


async def test_says_that_the_machine_is_maintained(cloud: Cloud, world: World) -> None:
    await world.tell("maintenance", seconds=3600)
    found = await world.hear()
    assert found is not None
    assert found.reason == "Maintenance"
    assert found.deadline == 0.0 if cloud is Cloud.GCE else 3598 < seconds_left(found) < 3601


async def test_says_nothing_of_what_loses_nothing_and_of_mere_advice(world: World) -> None:
    for kind in ("freeze", "rebalance"):
        await world.tell(kind)
        assert await world.hear() is None


async def test_says_that_it_is_over(world: World) -> None:
    await world.tell("spot")
    assert await world.hear() is not None
    await world.machine.tell(None)
    assert await world.hear() is None


@pytest.mark.parametrize("status", [301, 400, 403, 429, 500, 503])
async def test_a_refusal_is_no_answer_and_the_next_request_may_do_better(world: World, status: int) -> None:
    await world.tell("spot")
    world.fails(status=status)
    with pytest.raises(NoAnswer, match=str(status)):
        await world.spot.ask()
    world.fails()
    assert await world.spot.ask() is not None


@pytest.mark.parametrize("body", ["", "<html>", "[]", "null", '{"action": 3, "Events": 4}', "\x00\xff", "[" * 10_000])
async def test_garbage_is_no_answer(cloud: Cloud, world: World, body: str) -> None:
    await world.tell("spot")
    world.fails(path=SPOT_PATH[cloud], status=200, body=body)
    with pytest.raises(NoAnswer):
        await world.spot.ask()
    world.fails()
    assert await world.spot.ask() is not None


async def test_an_answer_without_end_is_none(cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_BYTES", 1000)
    world.fails(path=SPOT_PATH[cloud], status=200, body="x" * 2000)
    with pytest.raises(NoAnswer, match="more than"):
        await world.spot.ask()


async def test_a_connection_that_breaks_is_no_answer(world: World) -> None:
    world.fails(close=True)
    with pytest.raises(NoAnswer):
        await world.spot.ask()
    world.fails()
    assert await world.spot.ask() is None


async def test_a_service_that_is_too_slow_gives_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.spot.ask()
    for module in (aws, azure, gce):
        monkeypatch.setattr(module, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(gce, "WAIT_SECONDS", 0)
    world.fails(delay_seconds=0.5)
    with pytest.raises(NoAnswer):
        await world.spot.ask()


async def test_where_nothing_answers_there_is_no_answer(cloud: Cloud) -> None:
    async with aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{free_ports(1)[0]}"
        for source in metadata.notices(cloud, session, time.time, address):
            with pytest.raises(NoAnswer):
                await source.ask()


@pytest.mark.parametrize(
    ("provider_id", "found"),
    [
        ("aws:///eu-west-1a/i-0123456789abcdef0", Cloud.AWS),
        ("gce://project/europe-west4-a/gke-pool-1", Cloud.GCE),
        (
            "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/v",
            Cloud.AZURE,
        ),
        ("kind://podman/berth/berth-worker", None),
        ("awsome://x", None),
        ("", None),
    ],
)
def test_a_node_is_in_the_cloud_that_its_provider_id_names(provider_id: str, found: Cloud | None) -> None:
    assert cloud_of(provider_id) is found


class Saying(Service):
    """A service that answers every request alike."""

    answer: Answer

    async def request(self, path: str, headers: object, **_: object) -> Answer:  # type: ignore[override]
        return self.answer


def saying(answer: Answer) -> Saying:
    service = object.__new__(Saying)
    object.__setattr__(service, "answer", answer)
    return service


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "action",
                    "time",
                    "Events",
                    "EventType",
                    "Resources",
                    "NotBefore",
                    "State",
                    "noticeTime",
                    "EventStatus",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(
    cloud=st.sampled_from(EVERY),
    status=st.sampled_from([200, 200, 200, 204, 404, 500]),
    content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_whatever_a_service_says_is_an_interruption_or_none_or_no_answer(
    cloud: Cloud, status: int, content: bytes
) -> None:
    module = {Cloud.AWS: metadata.aws, Cloud.GCE: metadata.gce, Cloud.AZURE: metadata.azure}[cloud]
    service = saying(Answer(status, {"Metadata-Flavor": "Google"}, content))

    async def ask_all() -> None:
        for source in module.notices(service, time.time):
            for _ in range(2):
                try:
                    found = await source.ask()
                except NoAnswer:
                    continue
                assert found is None or found.deadline >= 0.0

    asyncio.run(ask_all())
