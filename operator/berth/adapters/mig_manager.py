"""Layouts by NVIDIA's mig-manager: an entry of the ConfigMap that it reads, and a label on the node that names it.

An entry speaks of every board of its node; those that stay have the layout already, and mig-manager leaves them alone.
It notices only that the label changed, never that an entry did, and the file that it reads lags behind the ConfigMap.
So an entry's name is a hash of what it says, and a number: an attempt that fails is repeated under the next number,
whose entry was written along with the first.

Whoever runs mig-manager has to give it a ConfigMap of its own (`migManager.config.name` of the ClusterPolicy): the
GPU Operator overwrites the default one when it starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from berth.control.layouts import CONFIG_LABEL, OPERAND_LABELS, PAUSED
from berth.control.partition import Seen
from berth.control.ports import CONFIG_MAPS, NODES, Api, Json, NotFound, Refused, Resource
from berth.control.records import LAYOUT_ANNOTATION, NodeRecord
from berth.model.boards import Board
from berth.model.nodes import Relayout
from berth.planning.layouts import multiset_of
from berth.planning.supply import laid

KEY = "config.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with libyaml
NAME = re.compile(r"berth-([0-9a-f]{12})-(\d+)")
LINE = re.compile(rf"^[ \t]*({NAME.pattern}):.*\n", re.MULTILINE)

Entry = list[dict[str, Any]]


@dataclass
class MigManager:
    """Implements `control.partition.Partitioner`."""

    api: Api
    nodes: Callable[[], Iterable[NodeRecord]]  # all nodes: entries that no label of theirs names may go
    namespace: str
    config_map: str
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _needed: dict[str, frozenset[str]] = field(default_factory=dict)  # by node: entries that its label will name

    async def lay_out(self, seen: Seen, relayout: Relayout, note: str) -> tuple[Resource, Json]:
        """Write the entries, then label and note. Beyond the first attempt, operands that stay paused are resumed."""
        entry = entry_of(laid(seen.report.boards, relayout.boards))
        return await self._name(seen, entry, note, resume=relayout.attempt > 1)

    async def end(self, seen: Seen, given_up: Relayout | None, note: str) -> tuple[Resource, Json]:
        """Leave the note. A label that names a layout given up is turned to the one that is there.

        Else a mig-manager that comes back later would carry it out, on boards that may be in use again by then.
        """
        if given_up is not None and seen.report.boards:
            return await self._name(seen, entry_of(seen.report.boards), note, resume=True)
        return NODES, await self._patch(seen.record, {}, note)

    async def _name(self, seen: Seen, entry: Entry, note: str, *, resume: bool) -> tuple[Resource, Json]:
        name, spare = names_for(entry, seen.record.meta.labels.get(CONFIG_LABEL, ""))
        node = seen.record.meta.name
        self._needed[node] = frozenset((name, spare))
        try:
            await self._write({name: entry, spare: entry})
            labels = {CONFIG_LABEL: name}
            if resume:
                labels |= {k: "true" for k, v in seen.record.meta.labels.items() if _is_paused(k, v)}
            return NODES, await self._patch(seen.record, labels, note)
        finally:
            del self._needed[node]

    async def _patch(self, record: NodeRecord, labels: Mapping[str, str], note: str) -> Json:
        metadata: Json = {"resourceVersion": str(record.meta.version), "annotations": {LAYOUT_ANNOTATION: note or None}}
        if labels:
            metadata["labels"] = dict(labels)
        return await self.api.merge(NODES, "", record.meta.name, {"metadata": metadata})

    async def _write(self, entries: Mapping[str, Entry]) -> None:
        """Bring the ConfigMap to hold these entries, and none of ours that nobody needs any more."""
        async with self._writing:
            try:
                found = await self.api.get(CONFIG_MAPS, self.namespace, self.config_map)
            except NotFound:
                where = f"{self.namespace}/{self.config_map}"
                message = f"there is no ConfigMap {where}: set migManager in Berth's values to the one it reads"
                raise Refused(message) from None
            text = (found.get("data") or {}).get(KEY) or "version: v1\nmig-configs: {}\n"
            new = with_entries(text, entries, self._in_use())
            if new != text:
                metadata = {"resourceVersion": found["metadata"]["resourceVersion"]}
                body = {"metadata": metadata, "data": {KEY: new}}
                await self.api.merge(CONFIG_MAPS, self.namespace, self.config_map, body)

    def _in_use(self) -> set[str]:
        """The entries that labels name or are about to, and for each the next: a spare for another attempt."""
        named = {record.meta.labels.get(CONFIG_LABEL, "") for record in self.nodes()}
        named |= {name for names in self._needed.values() for name in names}
        return named | {_next(name) for name in named if NAME.fullmatch(name)}


def entry_of(boards: tuple[Board, ...]) -> Entry:
    """What mig-manager is told of all boards of a node, those alike together."""
    alike: dict[str, list[int]] = {}
    for board in boards:
        devices = multiset_of(board.model, board.instances)
        alike.setdefault(json.dumps([board.mig_enabled, devices]), []).append(board.index)
    return [
        {"devices": indices, "mig-enabled": json.loads(said)[0], "mig-devices": json.loads(said)[1]}
        for said, indices in alike.items()
    ]


def names_for(entry: Entry, label: str) -> tuple[str, str]:
    """The name for an entry, which must not be the label's present one, and that of its spare."""
    digest = hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:12]
    match = NAME.fullmatch(label)
    name = _next(label) if match and match[1] == digest else f"berth-{digest}-1"
    return name, _next(name)


