"""Where the price book comes from: a file, or an address that answers with the same as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from berth.adapters.carbon.web import Web, secret
from berth.control.ports import Silent, Unusable
from berth.model.prices import PriceBook

Read = Callable[[str, str], PriceBook]  # of a text and its name; a ValueError says what is wrong with it


@dataclass(frozen=True, slots=True)
class PriceFile:
    """Implements `control.ports.PriceSource`; a mounted ConfigMap is such a file."""

    path: Path
    read: Read

    async def book(self) -> PriceBook:
        """The file as it is now."""
        try:
            text = self.path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Silent(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        return _read(self.read, text, str(self.path))


@dataclass(frozen=True, slots=True)
class PriceUrl:
    """Implements `control.ports.PriceSource`. `credentials`: a folder with a bearer `token`, where one is needed."""

    web: Web
    path: str
    read: Read
    credentials: Path | None = None

    async def book(self) -> PriceBook:
        """What the address answers now."""
        headers = {"Authorization": f"Bearer {secret(self.credentials, 'token')}"} if self.credentials else {}
        answer = await self.web.get(self.path, msgspec.Raw, headers=headers)
        return _read(self.read, bytes(answer).decode(), self.path)


def _read(read: Read, text: str, name: str) -> PriceBook:
    try:
        return read(text, name)
    except ValueError as error:
        raise Unusable(str(error)) from error
