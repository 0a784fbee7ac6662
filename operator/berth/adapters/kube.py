"""The Kubernetes API over aiohttp.

The `kubernetes` package finds the server and the credentials; requests go through aiohttp directly, since its models
decode a hundred times slower than msgspec (docs/decisions/0003).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import yaml
from kubernetes import client, config

from berth.control.ports import PODS, ApiError, Conflict, Json, NotFound, Refused, Resource, Unavailable

CONNECTIONS = 64  # beyond this the API server only queues
REQUEST_SECONDS = 30.0
FIELD_MANAGER = "berth"
MERGE, STRATEGIC, APPLY = (
    f"application/{kind}+{form}"
    for kind, form in (("merge-patch", "json"), ("strategic-merge-patch", "json"), ("apply-patch", "yaml"))
)


@dataclass(frozen=True, slots=True)
class KubeApi:
    """Implements `control.ports.Api`."""

    session: aiohttp.ClientSession
    server: str
    credentials: client.Configuration

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read one object."""
        return await self.request("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, *, fields: str = "") -> Json:
        """All objects of a kind (that the field selector names), consistent with every earlier write."""
        return await self.request("GET", resource.path(), query={"fieldSelector": fields} if fields else {})

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Json:
        """Create an object."""
        query = {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else {}
        return await self.request("POST", resource.path(namespace), body, query=query)

    async def apply(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Server-side apply; conflicts with other managers are ours to win."""
        return await self.request("PATCH", resource.path(namespace, name), body, kind=APPLY, query={"force": "true"})

    async def merge(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Json:
        """JSON merge patch."""
        return await self.request("PATCH", resource.path(namespace, name, subresource), body, kind=MERGE)

    async def merge_lists(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Strategic merge patch."""
        return await self.request("PATCH", resource.path(namespace, name), body, kind=STRATEGIC)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete in the background."""
        body: Json = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        await self.request("DELETE", resource.path(namespace, name), body)

    async def log(self, namespace: str, pod: str, *, container: str, lines: int, most_bytes: int) -> str:
        """The last lines of a container's log."""
        query = {"tailLines": str(lines), "limitBytes": str(most_bytes)}
        if container:
            query["container"] = container
        content = await self._answer("GET", PODS.path(namespace, pod, "log"), query=query)
        return content.decode(errors="replace")

    async def evict(self, namespace: str, pod: str, *, uid: str = "", version: str = "") -> None:
        """Evict a pod."""
        conditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body: Json = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"preconditions": conditions} if conditions else {},
        }
        await self.request("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """One request with a time-out; the answer decoded."""
        content = await self._answer(method, path, body, kind=kind, query=query)
        try:
            answer: Json = msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{method} {path}: the answer is no JSON: {error}") from error
        return answer

    async def _answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        writes = {"fieldManager": FIELD_MANAGER} if method in ("POST", "PATCH") else {}
        try:
            async with self.session.request(
                method,
                self.server + path,
                params={**writes, **(query or {})},
                data=None if body is None else msgspec.json.encode(body),
                headers={"Content-Type": kind, **self.authorization()},
            ) as response:
                content = await response.read()
                if response.status >= 400:
                    raise error_of(response.status, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {error or type(error).__name__}") from error
        return content

    def authorization(self) -> dict[str, str]:
        """The bearer token's header; tokens are refreshed as they expire."""
        value = self.credentials.get_api_key_with_prefix("authorization", "BearerToken")
        return {"Authorization": value} if value else {}


def error_of(status: int, content: bytes) -> ApiError:
    """The ApiError that an answer's status means, with the server's own words."""
    try:
        message = msgspec.json.decode(content)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = content[:200].decode(errors="replace")
    kind: type[ApiError] = {404: NotFound, 409: Conflict, 410: Conflict, 412: Conflict}.get(status, Refused)
    if status == 429 or status >= 500:
        kind = Unavailable
    return kind(message)


Answered = Callable[[str, str], None]
"""Is told the method of each request and the status of its answer; "none": there was none."""


@asynccontextmanager
async def connect(kubeconfig: str | None = None, answered: Answered | None = None) -> AsyncIterator[KubeApi]:
    """A client for a kubeconfig's current context; without one for the cluster that runs this pod, else $KUBECONFIG."""
    credentials = await asyncio.to_thread(_credentials, kubeconfig)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS + 16, ssl=_tls(credentials))  # 16: watches
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    traces = [_trace(answered)] if answered else []
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=traces) as session:
        yield KubeApi(session, str(credentials.host).rstrip("/"), credentials)


def _trace(answered: Answered) -> aiohttp.TraceConfig:
    async def ended(_: object, __: object, request: aiohttp.TraceRequestEndParams) -> None:
        answered(request.method, str(request.response.status))

    async def failed(_: object, __: object, request: aiohttp.TraceRequestExceptionParams) -> None:
        answered(request.method, "none")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(ended)
    trace.on_request_exception.append(failed)
    return trace


def _credentials(kubeconfig: str | None) -> client.Configuration:
    found = client.Configuration()
    if kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
            return found
        except config.ConfigException:
            pass
    try:
        config.load_kube_config(kubeconfig, client_configuration=found)  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:  # a file that is none
        raise config.ConfigException(f"the kubeconfig can't be read: {error}") from error
    return found


def _tls(credentials: client.Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=credentials.ssl_ca_cert)
    if credentials.cert_file:
        context.load_cert_chain(credentials.cert_file, credentials.key_file)
    if not credentials.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
