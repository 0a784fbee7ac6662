"""The progress endpoint as a whole: authority, HTTPS server, and the one address behind its Service.

The Service has no selector: of several operators only the one that acts listens, and it says so in an EndpointSlice.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from ipaddress import ip_address

from berth.adapters.progress import ProgressServer, serving
from berth.adapters.trust import CertificateAuthority
from berth.control.ports import ENDPOINT_SLICES, SERVICES, Api, ApiError

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
ANNOUNCE_SECONDS = 60.0  # between two looks that the Service still leads here: anybody may change or delete the slice


@dataclass
class Endpoint:
    """What the acting operator serves."""

    api: Api
    server: ProgressServer
    authority: CertificateAuthority
    service: str  # name of the Service, in the operator's namespace
    port: int
    address: str = ""  # IP of this pod; "": outside a cluster, where no Service leads here

    async def run(self) -> None:
        """Serve for ever. What the API server refuses is tried again: planning must not end for it."""
        while not await self._start():  # noqa: ASYNC110 - it asks again, nothing tells us
            await asyncio.sleep(RETRY_SECONDS)
        async with serving(self.server, self.port, self.authority.context), asyncio.TaskGroup() as group:
            group.create_task(self.authority.run())
            group.create_task(self.server.desk.run())
            group.create_task(self._announce_for_ever())

    async def _start(self) -> bool:
        try:
            await self.authority.start()
            await self.authority.renew()
            if self.address:
                await self._announce()
        except ApiError as error:
            log.warning("the progress endpoint does not start yet: %s", error)
            return False
        return True

    async def _announce_for_ever(self) -> None:
        while self.address:
            await asyncio.sleep(ANNOUNCE_SECONDS)
            try:
                await self._announce()
            except ApiError as error:
                log.warning("the Service of the progress endpoint may not lead here: %s", error)

    async def _announce(self) -> None:
        """Make this pod the one address of the Service. The slice goes with the Service."""
        namespace = self.authority.namespace
        service = await self.api.get(SERVICES, namespace, self.service)
        owner = {"apiVersion": "v1", "kind": "Service", "name": self.service, "uid": service["metadata"]["uid"]}
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": self.service,
                "namespace": namespace,
                "labels": {
                    "kubernetes.io/service-name": self.service,
                    "endpointslice.kubernetes.io/managed-by": "berth.dev",
                },
                "ownerReferences": [owner],
            },
            "addressType": f"IPv{ip_address(self.address).version}",
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}}],
            "ports": [{"name": "progress", "port": self.port, "protocol": "TCP"}],
        }
        await self.api.apply(ENDPOINT_SLICES, namespace, self.service, body)
