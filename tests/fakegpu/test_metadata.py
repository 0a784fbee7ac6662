"""The fake metadata services refuse what the real ones refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from e2e.fakegpu.metadata import TOKEN_TTL, Metadata

MACHINE = "/machines/vm-1"
TOKEN = {TOKEN_TTL: "60"}


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    server = TestServer(Metadata().app)
    await server.start_server(shutdown_timeout=0.1)
    async with TestClient(server) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/latest/meta-data/spot/instance-action", {}, 401),
        ("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": "stale"}, 401),
        ("/computeMetadata/v1/instance/preempted", {}, 403),
        ("/computeMetadata/v1/instance/nonsense", {"Metadata-Flavor": "Google"}, 404),
        ("/metadata/scheduledevents?api-version=2020-07-01", {}, 400),
        ("/metadata/scheduledevents", {"Metadata": "true"}, 400),
        ("/metadata/instance/compute/name", {"Metadata": "true"}, 400),
    ],
)
async def test_requests_without_what_the_protocol_asks_for(
    client: TestClient,  # type: ignore[type-arg]
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    assert (await client.get(MACHINE + path, headers=headers)).status == status


@pytest.mark.parametrize("seconds", [None, "0", "21601", "soon"])
async def test_a_token_of_no_sensible_life(client: TestClient, seconds: str | None) -> None:  # type: ignore[type-arg]
    headers = {} if seconds is None else {TOKEN_TTL: seconds}
    assert (await client.put(f"{MACHINE}/latest/api/token", headers=headers)).status == 400


async def test_a_token_ends(client: TestClient) -> None:  # type: ignore[type-arg]
    await client.put(f"{MACHINE}/fault", json={"tokenSeconds": 0})
    token = await (await client.put(f"{MACHINE}/latest/api/token", headers=TOKEN)).text()
    there = f"{MACHINE}/latest/meta-data/events/maintenance/scheduled"
    assert (await client.get(there, headers={"X-aws-ec2-metadata-token": token})).status == 401
    await client.put(f"{MACHINE}/fault", json={})
    token = await (await client.put(f"{MACHINE}/latest/api/token", headers=TOKEN)).text()
    assert await (await client.get(there, headers={"X-aws-ec2-metadata-token": token})).json() == []


async def test_what_is_said_of_one_machine_concerns_no_other(client: TestClient) -> None:  # type: ignore[type-arg]
    await client.put(f"{MACHINE}/notice", json={"kind": "spot", "seconds": 30})
    google = {"Metadata-Flavor": "Google"}
    said = [
        await (await client.get(f"/machines/{name}/computeMetadata/v1/instance/preempted", headers=google)).text()
        for name in ("vm-1", "vm-2")
    ]
    assert said == ["TRUE", "FALSE"]
    asked = await (await client.get(f"{MACHINE}/asked")).json()
    assert asked == {"computeMetadata/v1/instance/preempted": 1}


async def test_a_long_poll_ends_with_the_old_value_after_its_time(client: TestClient) -> None:  # type: ignore[type-arg]
    query = {"wait_for_change": "true", "timeout_sec": "0.1"}
    path = f"{MACHINE}/computeMetadata/v1/instance/preempted"
    answer = await asyncio.wait_for(client.get(path, params=query, headers={"Metadata-Flavor": "Google"}), 5)
    assert await answer.text() == "FALSE"
