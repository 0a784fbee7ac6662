"""What is known of zones, kept in a folder: one file for each."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from berth.model.carbon import Known

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderStore:
    """Implements `control.ports.CarbonStore`. A file that can't be read or written is told of, and done without."""

    folder: Path

    def load(self, zone: str) -> Known | None:
        """What was saved last."""
        try:
            return msgspec.json.decode(self._file(zone).read_bytes(), type=Known)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the carbon intensity kept of %s can't be read: %s", zone, error)
            return None

    def save(self, zone: str, known: Known) -> None:
        """Written aside and renamed: there is never half a file."""
        file = self._file(zone)
        new = file.with_suffix(f".{os.getpid()}.new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(known))
            new.replace(file)
        except OSError as error:
            log.warning("the carbon intensity of %s can't be kept: %s", zone, error)

    def _file(self, zone: str) -> Path:
        return self.folder / f"{quote(zone, safe='')}.json"
