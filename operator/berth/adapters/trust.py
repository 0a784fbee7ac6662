"""Keeps the progress endpoint's authorities in a Secret, makes them known, and the server's certificate fresh."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from berth.adapters.certificates import Authority, bundle, from_data, issue, rotated, signing, to_data
from berth.control.checkpoints import CA_KEY, CONFIG_MAP
from berth.control.ports import CONFIG_MAPS, SECRETS, Api, ApiError, Clock, Conflict, Json, NotFound

log = logging.getLogger(__name__)

SECRET = "berth-progress-ca"
CHECK_SECONDS = 3600.0  # how often it looks whether something grows old
RENEW_SECONDS = 86400.0  # how often the server gets a new certificate


@dataclass
class CertificateAuthority:
    """Implements `control.ports.Trust`."""

    api: Api
    clock: Clock
    namespace: str  # the operator's own, where the Secret is
    hosts: Sequence[str]  # names that the endpoint is called by
    in_use: Callable[[], Iterable[str]]  # namespaces
    context: ssl.SSLContext = field(default_factory=lambda: _context())
    _authorities: tuple[Authority, ...] = ()
    _issued: float = 0.0  # when the server's certificate was made
    _published: dict[str, str] = field(default_factory=dict)  # by namespace

    async def start(self) -> None:
        """Find or make the authorities, and give the server a certificate. Raises ApiError."""
        await self._rotate()
        self._issue()

    async def run(self) -> None:
        """Look after them for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.renew()
            except ApiError as error:
                log.warning("the authorities of the progress endpoint were not renewed: %s", error)

    async def renew(self) -> None:
        """Replace what grows old, and make it known, also where somebody deleted it. Raises ApiError."""
        await self._rotate()
        self._published.clear()
        for namespace in sorted(set(self.in_use())):
            await self.publish(namespace)
        if self.clock() >= self._issued + RENEW_SECONDS:
            self._issue()

    async def publish(self, namespace: str) -> None:
        """Write the certificates into the namespace's ConfigMap, unless they are there. Raises ApiError."""
        if not self._authorities:
            return  # once they are known, every namespace in use is written
        text, used = bundle(self._authorities), {namespace, *self.in_use()}
        self._published = {name: known for name, known in self._published.items() if name in used}
        if self._published.get(namespace) == text:
            return
        metadata = {"name": CONFIG_MAP, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "berth"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CA_KEY: text}}
        await self.api.apply(CONFIG_MAPS, namespace, CONFIG_MAP, body)
        self._published[namespace] = text

    async def _rotate(self) -> None:
        """Read the Secret, and write it where something was replaced. Of two writers one reads again."""
        for _ in range(3):
            found = await self._read()
            held = _held(found)
            wanted = rotated(held, self.clock())
            try:
                if wanted != held:
                    await self._store(found, wanted)
                self._authorities = wanted
                return
            except Conflict:
                continue
        raise Conflict(f"secret {self.namespace}/{SECRET} changes all the time")

    async def _read(self) -> Json | None:
        try:
            return await self.api.get(SECRETS, self.namespace, SECRET)
        except NotFound:
            return None

    async def _store(self, found: Json | None, authorities: Sequence[Authority]) -> None:
        data = to_data(authorities)
        if found is None:
            metadata = {"name": SECRET, "namespace": self.namespace}
            await self.api.create(
                SECRETS, self.namespace, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
            )
            return
        gone = dict.fromkeys(set(found.get("data") or {}) - set(data))
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await self.api.merge(SECRETS, self.namespace, SECRET, {"metadata": version, "data": {**data, **gone}})

    def _issue(self) -> None:
        """A new certificate for connections from now on."""
        now = self.clock()
        _load(self.context, issue(signing(self._authorities, now), self.hosts, now))
        self._issued = now


def _held(found: Json | None) -> tuple[Authority, ...]:
    try:
        return from_data((found or {}).get("data") or {})
    except (ValueError, KeyError) as error:
        log.warning("the Secret %s holds no authorities, new ones are made: %s", SECRET, error)
        return ()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context a certificate and key without a file: the ssl module reads nothing else, and disks remember."""
    descriptor = os.memfd_create("berth-progress")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
