"""An API server in memory, which fails as it is told to, and a clock moved by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from berth.control.ports import EVENTS, PODS, ApiError, Conflict, Json, NotFound, Refused, Resource, Unavailable
from berth.control.status import to_rfc3339

Key = tuple[Resource, str, str]  # kind, namespace, name
READS = ("get", "list")
MISHAPS: dict[str, tuple[Any, bool]] = {  # what the write is answered, and whether it was done all the same
    "the operator dies after": (None, True),
    "the operator dies before": (None, False),
    "the answer is lost after": (Unavailable("the connection broke"), True),
    "the request is lost at": (Unavailable("the connection broke"), False),
    "somebody else is first at": (Conflict("changed meanwhile"), False),
}


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass(frozen=True)
class Call:
    """One request. Those that change something are numbered from 1; reads, dry runs and events have number 0."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    body: Mapping[str, Any]
    subresource: str = ""
    dry_run: bool = False
    number: int = 0

    def __str__(self) -> str:
        """Such as "merge trainingjobs/status llm"."""
        what = "/".join(part for part in (self.resource.plural, self.subresource) if part)
        return f"{self.verb} {what} {self.name}"


@dataclass
class Trouble:
    """What goes wrong with the calls that it matches."""

    matches: Callable[[Call], bool]
    error: ApiError | None = None  # None: no answer ever comes, and the caller is dead from then on
    applied: bool = False  # the call did its work before it went wrong
    times: int = 1
    until: asyncio.Event | None = None  # the call only takes that long


