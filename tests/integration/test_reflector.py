"""The reflector against a real API server: pages, cut connections, restarts, and versions that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import time
from urllib.parse import urlsplit

import pytest

from berth.adapters import reflector as module
from berth.adapters.kube import KubeApi
from berth.adapters.records import Decoder, PriorityClass
from berth.adapters.reflector import Reflector
from berth.control.picture import Store
from berth.control.ports import PRIORITY_CLASSES
from berth.control.records import PriorityClassRecord
from e2e.cluster import processes
from e2e.cluster.provider import Cluster, state_folder
from e2e.harness import until

pytestmark = pytest.mark.cluster


class CountingStore(Store[PriorityClassRecord]):
    """A store that knows how often it was filled from a list."""

    lists = 0

    def replace(self, records: list[PriorityClassRecord]) -> None:
        """Take in a whole list."""
        self.lists += 1
        super().replace(records)


class Wire:
    """A TCP connection to the API server that can be cut."""

    def __init__(self, server: str) -> None:
        self._host, self._port = urlsplit(server).hostname, urlsplit(server).port
        self._writers: set[asyncio.StreamWriter] = set()
        self.up = True
        self.connections = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either end or the test closes it."""
        if not self.up:
            writer.transport.abort()
            return
        self.connections += 1
        onward, back = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, back}
        await asyncio.gather(_pour(reader, back), _pour(onward, writer))
        self._writers -= {writer, back}

    def cut(self) -> None:
        """Break every connection, and let none through until `up` is True again."""
        self.up = False
        for writer in self._writers:
            writer.transport.abort()


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def a_wire(api: KubeApi) -> AsyncIterator[tuple[Wire, KubeApi]]:
    """A wire, and a client at its end (the server's certificate holds for every port)."""
    wire = Wire(api.server)
    server = await asyncio.start_server(wire.carry, "127.0.0.1")
    try:
        yield wire, replace(api, server=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        wire.cut()
        server.close()


@asynccontextmanager
async def mirroring(api: KubeApi, label: str, *, version: str = "") -> AsyncIterator[CountingStore]:
    """The PriorityClasses with this label, mirrored while the context lasts."""
    store = CountingStore(lambda old, new: None)
    reflector = Reflector(api, PRIORITY_CLASSES, Decoder[PriorityClassRecord](PriorityClass), store, time, label)
    reflector._version = version
    task = asyncio.create_task(reflector.run())
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def make(api: KubeApi, label: str, *numbers: int) -> None:
    """Small cluster-wide objects that nobody else cares for."""
    for number in numbers:
        metadata = {"name": f"{label}-{number}", "labels": {label: ""}}
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": number}
        await api.create(PRIORITY_CLASSES, "", body)


async def delete(api: KubeApi, label: str, number: int) -> None:
    """Delete one of them."""
    await api.delete(PRIORITY_CLASSES, "", f"{label}-{number}")


async def holds(store: CountingStore, *numbers: int) -> None:
    """Return once the store holds these and no others."""

    async def check() -> bool:
        return {record.value for record in store} == set(numbers)

    await until(check, f"{numbers} are mirrored", 60.0, every=0.02)


async def test_mirrors_a_list_of_several_pages_and_what_changes(
    api: KubeApi, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    await make(api, namespace, *range(10))
    async with mirroring(api, namespace) as store:
        await holds(store, *range(10))
        await make(api, namespace, 10)
        await delete(api, namespace, 0)
        await holds(store, *range(1, 11))
        assert store.lists == 1


async def test_goes_on_after_the_connection_was_cut_and_loses_no_deletion(api: KubeApi, namespace: str) -> None:
    await make(api, namespace, 1, 2, 3)
    async with a_wire(api) as (wire, wired), mirroring(wired, namespace) as store:
        await holds(store, 1, 2, 3)
        wire.cut()
        await delete(api, namespace, 2)
        await make(api, namespace, 4)
        wire.up = True
        await holds(store, 1, 3, 4)
        assert store.lists == 1  # it went on from where it was
        assert wire.connections >= 2


@pytest.mark.timeout(240)
async def test_a_restart_of_the_api_server_loses_no_deletion_and_versions_that_it_forgot_are_listed_anew(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    await make(api, namespace, 1, 2, 3)
    folder = state_folder(cluster.name)
    async with a_wire(api) as (wire, wired), mirroring(wired, namespace) as store:
        await holds(store, 1, 2, 3)
        wire.cut()
        await delete(api, namespace, 2)
        server = processes.find(folder, "kube-apiserver")
        assert server is not None
        await asyncio.to_thread(processes.stop, folder, [server])
        await asyncio.to_thread(cluster.up)
        wire.up = True
        await holds(store, 1, 3)
        await make(api, namespace, 4)
        await holds(store, 1, 3, 4)
    async with mirroring(api, namespace, version="1") as store:
        await holds(store, 1, 3, 4)
        assert store.lists == 1  # 410 Gone: its watch cache begins with the restart
