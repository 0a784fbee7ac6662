"""What spot benchmarks read: windows in which a pool's capacity was looked at, step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from berth.bench.tables import TraceError, lines

KEYS = ("pool", "window", "gap_seconds", "available")


@dataclass(frozen=True, slots=True)
class Window:
    """One pool, looked at every `gap_hours` from `start` (in UTC, where known): whether spot capacity was there."""

    pool: str
    number: int
    gap_hours: float
    available: tuple[bool, ...]
    start: datetime | None


def load_windows(paths: Sequence[Path]) -> tuple[Window, ...]:
    """Read lines of JSON, gzipped where a name ends in .gz. TraceError says what is wrong where."""
    return tuple(window for path in paths for window in _windows(path))


def _windows(path: Path) -> Iterator[Window]:
    found = [_window(f"{path}: line {number}", line) for number, line in enumerate(lines(path), 1) if line.strip()]
    if not found:
        raise TraceError(f"{path}: lists no window; wanted lines with {', '.join(KEYS)}")
    yield from found


def _window(where: str, line: str) -> Window:
    try:
        read: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}: is no JSON: {error}") from error
    missing = [key for key in KEYS if not isinstance(read, dict) or key not in read]
    if missing:
        raise TraceError(f"{where}: lacks {', '.join(missing)}; wanted an object with {', '.join(KEYS)}")
    gap, seen, number = read["gap_seconds"], read["available"], read["window"]
    if not isinstance(gap, int | float) or not 0 < gap < math.inf:
        raise TraceError(f"{where}: gap_seconds is {gap!r}, no number above 0")
    if not isinstance(seen, list) or not seen or any(look not in (0, 1) for look in seen):
        raise TraceError(f"{where}: available is no list of 0 and 1")
    if not isinstance(number, int):
        raise TraceError(f"{where}: window is {number!r}, no whole number")
    return Window(str(read["pool"]), number, gap / 3600, tuple(map(bool, seen)), _start(where, read.get("start")))


def _start(where: str, text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{where}: start is {text!r}, no time such as 2023-03-30T13:38:47Z") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
