"""What control needs from the world: a Kubernetes API, a clock, forecasts of carbon intensity, prices.

ApiError
 +- NotFound       the object is gone
 +- Conflict       it exists already, or changed since it was read
 +- Refused        the API server understood and said no, for good: bad body, admission, permission
 +- Unavailable    no answer, overload, a broken connection: try again later

SourceError
 +- Denied         no credential, or one that is not accepted
 +- Busy           too many requests; says when to come back
 +- Silent         no answer in time, a broken connection, an error of the server
 +- Unusable       an answer that does not say what was asked: no JSON, other units, no value, no such zone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from berth.model.carbon import CarbonForecast, Known
from berth.model.prices import KnownPrices, PriceBook

Json = dict[str, Any]


class ApiError(Exception):
    """The API server did not do what was asked."""


class NotFound(ApiError):
    """The object does not exist."""


class Conflict(ApiError):
    """The object exists already, or is not the one that was read."""


class Refused(ApiError):
    """The request is wrong or forbidden; the same request will fail again."""


class Unavailable(ApiError):
    """No usable answer; the same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as its path names it."""

    group: str  # "" for the core group
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of a collection or an object below the server's address."""
        parts = ["/apis", self.group] if self.group else ["/api"]
        parts.append(self.version)
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


GROUP, VERSION = "berth.dev", "v1alpha1"
TRAINING_JOBS = Resource(GROUP, VERSION, "trainingjobs")
INFERENCE_SERVICES = Resource(GROUP, VERSION, "inferenceservices")
QUEUES = Resource(GROUP, VERSION, "queues", namespaced=False)
GPU_NODES = Resource(GROUP, VERSION, "gpunodes", namespaced=False)
NODES = Resource("", "v1", "nodes", namespaced=False)
PODS = Resource("", "v1", "pods")
SERVICES = Resource("", "v1", "services")
EVENTS = Resource("", "v1", "events")
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims")
VOLUMES = Resource("", "v1", "persistentvolumes", namespaced=False)
JOBS = Resource("batch", "v1", "jobs")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets")
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps")
SECRETS = Resource("", "v1", "secrets")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", namespaced=False)


class Api(Protocol):
    """Writes to the API server. Each raises an ApiError of the kind that says what to do next."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read one object."""
        ...

    async def list(self, resource: Resource, *, fields: str = "") -> Json:
        """All objects of a kind, in all namespaces; those only that a field selector names."""
        ...

    async def log(self, namespace: str, pod: str, *, container: str, lines: int, most_bytes: int) -> str:
        """The last lines of a container's log; of more bytes only the first so many."""
        ...

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Json:
        """Create an object. Conflict when its name is taken."""
        ...

    async def apply(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Server-side apply, as the owner of every field in `body`."""
        ...

    async def merge(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Json:
        """JSON merge patch. With metadata.resourceVersion in the body, Conflict when the object changed."""
        ...

    async def merge_lists(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Strategic merge patch: lists with a key are merged by it, and "$patch: delete" removes an element."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete in the background. Conflict when another object has the name now."""
        ...

    async def evict(self, namespace: str, pod: str, *, uid: str = "", version: str = "") -> None:
        """Evict a pod through the Eviction API. Conflict when it is another one, or changed since that version."""
        ...


class Trust(Protocol):
    """The certificate authority of the progress endpoint."""

    async def publish(self, namespace: str) -> None:
        """Make it known in a namespace, as a ConfigMap, before pods there need it. Raises ApiError."""
        ...


class Clock(Protocol):
    """The time of day."""

    def __call__(self) -> float:
        """Seconds since the epoch."""
        ...


class SourceError(Exception):
    """A source of forecasts or prices did not tell what was asked."""


class Denied(SourceError):
    """No credential, or one that is not accepted: only a person can help."""


class Busy(SourceError):
    """Too many requests."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        """`retry_after_seconds`: when the source wants to be asked again, where it said so."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Silent(SourceError):
    """No usable answer; the same request may succeed later."""


class Unusable(SourceError):
    """An answer that does not say what was asked."""


class CarbonSource(Protocol):
    """Tells the carbon intensity of zones, by the names that it gives them."""

    @property
    def name(self) -> str:
        """What people know it by."""
        ...

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """The hours around and after `now`, seconds since the epoch. Raises a SourceError."""
        ...


class CarbonStore(Protocol):
    """Keeps what is known of zones over restarts. It never raises: a store that fails only forgets."""

    def load(self, zone: str) -> Known | None:
        """What was saved last, if it can be read."""
        ...

    def save(self, zone: str, known: Known) -> None:
        """Keep this instead of what was saved before."""
        ...


class PriceSource(Protocol):
    """Tells what boards cost."""

    @property
    def name(self) -> str:
        """What people know it by."""
        ...

    async def book(self) -> PriceBook:
        """All prices as they are now. Raises a SourceError."""
        ...


class PriceStore(Protocol):
    """Keeps the last live prices over restarts. It never raises: a store that fails only forgets."""

    def load(self) -> KnownPrices | None:
        """What was saved last, if it can be read."""
        ...

    def save(self, known: KnownPrices) -> None:
        """Keep this instead of what was saved before."""
        ...
