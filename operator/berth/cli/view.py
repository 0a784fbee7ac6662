"""What the commands that plan for themselves plan on: a cluster as it is now, or one that was saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.adapters.kube import KubeApi, connect
from berth.adapters.oneshot import NotInstalled, Sight, Unreadable, configuration, look, namespace_of, seen
from berth.api.config import Config, snake
from berth.api.convert import to_queue, to_workload
from berth.cli.saved import Saved
from berth.control.observe import Convert, Observer, Volumes
from berth.model.workloads import Workload
from berth.planning.snapshot import Snapshot

RIGHTS = "this command reads all of the cluster's nodes, pods and workloads: see docs/explain.md for the role it needs"
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A cluster at one moment, and how the operator there plans."""

    snapshot: Snapshot
    config: Config
    now: float  # seconds since the epoch
    namespace: str  # that the user works in
    notes: tuple[str, ...]  # what had to be assumed
    convert: Callable[[Raw], Workload | None]  # a workload's object, as the operator would read it there
    saved: Saved  # the same, to be kept


async def live(kubeconfig: str | None) -> View:
    """The cluster of a kubeconfig's current context. Raises Unreadable or ApiError."""
    async with connect(kubeconfig) as api:
        return await read(api, namespace_of(kubeconfig))


async def read(api: KubeApi, namespace: str) -> View:
    """The cluster behind an API. Raises Unreadable or ApiError."""
    try:
        (fields, unknown), sight = await asyncio.gather(configuration(api), look(api, time.time))
    except NotInstalled:
        raise
    except Unreadable as error:
        raise Unreadable(f"{error}\n{RIGHTS}") from error
    return _view(Saved(time.time(), namespace, fields, unknown, sight.notes, sight.lists), sight)


def of_file(file: Path) -> View:
    """The cluster that was saved in a file. Raises SavedError."""
    saved = Saved.load(file)
    return _view(saved, saved.read(seen))


def _view(saved: Saved, sight: Sight) -> View:
    config, assumed = _config(saved.config, saved.config_unknown)
    observer = Observer(sight.picture, Convert(_conversion(sight, config), to_queue))
    snapshot = observer.snapshot(saved.at)
    return View(snapshot, config, saved.at, saved.namespace, (*assumed, *saved.notes), observer.converted, saved)


def _conversion(sight: Sight, config: Config) -> Callable[[Raw, Mapping[str, int], Volumes], Workload]:
    def workload(raw: Raw, priorities: Mapping[str, int], volumes: Volumes) -> Workload:
        spec = raw.get("spec") or {}
        if not sight.priorities:  # their names can't be looked up: all count alike
            raw = {**raw, "spec": {key: value for key, value in spec.items() if key != "priorityClassName"}}
        return to_workload(raw, priorities, volumes, config.default_queue)

    return workload


def _config(fields: Mapping[str, Any], unknown: str) -> tuple[Config, tuple[str, ...]]:
    """The operator's configuration, or the default one and why that is assumed."""
    if not unknown:
        try:
            return Config(**snake(fields)), ()
        except ValueError as error:
            unknown = str(error)
    why = unknown.splitlines()[0] if unknown else ""
    return Config(), (f"the operator's configuration is not known, so the default one is assumed: {why}",)
