"""The endpoint as a whole: it starts once the API server lets it, and says where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from berth.adapters import endpoint as adapter
from berth.adapters.endpoint import Endpoint
from berth.adapters.progress import ProgressServer
from berth.adapters.tokens import Tokens
from berth.adapters.trust import SECRET, CertificateAuthority
from berth.control.checkpoints import CONFIG_MAP
from berth.control.ports import CONFIG_MAPS, ENDPOINT_SLICES, SERVICES, Refused
from e2e.cluster.control_plane import free_ports
from tests.control.test_progress import Office

SERVICE = {"metadata": {"name": "berth-progress", "namespace": "berth-system"}, "spec": {}}


def an_endpoint(office: Office, address: str = "10.0.0.7") -> Endpoint:
    """An endpoint whose office has one job, in the namespace "team"."""
    [port] = free_ports(1)
    authority = CertificateAuthority(office.api, office.clock, "berth-system", ["berth-progress"], lambda: ["team"])
    server = ProgressServer(office.desk, Tokens(office.api, office.clock))
    return Endpoint(office.api, server, authority, "berth-progress", port, address)


@asynccontextmanager
async def running(endpoint: Endpoint) -> AsyncIterator[None]:
    """The endpoint while it listens."""
    task = asyncio.create_task(endpoint.run())
    try:
        async with asyncio.timeout(20):
            while not await _listens(endpoint.port):
                await asyncio.sleep(0.01)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_it_makes_itself_known_before_it_listens() -> None:
    office = Office()
    service = office.api.put(SERVICES, SERVICE)
    endpoint = an_endpoint(office)
    async with running(endpoint):
        made = office.api.find(ENDPOINT_SLICES, "berth-progress", "berth-system")
        assert made is not None
        assert made["metadata"]["labels"]["kubernetes.io/service-name"] == "berth-progress"
        assert made["metadata"]["ownerReferences"][0]["uid"] == service["metadata"]["uid"]
        assert (made["addressType"], made["endpoints"][0]["addresses"]) == ("IPv4", ["10.0.0.7"])
        assert made["ports"] == [{"name": "progress", "port": endpoint.port, "protocol": "TCP"}]
        assert office.api.find(CONFIG_MAPS, CONFIG_MAP, "team") is not None
    assert not await _listens(endpoint.port)


async def test_it_leads_its_service_to_itself_again_when_others_changed_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "ANNOUNCE_SECONDS", 0.0)
    office = Office()
    office.api.put(SERVICES, SERVICE)
    async with running(an_endpoint(office)), asyncio.timeout(20):
        office.api.remove(ENDPOINT_SLICES, "berth-system", "berth-progress")
        while office.api.find(ENDPOINT_SLICES, "berth-progress", "berth-system") is None:
            await asyncio.sleep(0.01)


async def test_outside_a_cluster_it_leads_no_service_to_itself() -> None:
    office = Office()
    async with running(an_endpoint(office, address="")):
        assert office.api.all(ENDPOINT_SLICES) == []


async def test_what_the_api_server_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth.adapters.endpoint.RETRY_SECONDS", 0.0)
    office = Office()
    office.api.put(SERVICES, SERVICE)
    office.api.fail(f"create secrets {SECRET}", Refused("forbidden"), times=3)
    async with running(an_endpoint(office, address="fd00::7")):
        made = office.api.find(ENDPOINT_SLICES, "berth-progress", "berth-system")
        assert made is not None
        assert made["addressType"] == "IPv6"
