"""The cluster at one moment, read with a user's rights: one list of everything that the operator watches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from kubernetes.config import ConfigException, list_kube_config_contexts

from berth.adapters.kube import KubeApi
from berth.adapters.mirrors import mirrored, mirrors
from berth.adapters.records import Decoder, R
from berth.adapters.reflector import Reflector
from berth.control.picture import KIND_OF, Picture, Raw, Validation
from berth.control.ports import (
    INFERENCE_SERVICES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    TRAINING_JOBS,
    ApiError,
    Clock,
    NotFound,
    Refused,
    Resource,
    Unavailable,
)
from berth.control.status import condition

CONFIG_MAPS = Resource("", "v1", "configmaps")
CHART_LABEL = "app.kubernetes.io/name=berth"
USUAL_NAMESPACE, USUAL_NAME = "berth-system", "berth"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NEEDED = (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES, NODES, PODS)  # the rest only sharpens the picture


class Unreadable(Exception):
    """What has to be read can't be; each line names the right that is missing, in the API server's words."""


class NotInstalled(Unreadable):
    """The cluster does not know Berth's kinds."""


NOT_INSTALLED = (
    "the custom resources of Berth are not in this cluster: install Berth (helm install berth helm/berth --namespace "
    "berth-system --create-namespace), or name another cluster with --kubeconfig"
)

Lists = Mapping[str, Sequence[Raw]]
"""Objects by the plural of their kind, cut down to the fields that are read of them; ours are whole."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen, and what could not be."""

    picture: Picture
    priorities: bool  # whether PriorityClasses were among it
    notes: tuple[str, ...]
    lists: Lists = field(default_factory=dict)  # what it was made from


class _Keeping(Decoder[R]):
    """A decoder that keeps what it read."""

    def __init__(self, struct: type[Any]) -> None:
        super().__init__(struct)
        self.kept: list[Any] = []

    def one(self, content: bytes | msgspec.Raw) -> R:
        """One object's record."""
        fields = self.fields(content)
        self.kept.append(fields)
        record: R = fields.read()
        return record


async def look(api: KubeApi, clock: Clock) -> Sight:
    """List everything once. Raises Unreadable where what is needed may not be listed."""
    picture = Picture()
    reflectors = mirrors(api, picture, clock, _Keeping)
    kinds = [*(reflector.resource for reflector in reflectors), *KIND_OF]
    reads = [*(reflector.fill() for reflector in reflectors), *(_record(api, kind, picture) for kind in KIND_OF)]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    failed = {kind: answer for kind, answer in zip(kinds, answers, strict=True) if isinstance(answer, BaseException)}
    for kind, error in failed.items():
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise Unavailable(f"can't list {kind.plural}: {error or type(error).__name__}") from error
        if not isinstance(error, (Refused, NotFound)):
            raise error
    if any(isinstance(failed.get(kind), NotFound) for kind in (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES)):
        raise NotInstalled(NOT_INSTALLED)
    needed = [f"can't list {kind.plural}: {failed[kind] or 'no such kind'}" for kind in failed if kind in NEEDED]
    if needed:
        raise Unreadable("\n".join(needed))
    _judge(picture)
    notes = [f"can't list {kind.plural}, so what they say is left out: {error}" for kind, error in failed.items()]
    return Sight(picture, PRIORITY_CLASSES not in failed, tuple(notes), _lists(picture, reflectors))


def _lists(picture: Picture, reflectors: Iterable[Reflector[Any]]) -> Lists:
    """What was read; a kind that could not be listed is not there."""
    kept = {r.resource.plural: r.decoder.kept for r in reflectors if isinstance(r.decoder, _Keeping)}
    own = {kind.plural: [raw for raw in picture.own[kind].values() if raw["kind"] == KIND_OF[kind]] for kind in KIND_OF}
    return {**{plural: msgspec.to_builtins(fields) for plural, fields in kept.items()}, **own}


def seen(lists: Lists) -> Sight:
    """What was seen when these lists were made. Raises msgspec.ValidationError for objects of another shape."""
    picture = Picture()
    for kind, (struct, store) in mirrored(picture).items():
        store.replace([msgspec.convert(raw, struct, strict=False).read() for raw in lists.get(kind.plural, ())])
    for kind in KIND_OF:
        picture.resync(kind, lists.get(kind.plural, ()), 0)
    _judge(picture)
    return Sight(picture, PRIORITY_CLASSES.plural in lists, (), lists)


async def configuration(api: KubeApi) -> tuple[dict[str, Any], str]:
    """The operator's configuration as its chart installed it, and why it is not known ("": it is)."""
    try:
        maps = await _config_maps(api)
        texts = [m["data"]["config.yaml"] for m in maps if "config.yaml" in (m.get("data") or {})]
        if len(texts) != 1:
            return {}, f"{len(texts) or 'no'} ConfigMaps with {CHART_LABEL} hold a config.yaml"
        fields = yaml.safe_load(texts[0]) or {}
    except (ApiError, yaml.YAMLError) as error:
        return {}, str(error)
    return (fields, "") if isinstance(fields, dict) else ({}, "config.yaml holds no fields")


async def installed_in(api: KubeApi) -> str:
    """The namespace that Berth's chart is installed in; the usual one where that can't be seen."""
    try:
        found = await _config_maps(api)
    except ApiError:
        found = []
    return next((str(one["metadata"]["namespace"]) for one in found if "namespace" in one["metadata"]), USUAL_NAMESPACE)


async def _config_maps(api: KubeApi) -> list[Raw]:
    """Those of the chart, wherever it is installed; for who may not look everywhere, the one where it should be."""
    try:
        listed = await api.request("GET", CONFIG_MAPS.path(), query={"labelSelector": CHART_LABEL})
    except Refused:
        return [await api.get(CONFIG_MAPS, USUAL_NAMESPACE, USUAL_NAME)]
    items: list[Raw] = listed["items"]
    return items


def namespace_of(kubeconfig: str | None) -> str:
    """The namespace of the kubeconfig's current context, or of this pod; "default" where none is set."""
    if kubeconfig is None and NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    try:
        _, active = list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
    except ConfigException:
        return "default"
    return str((active.get("context") or {}).get("namespace") or "default")


async def _record(api: KubeApi, resource: Resource, picture: Picture) -> None:
    listed = await api.list(resource)
    items: list[Raw] = [{"kind": KIND_OF[resource], **item} for item in listed["items"]]
    picture.resync(resource, items, int(listed["metadata"]["resourceVersion"]))


def _judge(picture: Picture) -> None:
    for uid, raw in picture.workloads.items():
        picture.validations[uid] = _judged(raw)


def _judged(raw: Raw) -> Validation:
    """What the operator wrote of the API server's word on a workload's template."""
    generation = raw["metadata"].get("generation", 1)
    found = condition((raw.get("status") or {}).get("conditions"), "Misconfigured")
    holds = found is not None and found["status"] == "True" and found.get("observedGeneration") == generation
    return Validation(generation, found["message"] if found is not None and holds else "", 0.0)
