"""A cluster in a file: all that a plan is made from, and nothing that pods keep secret."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from berth import __version__
from berth.api.convert import spec_digest
from berth.api.problems import Misconfigured
from berth.control.last_words import without_last_words
from berth.control.status import from_rfc3339, to_rfc3339

Raw = Mapping[str, Any]
T = TypeVar("T")
GZIP = b"\x1f\x8b"
OURS = ("trainingjobs", "inferenceservices")
READ_OF_CONTAINERS = ("name", "resources", "restartPolicy", "ports", "image")


class SavedError(Exception):
    """A file that holds no cluster; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was read of a cluster."""

    at: float  # seconds since the epoch
    namespace: str  # that its user works in
    config: Mapping[str, Any]  # of the operator
    config_unknown: str  # why it is not known; "": it is
    notes: tuple[str, ...]
    lists: Mapping[str, Any]  # objects by the plural of their kind

    def write(self) -> str:
        """As JSON, for a file. Commands, arguments, values of environment variables and quoted logs are left out."""
        lists = {plural: [_bare(raw) for raw in found] for plural, found in self.lists.items()}
        for plural in OURS:
            lists[plural] = [_without_secrets(_without_logs(raw)) for raw in lists.get(plural, ())]
        about = {"apiVersion": "berth.dev/v1alpha1", "kind": "Snapshot", "berth": __version__}
        return json.dumps(
            {
                **about,
                "takenAt": to_rfc3339(self.at),
                "namespace": self.namespace,
                "config": self.config,
                "configUnknown": self.config_unknown,
                "notes": list(self.notes),
                "lists": lists,
            }
        )

    @classmethod
    def load(cls, file: Path) -> Self:
        """From a file, compressed or not. Raises SavedError."""
        try:
            content = file.read_bytes()
            raw = json.loads(gzip.decompress(content) if content.startswith(GZIP) else content)
            if raw["kind"] != "Snapshot":
                raise SavedError(f"{file}: its kind is {raw['kind']!r}: use a file that `berth snapshot` wrote")
            at = from_rfc3339(raw["takenAt"])
            return cls(at, raw["namespace"], raw["config"], raw["configUnknown"], tuple(raw["notes"]), raw["lists"])
        except (ValueError, KeyError, TypeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SavedError(f"{file}: not a file that `berth snapshot` wrote: {error!r}") from error
        except OSError as error:
            raise SavedError(f"{file}: {error.strerror or error}") from error

    def read(self, how: Callable[[Mapping[str, Any]], T]) -> T:
        """What `how` makes of the lists. Raises SavedError where an object is not as it should be."""
        try:
            return how(self.lists)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SavedError(f"the saved objects can't be read: {error}") from error


def _bare(raw: Raw) -> Raw:
    """An object without what clients keep in its metadata for themselves."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    kept = metadata.get("annotations")
    if kept:
        metadata["annotations"] = {key: value for key, value in kept.items() if "last-applied" not in key}
    return {**raw, "metadata": metadata}


def _without_secrets(raw: Raw) -> Raw:
    """A workload with as much of its pods as placement depends on; it stays the one that its attempt was made from."""
    spec = raw.get("spec") or {}
    template = spec.get("template")
    if not isinstance(template, dict) or not isinstance(pod := template.get("spec"), dict):
        return raw
    listed = {name: found for name in ("containers", "initContainers") if isinstance(found := pod.get(name), list)}
    kept = {**pod, **{name: [*map(_container, found)] for name, found in listed.items()}}
    bare = {**raw, "spec": {**spec, "template": {**template, "spec": kept}}}
    status = raw.get("status") or {}
    digest = _digest(spec)
    if digest and status.get("specDigest") == digest:
        bare["status"] = {**status, "specDigest": _digest(bare["spec"])}
    return bare


def _without_logs(raw: Raw) -> Raw:
    """A workload whose messages quote no log."""
    status = raw.get("status") or {}
    told = {"verdict": _quoting_nothing(status["verdict"])} if status.get("verdict") else {}
    if status.get("conditions"):
        told["conditions"] = [*map(_quoting_nothing, status["conditions"])]
    return {**raw, "status": {**status, **told}} if told else raw


def _quoting_nothing(told: Raw) -> Any:
    return {**told, "message": without_last_words(told["message"])} if told.get("message") else told


def _container(raw: Any) -> Any:
    if not isinstance(raw, dict):
        return raw
    env = raw.get("env")
    names = [{"name": one.get("name")} for one in env if isinstance(one, dict)] if isinstance(env, list) else None
    return {key: raw[key] for key in READ_OF_CONTAINERS if key in raw} | ({"env": names} if names else {})


def _digest(spec: Raw) -> str:
    try:
        return spec_digest(spec)
    except (Misconfigured, KeyError):
        return ""