def with_entries(text: str, entries: Mapping[str, Entry], in_use: Iterable[str]) -> str:
    """The configuration with these entries, without those of ours that are not in use; all else as it is.

    Ours are lines of their own, so that the comments and the order of the others survive; where that does not come out
    right, the whole is written anew. Raises Refused where the text is no configuration.
    """
    wanted = _expected(text, entries, set(in_use))
    if wanted == _parsed(text):
        return text
    kept = LINE.sub(lambda match: match[0] if match[1] in wanted["mig-configs"] else "", text)
    head = re.search(r"^mig-configs:[ \t]*\n(\s*#.*\n|\s*\n)*([ ]*)", kept, re.MULTILINE)
    there = _parsed(kept)["mig-configs"] or {}
    if head is not None:
        lines = [f"{head[2]}{name}: {json.dumps(entry)}\n" for name, entry in entries.items() if name not in there]
        start = kept.index("\n", head.start()) + 1
        edited = kept[:start] + "".join(lines) + kept[start:]
        if _same(edited, wanted):
            return edited
    return yaml.safe_dump(wanted, sort_keys=False, default_flow_style=None, width=1000)


def _expected(text: str, entries: Mapping[str, Entry], in_use: set[str]) -> Json:
    parsed = _parsed(text)
    ours = {name for name in parsed["mig-configs"] or {} if NAME.fullmatch(str(name))}
    kept = {k: v for k, v in (parsed["mig-configs"] or {}).items() if k not in ours or k in in_use}
    return {**parsed, "mig-configs": {**{k: v for k, v in entries.items() if k not in kept}, **kept}}


def _parsed(text: str) -> Json:
    try:
        parsed = yaml.load(text, LOADER)  # a safe loader, either way
    except yaml.YAMLError as error:
        raise Refused(f"mig-manager's configuration is no YAML: {error}") from None
    if not isinstance(parsed, dict) or parsed.get("version") != "v1" or "mig-configs" not in parsed:
        raise Refused("mig-manager's configuration has no version: v1 with mig-configs")
    return parsed


def _same(text: str, wanted: Json) -> bool:
    try:
        return _parsed(text) == wanted
    except Refused:
        return False


def _next(name: str) -> str:
    match = NAME.fullmatch(name)
    return f"berth-{match[1]}-{int(match[2]) + 1}" if match else name


def _is_paused(label: str, value: str) -> bool:
    return label.startswith(OPERAND_LABELS) and value == PAUSED
