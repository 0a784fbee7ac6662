"""Keeps a store equal to what the API server has: list, watch with bookmarks, resume, list again when told to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from berth.adapters.kube import KubeApi, error_of
from berth.adapters.records import Decoder
from berth.control.picture import Store
from berth.control.ports import ApiError, Clock, Conflict, Resource, Unavailable
from berth.control.records import Record

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
PAGE = 2000  # objects a list page: 2,000 pods are about 10 MB
WATCH_SECONDS = 300  # the server ends a watch then; bookmarks come about every minute meanwhile
SILENCE_SECONDS = 180.0  # no event and no bookmark for longer: the connection is dead
BACKOFF_SECONDS = (0.2, 30.0)
MOST_DOUBLINGS = 10  # enough to reach the longest wait; hours of doublings would overflow
PAUSE_SECONDS = 0.2  # at most, before a watch that ended well goes on: a server that ends it at once is spared


class _Identity(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"


class _Head(msgspec.Struct):
    metadata: _Identity


_head = msgspec.json.Decoder(_Head)


@dataclass
class Reflector(Generic[R]):
    """One kind of object, mirrored into a store."""

    api: KubeApi
    resource: Resource
    decoder: Decoder[R]
    store: Store[R]
    clock: Clock
    labels: str = ""  # label selector; "": everything
    fields: str = ""  # field selector; "": everything
    metadata_only: bool = False  # objects come without spec and status, of which nobody here should know
    listed: asyncio.Event = field(default_factory=asyncio.Event)  # set once the store is whole
    last_event: float = 0.0  # when the server was last heard, for health checks
    _version: str = field(default="", init=False)

    async def run(self) -> None:
        """Mirror for ever, through broken connections, restarts and compactions of the server."""
        failures = 0
        while True:
            heard = self.last_event
            try:
                if not self._version:
                    await self.fill()
                await self._watch()
                failures = 0
                await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
            except Conflict:  # 410: the version is too old to resume from
                self._version = ""
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
                failures = failures + 1 if self.last_event == heard else 1
                longest = min(BACKOFF_SECONDS[0] * 2 ** min(failures, MOST_DOUBLINGS), BACKOFF_SECONDS[1])
                wait = longest * random.uniform(0.5, 1.0)
                log.warning("watch of %s broke, again in %.1f s: %s", self.resource.plural, wait, error or type(error))
                await asyncio.sleep(wait)

    async def fill(self) -> None:
        """List everything once, page by page, and make the store equal to it."""
        records: list[R] = []
        token, version = "", ""
        while True:
            async with self._get({"limit": str(PAGE), "continue": token}) as response:
                page, version, token = self.decoder.page(await response.read())
            records += [record for item in page if (record := self._read(item)) is not None]
            if not token:
                break
        self.store.replace(records)
        self._version, self.last_event = version, self.clock()
        self.listed.set()

    async def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        async with self._get(query, timeout) as response:
            async for line in _lines(response):
                self._take(line)

    def _take(self, line: bytes) -> None:
        kind, raw = self.decoder.event(line)
        self.last_event = self.clock()
        if kind == "ERROR":
            status = msgspec.json.decode(raw)
            raise error_of(int(status.get("code", 500)), bytes(raw))
        meta = _head.decode(raw).metadata
        self._version = meta.resource_version
        if kind == "DELETED":
            self.store.drop(meta.namespace, meta.name, meta.uid)
        elif kind != "BOOKMARK" and (record := self._read(raw)) is not None:
            self.store.put(record)

    def _read(self, raw: msgspec.Raw) -> R | None:
        """The object's record; None for one that nobody thought of, which must not keep the others from being seen."""
        try:
            return self.decoder.one(raw)
        except Exception:
            meta = _head.decode(raw).metadata
            log.exception("left out, it can't be read: %s %s/%s", self.resource.plural, meta.namespace, meta.name)
            return None

    def _accepted(self, watch: bool) -> dict[str, str]:
        kind = "PartialObjectMetadata" if watch else "PartialObjectMetadataList"
        return {"Accept": f"application/json;as={kind};g=meta.k8s.io;v=v1"} if self.metadata_only else {}

    def _get(self, query: dict[str, str], timeout: aiohttp.ClientTimeout | None = None) -> Any:
        query = query | {"labelSelector": self.labels, "fieldSelector": self.fields}
        return _checked(
            self.api.session.get(
                self.api.server + self.resource.path(),
                params={key: value for key, value in query.items() if value},
                headers=self._accepted("watch" in query) | self.api.authorization(),
                timeout=timeout or aiohttp.ClientTimeout(total=120),
            )
        )


class _checked:
    """A request whose error statuses are raised as ApiErrors."""

    def __init__(self, request: Any) -> None:
        self._request = request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._request.__aenter__()
        if response.status >= 400:
            content = await response.read()
            await self._request.__aexit__(None, None, None)
            raise error_of(response.status, content)
        return response

    async def __aexit__(self, *error: Any) -> None:
        await self._request.__aexit__(*error)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length, unlike StreamReader's own, which have a limit."""
    rest = bytearray()
    async for chunk, _ in response.content.iter_chunks():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
    if rest:
        raise Unavailable("the watch ended in the middle of an event")
