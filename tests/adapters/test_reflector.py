"""The reflector against a server that pages, breaks and forgets as it is told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from berth.adapters import reflector as module
from berth.adapters.records import Claim, Decoder
from berth.adapters.reflector import Reflector
from berth.control.picture import Store
from berth.control.ports import VOLUME_CLAIMS
from berth.control.records import ClaimRecord
from tests.adapters.servers import ClaimServer, Json, a_claim, event, gone, serving
from tests.control.fakes import HandClock

Lines = asyncio.Queue[bytes | None]


class Mirror:
    """A running reflector, its store and its server."""

    def __init__(self, server: ClaimServer, reflector: Reflector[ClaimRecord], changed: asyncio.Event) -> None:
        self.server = server
        self.reflector = reflector
        self._changed = changed

    async def watch(self) -> Lines:
        """The next watch that the reflector opens."""
        async with asyncio.timeout(5.0):
            return await self.server.watches.get()

    async def until(self, *names: str) -> None:
        """Return once the store holds these claims and no others."""
        await self.holds(lambda: self.names() == set(names))

    async def holds(self, check: Callable[[], bool]) -> None:
        """Return once the check holds."""
        async with asyncio.timeout(5.0):
            while not check():
                self._changed.clear()
                await self._changed.wait()

    def names(self) -> set[str]:
        """What the store holds."""
        return {record.meta.name for record in self.reflector.store}


@asynccontextmanager
async def mirroring(server: ClaimServer, metadata_only: bool = False) -> AsyncIterator[Mirror]:
    """A reflector that mirrors the server while the context lasts."""
    changed = asyncio.Event()
    store: Store[ClaimRecord] = Store(lambda old, new: changed.set())
    async with serving(server.answer) as api:
        reflector = Reflector(api, VOLUME_CLAIMS, Decoder[ClaimRecord](Claim), store, HandClock(), "app=x")
        reflector.metadata_only = metadata_only
        task = asyncio.create_task(reflector.run())
        try:
            yield Mirror(server, reflector, changed)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while not server.watches.empty():
                server.watches.get_nowait().put_nowait(None)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)


def three() -> ClaimServer:
    """A server with three claims."""
    return ClaimServer([a_claim(name, number) for number, name in enumerate("abc", start=10)])


async def test_lists_in_pages_then_watches_from_there() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        assert mirror.names() == {"a", "b", "c"}
        assert mirror.reflector.listed.is_set()
        *pages, watch = mirror.server.requests
        assert [page.get("continue") for page in pages] == [None, "2"]
        assert {query["labelSelector"] for query in mirror.server.requests} == {"app=x"}
        assert (watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("100", "true")
        lines.put_nowait(None)


async def test_follows_what_comes_changes_and_goes() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        lines.put_nowait(event("ADDED", a_claim("d", 101)))
        lines.put_nowait(event("MODIFIED", a_claim("a", 102, volume="pv-1")))
        lines.put_nowait(event("DELETED", a_claim("b", 103)))
        await mirror.until("a", "c", "d")
        claim = mirror.reflector.store.get("team", "a")
        assert claim is not None
        assert claim.volume == "pv-1"
        lines.put_nowait(None)


async def test_goes_on_from_the_last_bookmark_without_a_new_list() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        lines.put_nowait(event("BOOKMARK", a_claim("", 150)))
        lines.put_nowait(None)
        (await mirror.watch()).put_nowait(None)
        assert mirror.server.lists == 1
        assert mirror.server.requests[-1]["resourceVersion"] == "150"


async def test_goes_on_from_the_last_event_after_the_connection_broke() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        lines.put_nowait(event("ADDED", a_claim("d", 120)))
        await mirror.until("a", "b", "c", "d")
        lines.put_nowait(b"")
        lines = await mirror.watch()
        assert mirror.server.lists == 1
        assert mirror.server.requests[-1]["resourceVersion"] == "120"
        lines.put_nowait(event("DELETED", a_claim("a", 121)))
        await mirror.until("b", "c", "d")
        lines.put_nowait(None)


async def test_an_event_that_is_cut_in_the_middle_is_not_lost() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        lines.put_nowait(event("DELETED", a_claim("a", 121))[:40])
        lines.put_nowait(None)
        lines = await mirror.watch()
        assert mirror.server.requests[-1]["resourceVersion"] == "100"
        lines.put_nowait(event("DELETED", a_claim("a", 121)))
        await mirror.until("b", "c")
        lines.put_nowait(None)


async def test_an_event_that_comes_in_pieces_is_one() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        both = event("ADDED", a_claim("d", 121)) + event("DELETED", a_claim("a", 122))
        for start in range(0, len(both), 7):
            lines.put_nowait(both[start : start + 7])
        await mirror.until("b", "c", "d")
        lines.put_nowait(None)


@pytest.mark.parametrize("how", ["in the watch", "as its status"])
async def test_lists_anew_when_its_version_is_gone_and_notices_what_went_meanwhile(how: str) -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        mirror.server.claims = [a_claim("b", 11), a_claim("e", 190)]
        mirror.server.version = 200
        if how == "in the watch":
            lines.put_nowait(event("ERROR", gone()))
        else:
            mirror.server.refusals = [410]
        lines.put_nowait(None)
        await mirror.until("b", "e")
        (await mirror.watch()).put_nowait(None)
        assert mirror.server.lists == 2
        assert mirror.server.requests[-1]["resourceVersion"] == "200"


async def test_a_list_whose_next_page_is_gone_is_begun_anew() -> None:
    server = three()
    calm = server.answer

    async def forgetful(request: object) -> object:
        if len(server.requests) == 1:
            server.refusals = [410]
        return await calm(request)  # type: ignore[arg-type]

    server.answer = forgetful  # type: ignore[method-assign, assignment]
    async with mirroring(server) as mirror:
        (await mirror.watch()).put_nowait(None)
        assert mirror.names() == {"a", "b", "c"}
        assert server.lists == 2


async def test_tries_again_while_the_server_is_overloaded_or_refuses() -> None:
    server = three()
    server.refusals = [429, 503, 401, 500]
    async with mirroring(server) as mirror:
        (await mirror.watch()).put_nowait(None)
        assert mirror.names() == {"a", "b", "c"}


async def test_an_answer_that_is_no_json_is_tried_again() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        lines.put_nowait(b"<html>a proxy</html>\n")
        lines = await mirror.watch()
        lines.put_nowait(event("DELETED", a_claim("a", 121)))
        await mirror.until("b", "c")
        lines.put_nowait(None)


def unreadable(name: str, version: int) -> Json:
    """A claim that no API server would send."""
    raw = a_claim(name, version)
    return raw | {"metadata": raw["metadata"] | {"labels": "none"}}


async def test_an_object_that_cannot_be_read_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    server = ClaimServer([a_claim("a", 10), unreadable("b", 11), a_claim("c", 12)])
    with caplog.at_level(logging.CRITICAL, module.__name__):
        async with mirroring(server) as mirror:
            lines = await mirror.watch()
            assert mirror.names() == {"a", "c"}
            lines.put_nowait(event("MODIFIED", unreadable("a", 120)))
            lines.put_nowait(event("DELETED", unreadable("b", 121)))
            lines.put_nowait(event("ADDED", a_claim("d", 122)))
            await mirror.until("a", "c", "d")  # what was known of "a" stays
            lines.put_nowait(None)
            (await mirror.watch()).put_nowait(None)
            assert server.lists == 1
            assert server.requests[-1]["resourceVersion"] == "122"


async def test_a_connection_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    async with mirroring(three()) as mirror:
        silent = await mirror.watch()
        monkeypatch.setattr(module, "SILENCE_SECONDS", 60.0)
        lines = await mirror.watch()
        silent.put_nowait(None)
        lines.put_nowait(event("DELETED", a_claim("a", 121)))
        await mirror.until("b", "c")
        lines.put_nowait(None)


async def test_notes_when_the_server_was_last_heard() -> None:
    async with mirroring(three()) as mirror:
        lines = await mirror.watch()
        clock = mirror.reflector.clock
        assert isinstance(clock, HandClock)
        assert mirror.reflector.last_event == clock.now
        clock.advance(50.0)
        lines.put_nowait(event("ADDED", a_claim("d", 121)))
        await mirror.until("a", "b", "c", "d")
        assert mirror.reflector.last_event == clock.now
        lines.put_nowait(None)


def test_an_empty_list_of_metadata_has_null_for_items() -> None:
    page = b'{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"7"},"items":null}'
    assert Decoder.page(page) == ([], "7", "")


@pytest.mark.parametrize("metadata_only", [False, True])
async def test_specs_are_not_even_sent_where_metadata_is_all_that_is_wanted(metadata_only: bool) -> None:
    async with mirroring(server := three(), metadata_only) as mirror:
        await mirror.watch()
    *lists, watch = server.accepted
    if metadata_only:
        assert {kind.partition(";as=")[2] for kind in lists} == {"PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
        assert watch == "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    else:
        assert not any("as=" in kind for kind in server.accepted)