@dataclass
class FakeApi:
    """Implements `control.ports.Api` on a dictionary. Every call gives way to other tasks once."""

    clock: HandClock
    objects: dict[Key, Json] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    witness: Callable[[Call], None] = lambda call: None  # sees every change just after it was made
    logs: dict[tuple[str, str], str] = field(default_factory=lambda: defaultdict(str))  # by pod and container
    version: int = 0
    dead: bool = False  # whoever calls hears nothing any more
    held: int = 0  # calls that take long just now
    _uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _changes: int = 0

    # What tests say and ask

    def put(self, resource: Resource, raw: Mapping[str, Any]) -> Json:
        """Create an object as somebody else would."""
        return self._create(resource, raw["metadata"].get("namespace", ""), raw)

    def edit(self, resource: Resource, namespace: str, name: str, **changes: Any) -> Json:
        """Change an object as somebody else would: merge fields at its top level."""
        return self._merge(resource, namespace, name, changes, "")

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete an object, and whatever it owns, as somebody else would."""
        self._delete((resource, namespace, name))

    def find(self, resource: Resource, name: str, namespace: str = "team") -> Json | None:
        """The object as it is now, or None."""
        return self.objects.get((resource, namespace if resource.namespaced else "", name))

    def all(self, resource: Resource) -> list[Json]:
        """All objects of a kind, oldest first."""
        return [raw for (kind, _, _), raw in self.objects.items() if kind == resource]

    def fail(self, text: str, error: ApiError, *, times: int = 1, applied: bool = False) -> None:
        """Fail the next calls whose description begins with `text`."""
        self.troubles.append(Trouble(lambda call: str(call).startswith(text), error, applied, times))

    def hold(self, text: str) -> asyncio.Event:
        """Have the next call whose description begins with `text` wait for this event."""
        event = asyncio.Event()
        self.troubles.append(Trouble(lambda call: str(call).startswith(text), until=event))
        return event

    def fail_change(self, number: int, error: ApiError | None, *, applied: bool = False) -> None:
        """Fail the change of that number; with no error, the caller is dead from then on."""
        self.troubles.append(Trouble(lambda call: call.number == number, error, applied))

    def said(self, *verbs: str) -> list[str]:
        """The changes asked for so far (of those verbs), in order."""
        return [str(c) for c in self.calls if c.number and (not verbs or c.verb in verbs)]

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of each event posted so far."""
        return [(e["reason"], e["message"]) for e in self.all(EVENTS)]

    @property
    def changes(self) -> int:
        """How many changes were asked for so far."""
        return self._changes

    # The port

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read one object."""
        call = self._call("get", resource, namespace, name, {})
        return await self._answer(call, lambda: self._find(resource, namespace, name))

    async def list(self, resource: Resource, *, fields: str = "") -> Json:
        """Read all objects of a kind, of which a field selector may name the node."""
        node = fields.removeprefix("spec.nodeName=")
        call = self._call("list", resource, "", fields, {})
        return await self._answer(
            call, lambda: {"items": [o for o in self.all(resource) if not fields or o["spec"].get("nodeName") == node]}
        )

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Json:
        """Create an object."""
        name = body["metadata"].get("name", "")
        call = self._call("create", resource, namespace, name, body, dry_run=dry_run)
        return await self._answer(call, lambda: {} if dry_run else self._create(resource, namespace, body))

    async def apply(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Create or merge."""

        def change() -> Json:
            if (resource, namespace, name) not in self.objects:
                return self._create(resource, namespace, body)
            return self._merge(resource, namespace, name, body, "")

        return await self._answer(self._call("apply", resource, namespace, name, body), change)

    async def merge(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Json:
        """JSON merge patch."""
        call = self._call("merge", resource, namespace, name, body, subresource)
        return await self._answer(call, lambda: self._merge(resource, namespace, name, body, subresource))

    async def merge_lists(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """Strategic merge patch, of which only lists keyed by name are known."""
        call = self._call("merge_lists", resource, namespace, name, body)
        return await self._answer(call, lambda: self._merge(resource, namespace, name, body, "", by_name=True))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete, with all that is owned."""

        def change() -> Json:
            self._check(self._find(resource, namespace, name), {"uid": uid} if uid else {})
            self._delete((resource, namespace, name))
            return {}

        await self._answer(self._call("delete", resource, namespace, name, {}), change)

    async def evict(self, namespace: str, pod: str, *, uid: str = "", version: str = "") -> None:
        """Delete a pod; the disruption does not count against its Job."""

        def change() -> Json:
            found = self._find(PODS, namespace, pod)
            self._check(found, {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value})
            self._delete((PODS, namespace, pod))
            return {}

        await self._answer(self._call("evict", PODS, namespace, pod, {}), change)

    async def log(self, namespace: str, pod: str, *, container: str, lines: int, most_bytes: int) -> str:
        """The last lines of what a test had a pod say."""
        call = self._call("get", PODS, namespace, pod, {}, "log")
        said = await self._answer(call, lambda: {"said": self.logs[pod, container]})
        return str(said["said"])

    # Inside

    def _call(
        self,
        verb: str,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        subresource: str = "",
        dry_run: bool = False,
    ) -> Call:
        number = 0
        if not self.dead and verb not in READS and not dry_run and resource != EVENTS:
            self._changes += 1
            number = self._changes
        return Call(verb, resource, namespace, name, _copy(body), subresource, dry_run, number)

    async def _answer(self, call: Call, change: Callable[[], Json]) -> Json:
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        self.calls.append(call)
        await self._go_wrong(call, applied=False)
        result: Json = _copy(change())
        if call.verb not in READS and not call.dry_run:
            self.witness(call)
        await self._go_wrong(call, applied=True)
        return result

    async def _go_wrong(self, call: Call, *, applied: bool) -> None:
        for trouble in self.troubles:
            if trouble.applied == applied and trouble.times and trouble.matches(call):
                trouble.times -= 1
                if trouble.until is not None:
                    await self._wait(trouble.until)
                elif trouble.error is not None:
                    raise trouble.error
                else:
                    self.dead = True
                    await asyncio.Event().wait()

    async def _wait(self, event: asyncio.Event) -> None:
        self.held += 1
        try:
            await event.wait()
        finally:
            self.held -= 1

    def _find(self, resource: Resource, namespace: str, name: str) -> Json:
        try:
            return self.objects[(resource, namespace, name)]
        except KeyError:
            raise NotFound(f'{resource.plural} "{name}" not found') from None

    def _create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> Json:
        raw: Json = _copy(body)
        metadata = raw["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{next(self._uids):05d}"
        if (resource, namespace, name) in self.objects:
            raise Conflict(f'{resource.plural} "{name}" already exists')
        metadata |= {"name": name, "uid": f"uid-{next(self._uids)}", "generation": 1}
        metadata |= {"creationTimestamp": to_rfc3339(self.clock())} | ({"namespace": namespace} if namespace else {})
        return self._store((resource, namespace, name), raw)

    def _merge(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        subresource: str,
        *,
        by_name: bool = False,
    ) -> Json:
        old = self._find(resource, namespace, name)
        self._check(old, body.get("metadata") or {})
        changes = {key: value for key, value in body.items() if key in ((subresource,) if subresource else body)}
        if not subresource and "metadata" in changes:
            changes["metadata"] = {k: v for k, v in changes["metadata"].items() if k in ("labels", "annotations")}
        new = merged(old, changes, by_name=by_name)
        if resource == PODS:
            _check_pod(old, new)
        if new == old:
            return old
        new["metadata"] = dict(new["metadata"])
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        return self._store((resource, namespace, name), new)

    @staticmethod
    def _check(raw: Json, precondition: Mapping[str, Any]) -> None:
        for key in ("uid", "resourceVersion"):
            if precondition.get(key, raw["metadata"][key]) != raw["metadata"][key]:
                raise Conflict(f"the {key} in the precondition is not that of {raw['metadata']['name']}")

    def _store(self, key: Key, raw: Json) -> Json:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = raw
        return raw

    def _delete(self, key: Key) -> None:
        raw = self.objects[key]
        self.version += 1
        if key[0] == PODS and raw["spec"].get("nodeName") and not _ended(raw):
            deleting = {"deletionTimestamp": to_rfc3339(self.clock())}
            self._store(key, {**raw, "metadata": {**raw["metadata"], **deleting}})  # until its kubelet has ended it
        else:
            del self.objects[key]
        uid = raw["metadata"]["uid"]
        for owned, other in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences") or ()):
                self._delete(owned)


def merged(old: Any, changes: Any, *, by_name: bool = False) -> Any:
    """The result of a JSON merge patch; `by_name` merges lists of named things, as a strategic merge patch does."""
    if by_name and isinstance(changes, list) and all(isinstance(item, Mapping) for item in changes):
        named = {item["name"]: item for item in old or ()}
        for item in changes:
            if item.get("$patch") == "delete":
                named.pop(item["name"], None)
            else:
                named[item["name"]] = merged(named.get(item["name"]), item, by_name=True)
        return list(named.values())
    if not isinstance(changes, Mapping):
        return _copy(changes)
    new = dict(old) if isinstance(old, Mapping) else {}
    for key, value in changes.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value, by_name=by_name)
    return new


def _copy(value: Any) -> Any:
    """As it would come back from the API server."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _check_pod(old: Json, new: Json) -> None:
    """A pod's node selector can change only while a gate holds it."""
    if not old["spec"].get("schedulingGates") and old["spec"].get("nodeSelector") != new["spec"].get("nodeSelector"):
        raise Refused("spec: Forbidden: pod updates may not change fields other than gates")


def _ended(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
