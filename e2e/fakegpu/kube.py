"""A small API client: kubeconfig or service account, requests, server-side apply, and watches that never end."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiohttp
import msgspec
import yaml

log = logging.getLogger(__name__)

MANAGER = "berth-fakegpu"  # field manager of every write
CONNECTIONS = 64
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH_SECONDS = 300
_PATIENCE = 10  # answers 429 before giving up: a storage that starts, or too many requests

T = TypeVar("T")


class ApiError(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Meta(msgspec.Struct, rename="camel"):
    """The metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass(slots=True)
class Kube:
    """A connection pool to one API server. Use as an asynchronous context manager."""

    server: str
    tls: ssl.SSLContext | bool = True
    headers: dict[str, str] = field(default_factory=dict)
    token_file: Path | None = None
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self.tls),
            headers={"User-Agent": MANAGER} | self.headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **params: str
    ) -> Any:
        """The decoded answer. Raises ApiError on any refusal, but waits where the server asks for patience."""
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=30)
        for patience in range(_PATIENCE, -1, -1):
            headers = self._authorization() | {"Content-Type": content}
            async with self._open().request(
                method, self.server + path, data=data, params=params, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
            if response.status != 429 or not patience:
                break
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
        if response.status >= 400:
            raise ApiError(response.status, _message(raw))
        return msgspec.json.decode(raw)

    async def apply(self, path: str, body: Any) -> Any:
        """Server-side apply by our field manager, taking fields over from others."""
        return await self.request(
            "PATCH", path, body, "application/apply-patch+yaml", fieldManager=MANAGER, force="true"
        )

    async def merge(self, path: str, body: Any) -> Any:
        """A JSON merge patch."""
        return await self.request("PATCH", path, body, "application/merge-patch+json", fieldManager=MANAGER)

    async def watch(self, path: str, type_: type[T], **params: str) -> AsyncIterator[tuple[str, T | None]]:
        """Every object as ADDED, then ("SYNCED", None), then changes for ever; lost watches are listed anew.

        `type_` must have a `metadata: Meta`. Objects that vanished while no watch ran come as DELETED.
        """
        known: dict[str, T] = {}
        pause = 0.2
        while True:
            try:
                async for event in self._list_and_watch(path, type_, known, params):
                    yield event
                    pause = 0.2
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.info("watch of %s: %s; again in %.1f s", path, error, pause)
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(10.0, pause * 2)

    async def _list_and_watch(
        self, path: str, type_: type[T], known: dict[str, T], params: dict[str, str]
    ) -> AsyncIterator[tuple[str, T | None]]:
        decode = msgspec.json.Decoder(type_).decode
        listed = msgspec.convert(await self.request("GET", path, **params), _List[type_])  # type: ignore[valid-type]
        current = {_key(item): item for item in listed.items or ()}
        for gone in known.keys() - current.keys():
            yield "DELETED", known.pop(gone)
        known.update(current)
        for item in current.values():
            yield "ADDED", item
        yield "SYNCED", None
        version = listed.metadata.resource_version
        while True:
            async for event in self._stream(path, version, params):
                if event.type == "BOOKMARK":
                    version = msgspec.json.decode(event.object)["metadata"]["resourceVersion"]
                    continue
                item = decode(event.object)
                version = item.metadata.resource_version  # type: ignore[attr-defined]
                if event.type == "DELETED":
                    known.pop(_key(item), None)
                else:
                    known[_key(item)] = item
                yield event.type, item

    async def _stream(self, path: str, version: str, params: dict[str, str]) -> AsyncIterator[_Event]:
        decode = msgspec.json.Decoder(_Event).decode
        query = params | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_WATCH_SECONDS + 30)
        async with self._open().get(
            self.server + path, params=query, headers=self._authorization(), timeout=timeout
        ) as response:
            if response.status >= 400:
                raise ApiError(response.status, _message(await response.read()))
            async for line in _lines(response.content):
                event = decode(line)
                if event.type == "ERROR":
                    raise ApiError(410, _message(event.object))
                yield event

    def _authorization(self) -> dict[str, str]:
        if self.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use Kube as an asynchronous context manager")
        return self._session


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content.iter_any():  # readline() would refuse objects above its buffer
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _key(item: Any) -> str:
    return f"{item.metadata.namespace}/{item.metadata.name}/{item.metadata.uid}"


def _message(raw: bytes | msgspec.Raw) -> str:
    try:
        return str(msgspec.json.decode(raw).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        return bytes(raw)[:200].decode(errors="replace")


def connect(kubeconfig: str | None = None) -> Kube:
    """The cluster of the file, of $KUBECONFIG, of the pod's service account, or of ~/.kube/config."""
    chosen = kubeconfig or os.environ.get("KUBECONFIG")
    if chosen is None and (_ACCOUNT / "token").exists():
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        return Kube(f"https://{host}:{port}", tls, token_file=_ACCOUNT / "token")
    return _from_file(Path(chosen) if chosen else Path.home() / ".kube" / "config")


def _from_file(path: Path) -> Kube:
    config = yaml.safe_load(path.read_text())

    def named(kind: str, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = next(e for e in config[f"{kind}s"] if e["name"] == name)
        return entry[kind] or {}

    context = named("context", config["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    if not cluster["server"].startswith("https:"):
        return Kube(cluster["server"])
    tls = ssl.create_default_context(cadata=(_bytes(cluster, "certificate-authority", path) or b"").decode())
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", path), _bytes(user, "client-key", path)
    if certificate and key:
        _load_pair(tls, certificate, key)
    token = user.get("token")
    token_file = Path(user["tokenFile"]) if "tokenFile" in user else None
    return Kube(cluster["server"], tls, {"Authorization": f"Bearer {token}"} if token else {}, token_file)


def _bytes(entry: dict[str, Any], name: str, config: Path) -> bytes | None:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return (config.parent / entry[name]).read_bytes() if name in entry else None


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """ssl only reads pairs from files, so they pass through one that nobody else can read."""
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(certificate + b"\n" + key)
        pair.flush()
        tls.load_cert_chain(pair.name)
