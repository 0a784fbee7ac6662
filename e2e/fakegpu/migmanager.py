"""The GPU Operator's mig-manager on one node, as a state machine: time and what it reads are arguments.

Behaviour after the operator's documentation and its reconfigure script: an entry that is unknown fails at once; one
that is in effect already succeeds at once; otherwise the operands are paused, boards whose multiset of profiles
differs are laid anew in index order until one is busy, and the operands come back. Only a change of the node label
starts it, so that an entry edited in place goes unnoticed: any change, also one that is taken back at once, but of
those amid its work no more than what they came to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from e2e.fakegpu.hardware import Board, LayoutError, Wanted
from e2e.fakegpu.labels import OPERANDS
from e2e.fakegpu.node import Node

CONFIG_LABEL = "nvidia.com/mig.config"
STATE_LABEL = "nvidia.com/mig.config.state"
PAUSED = "paused-for-mig-change"


class ConfigError(ValueError):
    """A mig-parted configuration that can't be read or applied."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an entry of the configuration says about some boards."""

    boards: tuple[int, ...] | None  # None: all
    mig_enabled: bool
    profiles: Counter[str] = field(hash=False)

    def names(self, board: Board) -> bool:
        """Whether the entry speaks of this board."""
        return self.boards is None or board.index in self.boards

    def met_by(self, board: Board) -> bool:
        """Whether the board has this layout already, whatever the starts."""
        profiles = Counter[str]()
        for name, count in self.profiles.items():
            known = board.model.profile(name)
            profiles[known.name if known else name] += count
        return board.mig_enabled == self.mig_enabled and board.profiles() == profiles


def parse_configs(text: str) -> dict[str, tuple[Change, ...]]:
    """The entries of a `version: v1` configuration by name; ConfigError says what is wrong."""
    try:
        data = yaml.safe_load(text)
        if data["version"] != "v1":
            raise ConfigError(f"version {data['version']!r} is not v1")
        return {name: tuple(map(_change, entry)) for name, entry in data["mig-configs"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a mig-parted configuration: {error!r}") from None


def _change(entry: Mapping[str, Any]) -> Change:
    boards = None if entry["devices"] == "all" else tuple(entry["devices"])
    return Change(boards, entry["mig-enabled"], Counter(entry.get("mig-devices") or {}))


@dataclass(slots=True)
class DelayedConfig:
    """A ConfigMap as a mounted file shows it: each text only `delay_seconds` after it was written."""

    delay_seconds: float
    texts: list[tuple[float, str]] = field(default_factory=list)
    mounted: asyncio.Event = field(default_factory=asyncio.Event)  # what was there at the start has been written

    def write(self, now: float, text: str) -> None:
        """The object changed."""
        if not self.texts or self.texts[-1][1] != text:
            self.texts.append((now, text))

    def read(self, now: float) -> str:
        """What the file holds now; a ConfigMap that was there at the start shows at once."""
        visible = [text for at, text in self.texts if at + self.delay_seconds <= now]
        self.texts = self.texts[max(0, len(visible) - 1) :]
        return visible[-1] if visible else "{version: v1, mig-configs: {}}"


@dataclass(slots=True)
class MigManager:
    """What mig-manager does on one node."""

    node: Node
    apply_seconds: float
    state: str = "success"
    reason: str = ""  # of the last failure, for the log
    held: bool = False  # its work has no end as long as this holds, however late it is
    _wanted: str = ""  # the entry that the node label names
    _handled: str = ""  # the one that it turned to last
    _due: bool = False  # the label has changed since
    _done_at: float | None = None
    _changes: tuple[Change, ...] = ()

    def labels(self) -> dict[str, str]:
        """The labels that mig-manager keeps on its node."""
        operand = PAUSED if self._done_at is not None else "true"
        deployed = {f"nvidia.com/gpu.deploy.{name}": operand for name in OPERANDS if name != "mig-manager"}
        return {STATE_LABEL: self.state, "nvidia.com/gpu.deploy.mig-manager": "true", **deployed}

    def label(self, wanted: str) -> None:
        """See the node label name an entry, "" for none. To be called with every change that a watch tells of."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._due = not self.working

    def step(self, now: float, config: str) -> bool:
        """Take one step towards the entry that the node label names; whether anything changed."""
        if self._done_at is not None:
            return now >= self._done_at and not self.held and self._finish()
        if not self._due:
            return False
        self._due, self._handled = False, self._wanted
        return bool(self._wanted) and self._start(now, self._wanted, config)

    @property
    def working(self) -> bool:
        """Whether it is at work, and needs further steps."""
        return self._done_at is not None

    def _start(self, now: float, wanted: str, config: str) -> bool:
        try:
            entries = parse_configs(config)
        except ConfigError as error:
            return self._end("failed", str(error))
        if wanted not in entries:
            return self._end("failed", f"the configuration has no entry {wanted!r}")
        self._changes = entries[wanted]
        if all(change.met_by(board) for change in self._changes for board in self._named(change)):
            return self._end("success")
        self.state, self._done_at, self.node.hidden = "pending", now + self.apply_seconds, True
        return True

    def _named(self, change: Change) -> list[Board]:
        return [board for board in self.node.boards if change.names(board)]

    def _finish(self) -> bool:
        self._done_at, self.node.hidden = None, False
        try:
            for change in self._changes:
                for board in self._named(change):
                    self._apply(change, board)
        except LayoutError as error:
            return self._end("failed", str(error))
        return self._end("success")

    def _apply(self, change: Change, board: Board) -> None:
        if change.met_by(board):
            return
        if self.node.busy(board):
            raise LayoutError(f"board {board.index} is in use by another client")
        board.lay(change.mig_enabled, [Wanted(name) for name in change.profiles.elements()])

    def _end(self, state: str, reason: str = "") -> bool:
        self.node.relist()  # the operands come back
        self.state, self.reason = state, reason
        self._due = self._wanted != self._handled
        return True
