"""Tables that benchmarks read: CSV and lines of JSON, gzipped or not, with complaints that a person can act upon."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class TraceError(ValueError):
    """A file that is no such trace: names the file, the line and the column."""


class Row:
    """A row of a CSV file. Each reading of a cell raises TraceError where the cell holds something else."""

    def __init__(self, path: Path, line: int, cells: dict[str, str]) -> None:
        self.path, self.line, self.cells = path, line, cells

    def text(self, column: str) -> str:
        """The cell as it stands, without blanks around it."""
        value = self.cells[column]
        if value is None:
            raise TraceError(f"{self.path}: line {self.line} ends before column {column!r}")
        return value.strip()

    def whole(self, column: str) -> int:
        """A whole number, 0 or more."""
        text = self.text(column)
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0:
            raise self.wrong(column, "is no whole number >= 0")
        return value

    def number(self, column: str) -> float:
        """A finite number, 0 or more."""
        try:
            value = float(self.text(column))
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.wrong(column, "is no number >= 0")
        return value

    def wrong(self, column: str, why: str) -> TraceError:
        """What to raise about a cell."""
        return TraceError(f"{self.path}: line {self.line}, column {column!r}: {self.text(column)!r} {why}")


def rows(path: Path, columns: Sequence[str], read: Callable[[Row], T]) -> Iterator[T]:
    """Each row of a CSV file that has at least these columns, as `read` makes of it."""
    reader = csv.DictReader(lines(path))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise TraceError(f"{path}: lacks column {', '.join(map(repr, missing))}; wanted: {', '.join(columns)}")
    for cells in reader:
        yield read(Row(path, reader.line_num, cells))


def lines(path: Path) -> list[str]:
    """The lines of a file, unpacked where its name ends in .gz."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
